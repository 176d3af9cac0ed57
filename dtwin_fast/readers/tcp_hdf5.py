"""HDF5 time series of the Transdiagnostic Connectome Project (OpenNeuro ds005237).

One file a run with one float data set, 434 regions by T volumes.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..connectome import Connectomes
from ..errors import DTwinInputError, MissingExtraError
from ..files import check_expansion, check_regular_file
from ..spec import PRESETS
from .request import Request, parsing, size_error, subject_of
from .timeseries import connectome_of_series

N_REGIONS = PRESETS["tcp434"].n_regions
MAX_OBJECTS = 1000
MAX_CHUNK_BYTES = 64 * 2**20
DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3
"""HDF5 filter numbers; other filters would load plugins."""


def read_tcp(path: Path, request: Request) -> Connectomes:
    """Connectome of the file's only 2-D float data set.

    ``regions`` names the rows (default: 434 unnamed regions).

    Raises:
        DTwinInputError: as :func:`read_tcp_series`.
    """
    series = read_tcp_series(path, N_REGIONS if request.regions is None else len(request.regions))
    return request.connectomes(
        path,
        connectome_of_series(series, path)[None],
        subjects=(subject_of(path),),
        is_fisher_z=False,
    )


def read_tcp_series(path: Path, n_regions: int = N_REGIONS) -> npt.NDArray[np.float64]:
    """(T, ``n_regions``) float64 series: the file's only 2-D float data set.

    ``n_regions`` settles which axis is the regions; when both fit, rows are regions, as the
    project writes them.

    Raises:
        DTwinInputError: links or data outside the file, unknown filters (``hdf5_unsafe``),
            none or several data sets (``hdf5_dataset``), no axis of that many regions
            (``region_count``), declared sizes the file cannot hold (``file_bomb``,
            ``file_size``).
    """
    size = check_regular_file(path, field=path.name)
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("h5py", "neuro", "reading HDF5") from error
    # h5py raises SystemError where a damaged name is no UTF-8.
    with parsing(path, SystemError), h5py.File(path, "r", locking=False) as file:
        dataset = _only_dataset(path, file, h5py)
        _check_storage(path, dataset, size)
        if n_regions not in dataset.shape:
            raise DTwinInputError(
                "region_count",
                "neither axis has the number of regions",
                field=path.name,
                wanted=str(n_regions),
                got=str(dataset.shape),
                fix="Give regions= (--regions) with the names of the file's regions",
            )
        data: npt.NDArray[Any] = dataset[()]
    return np.asarray(data.T if data.shape[0] == n_regions else data, np.float64)


def _only_dataset(path: Path, file: Any, h5py: Any) -> Any:
    """The single 2-D float data set; soft links are not followed."""
    links: dict[str, Any] = {}

    def visit(name: str, link: Any) -> bool | None:
        links[name] = link  # h5py cannot carry an exception out of this call
        return True if len(links) > MAX_OBJECTS else None

    file.visititems_links(visit)
    if len(links) > MAX_OBJECTS:
        raise _unsafe(path, f"more than {MAX_OBJECTS} objects")
    if any(isinstance(link, h5py.ExternalLink) for link in links.values()):
        raise _unsafe(path, "a link to another file")
    found = []
    for name, link in links.items():
        item = file[name] if isinstance(link, h5py.HardLink) else None
        if isinstance(item, h5py.Dataset) and item.ndim == 2 and item.dtype.kind == "f":
            found.append(item)
    if len(found) != 1:
        raise DTwinInputError(
            "hdf5_dataset",
            "it is not clear which data set holds the time series",
            field=path.name,
            wanted="one 2-D data set of floats",
            got=f"{len(found)}",
            fix="Keep one data set (regions, volumes) in the file",
        )
    return found[0]


def _check_storage(path: Path, dataset: Any, file_size: int) -> None:
    """Refuse data outside the file, and compressed data that would fill the memory."""
    if dataset.is_virtual or dataset.external:
        raise _unsafe(path, "data outside the file")
    settings = dataset.id.get_create_plist()
    filters = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
    if not set(filters) <= {DEFLATE, SHUFFLE, FLETCHER32}:
        raise _unsafe(path, f"filters {filters}")
    stored = dataset.id.get_storage_size()
    if stored == 0 or stored > file_size:
        raise size_error(path, f"data within {file_size:,} bytes", f"{stored:,} bytes")
    check_expansion(dataset.nbytes, stored, field=path.name)
    if dataset.chunks is None:
        return
    chunk_bytes = int(np.prod(dataset.chunks, dtype=object)) * dataset.dtype.itemsize
    if chunk_bytes > MAX_CHUNK_BYTES:
        raise size_error(path, f"chunks of at most {MAX_CHUNK_BYTES:,} bytes", f"{chunk_bytes:,}")
    if DEFLATE in filters:
        _check_chunks(path, dataset, chunk_bytes, file_size)


def _check_chunks(path: Path, dataset: Any, chunk_bytes: int, file_size: int) -> None:
    """HDF5 inflates a chunk to whatever it holds, so its true length is counted first."""
    for index in range(dataset.id.get_num_chunks()):
        chunk = dataset.id.get_chunk_info(index)
        if chunk.size > min(file_size, 2 * MAX_CHUNK_BYTES):
            raise size_error(path, "chunks within the file", f"{chunk.size:,} bytes")
        skipped, raw = dataset.id.read_direct_chunk(chunk.chunk_offset)
        if skipped:
            continue  # stored without filters
        if len(zlib.decompressobj().decompress(raw, chunk_bytes + 5)) > chunk_bytes + 4:
            raise size_error(path, f"chunks of {chunk_bytes:,} bytes", "more")


def _unsafe(path: Path, got: str) -> DTwinInputError:
    return DTwinInputError(
        "hdf5_unsafe",
        "this file asks for more than reading its own numbers",
        field=path.name,
        wanted="plain, gzip or shuffled data inside the file",
        got=got,
        fix="Copy the data set into a new file with h5py",
    )
