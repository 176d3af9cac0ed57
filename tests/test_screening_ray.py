"""Screening on a real Ray of this machine: bits, deaths, errors, and who can reach it."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtwin_fast.errors import DTwinInputError, MissingExtraError
from dtwin_fast.screening import ENGINES, Resources, prepare, run
from dtwin_fast.screening.engines.ray import connected
from dtwin_fast.screening.manifest import RunFolder
from dtwin_fast.twin import Twin

pytest.importorskip("pyarrow")
pytest.importorskip("zarr")
if importlib.util.find_spec("ray") is None:  # the engine imports it, in its own environment
    pytest.skip("ray is not installed", allow_module_level=True)
pytestmark = pytest.mark.slow

N_PEOPLE, SHARD_SIZE = 240, 8
N_SHARDS = N_PEOPLE // SHARD_SIZE
BAD = 17
BEGUN = 3
"""Shards that are done when somebody is killed."""
PATIENCE_S = 60.0
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Ray's own, which know nothing of a run and look for their cluster for a minute."""
DTWIN = [sys.executable, "-c", "import sys; from dtwin_fast.cli import main; sys.exit(main())"]


@dataclass(frozen=True)
class Inputs:
    """A model folder, and people of whom one cannot be used."""

    model: Path
    fc: Path
    regions: Path

    @property
    def people(self) -> dict[str, Any]:
        """Arguments of open_people."""
        return {"path": self.fc, "regions": self.regions}

    def screen(self, out: Path, engine: str, nprocs: int = 2, **options: Any) -> None:
        prepared = prepare(
            self.model, self.people, out, shard_size=SHARD_SIZE, resources=Resources(nprocs)
        )
        run(prepared, engine=engine, **options)

    def words(self, out: Path) -> list[str]:
        """The same run as a command."""
        places = [str(place) for place in (self.model, self.fc, out, "--regions", self.regions)]
        return ["screen", *places, "--shard-size", str(SHARD_SIZE)]


