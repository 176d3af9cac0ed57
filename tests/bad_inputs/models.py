"""Model folders: weights that are no weights, configs that are none, and pairs that do not fit."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dtwin_fast.model_files import (
    CONFIG_FILE,
    FORMAT,
    MAX_CONFIG_BYTES,
    MAX_HEADER_BYTES,
    WEIGHTS_FILE,
    encode_safetensors,
)
from dtwin_fast.twin import Twin

from .cases import MAX_BYTES, Case, edit_json, edited, of_model, of_model_path

Change = Callable[[Path, Twin], object]
Config = Callable[[dict[str, Any]], object]


def config(change: Config) -> Change:
    """config.json after a change."""
    return lambda folder, twin: edit_json(folder / CONFIG_FILE, change)


def text(content: bytes) -> Change:
    """Another config.json."""
    return lambda folder, twin: (folder / CONFIG_FILE).write_bytes(content)


def weights(change: Callable[[bytes], bytes], *, signed: bool = False) -> Change:
    """model.safetensors after a change of its bytes; config.json vouches for them if signed."""

    def apply(folder: Path, twin: Twin) -> None:
        path = folder / WEIGHTS_FILE
        data = change(path.read_bytes())
        path.write_bytes(data)
        if signed:
            digest = hashlib.sha256(data).hexdigest()
            edit_json(folder / CONFIG_FILE, edited("weights_sha256", to=digest))

    return apply


def header(change: Config) -> Change:
    """The header of the safetensors after a change, its length in order and signed."""

    def apply(data: bytes) -> bytes:
        length = int.from_bytes(data[:8], "little")
        values = json.loads(data[8 : 8 + length])
        change(values)
        made = json.dumps(values).encode()
        return len(made).to_bytes(8, "little") + made + data[8 + length :]

    return weights(apply, signed=True)


def length(n: int) -> Change:
    """A header that says it is this long."""
    return weights(lambda data: n.to_bytes(8, "little") + data[8:], signed=True)


def raw_header(content: bytes) -> Change:
    """A header of these bytes."""
    return weights(lambda data: len(content).to_bytes(8, "little") + content, signed=True)


def tensors(change: Callable[[dict[str, Any]], object]) -> Change:
    """Well-formed weights after a change of the tensors."""

    def apply(folder: Path, twin: Twin) -> None:
        made = {name: tensor.copy() for name, tensor in twin._tensors().items()}
        change(made)
        weights(lambda data: encode_safetensors(made), signed=True)(folder, twin)

    return apply


def value(name: str, to: float) -> Change:
    """One number of a tensor."""

    def change(made: dict[str, Any]) -> None:
        made[name].flat[-1] = to

    return tensors(change)


def path(name: str, make: Callable[[Path], object]) -> Change:
    """Another thing in the place of a file."""

    def apply(folder: Path, twin: Twin) -> None:
        (folder / name).unlink()
        make(folder / name)

    return apply


nan, inf = float("nan"), float("inf")
FIRST = "hyper.0.weight"
MANY = {f"layer.{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(10**5)}
FEW_BYTES = {f"{i:x}": 0 for i in range(10**5)}
CONTENT, TENSORS, FILE, CONFIG = "model_content", "model_tensors", "model_file", "model_config"

CONFIGS: dict[str, tuple[str, Config]] = {
    "other format": (CONFIG, edited("format", to="another model")),
    "no format": (CONFIG, edited("format", to=...)),
    "newer version": (CONFIG, edited("format_version", to=2)),
    "version as text": (CONFIG, edited("format_version", to="1")),
    "wrong sha256": ("model_sha256", edited("weights_sha256", to="0" * 64)),
    "no sha256": (CONTENT, edited("weights_sha256", to=...)),
    "sha256 is null": (CONTENT, edited("weights_sha256", to=None)),
    "no spec": (CONTENT, edited("spec", to=...)),
    "spec is a list": (CONTENT, edited("spec", to=[1])),
    "unknown spec field": ("spec", edited("spec", "colour", to="red")),
    "spec field missing": ("spec", edited("spec", "n_regions", to=...)),
    "spec field as text": ("spec", edited("spec", "n_hidden", to="16")),
    "negative size": ("spec", edited("spec", "n_hidden", to=-16)),
    "size of 2^63": ("spec", edited("spec", "n_hidden", to=2**63)),
    "fractional size": ("spec", edited("spec", "n_hidden", to=16.5)),
    "layers as a number": ("spec", edited("spec", "hyper_hidden", to=64)),
    "a million layers": ("spec", edited("spec", "hyper_hidden", to=[1] * 10**6)),
    "tiny step": ("spec", edited("spec", "dt_s", to=1e-300)),
    "unknown head": ("spec", edited("spec", "head", to="softmax")),
    "unknown cell": ("cell", edited("spec", "cell", to="transformer")),
    "cell of another size": (TENSORS, edited("spec", "cell", to="gru")),
    "other hidden size": (TENSORS, edited("spec", "n_hidden", to=17)),
    "huge hidden size": (TENSORS, edited("spec", "n_hidden", to=2**24)),
    "huge connectome": (TENSORS, edited("spec", "n_regions", to=2**24)),
    "one more layer": (TENSORS, edited("spec", "hyper_hidden", to=[64, 64, 64])),
    "other step": (TENSORS, edited("spec", "dt_s", to=0.04)),
    "other inputs": (CONTENT, edited("spec", "n_inputs", to=8)),
    "other actions": (CONTENT, edited("spec", "n_actions", to=2)),
    "bold regions as text": ("spec", edited("spec", "bold_regions", to="abcd")),
    "a region twice": ("region_duplicate", edited("regions", 1, to="region_00")),
    "a region less": (CONTENT, edited("regions", 15, to=...)),
    "regions are numbers": ("region_name", edited("regions", to=list(range(16)))),
    "a region is a list": ("region_name", edited("regions", 3, to=["a"])),
    "regions are text": (CONTENT, edited("regions", to="sixteen")),
    "no regions": (CONTENT, edited("regions", to=...)),
    "unknown task": (
        CONTENT,
        lambda c: (
            c["tasks"].update(nback=c["tasks"]["faces"]),
            c["contrasts"].update(nback=c["contrasts"]["faces"]),
        ),
    ),
    "a task without contrasts": (CONTENT, edited("contrasts", "faces", to=...)),
    "contrasts without a task": (CONTENT, edited("tasks", "faces", to=...)),
    "no tasks": (CONTENT, lambda c: (c["tasks"].clear(), c["contrasts"].clear())),
    "tasks are a list": (CONTENT, edited("tasks", to=["faces"])),
    "a task is a list": (CONTENT, edited("tasks", "faces", to=[["a"]])),
    "a task is null": (CONTENT, edited("tasks", "faces", to=None)),
    "a task's field is missing": ("schedule", edited("tasks", "faces", "onset_s", to=...)),
    "another task's schedule": (
        CONTENT,
        lambda c: c["tasks"].update(faces=c["tasks"]["stroop"]),
    ),
    "an action that is not there": (
        CONTENT,
        lambda c: c["tasks"]["faces"]["correct"].__setitem__(0, 3),
    ),
    "a trial after the run": ("schedule", edited("tasks", "faces", "run_s", to=383.0)),
    "a trial after the last step": (
        CONTENT,
        # 383.06 s are 4788.25 steps, so the trial at their end has no step of its own.
        lambda c: c["tasks"]["faces"].update(
            run_s=383.061,
            duration_s=[*c["tasks"]["faces"]["duration_s"][:-1], 1e-3],
            window_s=[*c["tasks"]["faces"]["window_s"][:-1], 1e-3],
        ),
    ),
    "contrasts are a number": (CONTENT, edited("contrasts", "faces", to=3)),
    "contrasts are text": (CONTENT, edited("contrasts", "faces", to="faces>shapes")),
    "a contrast is a number": (CONTENT, edited("contrasts", "faces", to=[3])),
    "one more contrast": (TENSORS, edited("contrasts", "faces", to=["a", "b"])),
    "no training": (CONTENT, edited("training", to=...)),
    "training is a list": (CONTENT, edited("training", to=[])),
    "NaN": (CONFIG, edited("training", "loss", to=nan)),
    "infinity": (CONFIG, edited("training", "loss", to=-inf)),
}

TEXTS: dict[str, bytes] = {
    "not JSON": b"not JSON",
    "not UTF-8": b"\xff\xfe",
    "cut": b"{",
    "deep list": b"[" * 10**6,
    "deep objects": b'{"a":' * 10**6,
    "huge number": b'{"format": ' + b"9" * 5000 + b"}",
    "overflow": f'{{"format": "{FORMAT}", "format_version": 1, "x": 1e999}}'.encode(),
    "a list": b"[]",
    "null": b"null",
    "a NUL": b"\0",
}

ENTRIES: dict[str, Any] = {
    "float64": {"dtype": "F64"},
    "float16": {"dtype": "F16"},
    "dtype in lower case": {"dtype": "f32"},
    "no dtype": {"dtype": None},
    "another shape": {"shape": [64, 121]},
    "transposed": {"shape": [120, 64]},
    "shape of 2^80": {"shape": [2**40, 2**40]},
    "negative shape": {"shape": [-64, -120]},
    "shape as text": {"shape": "64"},
    "offsets as text": {"data_offsets": "0-12"},
    "fractional offsets": {"data_offsets": [0.0, 30720.0]},
    "three offsets": {"data_offsets": [0, 1, 2]},
    "offsets backwards": {"data_offsets": [30720, 0]},
}

MODELS: dict[str, Case] = {
    **{
        f"config: {name}": of_model(code, config(change))
        for name, (code, change) in CONFIGS.items()
    },
    **{f"config: {name}": of_model(CONFIG, text(content)) for name, content in TEXTS.items()},
    "config: empty": of_model("file_empty", text(b"")),
    "config: over the limit": of_model(
        "file_too_large",
        lambda folder, twin: os.truncate(folder / CONFIG_FILE, MAX_CONFIG_BYTES + 1),
    ),
    "config: 2 million regions": of_model(
        CONTENT,
        config(edited("regions", to=[f"{i:x}" for i in range(2 * 10**6)])),
        n_bytes=8 * MAX_BYTES,
    ),
    **{
        f"tensor: {name}": of_model(
            TENSORS, header(lambda h, change=change: h[FIRST].update(change))
        )
        for name, change in ENTRIES.items()
    },
    "tensor: missing": of_model(TENSORS, header(lambda h: h.pop(FIRST))),
    "tensor: one more": of_model(TENSORS, header(lambda h: h.update(extra=h[FIRST]))),
    "tensor: null": of_model(TENSORS, header(lambda h: h.update({FIRST: None}))),
    "tensor: a layer missing, well-formed": of_model(TENSORS, tensors(lambda t: t.pop(FIRST))),
    "tensor: another name, well-formed": of_model(
        TENSORS, tensors(lambda t: t.update({"hyper.0.w": t.pop(FIRST)}))
    ),
    "tensor: another shape, well-formed": of_model(
        TENSORS, tensors(lambda t: t.update({FIRST: t[FIRST].T}))
    ),
    "tensor: overlap": of_model(
        FILE, header(lambda h: h["edge_sd"].update(data_offsets=h["edge_mean"]["data_offsets"]))
    ),
    "tensor: beyond the file": of_model(
        FILE, header(lambda h: h["edge_sd"].update(data_offsets=[2**62, 2**62 + 480]))
    ),
    **{
        f"value: {to} in {name}": of_model(CONTENT, value(name, to))
        for name in (FIRST, "hyper.2.bias", "edge_mean", "bold_sd", "projection.faces")
        for to in (nan, inf, -inf)
    },
    "value: no spread of an edge": of_model(CONTENT, value("edge_sd", 0.0)),
    "value: negative spread of an edge": of_model(CONTENT, value("edge_sd", -1.0)),
    **{
        f"header: length {name}": of_model(FILE, length(n))
        for name, n in {
            "0": 0,
            "1": 1,
            "2^50": 2**50,
            "2^63": 2**63,
            "2^64 - 1": 2**64 - 1,
            "over the limit": MAX_HEADER_BYTES + 1,
            "beyond the file": 10**6,
        }.items()
    },
    **{
        f"header: {name}": of_model(FILE, raw_header(content))
        for name, content in {
            "not UTF-8": b"\xff\xfe\0\0",
            "broken": b'{"a": }',
            "deep list": b"[" * 10**5,
            "deep objects": b'{"a":' * 50_000,
            "a list": b"[]",
            "null": b"null",
            "zeros": bytes(64),
            "10^5 tensors": json.dumps(MANY).encode(),
        }.items()
    },
    "header: 10^5 names": of_model(
        TENSORS, raw_header(json.dumps(FEW_BYTES, separators=(",", ":")).encode())
    ),
    "weights: one bit": of_model("model_sha256", weights(lambda d: d[:-1] + bytes([d[-1] ^ 1]))),
    "weights: cut off": of_model(FILE, weights(lambda d: d[:-4])),
    "weights: bytes follow": of_model(FILE, weights(lambda d: d + b"\0", signed=True)),
    "weights: half": of_model(FILE, weights(lambda d: d[: len(d) // 2])),
    "weights: empty": of_model("file_empty", weights(lambda d: b"")),
    "weights: a pickle": of_model(FILE, weights(lambda d: b"\x80\x04\x95" + d)),
    "weights: of another model": of_model(
        "model_sha256",
        lambda folder, twin: (
            (folder / WEIGHTS_FILE).write_bytes(
                encode_safetensors(twin._tensors() | {"edge_mean": twin.edge_mean + np.float32(1)})
            )
            and None
        ),
    ),
    "weights: absent": of_model("file_missing", path(WEIGHTS_FILE, lambda p: None)),
    "weights: pipe": of_model("file_kind", path(WEIGHTS_FILE, os.mkfifo)),
    "weights: folder": of_model("file_kind", path(WEIGHTS_FILE, Path.mkdir)),
    "weights: /dev/zero": of_model(
        "file_kind", path(WEIGHTS_FILE, lambda p: p.symlink_to("/dev/zero"))
    ),
    "config: absent": of_model("model_folder", path(CONFIG_FILE, lambda p: None)),
    "config: pipe": of_model("file_kind", path(CONFIG_FILE, os.mkfifo)),
    "config: /dev/zero": of_model(
        "file_kind", path(CONFIG_FILE, lambda p: p.symlink_to("/dev/zero"))
    ),
    "config: link to itself": of_model(
        "model_folder", path(CONFIG_FILE, lambda p: p.symlink_to(p))
    ),
    "folder: absent": of_model_path("model_folder", lambda place: place.folder / "absent"),
    "folder: a file": of_model_path("model_folder", lambda place: place.people),
    "folder: empty": of_model_path("model_folder", lambda place: place.folder),
    "folder: NUL": of_model_path("model_folder", lambda place: place.folder / "a\0b"),
    "folder: 300 characters": of_model_path(
        "model_folder", lambda place: place.folder / ("x" * 300)
    ),
}
