"""write_atomic leaves the old file or the new one; check_regular_file names what is wrong."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtwin_fast.errors import DTwinInputError
from dtwin_fast.files import check_regular_file, write_atomic


@pytest.fixture
def umask() -> Iterator[None]:
    old = os.umask(0o027)
    yield
    os.umask(old)


class TestWriteAtomic:
    def test_bytes_and_text(self, tmp_path: Path) -> None:
        write_atomic(tmp_path / "a", b"\x00\xff")
        write_atomic(tmp_path / "b", "µ\n")
        assert (tmp_path / "a").read_bytes() == b"\x00\xff"
        assert (tmp_path / "b").read_bytes() == "µ\n".encode()
        assert len(list(tmp_path.iterdir())) == 2

    def test_replaces(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_text("a long old text")
        write_atomic(path, "new")
        assert path.read_text() == "new"
        assert list(tmp_path.iterdir()) == [path]

    def test_makes_folders(self, tmp_path: Path) -> None:
        write_atomic(tmp_path / "x" / "y" / "a", "new")
        assert (tmp_path / "x" / "y" / "a").read_text() == "new"

    @pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=repr)
    @pytest.mark.parametrize("old", ["old", None], ids=["over a file", "new file"])
    def test_old_file_stays_when_writing_fails(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        error: BaseException,
        old: str | None,
    ) -> None:
        path = tmp_path / "a"
        if old is not None:
            path.write_text(old)

        def fail(handle: int) -> None:
            assert os.fstat(handle).st_size == 3  # the new bytes are there, beside the old file
            raise error

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(type(error)):
            write_atomic(path, "new")
        assert [p.read_text() for p in tmp_path.iterdir()] == ([] if old is None else [old])

    def test_old_file_stays_when_the_rename_fails(self, tmp_path: Path) -> None:
        folder = tmp_path / "a"
        folder.mkdir()
        (folder / "kept").write_text("x")
        with pytest.raises(OSError, match="a"):
            write_atomic(folder, "new")
        assert list(tmp_path.iterdir()) == [folder]
        assert (folder / "kept").read_text() == "x"

    def test_new_file_is_whole_when_the_folder_cannot_be_synced(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fsync = os.fsync

        def fail_on_folders(handle: int) -> None:
            if stat.S_ISDIR(os.fstat(handle).st_mode):
                raise OSError("no sync here")
            fsync(handle)

        monkeypatch.setattr(os, "fsync", fail_on_folders)
        with pytest.raises(OSError, match="no sync here"):
            write_atomic(tmp_path / "a", "new")
        assert [p.read_text() for p in tmp_path.iterdir()] == ["new"]

    def test_flushes_file_before_the_rename_and_folder_after(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[tuple[str, bool]] = []

        def record(handle: int) -> None:
            kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"
            seen.append((kind, (tmp_path / "a").exists()))

        monkeypatch.setattr(os, "fsync", record)
        write_atomic(tmp_path / "a", "new")
        assert seen == [("file", False), ("folder", True)]

    @pytest.mark.usefixtures("umask")
    def test_umask(self, tmp_path: Path) -> None:
        write_atomic(tmp_path / "a", "new")
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640

    def test_names_as_long_as_they_can_be(self, tmp_path: Path) -> None:
        path = tmp_path / ("x" * 255)
        write_atomic(path, "new")
        assert path.read_text() == "new"

    def test_a_link_is_replaced_not_followed(self, tmp_path: Path) -> None:
        target, link = tmp_path / "target", tmp_path / "link"
        target.write_text("old")
        link.symlink_to(target)
        write_atomic(link, "new")
        assert (target.read_text(), link.read_text(), link.is_symlink()) == ("old", "new", False)


class TestCheckRegularFile:
    def test_size(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_bytes(b"12345")
        assert check_regular_file(path) == 5
        assert check_regular_file(path, max_bytes=5) == 5
        link = tmp_path / "link"
        link.symlink_to(path)
        assert check_regular_file(link) == 5

    def test_codes(self, tmp_path: Path) -> None:
        (tmp_path / "empty").touch()
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
        os.mkfifo(tmp_path / "fifo")
        codes = {
            "absent": "file_missing",
            "empty/below": "file_missing",
            "loop": "file_missing",
            "dangling": "file_missing",
            "nul\0byte": "file_missing",
            "x" * 300: "file_missing",
            "": "file_kind",
            "fifo": "file_kind",
            "/dev/null": "file_kind",
            "/dev/zero": "file_kind",
            "empty": "file_empty",
        }
        got = {}
        for name in codes:
            with pytest.raises(DTwinInputError) as caught:
                check_regular_file(tmp_path / name)
            assert caught.value.field == str(tmp_path / name)
            got[name] = caught.value.code
        assert got == codes

    def test_too_large(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        with path.open("wb") as file:
            file.truncate(2**34 + 1)  # sparse: takes no room
        with pytest.raises(DTwinInputError) as caught:
            check_regular_file(path, field="cohort")
        assert (caught.value.code, caught.value.field) == ("file_too_large", "cohort")

    def test_not_permitted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "a"
        path.write_text("x")
        # root may read everything, so the permission is taken away here.
        monkeypatch.setattr(os, "access", lambda _path, _mode: False)
        with pytest.raises(DTwinInputError) as caught:
            check_regular_file(path)
        assert caught.value.code == "file_missing"
