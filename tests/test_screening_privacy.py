"""What a screening writes and says holds no number of a connectome and no generated weight.

Canaries are planted: numbers that nothing else has, in every person's connectome and in every
person's weights. They are looked for as text and as bytes, in all that a run leaves behind, with
the numbers of tables and arrays read back. No network is ever asked for.
"""

from __future__ import annotations

import ast
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("zarr")

import pyarrow.parquet as pq
import zarr
from faults import Launcher, build, problems, processes
from faults.job import short_twin

from dtwin_fast.connectome import vectorise
from dtwin_fast.hypernetwork import generate_weights
from dtwin_fast.readers import read_connectomes
from dtwin_fast.twin import Twin
from dtwin_fast.weights import RNNWeights, count_weights, split_flat

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = Path(sys.executable).with_name("dtwin")
N_GOOD = 12
CANARIES = (0.7391, 0.6182, 0.4273)
"""Correlations of every person who has them."""
WEIGHT_CANARIES = (0.2931, 0.1723, 0.3352)
"""In every person's recurrent weights."""
ODD = {
    "asymmetric": 0.6391,
    "diagonal": 0.8531,
    "r_out_of_range": 17.313,
    "infinite": 0.5493,
    "all_missing": 0.9151,
    "missing_regions": 0.9372,
    "all_zero": 0.0,
}
"""Code of each person who cannot be used -> a number of theirs, or of what is wrong with them."""
ID = "CANARYperson"


@dataclass(frozen=True)
class People:
    """Files of a model and of people with canaries, and what must not be found.

    Attributes:
        numbers: planted ones, of connectomes as r and as Fisher z, and of weights.
        rows: bytes of two neighbouring numbers in memory, of all connectomes and weights.
    """

    folder: Path
    numbers: tuple[float, ...]
    rows: frozenset[bytes]

    def words(self, command: str, *places: object) -> list[object]:
        """A command line."""
        files = [self.folder / "model", self.folder / "fc.npy", *places]
        names = ["--regions", self.folder / "regions.txt", "--subjects", self.folder / "people.tsv"]
        return [command, *files, *names]

    def screen(self, out: Path) -> list[object]:
        """Those of a screening, without what is asked."""
        return self.words("screen", out)


def matrices(twin: Twin) -> npt.NDArray[np.float32]:
    """People with canaries, and then those with something odd."""
    rng = np.random.default_rng(20261129)
    n, size = N_GOOD + len(ODD), twin.spec.n_regions
    series = rng.normal(size=(n, size, 4 * size))
    fc = np.stack([np.corrcoef(one) for one in series]).astype(np.float32)
    for k, canary in enumerate(CANARIES):
        fc[:, 2 * k, 2 * k + 1] = fc[:, 2 * k + 1, 2 * k] = canary
    for one, (code, number) in zip(fc[N_GOOD:], ODD.items(), strict=True):
        match code:
            case "asymmetric":
                one[8, 9], one[9, 8] = number, 0
            case "diagonal":
                one[9, 9] = number
            case "r_out_of_range":
                one[8, 9] = one[9, 8] = number
            case "infinite":
                one[8, 9] = one[9, 8] = np.inf
                one[8, 10] = one[10, 8] = number
            case "all_missing":
                one[1:] = one[:, 1:] = np.nan
                one[0, 0] = 1
            case "missing_regions":
                one[12:] = one[:, 12:] = np.nan
                one[8, 9] = one[9, 8] = number
            case "all_zero":
                one[:] = 0
    return fc


def with_canaries(twin: Twin) -> Twin:
    """A twin whose hypernetwork gives everybody ``WEIGHT_CANARIES``."""
    place = split_flat(np.arange(count_weights(twin.spec))[None], twin.spec)["w_hh"][0, 0, :3]
    *hidden, last = twin.layers
    weight, bias = last.weight.copy(), last.bias.copy()
    weight[place], bias[place] = 0, WEIGHT_CANARIES
    return replace(twin, layers=(*hidden, replace(last, weight=weight, bias=bias)))


