"""``dtwin screen`` is killed, cannot write, is stopped and disturbed: nothing is torn or lost.

Results depend on nothing but the model, the people and the settings, so whatever a disturbed run
leaves can be compared with an unbroken one byte for byte. Draws are seeded; DTWIN_CHAOS=1
(``make chaos``) makes 300 kills of the 30 and fails every call with every error.
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("zarr")

from faults import Ended, Launcher, problems, processes
from faults.job import (
    Job,
    digests,
    done_shards,
    litter,
    logged,
    make_job,
    rows,
    shard_files,
    short_twin,
    torn,
)

from dtwin_fast.twin import Twin

SCRIPT = Path(sys.executable).with_name("dtwin")
CHAOS = "DTWIN_CHAOS" in os.environ
KILLS = {1: 200, 2: 100} if CHAOS else {1: 22, 2: 8}
"""Processes of a run -> how many times runs are killed."""
KILLS_OF_A_RUN = 3
SEED = 20261129
ERRORS = ("ENOSPC", "EIO", "EDQUOT")
KINDS = {"mkdir", "open", "write", "pwrite", "fsync", "ftruncate", "rename", "link"}
REJECTED_SOME = 3
"""The exit code of every run here that is done."""
MOMENT_S = 0.02
"""About as long as a shard takes."""


@dataclass(frozen=True)
class Whole:
    """A job, and what one unbroken run of it made and took."""

    job: Job
    digests: dict[str, str]
    n_calls: int

    @property
    def n_shards(self) -> int:
        return -(-self.job.n_people // self.job.shard_size)


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    if sys.platform != "linux" or shutil.which("gcc") is None:
        pytest.skip("faults are made by a preloaded library, which takes Linux and gcc")
    with Launcher(tmp_path_factory.mktemp("launcher")) as started:
        yield started


@pytest.fixture(scope="module")
def long(launcher: Launcher, tiny_twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A run of 60 shards, which can be caught in the middle."""
    folder = tmp_path_factory.mktemp("long")
    twin = short_twin(tiny_twin)
    job = make_job(folder / "job", twin, 120, shard_size=2, outputs="contrasts")
    return unbroken(launcher, job, folder / "run")


@pytest.fixture
def ram(tmp_path: Path) -> Iterator[Path]:
    """A folder where hundreds of runs need not wait for a disk, which kills say nothing of."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def unbroken(launcher: Launcher, job: Job, folder: Path, *more: object) -> Whole:
    folder.mkdir()
    run = launcher.start(*job.words(folder / "out", *more), below=folder / "out")
    assert run.wait().code == REJECTED_SOME
    return Whole(job, digests(folder / "out"), run.journal.n_calls)


@pytest.fixture(scope="module")
def whole(launcher: Launcher, tiny_twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A run of 13 shards, the last one of fewer people."""
    folder = tmp_path_factory.mktemp("whole")
    twin = short_twin(tiny_twin)
    job = make_job(folder / "job", twin, 100, shard_size=8, outputs="contrasts,range")
    return unbroken(launcher, job, folder / "run")


