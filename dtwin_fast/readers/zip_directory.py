"""The size of a zip archive's list of members, before ``zipfile`` takes memory for each of them."""

from __future__ import annotations

import zipfile
from pathlib import Path

from .request import size_error

MAX_DIRECTORY_BYTES = 2**20
"""An entry takes 46 bytes and its name."""

END, END_BYTES, MAX_COMMENT_BYTES = b"PK\x05\x06", 22, 2**16
LOCATOR, LOCATOR_BYTES = b"PK\x06\x07", 20
END_64, END_64_BYTES = b"PK\x06\x06", 56


def open_zip(path: Path, size: int) -> zipfile.ZipFile:
    """An archive of ``size`` bytes.

    Raises:
        DTwinInputError: it lists far more members than arrays need (code ``file_size``).
        zipfile.BadZipFile: it is none.
    """
    _check_directory(path, size)
    return zipfile.ZipFile(path)


def _check_directory(path: Path, size: int) -> None:
    with path.open("rb") as file:
        file.seek(max(0, size - END_BYTES - MAX_COMMENT_BYTES - LOCATOR_BYTES - END_64_BYTES))
        tail = file.read()
    end = tail.rfind(END)
    if end < 0:
        return  # no archive, as zipfile will say
    declared = int.from_bytes(tail[end + 12 : end + 16], "little")
    # Archives beyond 4 GiB say it in a longer record before, which then alone counts.
    locator = end - LOCATOR_BYTES
    if tail[max(0, locator) : end].startswith(LOCATOR):
        record = tail[max(0, locator - END_64_BYTES) : locator]
        if record.startswith(END_64):
            declared = int.from_bytes(record[40:48], "little")
    if declared > MAX_DIRECTORY_BYTES:
        raise size_error(
            path, f"a list of members of at most {MAX_DIRECTORY_BYTES:,} bytes", f"{declared:,}"
        )
