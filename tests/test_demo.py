"""The demo: the commands that a user could type, one after the other, and what they found."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("nilearn")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from dtwin_fast import cli
from dtwin_fast.commands import demo, train
from dtwin_fast.simulate.files import load_truth
from dtwin_fast.twin_files import load

N_PEOPLE = 20


@dataclass(frozen=True)
class Ran:
    """A demo in a folder of an earlier one."""

    out: Path
    json: str
    said: str

    @property
    def summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads(self.json)
        return summary

    @property
    def printed(self) -> str:
        return "\n".join(demo._lines(self.summary))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    out = tmp_path_factory.mktemp("my demo") / "out"
    _earlier_demo(out)
    stdout, stderr = io.StringIO(), io.StringIO()
    argv = ["demo", "--out", str(out), "--people", str(N_PEOPLE), "--steps", "2", "--seed", "5"]
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        assert cli.main([*argv, "--json"]) == 0
    return Ran(out, stdout.getvalue(), stderr.getvalue())


def _earlier_demo(out: Path) -> None:
    """What a demo left, and a file of the user's."""
    for part in demo.PARTS:
        (out / part).mkdir(parents=True)
        (out / part / "earlier").touch()
    (out / "demo.json").write_text("{}")
    (out / "notes.txt").write_text("mine")


@pytest.mark.slow
def test_every_part_is_there_and_nothing_of_an_earlier_demo(ran: Ran) -> None:
    assert {path.name for path in ran.out.iterdir()} == {*demo.PARTS, "demo.json", "notes.txt"}
    assert not list(ran.out.rglob("earlier"))
    assert (ran.out / "notes.txt").read_text() == "mine"
    for name in (
        *("cohort/cohort.json", "model/config.json", "scores/scores.json"),
        *("intervention/intervention.json", "report/index.html"),
    ):
        assert (ran.out / name).is_file()


@pytest.mark.slow
def test_people_steps_and_seed_reach_the_commands(ran: Ran) -> None:
    truth = load_truth(ran.out / "cohort")
    assert truth is not None
    assert (len(truth.z), truth.population.seed) == (N_PEOPLE, 5)
    twin = load(ran.out / "model")
    assert twin.training["people"] == N_PEOPLE
    assert twin.training["seed"] == 5
    assert twin.training["stage"].count("people") == 2
    scores = json.loads((ran.out / "scores" / "scores.json").read_bytes())
    settings = scores["settings"]
    assert (settings["people"], settings["steps"], settings["seed"]) == (N_PEOPLE, 2, 5)
    intervention = json.loads((ran.out / "intervention" / "intervention.json").read_bytes())
    assert intervention["settings"]["seed"] == 5
    pages = {path.name for path in (ran.out / "report").glob("sub-*.html")}
    assert len(pages) == demo.N_PAGES


@pytest.mark.slow
def test_each_command_is_said_before_it_runs_as_a_user_could_type_it(ran: Ran) -> None:
    lines = [line[2:] for line in ran.said.splitlines() if line.startswith("$ ")]
    assert lines == [step["command"] for step in ran.summary["commands"]]
    commands = [shlex.split(line) for line in lines]
    names = ["simulate", "train", "evaluate", "intervene", "report"]
    assert [words[:2] for words in commands] == [["dtwin", name] for name in names]
    for words in commands:
        args = cli.build_parser().parse_args(words[1:])
        assert args.run is cli.COMMANDS[words[1]][0].run
    # What each of them prints stands below its line.
    said = [
        *("$ dtwin simulate", f"{N_PEOPLE} simulated people, 100 regions", "$ dtwin train"),
        *(f"{N_PEOPLE} people, 4 steps", "$ dtwin evaluate", "concordance", "$ dtwin intervene"),
        *("truth (simulated)", "$ dtwin report", "index.html"),
    ]
    places = [ran.said.index(text) for text in said]
    assert places == sorted(places)


