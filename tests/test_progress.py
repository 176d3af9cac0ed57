"""The progress bar: a rate that counts from the start of the work, and nothing on stdout."""

from __future__ import annotations

import re
import time

import pytest

from dtwin_fast.commands.progress import Progress

pytest.importorskip("tqdm")

WORK_S = 0.5


def test_rate_counts_from_the_start_of_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("predict", "subjects") as progress:
        time.sleep(WORK_S)
        progress(100, 100)  # the first report is the last one
    out, err = capsys.readouterr()
    last = err.strip().splitlines()[-1].split("\r")[-1]
    assert out == ""
    assert last.startswith("predict: 100%")
    assert "100/100" in last
    found = re.search(r"([0-9.]+) subjects/s", last)
    assert found is not None, last
    assert float(found[1]) <= 100 / WORK_S


def test_a_note_and_the_total_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("train", "steps") as progress:
        progress(1, 4, "loss 2")
        progress(3, 4, "loss 1")
    err = capsys.readouterr().err
    assert "3/4" in err
    assert "loss 1" in err


def test_reports_outside_of_the_work_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Progress("train", "steps")(1, 2)
    assert capsys.readouterr() == ("", "")


def test_without_tqdm_it_says_how_to_get_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with Progress("predict", "subjects") as progress:
        progress(1, 1)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "predict ... (pip install 'dtwin_fast[cli]' shows progress)\n"
