"""The result table in the terminal, JSON, TSV and Markdown."""

from __future__ import annotations

import csv
import io
import json
import sys

import numpy as np
import pytest
from rich.console import Console

from dtwin_fast.errors import MissingExtraError
from dtwin_fast.evaluate.table import (
    STATEMENT,
    Row,
    to_dict,
    to_markdown,
    to_rich,
    write_table,
)

ABOVE = Row(
    split="A",
    task="faces",
    domain="choice",
    metric="concordance",
    model=0.971,
    unit="share of trials",
    low=0.961,
    high=0.981,
    floor=0.958,
    floor_name="always correct",
    diff=0.013,
    diff_low=0.004,
    diff_high=0.022,
    ceiling=0.99,
    null_mean=0.5,
    null_p=0.048,
    paper=0.94,
    n_people=214,
    baselines={"always correct": 0.958, "person rate": float("nan")},
)
LEVEL = Row(
    split="A",
    task="faces",
    domain="rt",
    metric="RT person-mean r",
    unit="r",
    model=0.911,
    low=0.881,
    high=0.931,
    floor=0.919,
    floor_name="person mean",
    diff=-0.008,
    diff_low=-0.021,
    diff_high=0.006,
    n_people=213,
    note="7 of 2000 resamples could not be scored",
    baselines={"person mean": 0.919},
)
BELOW = Row(
    split="B",
    task="stroop",
    domain="rt",
    metric="RT person-mean MAE",
    unit="s",
    model=0.31,
    low=0.3,
    high=0.32,
    floor=0.2,
    floor_name="age | sex",
    diff=-0.11,
    diff_low=-0.15,
    diff_high=-0.07,
    n_people=40,
)
ALONE = Row(split="B", task="stroop", domain="bold", metric="BOLD individual r", model=0.2)
ROWS = [ABOVE, LEVEL, BELOW, ALONE]


@pytest.mark.parametrize(
    ("row", "beats", "mark", "words"),
    [
        (ABOVE, True, "+", "beats floor"),
        (LEVEL, False, "=", "no better than floor"),
        (BELOW, False, "-", "below floor"),
        (ALONE, False, "?", "no verdict"),
    ],
    ids=["above", "level", "below", "alone"],
)
def test_whether_the_floor_is_beaten_is_said_by_a_mark_and_words(row, beats, mark, words):
    assert row.beats_floor is beats
    assert row.verdict == f"{mark} {words}"


def test_zero_at_the_edge_does_not_beat_the_floor():
    edge = Row(split="A", task="t", domain="rt", metric="m", model=1.0, diff_low=0.0, diff_high=1.0)
    assert edge.verdict == "= no better than floor"


def printed(rows, width=160, **options):
    console = Console(file=io.StringIO(), width=width, **options)
    console.print(to_rich(rows))
    return console.file.getvalue()


def test_the_terminal_says_it_without_colour():
    text = printed(ROWS)
    assert "\x1b" not in text
    lines = text.splitlines()
    line = next(line for line in lines if "concordance" in line)
    for part in ("0.971 [0.961, 0.981]", "0.958", "always correct", "+ beats floor +0.013",
                 "[0.004, 0.022]", "0.990", "0.048", "0.94", "214"):  # fmt: skip
        assert part in line
    assert "= no better than floor" in next(li for li in lines if "RT person-mean r" in li)
    assert "- below floor" in next(line for line in lines if "RT person-mean MAE (s)" in line)
    alone = next(line for line in lines if "BOLD individual r" in line)
    assert "? no verdict" in alone
    assert alone.count("n/a") == 4
    assert "nan" not in text
    assert "A, faces, RT person-mean r: 7 of 2000 resamples could not be scored" in text
    assert lines[-1].strip() == STATEMENT


def test_the_terminal_has_a_table_for_each_split_and_task():
    text = printed(ROWS)
    assert text.index("A: faces") < text.index("concordance") < text.index("B: stroop")
    assert printed(ROWS, force_terminal=True, color_system="standard").count("\x1b[33m") > 0


@pytest.mark.parametrize("width", [80, 100])
def test_no_number_is_cut_off_in_a_narrow_terminal(width):
    text = " ".join(printed(ROWS, width=width).split())
    for part in ("0.971", "0.961", "0.981", "0.958", "0.048", "214"):
        assert part in text
    assert "…" not in text


def test_names_in_brackets_are_no_markup():
    odd = Row(split="A", task="[bold]x[/]", domain="rt", metric="[red]m[/red]", model=1.0)
    text = printed([odd])
    assert "[red]m[/red]" in text
    assert "[bold]x[/]" in text


def test_without_rich_the_extra_is_named(monkeypatch):
    for name in ("rich.console", "rich.table", "rich.text"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"dtwin_fast\[evaluate\]"):
        to_rich(ROWS)


def test_json_has_null_for_what_is_not_known():
    text = json.dumps(to_dict(ROWS), allow_nan=False)
    read = json.loads(text)
    assert read["statement"] == STATEMENT
    first, second, *_ = read["rows"]
    assert first["model"] == ABOVE.model
    assert first["beats_floor"] is True
    assert first["baselines"] == {"always correct": 0.958, "person rate": None}
    assert second["ceiling"] is None
    assert second["verdict"] == LEVEL.verdict
    assert len(read["rows"]) == len(ROWS)


def test_json_takes_numbers_of_numpy():
    row = Row(split="A", task="t", domain="rt", metric="m", model=np.float64(0.5),
              low=np.float64("nan"), n_people=int(np.int64(3)))  # fmt: skip
    read = json.loads(json.dumps(to_dict([row]), allow_nan=False))["rows"][0]
    assert (read["model"], read["low"], read["n_people"]) == (0.5, None, 3)


@pytest.mark.parametrize(("name", "delimiter"), [("scores.tsv", "\t"), ("scores.csv", ",")])
def test_the_table_has_a_column_for_every_baseline(tmp_path, name, delimiter):
    path = tmp_path / name
    write_table(path, ROWS)
    with path.open(newline="") as file:
        read = list(csv.DictReader(file, delimiter=delimiter))
    assert len(read) == len(ROWS)
    assert read[0]["model"] == "0.971"
    assert read[0]["baseline:always correct"] == "0.958"
    assert read[0]["baseline:person rate"] == "n/a"
    assert read[0]["baseline:person mean"] == "n/a"
    assert read[1]["baseline:person mean"] == "0.919"
    assert read[1]["ceiling"] == "n/a"
    assert [row["verdict"] for row in read] == [row.verdict for row in ROWS]
    assert {row["statement"] for row in read} == {STATEMENT}


def test_an_empty_table_has_its_columns(tmp_path):
    write_table(tmp_path / "none.tsv", [])
    header = (tmp_path / "none.tsv").read_text().splitlines()
    assert len(header) == 1
    assert "metric" in header[0].split("\t")
    assert STATEMENT in to_markdown([])
    assert STATEMENT in printed([])


def test_markdown():
    text = to_markdown(ROWS)
    lines = text.splitlines()
    assert "**A: faces**" in lines
    assert "**B: stroop**" in lines
    tables = [line for line in lines if line.startswith("|")]
    widths = {line.replace("\\|", "").count("|") for line in tables}
    assert len(widths) == 1
    line = next(line for line in tables if "concordance" in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1] == "0.971 [0.961, 0.981]"
    assert cells[4] == "+ beats floor +0.013 [0.004, 0.022]"
    assert "age \\| sex" in next(line for line in tables if "MAE" in line)
    assert lines[-1].strip() == STATEMENT