@pytest.mark.slow
def test_the_summary_is_of_what_was_written(ran: Ran) -> None:
    summary = ran.summary
    assert ran.json.count("\n") == 1
    assert summary == json.loads((ran.out / "demo.json").read_bytes())
    scores = json.loads((ran.out / "scores" / "scores.json").read_bytes())
    kept = {(row["task"], row["metric"]): row for row in scores["rows"]}
    wanted = [(task, metric) for task in ("faces", "stroop") for metric in demo.METRICS]
    assert summary["scores"] == [kept[key] for key in wanted]
    assert {row["split"] for row in summary["scores"]} == {"B"}
    assert {row["n_people"] for row in summary["scores"]} == {N_PEOPLE}
    intervention = json.loads((ran.out / "intervention" / "intervention.json").read_bytes())
    assert summary["intervention"]["methods"] == intervention["methods"]
    assert summary["provenance"]["model_sha256"] == load(ran.out / "model").sha256
    assert all(step["seconds"] >= 0 for step in summary["commands"])


@pytest.mark.slow
def test_the_end_has_scores_beside_floors_effects_beside_random_ones_and_the_path(
    ran: Ran,
) -> None:
    printed = ran.printed
    for row in ran.summary["scores"]:
        words = [row["task"], row["metric"], f"{row['model']:.3f}", f"{row['floor']:.3f}"]
        line = next(text for text in printed.splitlines() if text.split("  ")[0] == row["task"]
                    and f"  {row['metric']}  " in text)  # fmt: skip
        assert all(word in line for word in [*words, row["floor_name"], row["verdict"]])
    assert "where it beats the floor" in printed
    assert "dtwin evaluate does it thoroughly" in printed
    methods = ran.summary["intervention"]["methods"]
    assert list(methods) == ["connectome", "weights"]
    for method, effect in methods.items():
        line = next(text for text in printed.splitlines() if text.startswith(method))
        assert f"{effect['mean_effect']:+.2f}" in line
        assert f"{effect['random']['mean_effect']:+.2f}" in line
    true = methods["connectome"]["truth"]["true_change"]
    assert f"{true:+.3f} s by the rules that made these people" in printed
    assert "In silico, not clinical" in printed
    assert printed.splitlines()[-1] == str(ran.out / "report" / "index.html")
    assert max(map(len, printed.splitlines()[:-1])) <= 110


@pytest.mark.slow
def test_what_is_not_known_is_printed_so(ran: Ran) -> None:
    summary = ran.summary
    summary["scores"][0].update(model=None, low=None, high=None, floor=None)
    random = summary["intervention"]["methods"]["weights"]["random"]
    random.update(mean_effect=None, z=None, p=None)
    for effect in summary["intervention"]["methods"].values():
        effect.pop("truth")
    lines = list(demo._lines(summary))
    assert lines[3].split()[:3] == ["faces", "concordance", "n/a"]
    weights = next(text for text in lines if text.startswith("weights"))
    assert "random directions n/a (z n/a, p n/a)" in weights
    assert "rules" not in "\n".join(lines)


# What stops a demo


def _stop(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (OSError(28, "No space left"), 1)]
)
def test_a_demo_that_was_stopped_is_not_in_the_way_of_the_next(
    error: BaseException,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(train, "run", _stop(error))
    out = tmp_path / "out"
    argv = ["demo", "--out", str(out), "--people", str(N_PEOPLE)]
    assert cli.main(argv) == code
    printed = capsys.readouterr().out
    assert f"$ dtwin simulate --out {out}/cohort --people {N_PEOPLE}\n{N_PEOPLE} sim" in printed
    assert f"$ dtwin train {out}/cohort --out {out}/model --steps {demo.STEPS}\n" in printed
    assert not out.exists()
    # In a folder of an earlier demo what is not the demo's stays.
    _earlier_demo(out)
    assert cli.main(argv) == code
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_a_folder_of_something_else_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "mine").touch()
    assert cli.main(["demo", "--out", str(tmp_path)]) == 2
    assert "[out_not_empty]" in capsys.readouterr().err
    assert (tmp_path / "cohort" / "mine").exists()


@pytest.mark.parametrize("package", ["torch", "nilearn", "scikit-learn", "matplotlib"])
def test_a_missing_package_is_said_before_the_work(
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    version = importlib.metadata.version

    def without(name: str) -> str:
        if name == package:
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without)
    assert cli.main(["demo", "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"needs the package {package}: pip install 'dtwin_fast[demo]'" in printed.err
    assert list(tmp_path.iterdir()) == []
