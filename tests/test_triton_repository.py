"""The model repository for Triton Inference Server: its config parses by Triton's own schema."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dtwin_fast.export import export_triton
from dtwin_fast.export.triton import model_name
from onnx_twins import options, people, short_twin

from dtwin_fast import ort
from dtwin_fast.cli import main
from dtwin_fast.errors import VerificationError

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
schema = pytest.importorskip("tritonclient.grpc.model_config_pb2")
text_format = pytest.importorskip("google.protobuf.text_format")

TYPES = {"tensor(float)": "TYPE_FP32", "tensor(bool)": "TYPE_BOOL"}


def test_the_config_describes_the_model_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ort.VARIABLE, str(tmp_path / "none.so"))
    twin = short_twin()
    assert not export_triton(twin, tmp_path).has_library
    config = _config(tmp_path / "tiny")
    assert (config.name, config.backend) == ("tiny", "onnxruntime")
    assert not config.HasField("model_operations")
    session = onnxruntime.InferenceSession(
        tmp_path / "tiny" / "1" / "model.onnx", options(), providers=["CPUExecutionProvider"]
    )
    for declared, nodes in (
        (config.input, session.get_inputs()),
        (config.output, session.get_outputs()),
    ):
        assert {node.name: (TYPES[node.type], node.shape[1:]) for node in nodes} == {
            value.name: (
                schema.DataType.Name(value.data_type),
                list(value.reshape.shape if value.HasField("reshape") else value.dims),
            )
            for value in declared
        }
        assert all(node.shape[0] == "S" for node in nodes)
        assert all(value.dims for value in declared)
    found = session.run(None, {"edges": people(twin, config.max_batch_size)})
    assert len(found[0]) == config.max_batch_size
    assert config.HasField("dynamic_batching")


def test_the_op_library_lies_beside_the_model(
    ort_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ort.VARIABLE, str(ort_library))
    twin = short_twin()
    done = export_triton(twin, tmp_path)
    assert done.has_library
    assert set(done.verification.errors) == {"onnxruntime", "reference", "libdtwin_ort", "engine"}
    assert (tmp_path / "tiny" / ort.LIBRARY).read_bytes() == ort_library.read_bytes()
    (library,) = _config(tmp_path / "tiny").model_operations.op_library_filename
    assert Path(library) == tmp_path / "tiny" / ort.LIBRARY
    registered = options()
    registered.register_custom_ops_library(library)  # as Triton's backend does
    file = tmp_path / "tiny" / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(file, registered, providers=["CPUExecutionProvider"])
    assert len(session.run(None, {"edges": people(twin, 2)})) == 5


@pytest.fixture(params=["junk", "wrong"])
def broken_library(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A library that does not load, or whose engine errs; and what is said of it."""
    if request.param == "junk":
        (tmp_path / "junk.so").write_bytes(b"no library")
        return tmp_path / "junk.so", "cannot run the model with"
    request.getfixturevalue("ort_library")  # skips where none can be built
    wrong = request.getfixturevalue("build_program")("wrong_ort")
    return wrong.with_name("libwrong_ort.so"), "libdtwin_ort): error "


def test_a_library_that_does_not_work_is_refused_before_anything_is_written(
    broken_library: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    library, said = broken_library
    monkeypatch.setenv(ort.VARIABLE, str(library))
    repository, twin = tmp_path / "all", short_twin()
    with pytest.raises(VerificationError, match=re.escape(said)):
        export_triton(twin, repository)
    assert not repository.exists()
    twin.save(tmp_path / "model")
    command = ["export", str(tmp_path / "model"), "--triton-repository", str(repository)]
    assert main(command) == 1
    assert said in capsys.readouterr().err
    assert [path for path in repository.rglob("*") if path.is_file()] == []


def test_the_command_says_where_the_server_sees_it(
    ort_library: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(ort.VARIABLE, str(ort_library))
    short_twin().save(tmp_path / "model")
    arguments = ["export", str(tmp_path / "model"), "--triton-repository", str(tmp_path / "all")]
    assert main([*arguments, "--mounted-at", "/models", "--json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)["written"]
    assert said["op_library"] is True
    operations = _config(tmp_path / "all" / "tiny").model_operations
    assert list(operations.op_library_filename) == ["/models/tiny/libdtwin_ort.so"]
    assert main(arguments) == 2
    assert "[out_not_empty]" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "wanted"), [
    ("my twin / 2", "my-twin-2"), ("../..", "twin"), ("Zwilling_1", "Zwilling_1"), ("é", "twin")
])  # fmt: skip
def test_names_are_those_of_folders(name: str, wanted: str) -> None:
    twin = short_twin()
    assert model_name(replace(twin, spec=replace(twin.spec, name=name))) == wanted


def _config(folder: Path) -> Any:
    return text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())
