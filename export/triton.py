"""A model repository for NVIDIA's Triton Inference Server, whose ONNX backend runs the twin."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import BackendUnavailableError
from ..files import write_atomic
from ..ort import LIBRARY, library_path
from ..twin import CHUNK_SUBJECTS, Twin
from .readout import Runs
from .verify import Verification
from .write import export_onnx

VERSION = "1"
MODEL_FILE = "model.onnx"
CONFIG_FILE = "config.pbtxt"
MAX_DELAY_US = 1000
"""What a request may wait for others to share a batch with, in microseconds."""


@dataclass(frozen=True)
class TritonModel:
    """What :func:`export_triton` wrote.

    Attributes:
        name: of the model, and of its folder in the repository.
        has_library: whether the op library was there to be written beside it.
        verification: of its ONNX file.
    """

    name: str
    has_library: bool
    verification: Verification


def model_name(twin: Twin) -> str:
    """The name of a twin, in letters that a folder and a URL may have."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", twin.spec.name).strip("-") or "twin"


def export_triton(twin: Twin, repository: Path, mounted_at: Path | None = None) -> TritonModel:
    """Write a model into a repository: ``NAME/config.pbtxt`` and ``NAME/1/model.onnx``.

    Where libdtwin_ort was built, the model is verified with it too, it is copied there, and the
    config registers it by the path that the server sees.

    Args:
        twin: the twin.
        repository: the folder of all models.
        mounted_at: where the server sees that folder, such as ``/models``; default where it is.

    Raises:
        DTwinInputError, VerificationError, MissingExtraError: as of
            :func:`dtwin_fast.export.export_onnx`; nothing was written.
    """
    name = model_name(twin)
    folder = repository / name
    seen = PurePosixPath((mounted_at or repository.resolve()) / name / LIBRARY)
    library = _op_library()
    verification = export_onnx(twin, folder / VERSION / MODEL_FILE, library=library)
    if library is not None:
        write_atomic(folder / LIBRARY, library.read_bytes())
    # The config last: a repository without it is not served.
    write_atomic(folder / CONFIG_FILE, config(twin, seen if library is not None else None))
    return TritonModel(name, library is not None, verification)


def _op_library() -> Path | None:
    try:
        return library_path()
    except BackendUnavailableError:  # the ONNX file needs none
        return None


def config(twin: Twin, library: PurePosixPath | None) -> str:
    """The text of config.pbtxt (``inference.ModelConfig`` of Triton).

    Args:
        twin: the twin.
        library: the op library as the server sees it, if there is one.
    """
    runs, spec = Runs.of(twin), twin.spec
    n_trials, n_regions = len(runs.steps), len(spec.bold_regions)
    outputs: dict[str, tuple[int, ...]] = {
        "choice_prob": (n_trials, spec.n_actions),
        "rt_s": (n_trials,),
    }
    if n_regions:
        outputs["bold"] = len(runs.volumes), n_regions
        outputs["contrasts"] = len(runs.sequence), n_regions
    lines = [
        f"name: {json.dumps(model_name(twin))}",
        'backend: "onnxruntime"',
        f"max_batch_size: {CHUNK_SUBJECTS}",
        f'input {{ name: "edges" data_type: TYPE_FP32 dims: [ {spec.n_edges} ] }}',
        *(
            f'output {{ name: "{name}" data_type: TYPE_FP32 dims: {list(shape)} }}'
            for name, shape in outputs.items()
        ),
        # One value for each person: Triton knows no empty dims but after a reshape.
        'output { name: "diverged" data_type: TYPE_BOOL dims: [ 1 ] reshape { shape: [ ] } }',
        f"dynamic_batching {{ max_queue_delay_microseconds: {MAX_DELAY_US} }}",
        "instance_group { kind: KIND_CPU }",
    ]
    if library is not None:
        lines.append(f"model_operations {{ op_library_filename: {json.dumps(str(library))} }}")
    return "\n".join(lines) + "\n"