@pytest.fixture(scope="module")
def small(launcher: Launcher, tiny_twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A run of two shards."""
    folder = tmp_path_factory.mktemp("small")
    twin = short_twin(tiny_twin)
    job = make_job(folder / "job", twin, 16, shard_size=8, outputs="contrasts")
    return unbroken(launcher, job, folder / "run")


def test_the_launcher_runs_what_the_console_script_runs(whole: Whole, tmp_path: Path) -> None:
    words = [str(word) for word in whole.job.words(tmp_path / "out")]
    ran = subprocess.run([SCRIPT, *words], capture_output=True, text=True, check=False)
    assert ran.returncode == REJECTED_SOME, ran.stderr
    assert digests(tmp_path / "out") == whole.digests
    assert rows(tmp_path / "out") == Counter(range(whole.job.n_people))
    assert len(whole.digests) > 4 * whole.n_shards


def resume(launcher: Launcher, whole: Whole, out: Path, *more: object) -> None:
    """Go on with a run to its end: its files are those of the unbroken run, and nothing else."""
    done_before = shard_files(out)
    kept = {shard: done_before[shard] for shard in done_shards(out)}
    ended = launcher.run(*whole.job.words(out, "--resume", *more))
    assert ended.code == REJECTED_SOME, ended.err
    assert digests(out) == whole.digests
    assert litter(out) == []
    after = shard_files(out)
    assert {shard: after[shard] for shard in kept} == kept  # what was done is not done again
    assert rows(out) == Counter(range(whole.job.n_people))


@dataclass
class Figures:
    """What came of the kills."""

    kills: int = 0
    at_calls: int = 0
    torn: int = 0
    half_done: list[int] = field(default_factory=list)
    """Of each kill: shards of which there are files, but no record."""
    done: list[int] = field(default_factory=list)
    jobs: int = 0


@pytest.mark.parametrize("nprocs", KILLS)
def test_runs_killed_again_and_again_end_as_if_nothing_had_been(
    launcher: Launcher, whole: Whole, ram: Path, nprocs: int
) -> None:
    """SIGKILL to all processes, at a call that writes or a moment after it, both drawn."""
    figures = Figures()
    while figures.kills < KILLS[nprocs]:
        seed = f"{SEED} {nprocs} {figures.jobs}"
        out = ram / f"{figures.jobs}" / "out"
        try:
            _killed_job(launcher, whole, out, nprocs, random.Random(seed), figures)
        except AssertionError as error:
            raise AssertionError(f"of the job with seed {seed!r} in {out}: {error}") from error
        shutil.rmtree(out.parent)
        figures.jobs += 1
    print(
        f"\n{nprocs} processes: {figures.kills} kills, {figures.at_calls} of them at a call, in "
        f"{figures.jobs} jobs of {whole.n_shards} shards; {figures.torn} torn files; "
        f"shards begun and not done at a kill: {dict(Counter(figures.half_done))}; "
        f"shards done at a kill: {min(figures.done)} to {max(figures.done)}"
    )
    assert figures.torn == 0
    assert max(figures.half_done) <= nprocs
    assert len(set(figures.done)) > 2  # they were killed in different places


def _killed_job(
    launcher: Launcher,
    whole: Whole,
    out: Path,
    nprocs: int,
    rng: random.Random,
    figures: Figures,
) -> None:
    out.parent.mkdir()
    words = whole.job.words(out, "--resume", "--nprocs", nprocs)
    for _ in range(KILLS_OF_A_RUN):
        kept = {shard: shard_files(out)[shard] for shard in done_shards(out)}
        left = 1 - len(kept) / whole.n_shards
        at = rng.randint(1, round(whole.n_calls * max(left, 1 / 4)))
        if at_call := rng.random() < 0.5:
            run = launcher.start(*words, below=out.parent, at=at, action="kill")
        else:
            run = launcher.start(*words, below=out.parent)
            run.wait_for(at)
            time.sleep(rng.uniform(0, MOMENT_S))
            run.kill_all()
        ended = run.wait()
        if ended.code == REJECTED_SOME:
            break  # done before the call came, or the time
        assert ended.code == -signal.SIGKILL, ended.err
        found = shard_files(out)
        figures.kills += 1
        figures.at_calls += at_call
        figures.torn += len(torn(out, whole.digests))
        figures.half_done.append(len(found.keys() - done_shards(out)))
        figures.done.append(len(done_shards(out)))
        assert {shard: found[shard] for shard in kept} == kept
    resume(launcher, whole, out)
    assert set(logged(out).values()) <= {1}  # no shard was done twice


@pytest.mark.parametrize("error", ERRORS if CHAOS else ["by turns"])
def test_a_call_that_fails_is_one_clear_error(
    launcher: Launcher, small: Whole, ram: Path, error: str
) -> None:
    """Every call that writes, one in each run."""
    failed = Counter[str]()
    at = 0
    while True:
        at += 1
        action = ERRORS[at % len(ERRORS)] if error == "by turns" else error
        out = ram / f"{at}" / "out"
        out.parent.mkdir()
        run = launcher.start(*small.job.words(out), below=out.parent, at=at, action=action)
        ended = run.wait()
        if run.journal.n_calls < at:
            break  # there was no such call any more
        call = run.journal.calls()[at - 1]
        failed[call.kind] += 1
        try:
            check_failed(ended, out, call.path, action, small)
            resume(launcher, small, out)
        except AssertionError as problem:
            raise AssertionError(f"{action} at call {at}, {call}: {problem}") from problem
        shutil.rmtree(out.parent)
    print(f"\n{error}: {dict(failed)} failed")
    assert ended.code == REJECTED_SOME
    assert set(failed) == KINDS


TEXTS = {
    "ENOSPC": "No space left on device",
    "EIO": "Input/output error",
    "EDQUOT": "Disk quota exceeded",
    "full": "No space left on device",
}


def check_failed(ended: Ended, out: Path, place: Path, action: str, whole: Whole) -> None:
    """A run that could not write: one line says what, and no file is there in part."""
    assert ended.code == 1, ended
    (line,) = problems(ended.err)
    assert line.startswith("dtwin: "), line
    assert TEXTS[action] in line
    assert str(place if not place.name.endswith(".part") else place.parent) in line, line
    assert ".part" not in line
    if out.exists():
        assert torn(out, whole.digests) == []
        assert litter(out) == []


def test_a_full_disk_stays_full(launcher: Launcher, small: Whole, ram: Path) -> None:
    """From a drawn call on nothing can be written any more."""
    rng = random.Random(SEED)
    calls = range(1, small.n_calls)
    for at in calls if CHAOS else rng.sample(calls, 8):
        out = ram / f"{at}" / "out"
        out.parent.mkdir()
        run = launcher.start(*small.job.words(out), below=out.parent, at=at, action="full")
        ended = run.wait()
        try:
            check_failed(ended, out, out, "full", small)
            resume(launcher, small, out)
        except AssertionError as problem:
            raise AssertionError(f"full from call {at} on: {problem}") from problem


def test_a_real_disk_that_is_full(whole: Whole, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    out = tmp_path / "disk" / "out"
    words = [str(word) for word in (SCRIPT, *whole.job.words(out))]
    mounts = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    disk = f"mount -t tmpfs -o size=160k none {out.parent}"
    tried = subprocess.run([*mounts, disk], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"no file system may be mounted here: {tried.stderr.strip()}")
    first, then = shlex.join(words), shlex.join([*words, "--resume"])
    script = f"""{disk} && {{
        {first} 2>{tmp_path}/first.err; echo $?
        mount -o remount,size=16m {out.parent}
        ls {out}/.dtwin/done | wc -l
        {then} >{tmp_path}/then.out; echo $?
        cp -r {out} {tmp_path}/out
    }}"""
    ran = subprocess.run([*mounts, script], capture_output=True, text=True, check=True)
    code, done, resumed = map(int, ran.stdout.split())
    check_failed(Ended(code, "", (tmp_path / "first.err").read_text()), out, out, "full", whole)
    assert 0 < done < whole.n_shards  # it was full in the middle
    assert resumed == REJECTED_SOME
    assert digests(tmp_path / "out") == whole.digests


def test_writes_by_halves_are_gone_on_with(launcher: Launcher, small: Whole, ram: Path) -> None:
    out = ram / "out"
    run = launcher.start(*small.job.words(out), below=out, at=1, action="short")
    assert run.wait().code == REJECTED_SOME
    assert run.journal.n_calls > small.n_calls
    assert digests(out) == small.digests


@pytest.mark.parametrize(
    ("number", "times", "nprocs"),
    [
        (signal.SIGTERM, 1, 1),
        (signal.SIGTERM, 2, 1),
        (signal.SIGTERM, 1, 2),
        (signal.SIGINT, 1, 1),
        (signal.SIGINT, 1, 2),
        (signal.SIGINT, 2, 2),
    ],
)
def test_a_signal_stops_a_run_that_can_be_gone_on_with(
    launcher: Launcher,
    long: Whole,
    tmp_path: Path,
    number: signal.Signals,
    times: int,
    nprocs: int,
) -> None:
    """SIGTERM to the command, as of a batch system; SIGINT to all, as of a terminal."""
    out = tmp_path / "out"
    words = [str(word) for word in long.job.words(out, "--nprocs", nprocs)]
    run = subprocess.Popen(
        [SCRIPT, *words], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    await_done(out, 2)
    for _ in range(times):
        (os.killpg if number == signal.SIGINT else os.kill)(run.pid, number)
        time.sleep(MOMENT_S)
    _, err = run.communicate(timeout=60)
    # The second may come when the interpreter has taken down what it does at a signal.
    assert run.returncode in ({128 + number} if times == 1 else {128 + number, -number}), err
    if times == 1:
        assert problems(err) == (["dtwin: stopped"] if number == signal.SIGINT else [])
    await_end(run.pid)
    assert 2 <= len(done_shards(out)) < long.n_shards
    assert torn(out, long.digests) == []
    # Asked twice, it does not wait for the file that is being written.
    assert times == 2 or litter(out) == []
    resume(launcher, long, out)


def await_done(out: Path, n_shards: int) -> None:
    until = time.monotonic() + 60
    while len(done_shards(out)) < n_shards:
        assert time.monotonic() < until
        time.sleep(0.002)


def await_end(group: int) -> None:
    """No process of the group is left, or will be in a moment."""
    until = time.monotonic() + 10
    while left := processes(group):
        assert time.monotonic() < until, left
        time.sleep(0.01)


def test_a_run_that_is_held_up_keeps_its_folder(
    launcher: Launcher, long: Whole, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = launcher.start(*long.job.words(out), below=out)
    first.wait_for(long.n_calls // 2)
    first.hold_up()
    before = shard_files(out)
    assert 0 < len(before) < long.n_shards
    for more in (["--resume"], ["--shard", "0/2"]):
        second = launcher.run(*long.job.words(out, *more))
        assert second.code == 2
        (line,) = problems(second.err)
        assert line.startswith("dtwin: [locked]")
        assert f"pid {first.pid} on {socket.gethostname()}" in line
    assert shard_files(out) == before
    first.signal(signal.SIGCONT)
    assert first.wait().code == REJECTED_SOME
    assert digests(out) == long.digests


def test_a_worker_that_is_killed_ends_the_run(
    launcher: Launcher, long: Whole, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run = launcher.start(*long.job.words(out, "--nprocs", 2))
    await_done(out, 2)
    workers = [pid for pid, words in processes(run.pid).items() if "spawn_main" in words]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    ended = run.wait()  # and no process is left
    assert ended.code == 1
    (line,) = problems(ended.err)
    assert f"worker process {workers[0]} ended with signal SIGKILL" in line
    assert "--resume" in line
    assert torn(out, long.digests) == []
    resume(launcher, long, out)


def test_workers_end_with_the_command_that_started_them(
    launcher: Launcher, long: Whole, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run = launcher.start(*long.job.words(out, "--nprocs", 2))
    await_done(out, 2)
    run.signal(signal.SIGKILL)
    assert run.wait().code == -signal.SIGKILL  # and no process is left
    assert len(done_shards(out)) < long.n_shards
    assert torn(out, long.digests) == []
    resume(launcher, long, out, "--nprocs", 2)


def test_parts_that_are_killed_are_run_again(
    launcher: Launcher, whole: Whole, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = launcher.start(
        *whole.job.words(out, "--shard", "0/2"), below=out, at=whole.n_calls // 4, action="kill"
    )
    second = launcher.start(*whole.job.words(out, "--shard", "1/2"))
    assert first.wait().code == -signal.SIGKILL
    ended = second.wait()
    assert ended.code == REJECTED_SOME
    assert "Other parts are not done yet" in ended.out
    assert not (out / "scores.parquet").exists()
    assert launcher.run(*whole.job.words(out, "--shard", "0/2")).code == REJECTED_SOME
    assert digests(out) == whole.digests
    assert litter(out) == []


@pytest.mark.parametrize("how", ["missing", "damaged", "cut off"])
@pytest.mark.parametrize(
    "name", ["arrays.zarr/contrasts/c.5.0.0", ".dtwin/parts/shard-00005.scores.parquet"]
)
def test_files_that_changed_between_runs_are_noticed(
    launcher: Launcher, whole: Whole, tmp_path: Path, name: str, how: str
) -> None:
    out = tmp_path / "out"
    words = whole.job.words(out, "--resume")
    at = whole.n_calls * 3 // 4
    run = launcher.start(*words, below=out, at=at, action="kill")
    assert run.wait().code == -signal.SIGKILL
    assert 5 in done_shards(out)
    data = (out / name).read_bytes()
    (out / name).unlink()
    if how != "missing":
        (out / name).write_bytes(data[:-1] + (b"" if how == "cut off" else b"?"))
    ended = launcher.run(*words)
    assert ended.code == 4
    (line,) = problems(ended.err)
    assert line.startswith(f"dtwin: [results_damaged] {out / name}: a file of shard 5 "), line
    # The way out that the error names.
    (out / ".dtwin/done/shard-00005.json").unlink()
    resume(launcher, whole, out)
