"""Model folders: the safetensors format, and damage refused with a code.

More damage is in ``bad_inputs.models``.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_inputs.cases import edit_json, edited

from dtwin_fast import model_files
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.model_files import (
    CARD_FILE,
    CONFIG_FILE,
    MAX_CONFIG_BYTES,
    MAX_HEADER_BYTES,
    WEIGHTS_FILE,
    decode_safetensors,
    encode_safetensors,
)
from dtwin_fast.twin import Twin
from dtwin_fast.twin_files import load

TENSORS = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.array([np.pi, -0.0, 1e-45], np.float32),
    "empty": np.empty((0, 4), np.float32),
}
SHAPES = {name: tensor.shape for name, tensor in TENSORS.items()}
REFUSAL_S = 5.0  # a damaged file is refused at once; far more than it takes, for slow machines


def _refusal(act: Callable[[], object]) -> str:
    start = time.monotonic()
    with pytest.raises(DTwinInputError) as caught:
        act()
    assert time.monotonic() - start < REFUSAL_S
    assert len(str(caught.value)) < 5000
    return caught.value.code


def _file(tmp_path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    size = len(text) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + text + data)
    return path


def _header(**changes: Any) -> dict[str, Any]:
    header: dict[str, Any] = {
        "a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
        "b": {"dtype": "F32", "shape": [2, 3], "data_offsets": [12, 36]},
        "empty": {"dtype": "F32", "shape": [0, 4], "data_offsets": [36, 36]},
    }
    return {**header, **changes}


def _decode(path: Path) -> dict[str, np.ndarray]:
    return decode_safetensors(path, SHAPES)[0]


def _assert_same(got: dict[str, np.ndarray]) -> None:
    assert set(got) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert got[name].dtype == np.float32
        assert got[name].shape == tensor.shape
        assert got[name].tobytes() == tensor.tobytes()


class TestFormat:
    def test_the_safetensors_library_reads_ours(self) -> None:
        library = pytest.importorskip("safetensors.numpy")
        _assert_same(library.load(encode_safetensors(TENSORS)))

    def test_we_read_the_safetensors_librarys(self, tmp_path: Path) -> None:
        library = pytest.importorskip("safetensors.numpy")
        path = tmp_path / "x.safetensors"
        library.save_file(TENSORS, path, metadata={"format": "np"})
        _assert_same(_decode(path))

    def test_round_trip_and_digest(self, tmp_path: Path) -> None:
        import hashlib

        data = encode_safetensors(TENSORS)
        path = tmp_path / "x.safetensors"
        path.write_bytes(data)
        tensors, sha256 = decode_safetensors(path, SHAPES)
        _assert_same(tensors)
        assert sha256 == hashlib.sha256(data).hexdigest()
        assert all(tensor.flags.writeable for tensor in tensors.values())

    def test_order_of_the_tensors_does_not_matter(self, tmp_path: Path) -> None:
        a = {"dtype": "F32", "shape": [3], "data_offsets": [24, 36]}
        b = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
        data = TENSORS["b"].tobytes() + TENSORS["a"].tobytes()
        _assert_same(_decode(_file(tmp_path, _header(a=a, b=b), data)))

    def test_tensors_start_at_a_multiple_of_eight(self) -> None:
        data = encode_safetensors(TENSORS)
        assert int.from_bytes(data[:8], "little") % 8 == 0

    def test_any_layout_is_written_in_c_order(self, tmp_path: Path) -> None:
        path = tmp_path / "x.safetensors"
        path.write_bytes(encode_safetensors({**TENSORS, "b": np.asfortranarray(TENSORS["b"])}))
        _assert_same(_decode(path))


GOOD_DATA = TENSORS["a"].tobytes() + TENSORS["b"].tobytes()


class TestDamagedWeights:
    @pytest.mark.parametrize("sixteenth", range(16))
    def test_truncated(self, tmp_path: Path, sixteenth: int) -> None:
        data = encode_safetensors(TENSORS)
        path = tmp_path / "x.safetensors"
        path.write_bytes(data[: len(data) * sixteenth // 16])
        assert _refusal(lambda: _decode(path)) == ("model_file" if sixteenth else "file_empty")

    @pytest.mark.parametrize("missing", [1, 3, 4])
    def test_the_last_bytes_are_missing(self, tmp_path: Path, missing: int) -> None:
        path = _file(tmp_path, _header(), GOOD_DATA[:-missing])
        assert _refusal(lambda: _decode(path)) == "model_file"

    def test_bytes_follow(self, tmp_path: Path) -> None:
        path = _file(tmp_path, _header(), GOOD_DATA + b"\0")
        assert _refusal(lambda: _decode(path)) == "model_file"

    @pytest.mark.parametrize(
        "length",
        [0, 1, 2**63, 2**64 - 1, MAX_HEADER_BYTES + 1, 10_000],
        ids=["zero", "one", "negative as signed", "all ones", "over the limit", "beyond the file"],
    )
    def test_header_lengths(self, tmp_path: Path, length: int) -> None:
        path = _file(tmp_path, _header(), GOOD_DATA, length=length)
        assert _refusal(lambda: _decode(path)) == "model_file"

    @pytest.mark.parametrize(
        "header",
        [
            b"{}x",
            b"\xff\xfe\x00\x00",
            b'{"a": }',
            b"[" * 100_000,
            b'{"a":' * 50_000,
            b'{"a": ' + b"9" * 5000 + b"}",
            b"[]",
            b"null",
            b'"text"',
            b"\0" * 64,
        ],
        ids=[
            "trailing",
            "not utf-8",
            "broken",
            "deep list",
            "deep objects",
            "huge number",
            "list",
            "null",
            "text",
            "zeros",
        ],
    )
    def test_headers_that_are_no_header(self, tmp_path: Path, header: bytes) -> None:
        path = _file(tmp_path, header, GOOD_DATA)
        assert _refusal(lambda: _decode(path)) == "model_file"

    @pytest.mark.parametrize("depth", range(900, 1000, 7))
    def test_nesting_near_the_recursion_limit(self, tmp_path: Path, depth: int) -> None:
        nested = json.loads("[" * 500 + "]" * 500)
        text = json.dumps(_header(a={"shape": nested})).replace(
            "[" * 500 + "]" * 500, "[" * depth + "]" * depth
        )
        path = _file(tmp_path, text.encode(), GOOD_DATA)
        assert _refusal(lambda: _decode(path)) in ("model_file", "model_tensors")

    @pytest.mark.parametrize(
        ("offsets_a", "offsets_b"),
        [
            ([0, 12], [8, 32]),
            ([0, 12], [16, 40]),
            ([4, 16], [16, 40]),
            ([-12, 0], [0, 24]),
            ([0, 12], [0, 24]),
            ([24, 36], [12, 36]),
            ([2**62, 2**62 + 12], [12, 36]),
        ],
        ids=["overlap", "hole", "late start", "negative", "same", "overlap at the end", "far away"],
    )
    def test_spans(self, tmp_path: Path, offsets_a: list[int], offsets_b: list[int]) -> None:
        header = _header()
        header["a"]["data_offsets"], header["b"]["data_offsets"] = offsets_a, offsets_b
        # All else fits: the file ends where the last tensor does.
        end = min(max(offsets_a[1], offsets_b[1]), 1000)
        header["empty"]["data_offsets"] = [end, end]
        path = _file(tmp_path, header, bytes(end))
        assert _refusal(lambda: _decode(path)) == "model_file"

    @pytest.mark.parametrize(
        "entry",
        [
            {"dtype": "F64", "shape": [3], "data_offsets": [0, 24]},
            {"dtype": "F16", "shape": [3], "data_offsets": [0, 12]},
            {"dtype": "f32", "shape": [3], "data_offsets": [0, 12]},
            {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
            {"dtype": "F32", "shape": [3, 1], "data_offsets": [0, 12]},
            {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
            {"dtype": "F32", "shape": "3", "data_offsets": [0, 12]},
            {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 12]},
            {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
            {"dtype": "F32", "shape": [3], "data_offsets": [12, 0]},
            {"dtype": "F32", "shape": [3], "data_offsets": [0.0, 12.0]},
            {"dtype": "F32", "shape": [3], "data_offsets": [False, 12]},
            {"dtype": "F32", "shape": [3], "data_offsets": [0, 12, 24]},
            {"dtype": "F32", "shape": [3], "data_offsets": "0-12"},
            {"dtype": "F32", "shape": [3]},
            {"shape": [3], "data_offsets": [0, 12]},
            {},
            [],
            None,
            12,
        ],
        ids=repr,
    )
    def test_entries(self, tmp_path: Path, entry: Any) -> None:
        path = _file(tmp_path, _header(a=entry), GOOD_DATA)
        assert _refusal(lambda: _decode(path)) == "model_tensors"

    def test_another_set_of_tensors(self, tmp_path: Path) -> None:
        header = _header()
        more = _header(extra={"dtype": "F32", "shape": [0], "data_offsets": [36, 36]})
        assert _refusal(lambda: _decode(_file(tmp_path, more, GOOD_DATA))) == "model_tensors"
        del header["b"]
        assert _refusal(lambda: _decode(_file(tmp_path, header, GOOD_DATA))) == "model_tensors"
        assert _refusal(lambda: _decode(_file(tmp_path, {}, b""))) == "model_tensors"

    def test_a_hundred_thousand_tensors(self, tmp_path: Path) -> None:
        many = {f"{i:x}": 0 for i in range(100_000)}
        text = json.dumps(many, separators=(",", ":")).encode()
        assert len(text) < MAX_HEADER_BYTES
        assert _refusal(lambda: _decode(_file(tmp_path, text))) == "model_tensors"
        full = {f"layer.{i}": _header()["empty"] for i in range(100_000)}
        assert _refusal(lambda: _decode(_file(tmp_path, full))) == "model_file"

    def test_config_that_asks_for_more_than_memory(self, tmp_path: Path) -> None:
        # Both header and config say 4 EiB, the file does not: nothing may be allocated.
        shape = (2**30, 2**30)
        entry = {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 2**62]}
        path = _file(tmp_path, {"a": entry}, GOOD_DATA)
        assert _refusal(lambda: decode_safetensors(path, {"a": shape})) == "model_file"

    def test_every_flipped_bit_of_the_header(self, tmp_path: Path) -> None:
        # Most flips are refused; those that only change white space may pass. What comes
        # back must be the tensors.
        data = encode_safetensors(TENSORS)
        length = 8 + int.from_bytes(data[:8], "little")
        path = tmp_path / "x.safetensors"
        codes = []
        for bit in range(8 * length):
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            try:
                _assert_same(_decode(path))
            except DTwinInputError as error:
                codes.append(error.code)
        assert set(codes) == {"model_file", "model_tensors"}
        assert len(codes) > 0.9 * 8 * length

    def test_file_that_shrinks_while_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = _file(tmp_path, _header(), GOOD_DATA[:-4])
        size = path.stat().st_size + 4
        monkeypatch.setattr(model_files, "check_regular_file", lambda _: size)
        assert _refusal(lambda: _decode(path)) == "model_file"

    def test_not_a_regular_file(self, tmp_path: Path) -> None:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        assert _refusal(lambda: _decode(fifo)) == "file_kind"
        assert _refusal(lambda: _decode(tmp_path)) == "file_kind"
        assert _refusal(lambda: _decode(Path("/dev/zero"))) == "file_kind"
        assert _refusal(lambda: _decode(tmp_path / "absent")) == "file_missing"


@pytest.fixture(scope="module")
def saved(tiny_twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_twin.save(folder)
    return folder


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


class TestFolder:
    def test_files(self, saved: Path) -> None:
        names = {path.name for path in saved.iterdir()}
        assert names == {WEIGHTS_FILE, CONFIG_FILE, CARD_FILE}

    def test_round_trip(self, saved: Path, tiny_twin: Twin) -> None:
        twin = load(saved)
        assert twin.spec == tiny_twin.spec
        assert twin.regions == tiny_twin.regions
        assert twin.contrasts == tiny_twin.contrasts
        assert twin.training == tiny_twin.training
        assert list(twin.schedules) == list(tiny_twin.schedules)
        for name, schedule in twin.schedules.items():
            assert schedule.to_dict() == tiny_twin.schedules[name].to_dict()
            np.testing.assert_array_equal(twin.projections[name], tiny_twin.projections[name])
        for got, wanted in zip(twin.layers, tiny_twin.layers, strict=True):
            assert got.weight.tobytes() == wanted.weight.tobytes()
            assert got.bias.tobytes() == wanted.bias.tobytes()
        for name in ("edge_mean", "edge_sd", "bold_sd"):
            assert getattr(twin, name).tobytes() == getattr(tiny_twin, name).tobytes()

    def test_the_safetensors_library_reads_it(self, saved: Path, tiny_twin: Twin) -> None:
        library = pytest.importorskip("safetensors.numpy")
        tensors = library.load_file(saved / WEIGHTS_FILE)
        np.testing.assert_array_equal(tensors["hyper.0.weight"], tiny_twin.layers[0].weight)
        np.testing.assert_array_equal(tensors["edge_sd"], tiny_twin.edge_sd)

    def test_saving_again_gives_the_same_bytes(self, saved: Path, tmp_path: Path) -> None:
        load(saved).save(tmp_path / "again")
        for path in saved.iterdir():
            assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()

    def test_sha256_is_the_files(self, saved: Path, tiny_twin: Twin, tmp_path: Path) -> None:
        import hashlib

        sha256 = hashlib.sha256((saved / WEIGHTS_FILE).read_bytes()).hexdigest()
        assert load(saved).sha256 == sha256
        assert tiny_twin.save(tmp_path / "new").sha256 == sha256
        assert tiny_twin.sha256 == ""

    @pytest.mark.parametrize("where", ["file", "file/model", "x" * 300, "nul\0"], ids=repr)
    def test_a_folder_that_cannot_be_made(
        self, tiny_twin: Twin, tmp_path: Path, where: str
    ) -> None:
        (tmp_path / "file").write_text("mine")
        assert _refusal(lambda: tiny_twin.save(tmp_path / where)) == "out_unwritable"
        assert (tmp_path / "file").read_text() == "mine"
        assert len(list(tmp_path.iterdir())) == 1

    def test_a_folder_that_is_no_path(self, tiny_twin: Twin) -> None:
        assert _refusal(lambda: tiny_twin.save(5)) == "argument"  # type: ignore[arg-type]

    def test_card(self, saved: Path) -> None:
        card = (saved / CARD_FILE).read_text()
        for text in ("In silico, not clinical", "16 regions", "120 edges", "- seed: 7", "faces"):
            assert text in card

    def test_a_twin_without_bold(self, tiny_twin: Twin, tmp_path: Path) -> None:
        # Zero-size tensors are stored and read; the readout rows of BOLD are the last ones.
        spec = replace(tiny_twin.spec, bold_regions=())
        last = tiny_twin.layers[-1]
        n = len(last.bias) - 4 * (spec.n_hidden + 1)
        cut = type(last)(last.weight[:n], last.bias[:n])
        twin = replace(
            tiny_twin,
            spec=spec,
            layers=(*tiny_twin.layers[:-1], cut),
            bold_sd=np.empty(0, np.float32),
        )
        twin.save(tmp_path / "model")
        again = load(tmp_path / "model")
        fc = np.full((2, spec.n_edges), 0.2)
        prediction = again.predict(fc)
        assert prediction.bold is not None
        assert prediction.bold.shape == (2, 1003, 0)
        assert prediction.choice_prob.tobytes() == twin.predict(fc).choice_prob.tobytes()


class TestDamagedFolder:
    @pytest.mark.parametrize("depth", [100, 850, 900, 930, 960, 990, 5000])
    @pytest.mark.parametrize("key", ["spec", "regions", "tasks", "contrasts", "weights_sha256"])
    def test_deep_nesting(self, model: Path, key: str, depth: int) -> None:
        edit_json(model / CONFIG_FILE, edited(key, to="DEEP"))
        text = (model / CONFIG_FILE).read_text()
        for deep in ("[" * depth + "]" * depth, '{"a":' * depth + "0" + "}" * depth):
            (model / CONFIG_FILE).write_text(text.replace('"DEEP"', deep))
            assert _refusal(lambda: load(model)) in (
                "model_config", "model_content", "spec", "region_name", "region_count", "schedule"
            )  # fmt: skip

    def test_config_too_large(self, model: Path) -> None:
        with (model / CONFIG_FILE).open("ab") as file:
            file.truncate(MAX_CONFIG_BYTES + 1)
        assert _refusal(lambda: load(model)) == "file_too_large"

    def test_config_empty(self, model: Path) -> None:
        (model / CONFIG_FILE).write_bytes(b"")
        assert _refusal(lambda: load(model)) == "file_empty"

    def test_config_of_garbage_up_to_the_limit(self, model: Path) -> None:
        config = json.loads((model / CONFIG_FILE).read_text())
        config["regions"] = ["x" * 8] * 2_000_000
        (model / CONFIG_FILE).write_text(json.dumps(config))
        assert (model / CONFIG_FILE).stat().st_size < MAX_CONFIG_BYTES
        assert _refusal(lambda: load(model)) == "model_content"

    def test_folders_that_are_none(self, model: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        (tmp_path / "empty").mkdir()
        for path in ("absent", "file", "empty", "x" * 300, "nul\0byte", ""):
            assert _refusal(lambda path=path: load(tmp_path / path)) == "model_folder"
        for no_path in (5, None, b"model", ["model"]):
            assert _refusal(lambda no_path=no_path: load(no_path)) == "argument"
        (model / CONFIG_FILE).unlink()
        assert _refusal(lambda: load(model)) == "model_folder"

    @pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
    def test_not_a_regular_file(self, model: Path, name: str) -> None:
        (model / name).unlink()
        os.mkfifo(model / name)
        assert _refusal(lambda: load(model)) == "file_kind"
        (model / name).unlink()
        (model / name).mkdir()
        assert _refusal(lambda: load(model)) == "file_kind"
        (model / name).rmdir()
        (model / name).symlink_to(model / name)
        wanted = "model_folder" if name == CONFIG_FILE else "file_missing"
        assert _refusal(lambda: load(model)) == wanted

    @pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
    def test_unreadable(self, model: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        # root may read everything, so the permission is taken away here.
        access = os.access
        monkeypatch.setattr(os, "access", lambda p, m: Path(p).name != name and access(p, m))
        wanted = "model_folder" if name == CONFIG_FILE else "file_missing"
        assert _refusal(lambda: load(model)) == wanted

    @pytest.mark.parametrize("sixteenth", range(16))
    def test_truncated(self, model: Path, sixteenth: int) -> None:
        for name, codes in (
            (CONFIG_FILE, ("model_config", "file_empty")),
            (WEIGHTS_FILE, ("model_file", "file_empty")),
        ):
            data = (model / name).read_bytes()
            (model / name).write_bytes(data[: len(data) * sixteenth // 16])
            assert _refusal(lambda: load(model)) in codes
            (model / name).write_bytes(data)

    def test_flipped_bits_of_the_weights(self, model: Path) -> None:
        data = (model / WEIGHTS_FILE).read_bytes()
        rng = np.random.default_rng(0)
        for bit in rng.integers(0, 8 * len(data), 300):
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            (model / WEIGHTS_FILE).write_bytes(damaged)
            code = _refusal(lambda: load(model))
            assert code in ("model_sha256", "model_file", "model_tensors")

    def test_flipped_bits_of_the_config(self, model: Path) -> None:
        # A flip may leave a valid config (an onset, a name): load it or refuse it, no more.
        data = (model / CONFIG_FILE).read_bytes()
        rng = np.random.default_rng(1)
        refused = 0
        for bit in rng.integers(0, 8 * len(data), 300):
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            (model / CONFIG_FILE).write_bytes(damaged)
            try:
                load(model)
            except DTwinInputError:
                refused += 1
        assert refused > 60

    def test_weights_of_another_model(self, model: Path, tiny_twin: Twin, tmp_path: Path) -> None:
        other = replace(tiny_twin, edge_mean=tiny_twin.edge_mean + 1)
        other.save(tmp_path / "other")
        shutil.copy(tmp_path / "other" / WEIGHTS_FILE, model / WEIGHTS_FILE)
        assert _refusal(lambda: load(model)) == "model_sha256"


class TestSaveRefuses:
    @pytest.mark.parametrize(
        "value",
        [float("nan"), np.ones(2), {1, 2}, "x" * (MAX_CONFIG_BYTES + 1)],
        ids=["nan", "array", "set", "long"],
    )
    def test_training_that_json_cannot_hold(
        self, tiny_twin: Twin, tmp_path: Path, value: Any
    ) -> None:
        twin = replace(tiny_twin, training={"seed": value})
        assert _refusal(lambda: twin.save(tmp_path / "model")) == "model_config"
        assert not list(tmp_path.iterdir())

    def test_interrupted_between_files(
        self, model: Path, tiny_twin: Twin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # New weights beside the old config: refused, not half old and half new.
        write = model_files.write_atomic

        def stop_at_config(path: Path, data: bytes | str) -> None:
            if path.name == CONFIG_FILE:
                raise KeyboardInterrupt
            write(path, data)

        monkeypatch.setattr(model_files, "write_atomic", stop_at_config)
        with pytest.raises(KeyboardInterrupt):
            replace(tiny_twin, edge_mean=tiny_twin.edge_mean + 1).save(model)
        assert _refusal(lambda: load(model)) == "model_sha256"
