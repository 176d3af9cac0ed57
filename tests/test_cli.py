"""The console script: help, exit codes, what goes to which stream, and signals."""

from __future__ import annotations

import argparse
import csv
import json
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from command_line import Ran, Run, runner

from dtwin_fast import cli
from dtwin_fast.cohort_files import load_cohort
from dtwin_fast.commands.doctor import EXTRAS
from dtwin_fast.commands.options import integer, output_folder
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.prediction_files import NOTICE
from dtwin_fast.provenance import package_version
from dtwin_fast.simulate import simulate
from dtwin_fast.twin import Twin

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = Path(sys.executable).with_name("dtwin")
N_PEOPLE = 5


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


@dataclass(frozen=True)
class Inputs:
    """A model folder and a cohort of N_PEOPLE that fits it."""

    model: Path
    fc: Path
    regions: Path
    subjects: Path

    def predict(self, out: Path) -> list[object]:
        """Arguments of a prediction that works."""
        names = ["--regions", self.regions, "--subjects", self.subjects]
        return ["predict", self.model, self.fc, *names, "--out", out]


@pytest.fixture(scope="module")
def inputs(tiny_twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("inputs")
    tiny_twin.save(folder / "model")
    n_regions = len(tiny_twin.regions)
    series = np.random.default_rng(1).standard_normal((N_PEOPLE, n_regions, 50))
    fc = np.stack([np.corrcoef(person) for person in series]).astype(np.float32)
    np.save(folder / "fc.npy", fc)
    (folder / "regions.csv").write_text("index,name\n" + _numbered(tiny_twin.regions))
    (folder / "people.csv").write_text("row,subject\n" + _numbered(_people()))
    return Inputs(
        folder / "model", folder / "fc.npy", folder / "regions.csv", folder / "people.csv"
    )


def _people() -> list[str]:
    return [f"sub-{letter}" for letter in "edcba"]


def _numbered(names: tuple[str, ...] | list[str]) -> str:
    return "".join(f"{i},{name}\n" for i, name in enumerate(names))


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


# Help and usage


@pytest.mark.parametrize("command", [None, *cli.COMMANDS], ids=lambda name: name or "dtwin")
def test_help_is_plain_text_with_the_exit_codes(run: Run, command: str | None) -> None:
    ran = run(*([] if command is None else [command]), "--help")
    assert ran.code == 0
    assert ran.err == ""
    assert cli.EXIT_CODES in ran.out
    assert "`" not in ran.out, "markup of a docstring reached the terminal"
    assert max(map(len, ran.out.splitlines())) <= 100
    if command is None:
        named = re.findall(r"^    (\w+)", ran.out, re.MULTILINE)
        assert named == list(cli.COMMANDS)


def test_help_explains_every_option() -> None:
    silent = []
    for parser in _parsers():
        silent += [(parser.prog, a.dest) for a in parser._actions if not a.help]
    # The subcommands' own list of commands needs no help text.
    assert silent == [("dtwin", "==SUPPRESS==")]


def _parsers() -> list[argparse.ArgumentParser]:
    return _below(cli.build_parser())


def _below(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    parsers = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            parsers += [below for sub in action.choices.values() for below in _below(sub)]
    return parsers


def test_the_exit_codes_in_the_help_are_those_of_the_code() -> None:
    for code in (0, cli.EXIT_INTERNAL, cli.EXIT_USAGE, 3, cli.EXIT_UNREADABLE, 130, 143):
        assert f" {code}" in cli.EXIT_CODES


def test_version(run: Run) -> None:
    assert run("--version") == Ran(0, f"dtwin_fast {package_version()}\n", "")


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["paint"],
        ["predict"],
        ["predict", "model", "input"],
        ["predict", "model", "input", "--out", "x", "--missing", "guess"],
        ["predict", "model", "input", "--out", "x", "--atlas", "image"],
        ["predict", "model", "input", "--out", "x", "--threads", "0"],
        ["predict", "model", "input", "--out", "x", "--threads", "1025"],
        ["simulate"],
        ["simulate", "--out", "x", "--people", "0"],
        ["simulate", "--out", "x", "--people", "many"],
        ["simulate", "--out", "x", "--seed", "-1"],
        ["simulate", "--out", "x", "--seed", str(2**63)],
        ["simulate", "--out", "x", "--n-regions", "15"],
        ["simulate", "--out", "x", "--factors", "1"],
        ["simulate", "--out", "x", "--n-regions", "20", "--regions", "names.csv"],
        ["train", "cohort", "--out", "x", "--steps", "0"],
        ["train", "cohort", "--out", "x", "--steps", "-3"],
        ["train", "cohort", "--out", "x", "--preset", "huge"],
        ["demo", "--people", "19"],
        ["demo", "--steps", "1.5"],
        ["doctor", "--all"],
        ["cohort"],
        ["cohort", "paint", "folder", "--out", "x"],
        ["cohort", "tables", "--out", "x"],
        ["evaluate", "cohort", "--folds", "1"],
        ["evaluate", "cohort", "--nulls", "-1"],
        ["study", "paint", "folder", "--out", "x"],
        ["study", "pain-sites", "folder"],
        ["bench", "--cases", "paint"],
        ["bench", "--cases", ""],
        ["bench", "--peers", "jax,numpy"],
        ["bench", "--seconds", "0"],
        ["bench", "--ukb-subjects", "0"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2_and_says_how(
    run: Run, argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run(*argv)
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith("usage: dtwin")
    assert "error: " in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["3", " 7 ", "9"])
def test_integers_in_the_range_are_taken(text: str) -> None:
    assert integer(3, 9)(text) == int(text)


@pytest.mark.parametrize(
    "text", ["2", "10", "", "x", "3.0", "1e1", "9" * 5000], ids=lambda t: t[:9]
)
def test_other_text_is_refused_as_an_integer(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="from 3 to 9"):
        integer(3, 9)(text)


# Doctor


def test_doctor_names_every_backend_and_extra(run: Run) -> None:
    ran = run("doctor")
    assert ran.code == 0
    assert ran.err == ""
    for word in ("dtwin_fast", "engine", "gpu", "cpu: rnn float32", "triton", "torch", "nilearn"):
        assert word in ran.out


def test_doctor_json(run: Run) -> None:
    ran = run("doctor", "--json")
    report = json.loads(ran.out)
    assert (ran.code, ran.err) == (0, "")
    assert report["dtwin_fast"] == package_version()
    assert report["engine"]["threads"] >= 1
    assert "rnn float32" in report["backends"]["cpu"]["runs"]
    assert "unavailable" in report["backends"]["cuda"]


def test_doctor_knows_the_extras_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = {
        extra: tuple(
            entry.split(">=")[0].split("==")[0]
            for entry in entries
            if not entry.startswith("dtwin_fast[")
        )
        for extra, entries in project["optional-dependencies"].items()
        if extra not in ("demo", "test", "bench", "dev")
    }
    assert extras == EXTRAS


def test_doctor_says_how_to_get_a_missing_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "xarray", ("no-such-package",))
    line = next(line for line in run("doctor").out.splitlines() if "no-such-package" in line)
    assert line.endswith("no-such-package missing  ->  pip install 'dtwin_fast[xarray]'")


# Predict


def test_predict_writes_what_it_says(run: Run, inputs: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    ran = run(*inputs.predict(out))
    assert ran.code == 0
    assert f"{N_PEOPLE} subjects predicted, 0 rejected" in ran.out
    assert NOTICE in ran.out
    people = _table(out / "participants.tsv")
    assert [row["participant_id"] for row in people] == _people()
    assert _table(out / "rejected.tsv") == []
    for name in _people():
        tables = sorted(p.name for p in (out / name / "func").iterdir())
        assert tables == [f"{name}_task-{t}_desc-dtwin_beh.tsv" for t in ("faces", "stroop")]
    description = json.loads((out / "dataset_description.json").read_text("utf-8"))
    config = json.loads((inputs.model / "config.json").read_text("utf-8"))
    assert description["Provenance"]["model_sha256"] == config["weights_sha256"]


def test_progress_goes_to_stderr_alone(run: Run, inputs: Inputs, tmp_path: Path) -> None:
    ran = run(*inputs.predict(tmp_path / "out"))
    assert "predict:" in ran.err
    assert "write:" in ran.err
    assert "%|" not in ran.out


def test_json_is_all_there_is_on_stdout(run: Run, inputs: Inputs, tmp_path: Path) -> None:
    ran = run(
        *inputs.predict(tmp_path / "out"), "--json", "--backend", "reference", "--threads", "1"
    )
    summary = json.loads(ran.out)
    assert ran.out.count("\n") == 1
    assert summary["subjects"] == N_PEOPLE
    assert summary["backend"] == "reference"
    assert summary["out"] == str(tmp_path / "out")


def test_bold_and_task_choose_what_is_written(run: Run, inputs: Inputs, tmp_path: Path) -> None:
    assert run(*inputs.predict(tmp_path), "--bold", "--task", "stroop").code == 0
    files = {p.name for p in (tmp_path / "sub-a" / "func").iterdir()}
    stem = "sub-a_task-stroop_desc-dtwin_"
    assert files == {f"{stem}beh.tsv", f"{stem}timeseries.tsv"}


def test_ids_that_name_no_files_are_refused_before_the_work(
    run: Run, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = inputs.predict(tmp_path / "out")
    argv[6] = _file(tmp_path, "s.csv", b"subject\na-b\na_b\nc\nd\ne\n")
    monkeypatch.setattr(Twin, "predict", lambda *_, **__: pytest.fail("the work began"))
    ran = run(*argv)
    _check_refusal(ran, 4, tmp_path)
    assert "[subject_label]" in ran.err


def test_a_rejected_subject_gives_exit_3_and_a_row(
    run: Run, inputs: Inputs, tmp_path: Path
) -> None:
    fc = np.load(inputs.fc)
    fc[1, 0, 1] = 0.9
    fc[3] = np.nan
    np.save(tmp_path / "fc.npy", fc)
    argv = inputs.predict(tmp_path / "out")
    argv[2] = tmp_path / "fc.npy"
    ran = run(*argv)
    assert ran.code == 3
    assert "3 subjects predicted, 2 rejected" in ran.out
    rows = _table(tmp_path / "out" / "rejected.tsv")
    assert [(row["source_id"], row["code"]) for row in rows] == [
        ("sub-d", "asymmetric"),
        ("sub-b", "all_missing"),
    ]
    people = _table(tmp_path / "out" / "participants.tsv")
    assert [row["participant_id"] for row in people] == ["sub-e", "sub-c", "sub-a"]


def test_everyone_rejected_still_gives_complete_tables(
    run: Run, inputs: Inputs, tmp_path: Path
) -> None:
    np.save(tmp_path / "fc.npy", np.full((N_PEOPLE, 16, 16), np.nan, np.float32))
    argv = inputs.predict(tmp_path / "out")
    argv[2] = tmp_path / "fc.npy"
    ran = run(*argv, "--json", "--bold")
    assert ran.code == 3
    assert json.loads(ran.out)["rejected"] == N_PEOPLE
    assert len(_table(tmp_path / "out" / "rejected.tsv")) == N_PEOPLE
    assert _table(tmp_path / "out" / "participants.tsv") == []


# Problems that are expected: one line, the right code, nothing left behind

Case = Callable[[Inputs, Path], list[object]]


def _replaced(position: int, value: Callable[[Inputs, Path], object]) -> Case:
    def argv(inputs: Inputs, folder: Path) -> list[object]:
        words = inputs.predict(folder / "out")
        words[position] = value(inputs, folder)
        return words

    return argv


def _with(*more: object) -> Case:
    return lambda inputs, folder: [*inputs.predict(folder / "out"), *more]


def _file(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


UNREADABLE: dict[str, Case] = {
    "model is no folder": _replaced(1, lambda i, f: f / "nowhere"),
    "model is a file": _replaced(1, lambda i, f: i.fc),
    "model is another folder": _replaced(1, lambda i, f: f),
    "input is absent": _replaced(2, lambda i, f: f / "absent.npy"),
    "input is a device": _replaced(2, lambda i, f: "/dev/null"),
    "input is empty": _replaced(2, lambda i, f: _file(f, "empty.npy", b"")),
    "input is cut off": _replaced(2, lambda i, f: _file(f, "cut.npy", i.fc.read_bytes()[:-7])),
    "input is noise": _replaced(2, lambda i, f: _file(f, "noise.npz", b"\x00\xff" * 99)),
    "input is an empty folder": _replaced(2, lambda i, f: f),
    "input has another name": _replaced(2, lambda i, f: _file(f, "fc.docx", b"x")),
    "input's name is too long": _replaced(2, lambda i, f: f / ("x" * 300 + ".npy")),
    "regions are absent": _replaced(4, lambda i, f: f / "absent.csv"),
    "regions have no such column": _replaced(4, lambda i, f: f"{i.regions}:nom"),
    "regions are others": _replaced(4, lambda i, f: f"{i.regions}:index"),
    "subjects are too few": _replaced(6, lambda i, f: _file(f, "s.csv", b"subject\nsub-1\n")),
    "subjects are not text": _replaced(6, lambda i, f: _file(f, "s.csv", b"subject\n\xff\n")),
    "subjects are paths": _replaced(
        6, lambda i, f: _file(f, "s.csv", b"subject\n../a\nb\nc\nd\ne\n")
    ),
    "no regions for an array": lambda i, f: ["predict", i.model, i.fc, "--out", f / "out"],
    "a cohort that is none": lambda i, f: ["train", f, "--out", f / "out"],
    "a cohort to evaluate that is none": lambda i, f: ["evaluate", f, "--model", "krr"],
    "a release that is none": lambda i, f: ["cohort", "tcp", f / "nowhere", "--out", f / "out"],
    "trials that are none": lambda i, f: [
        *("cohort", "tables", "--trials", i.regions, "--out", f / "out"),
    ],
    "a study of an empty folder": lambda i, f: ["study", "pain-sites", f, "--out", f / "out"],
}
USAGE: dict[str, Case] = {
    "unknown task": _with("--task", "chess"),
    "unknown backend": _with("--backend", "abacus"),
    "a backend that is not built": _with("--backend", "cuda"),
    "out is a file": _replaced(8, lambda i, f: _file(f, "file", b"")),
    "out is below a file": _replaced(8, lambda i, f: _file(f, "file", b"") / "out"),
    "out's name is too long": _replaced(8, lambda i, f: f / ("x" * 300)),
    "out is occupied": _replaced(8, lambda i, f: i.model),
    "simulate into a full folder": lambda i, f: ["simulate", "--out", i.model],
    "unknown device": lambda i, f: ["train", f, "--out", f / "out", "--device", "abacus"],
    "a GPU too many": lambda i, f: ["train", f, "--out", f / "out", "--device", "cuda:99"],
    "train into a full folder": lambda i, f: ["train", f, "--out", i.model],
    "demo into a folder not its own": lambda i, f: ["demo", "--out", i.model],
    "unknown baseline": lambda i, f: ["evaluate", f, "--model", "krr", "--baselines", "abacus"],
    "a model that is none": lambda i, f: ["evaluate", f, "--model", "abacus"],
    "evaluate into a full folder": lambda i, f: ["evaluate", f, "--model", "krr", "--out", i.model],
    "a TR that is none": lambda i, f: [
        *("cohort", "tables", "--trials", i.regions, "--tr", "0", "--out", f / "out"),
    ],
    "cohort into a full folder": lambda i, f: ["cohort", "tcp", f, "--out", i.model],
    "study into a full folder": lambda i, f: ["study", "pain-sites", f, "--out", i.model],
    "more people than can be": lambda i, f: ["simulate", "--out", f / "o", "--people", 10**8],
}


def _check_refusal(ran: Ran, code: int, folder: Path) -> None:
    assert ran.code == code
    assert ran.out == ""
    assert "Traceback" not in ran.err
    assert len([line for line in ran.err.splitlines() if line.startswith("dtwin: ")]) == 1
    assert not any(path.is_dir() for path in folder.iterdir())


@pytest.mark.parametrize("case", UNREADABLE.values(), ids=UNREADABLE)
def test_unreadable_input_exits_4(run: Run, inputs: Inputs, tmp_path: Path, case: Case) -> None:
    _check_refusal(run(*case(inputs, tmp_path)), 4, tmp_path)


@pytest.mark.parametrize("case", USAGE.values(), ids=USAGE)
def test_impossible_requests_exit_2(run: Run, inputs: Inputs, tmp_path: Path, case: Case) -> None:
    kept = sorted(inputs.model.iterdir())
    _check_refusal(run(*case(inputs, tmp_path)), 2, tmp_path)
    assert sorted(inputs.model.iterdir()) == kept


def test_names_that_no_terminal_can_show(inputs: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "gr\udcfcn"  # a Latin-1 byte in a file name
    words = ["env", "-i", "PYTHONUTF8=0", "LC_ALL=C", "PYTHONCOERCECLOCALE=0"]
    ran = subprocess.run(
        [*words, SCRIPT, *map(str, inputs.predict(out))], capture_output=True, timeout=60
    )
    assert b"Traceback" not in ran.stderr
    assert ran.returncode == 0
    assert rb"-> " in ran.stdout
    assert (out / "dataset_description.json").is_file()


def test_a_full_disk_is_one_line(
    run: Run, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "x.tsv")

    monkeypatch.setattr("dtwin_fast.files.os.fsync", full)
    ran = run(*inputs.predict(tmp_path / "out"))
    assert ran.code == 1
    place = tmp_path / "out" / "rejected.tsv"  # the file that was to be, not the temporary one
    assert ran.err.splitlines()[-1] == f"dtwin: [Errno 28] No space left on device: '{place}'"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "dtwin: out of memory"),
        (FloatingPointError("the loss is nan"), "dtwin: the loss is nan"),
        (KeyboardInterrupt(), "dtwin: stopped"),
    ],
    ids=["memory", "diverged training", "interrupt"],
)
def test_failures_of_the_work_are_one_line(
    run: Run,
    inputs: Inputs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    message: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Twin, "predict", fail)
    ran = run(*inputs.predict(tmp_path / "out"))
    assert ran.code == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert ran.err.splitlines()[-1].startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_a_programming_error_is_not_hidden(
    run: Run, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Twin, "predict", fail)
    with pytest.raises(ZeroDivisionError):
        run(*inputs.predict(tmp_path / "out"))


# The output folder


def test_an_empty_folder_stays_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyError), output_folder(tmp_path):
        raise KeyError
    assert tmp_path.is_dir()


def test_what_was_written_stays_when_the_work_fails(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def work() -> None:
        (out / "part").touch()
        raise KeyError

    with pytest.raises(KeyError), output_folder(out):
        work()
    assert (out / "part").exists()


def test_a_folder_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The superuser may write anywhere, so the answer of the system is made up.
    monkeypatch.setattr("dtwin_fast.commands.options.os.access", lambda *_: False)
    with pytest.raises(DTwinInputError, match="out_unwritable"), output_folder(tmp_path / "out"):
        pytest.fail("the work began")


# Simulate and train


def test_simulate_then_train_then_predict(run: Run, tmp_path: Path) -> None:
    cohort, model, out = (tmp_path / name for name in ("cohort", "model", "out"))
    names = _file(tmp_path, "names.csv", b"parcel,area\n" + _areas(20))
    regions = ["--regions", f"{names}:area"]
    sizes = ["--people", "4", *regions, "--factors", "7"]
    ran = run("simulate", "--out", cohort, *sizes, "--seed", "3", "--json")
    assert ran.code == 0
    assert json.loads(ran.out) == {"out": str(cohort), "people": 4, "regions": 20}
    areas = [f"area-{i}" for i in range(20)]
    wanted = simulate(4, 20, seed=3, n_factors=7, region_names=areas).cohort.connectomes
    np.testing.assert_array_equal(load_cohort(cohort).connectomes.edges, wanted.edges)
    ran = run("train", cohort, "--out", model, "--preset", "tiny", "--steps", "2", "--json")
    assert ran.code == 0
    assert "train:" in ran.err
    summary = json.loads(ran.out)
    assert summary["device"] == "cpu"
    config = json.loads((model / "config.json").read_text("utf-8"))
    assert summary["model_sha256"] == config["weights_sha256"]
    assert config["regions"] == [f"area-{i}" for i in range(20)]
    people = ["--subjects", cohort / "participants.tsv", "--regions", cohort / "regions.tsv"]
    ran = run("predict", model, cohort / "connectomes.npy", *people, "--out", out)
    assert ran.code == 0
    assert len(_table(out / "participants.tsv")) == 4
    # The folder itself is input too, and gives the same.
    ran = run("predict", model, cohort, "--out", tmp_path / "again")
    assert ran.code == 0
    for table in ("participants.tsv", "contrasts.tsv"):
        assert (tmp_path / "again" / table).read_bytes() == (out / table).read_bytes()
    ran = run("predict", model, cohort, *people, "--out", tmp_path / "third")
    assert ran.code == 2
    assert "[cohort_options]" in ran.err
    assert not (tmp_path / "third").exists()


def _areas(n: int) -> bytes:
    return "".join(f"{i % 3},area-{i}\n" for i in range(n)).encode()


# A real process: signals and a reader that goes away


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("cohort") / "cohort"
    subprocess.run(
        [SCRIPT, "simulate", "--out", folder, "--people", "4", "--n-regions", "16"],
        check=True,
        capture_output=True,
        timeout=120,
    )
    return folder


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143)],
    ids=["ctrl-c", "terminate"],
)
def test_a_signal_ends_the_training_cleanly(
    cohort: Path, tmp_path: Path, number: int, code: int
) -> None:
    argv = [SCRIPT, "train", cohort, "--out", tmp_path / "model", "--preset", "tiny"]
    with subprocess.Popen(
        [*argv, "--steps", "1000000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stderr is not None
            assert process.stdout is not None
            process.stderr.read(1)  # the progress bar: training has begun
            process.send_signal(number)
            assert process.wait(60) == code
            err = process.stderr.read()
            assert process.stdout.read() == b""
        finally:
            process.kill()
    assert b"train:" in err
    assert b"Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_closed_pipe_is_no_traceback() -> None:
    with subprocess.Popen(
        [SCRIPT, "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(60) == 1