@pytest.fixture(scope="module")
def people(tiny_twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> People:
    folder = tmp_path_factory.mktemp("people")
    twin = with_canaries(short_twin(tiny_twin))
    twin.save(folder / "model")
    fc = matrices(twin)
    np.save(folder / "fc.npy", fc)
    names = [f"{ID}{i:03d}" for i in range(len(fc))]
    (folder / "people.tsv").write_text("\n".join(["participant_id", *names]) + "\n")
    (folder / "regions.txt").write_text("\n".join(twin.regions) + "\n")
    good = read_connectomes(
        folder / "fc.npy", regions=twin.regions, subjects=names, bad_subjects="drop"
    )
    x = twin.hyper_input(twin.prepare(good, bad_subjects="drop"), "reject")
    assert len(x) == N_GOOD
    weights = RNNWeights.from_flat(generate_weights(twin.layers, x), twin.spec)
    assert np.array_equal(weights.w_hh[:, 0, :3], [np.float32(WEIGHT_CANARIES)] * len(x))
    z = np.arctanh(vectorise(fc[:N_GOOD]))
    arrays = [vectorise(fc[:N_GOOD]), z, z.astype(np.float32), x, weights.w_hh.reshape(len(x), -1)]
    return People(
        folder,
        (*CANARIES, *np.arctanh(CANARIES), *filter(None, ODD.values()), *WEIGHT_CANARIES),
        frozenset(pair for array in arrays for pair in pairs(array)),
    )


def pairs(array: npt.NDArray[Any]) -> Iterator[bytes]:
    """Bytes of each number with the one after it, in each row."""
    rows = np.ascontiguousarray(array.astype(np.float32, copy=False))
    for row in rows:
        data = row.tobytes()
        yield from (data[i : i + 8] for i in range(0, len(data) - 4, 8))


def found(people: People, data: bytes) -> list[str]:
    """What must not be in these bytes."""
    words = {shown(number) for number in people.numbers}
    kinds = ("<f4", ">f4", "<f8", ">f8")
    numbers = [np.array(n, kind).tobytes() for n in people.numbers for kind in kinds]
    places = range(0, max(len(data) - 7, 0), 4)
    return [
        *(word for word in sorted(words) if word.encode() in data),
        *(f"the bytes {number.hex()}" for number in numbers if number in data),
        *("two numbers, one after another" for at in places if data[at : at + 8] in people.rows),
    ]


def shown(number: float) -> str:
    """How any print of a number with three decimals or more begins, or with four digits."""
    return f"{number:.4g}"[:5]


def contents(out: Path) -> Iterator[tuple[str, bytes]]:
    """All files, with the numbers and texts of tables and arrays beside what is stored."""
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_file():
            yield name, path.read_bytes()
        if path.suffix == ".parquet":
            for column, values in pq.read_table(path).to_pydict().items():
                text = "\n".join(map(str, values)).encode()
                is_number = values and isinstance(values[0], float)
                kinds = ("<f4", "<f8") if is_number else ()
                data = b"".join(np.array(values, kind).tobytes() for kind in kinds)
                yield f"{name}: {column}", (b"" if is_number else text) + data
        if path.name == "zarr.json" and path.parent.name != "arrays.zarr":
            yield f"{name}: numbers", zarr.open_array(path.parent, mode="r")[:].tobytes()


MAY_NAME_PEOPLE = re.compile(
    r"(\.dtwin/parts/shard-\d+\.)?(scores|rejected)\.parquet.*|\.dtwin/parts/\.[0-9a-f]+\.part"
)
"""Tables and their parts, also those that a killed run had not finished."""


def check_secrets(people: People, out: Path, *said: str) -> None:
    """Nothing that a run said or wrote holds what must not be found."""
    texts = [("said", text.encode()) for text in said]
    for name, data in [*texts, *contents(out)]:
        assert found(people, data) == [], name
        if not MAY_NAME_PEOPLE.fullmatch(name):
            assert ID.encode() not in data, name


def test_what_is_looked_for_would_be_found(people: People) -> None:
    fc = np.load(people.folder / "fc.npy")
    assert len(found(people, fc.tobytes())) > 100
    assert found(people, b"got 0.739128") == ["0.739"]
    assert found(people, f"{np.arctanh(0.6182):.3f}".encode())
    assert found(people, np.float64(0.2931).tobytes())
    assert found(people, json.dumps([17.31299]).encode()) == ["17.31"]
    assert found(people, b"0.123 -0.5 {} " + bytes(64)) == []


ASKED = ["--outputs", "behaviour,contrasts,bold,range,eigenvalue", "--shard-size", "4"]


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    if sys.platform != "linux" or shutil.which("gcc") is None:
        pytest.skip("a preloaded library takes Linux and gcc")
    with Launcher(tmp_path_factory.mktemp("launcher")) as started:
        yield started


@pytest.mark.parametrize("how", [[], ["--json"], ["--nprocs", "2"], ["--missing", "mask"]])
def test_a_run_that_ends_well_keeps_its_secrets(
    launcher: Launcher, people: People, tmp_path: Path, how: list[str]
) -> None:
    out = tmp_path / "out"
    ended = launcher.run(*people.screen(out), *ASKED, *how)
    assert ended.code == 3, ended.err
    rejected = pq.read_table(out / "rejected.parquet").to_pylist()
    kept = {"missing_regions"} if "mask" in how else set()
    assert {entry["code"] for entry in rejected} == set(ODD) - kept
    assert all(ID in entry["source_id"] for entry in rejected)
    check_secrets(people, out, ended.out, ended.err)


def test_an_intervention_keeps_its_secrets(
    launcher: Launcher, people: People, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    target = ["--target", "faces:faces>shapes:LH_V1"]
    ended = launcher.run(*people.screen(out), *ASKED, *target)
    assert ended.code == 3, ended.err
    check_secrets(people, out, ended.out, ended.err)


def test_runs_that_fail_keep_their_secrets(
    launcher: Launcher, people: People, tmp_path: Path
) -> None:
    """Nothing can be written, or what is named cannot run."""
    whole = launcher.start(*people.screen(tmp_path / "whole"), *ASKED, below=tmp_path)
    assert whole.wait().code == 3
    for k in range(1, 5):
        out = tmp_path / f"{k}"
        at = whole.journal.n_calls * k // 5
        run = launcher.start(*people.screen(out), *ASKED, below=out, at=at, action="EIO")
        ended = run.wait()
        assert ended.code == 1
        check_secrets(people, out, ended.out, ended.err)
    for words, code in (
        (["--device", "cuda"], 2),
        (["--fisher-z"], 3),
        (["--task", "chess"], 2),
        (["--edit", f"scale:{ID}=2", "--target", "faces:faces>shapes:LH_V1"], 2),
    ):
        out = tmp_path / words[0]
        ended = launcher.run(*people.screen(out), *ASKED, *words)
        assert ended.code == code, ended
        assert len(problems(ended.err)) == (code == 2)
        check_secrets(people, out, ended.out)
        assert found(people, ended.err.encode()) == []  # it may name a person


@pytest.mark.parametrize("nprocs", [1, 2])
def test_a_crash_leaves_no_memory_behind(
    launcher: Launcher, people: People, tmp_path: Path, nprocs: int
) -> None:
    """Core dumps hold everything, so there are none, of no process."""
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("core dumps are forbidden here already")
    out = tmp_path / "out"
    run = launcher.start(
        *people.screen(out), *ASKED[:2], "--shard-size", 1, "--nprocs", nprocs, below=out
    )
    run.wait_for(100)
    run.hold_up()
    of_run = {
        pid: words for pid, words in processes(run.pid).items() if "resource_tracker" not in words
    }
    assert len(of_run) == (1 if nprocs == 1 else 1 + nprocs)
    for pid in of_run:
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(r"Max core file size +0 ", limits), limits
    run.signal(signal.SIGABRT)
    run.signal(signal.SIGCONT)
    ended = run.wait()
    assert ended.code == -signal.SIGABRT
    check_secrets(people, out, ended.out, ended.err)


NO_NETWORK = """
import socket
for family in (socket.AF_INET, socket.AF_INET6):
    try:
        socket.socket(family)
    except PermissionError:
        pass
    else:
        raise SystemExit("there is a way out")
try:
    socket.getaddrinfo("localhost", 80)
except socket.gaierror:
    pass
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="a preloaded library takes gcc")
def test_no_command_asks_for_a_network(people: People, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    shim = build(ROOT / "tests" / "faults" / "no_network.c", tmp_path)
    environment = {**os.environ, "LD_PRELOAD": str(shim), "NETWORK_LOG": str(asked)}

    def run(*words: object) -> int:
        return subprocess.run(
            [str(word) for word in words], env=environment, capture_output=True, check=False
        ).returncode

    assert run(sys.executable, "-c", NO_NETWORK) == 0
    assert len(asked.read_text().splitlines()) == 3
    asked.unlink()
    out = tmp_path / "out"
    assert run(SCRIPT, *people.screen(out), *ASKED, "--nprocs", 2) == 3
    assert run(SCRIPT, *people.words("predict"), "--out", tmp_path / "predicted") == 3
    assert not asked.exists(), asked.read_text()


NETWORK = {"http", "urllib", "urllib3", "requests", "httpx", "aiohttp", "websockets", "ssl"}
NETWORK |= {"ftplib", "smtplib", "poplib", "imaplib", "telnetlib", "xmlrpc", "socketserver"}
SERVERS = ("serve/", "screening/engines/ray.py")
"""What is there to connect."""


def connecting(source: str) -> list[str]:
    """What of a source could be used to reach a network."""
    used: list[str] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                used += [alias.name for alias in node.names if alias.name != "socket"]
            case ast.ImportFrom(module="socket"):
                used += ["socket." + alias.name for alias in node.names]
            case ast.ImportFrom(level=0):
                used.append(node.module or "")
            case ast.Attribute(value=ast.Name(id="socket")) if node.attr != "gethostname":
                used.append("socket." + node.attr)
    return [name for name in used if name.split(".")[0] in {*NETWORK, "socket"}]


def test_no_source_could_reach_a_network() -> None:
    sources = sorted((ROOT / "dtwin_fast").rglob("*.py"))
    assert len(sources) > 40
    reaching = {
        name: connecting(path.read_text("utf-8"))
        for path in sources
        if not (name := path.relative_to(ROOT / "dtwin_fast").as_posix()).startswith(SERVERS)
    }
    assert {name: what for name, what in reaching.items() if what} == {}


def test_what_reaches_a_network_would_be_found() -> None:
    assert connecting("import socket\nsocket.gethostname()") == []
    assert connecting("import socket\nsocket.create_connection(a)")
    assert connecting("from socket import socket")
    assert connecting("import urllib.request as r")
    assert connecting("from http.client import HTTPConnection")