@pytest.fixture(scope="module")
def inputs(tiny_twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("inputs")
    tiny_twin.save(folder / "model")
    rng = np.random.default_rng(7)
    edges = np.tanh(rng.normal(0.1, 0.25, (N_PEOPLE, tiny_twin.spec.n_edges))).astype(np.float32)
    edges[BAD, 3] = np.inf
    np.save(folder / "fc.npy", edges)
    (folder / "regions.tsv").write_text("\n".join(["name", *tiny_twin.regions]) + "\n")
    return Inputs(folder / "model", folder / "fc.npy", folder / "regions.tsv")


@pytest.fixture(scope="module")
def wanted(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of an unbroken run of the local engine."""
    out = tmp_path_factory.mktemp("whole") / "out"
    inputs.screen(out, "local", nprocs=1)
    return digests(out)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Ray, of this machine alone."""
    with connected(nprocs=2) as ray:
        yield ray


def digests(out: Path) -> dict[str, str]:
    """SHA-256 of every file of results."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.relative_to(out).parts[0] not in (".dtwin", "logs")
    }


def stranger() -> dict[str, str]:
    """The environment of somebody who has no token."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}


def logged_shards(out: Path) -> list[int]:
    """Numbers of the shards that the logs of a folder call done."""
    lines = [line for log in (out / "logs").iterdir() for line in log.read_text().splitlines()]
    return [entry["shard"] for entry in map(json.loads, lines) if entry["event"] == "done"]


def descendants(pid: int) -> dict[int, str]:
    """Processes below one -> their command lines."""
    parents, names = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int(
                (entry / "stat").read_text().rpartition(")")[2].split()[1]
            )
            names[int(entry.name)] = (entry / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    below = {pid}
    while found := {child for child, parent in parents.items() if parent in below} - below:
        below |= found
    return {child: names[child] for child in below - {pid} if child in names}


def is_running(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def actors(pid: int) -> list[int]:
    """Processes of actors below one."""
    return [child for child, name in descendants(pid).items() if name.startswith("ray::Actor")]


def until(condition: Any) -> None:
    """Wait; fails when it takes too long."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_results_are_those_of_the_local_engine(
    cluster: Any, inputs: Inputs, wanted: dict[str, str], tmp_path: Path
) -> None:
    inputs.screen(tmp_path / "out", "ray")
    assert digests(tmp_path / "out") == wanted
    assert sorted(logged_shards(tmp_path / "out")) == list(range(N_SHARDS))


def test_a_killed_actor_loses_nothing(
    cluster: Any, inputs: Inputs, wanted: dict[str, str], tmp_path: Path
) -> None:
    killed = []

    def kill(done: int, total: int) -> None:
        if done >= BEGUN * SHARD_SIZE and not killed:
            killed.append(actors(os.getpid())[0])
            os.kill(killed[0], signal.SIGKILL)

    inputs.screen(tmp_path / "out", "ray", progress=kill)
    assert killed
    assert digests(tmp_path / "out") == wanted
    assert sorted(logged_shards(tmp_path / "out")) == list(range(N_SHARDS))


def test_actors_that_always_die_end_the_run(
    cluster: Any, inputs: Inputs, wanted: dict[str, str], tmp_path: Path
) -> None:
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.01):
            for pid in actors(os.getpid()):
                os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(ChildProcessError, match=r"3 actors died .* --resume"):
            inputs.screen(tmp_path / "out", "ray", nprocs=1)
    finally:
        over.set()
        killer.join()
    # Nothing may have been done: then the folder has no shards of their size yet.
    resumed = prepare(
        inputs.model, inputs.people, tmp_path / "out", resume=True, shard_size=SHARD_SIZE
    )
    run(resumed)
    assert digests(tmp_path / "out") == wanted


@pytest.mark.parametrize("own", [True, False], ids=["cluster of its own", "cluster by address"])
def test_a_killed_driver_leaves_nobody_and_resume_goes_on(
    cluster: Any, inputs: Inputs, wanted: dict[str, str], tmp_path: Path, own: bool
) -> None:
    words = [*inputs.words(tmp_path / "out"), "--engine", "ray", "--nprocs", "2"]
    environment = stranger() if own else dict(os.environ)
    if not own:
        words += ["--ray-address", cluster.get_runtime_context().gcs_address]
    command = [*DTWIN, *words]
    done = RunFolder(tmp_path / "out").state / "done"
    with subprocess.Popen(command, env=environment) as driver:
        until(lambda: done.is_dir() and len(list(done.glob("shard-*.json"))) >= BEGUN)
        below = set(actors(os.getpid()))
        if own:
            found = descendants(driver.pid)
            below = {pid for pid, name in found.items() if not name.startswith(AGENTS)}
        driver.kill()
    assert below
    assert len(list(done.glob("shard-*.json"))) < N_SHARDS
    until(lambda: not any(map(is_running, below)))
    run(prepare(inputs.model, inputs.people, tmp_path / "out", resume=True))
    assert digests(tmp_path / "out") == wanted


def test_an_actors_error_is_the_callers(cluster: Any, inputs: Inputs, tmp_path: Path) -> None:
    copied = replace(inputs, fc=tmp_path / "fc.npy")
    copied.fc.write_bytes(inputs.fc.read_bytes())
    prepared = prepare(copied.model, copied.people, tmp_path / "out", resources=Resources(2))
    np.save(copied.fc, np.zeros((N_PEOPLE, 120), np.float32))
    with pytest.raises(DTwinInputError) as caught:
        run(prepared, engine="ray")
    assert type(caught.value) is DTwinInputError
    assert caught.value.code == "input_changed"
    missing = copy.copy(MissingExtraError("zarr", "screen", "A screening"))
    assert (missing.package, missing.extra) == ("zarr", "screen")


def test_a_machine_without_the_runs_folder_takes_no_part(inputs: Inputs, tmp_path: Path) -> None:
    job = prepare(inputs.model, inputs.people, tmp_path / "out").job
    with pytest.raises(DTwinInputError) as caught:
        job.open()
    assert caught.value.code == "results_incomplete"
    assert not (tmp_path / "out").exists()


def test_too_many_actors_are_refused(cluster: Any, inputs: Inputs, tmp_path: Path) -> None:
    with pytest.raises(DTwinInputError, match="--nprocs"):
        inputs.screen(tmp_path / "out", "ray", nprocs=N_SHARDS)


def test_other_machines_cannot_reach_it(cluster: Any) -> None:
    processes = [os.getpid(), *descendants(os.getpid())]
    handles = [handle for pid in processes for handle in Path(f"/proc/{pid}/fd").iterdir()]
    opened = [str(handle.readlink()) for handle in handles if handle.is_symlink()]
    sockets = {name[len("socket:[") : -1] for name in opened if name.startswith("socket:[")}
    listening = [
        fields[1].partition(":")[0]
        for table in ("tcp", "tcp6")
        for fields in map(str.split, Path(f"/proc/net/{table}").read_text().splitlines()[1:])
        if fields[3] == "0A" and fields[9] in sockets
    ]
    assert len(listening) >= 3
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert set(listening) <= loopback


def test_other_users_of_the_machine_are_kept_out(cluster: Any) -> None:
    files = [
        Path(word)
        for name in descendants(os.getpid()).values()
        for word in name.replace("=", "\0").split("\0")
        if word.startswith("/tmp/dtwin-ray-")
    ]
    assert files
    for path in {Path(*path.parts[:3]) for path in files}:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    program = "import sys, ray; ray.init(address=sys.argv[1])"
    address = cluster.get_runtime_context().gcs_address
    ran = subprocess.run(
        [sys.executable, "-c", program, address],
        env=stranger() | {"RAY_NUM_REDIS_GET_RETRIES": "2"},
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert ran.returncode != 0
    assert "Unauthenticated" in ran.stderr


def test_a_cluster_that_others_may_reach_is_warned_of() -> None:
    program = (
        "from dtwin_fast.screening.engines.ray import connected\n"
        "with connected('127.0.0.1:9'): pass\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], env=stranger(), capture_output=True, text=True, check=False
    )
    assert "RuntimeWarning" in ran.stderr
    assert "RAY_AUTH_MODE=token" in ran.stderr
    assert "DTwinInputError: [argument] --ray-address" in ran.stderr


def test_without_ray_the_extra_is_named(inputs: Inputs, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'ray':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from dtwin_fast.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = [*inputs.words(tmp_path / "out"), "--engine", "ray"]
    ran = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert "dtwin_fast[ray]" in ran.stderr


def test_an_address_needs_the_engine(inputs: Inputs, tmp_path: Path) -> None:
    assert list(ENGINES) == ["local", "ray"]
    words = [*inputs.words(tmp_path / "out"), "--ray-address", "auto"]
    ran = subprocess.run(
        [*DTWIN, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert "--ray-address" in ran.stderr
