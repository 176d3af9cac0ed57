"""Loaders of real people: a written copy of the release's layout with known content and defects."""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from dtwin_fast.cohort import NO_RESPONSE, NOT_MEASURED, WRONG_BUTTON, Cohort
from dtwin_fast.cohort_files import load_cohort
from dtwin_fast.commands import cohort as command
from dtwin_fast.datasets import read_tcp_release, read_tcp_trials
from dtwin_fast.datasets.tcp import MOTION_FILE, SERIES_FOLDER
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.tasks import TASKS
from dtwin_fast.tasks.stroop import COLOURS

REGIONS = [f"area_{i}" for i in range(7)]
CODES = {"faces": "hammerAP", "stroop": "stroopAP", "stroop_run-2": "stroopPA"}
VOLUMES = {"hammerAP": 493, "stroopAP": 510, "restAP": 488}
FACES = [f"F{i}.jpg" for i in range(5)]
SHAPES = ["circle.bmp", "oval.bmp", "square.bmp"]
Row = dict[str, object]


def write_rows(path: Path, rows: Sequence[Row], delimiter: str = "\t") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def shown_faces(rng: np.random.Generator) -> list[Row]:
    """24 trials in blocks of six; pictures are drawn anew."""
    rows: list[Row] = []
    for trial in range(24):
        kind = ("shape", "face")[trial // 6 % 2]
        match, other = rng.permutation(FACES if kind == "face" else SHAPES)[:2].tolist()
        left, right = (match, other) if rng.random() < 0.5 else (other, match)
        onset = 11.06 + 21.0 * (trial // 6) + 3.0 * (trial % 6)
        rows.append(
            {"onset": onset, "duration": 1.9, "trial_type": kind}
            | {"stimLeft": left, "stimTop": match, "stimRight": right}
        )
    return rows


def shown_stroop(rng: np.random.Generator) -> list[Row]:
    """21 trials with all pairs of word and ink."""
    rows: list[Row] = []
    onset = 2.0
    for _ in range(21):
        word, ink = rng.choice(COLOURS, 2).tolist()
        soa = float(rng.choice([2.25, 4.5, 8.25]))
        kind = "con1" if word == ink else "inc1"
        rows.append(
            {"onset": onset, "duration": soa, "trial_type": kind}
            | {"stimulus_text": word, "stimulus_color": ink}
        )
        onset += soa
    return rows


def answered(rng: np.random.Generator, shown: Iterable[Row]) -> list[Row]:
    """Events with right, wrong and missing responses."""
    rows = []
    for row in shown:
        fate = rng.choice(["right", "wrong", "none"], p=[0.7, 0.2, 0.1])
        rt = "NaN" if fate == "none" else round(float(rng.uniform(0.2, 1.8)), 6)
        rows.append({**row, "response_time": rt, "accuracy_binarized": int(fate == "right")})
    return rows


class Release:
    """A copy of the release's layout that tests can damage; ``events`` is what was written."""

    def __init__(self, folder: Path, seed: int, n_people: int = 6) -> None:
        self.folder = folder
        self.rng = np.random.default_rng(seed)
        self.people = [f"NDARINV{i:02d}{'ABCDEF'[i % 6]}Z" for i in range(n_people)]
        self.events: dict[tuple[str, str], list[Row]] = {}
        self.series: dict[tuple[str, str], npt.NDArray[np.float64]] = {}
        shown = {
            "faces": shown_faces(self.rng),
            "stroop": shown_stroop(self.rng),
            "stroop_run-2": shown_stroop(self.rng),
        }
        for person in self.people:
            for name, rows in shown.items():
                self.write_events(person, name, answered(self.rng, rows))
            for code, n_volumes in VOLUMES.items():
                self.write_series(person, code, self.rng.normal(50, 3, (n_volumes, len(REGIONS))))
        write_rows(
            folder / "participants.tsv",
            [
                {"participant_id": f"sub-{person}", "species": "homo sapiens", "age": 20.5 + i}
                | {"sex": "MFO"[i % 3], "Site": 1 + i % 2, "Group": ["GenPop", "Patient"][i % 2]}
                for i, person in enumerate(self.people)
            ],
        )

    def events_path(self, person: str, name: str) -> Path:
        stem = f"sub-{person}_task-{CODES[name]}_run-01_events.tsv"
        return self.folder / f"sub-{person}" / "func" / stem

    def series_path(self, person: str, code: str) -> Path:
        stem = f"task-{code}_run-01_bold_Atlas_hp2000_clean_GSR_parcellated.h5"
        return self.folder / SERIES_FOLDER / person.replace("NDARINV", "NDAR_INV") / stem

    def write_events(self, person: str, name: str, rows: list[Row]) -> None:
        self.events[person, name] = rows
        write_rows(self.events_path(person, name), rows)

    def write_series(self, person: str, code: str, series: npt.NDArray[np.float64]) -> None:
        self.series[person, code] = series
        path = self.series_path(person, code)
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            file["dataset"] = series.T

    def read(self, **options: Any) -> Cohort:
        return read_tcp_release(self.folder, regions=REGIONS, **options)


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return Release(tmp_path / "ds005237", seed=int(np.random.default_rng().integers(2**32)))


def subject(person: str) -> str:
    return f"sub-{person}"


def flags_of(cohort: Cohort, person: str) -> tuple[str, ...]:
    return cohort.connectomes.flags[cohort.connectomes.subjects.index(subject(person))]


def rejected_of(cohort: Cohort) -> dict[str, str]:
    return {str(e.subject): e.code for e in cohort.connectomes.rejected}


def expected(row: Row) -> tuple[int, float]:
    """Choice and RT of one event, from the rules in words."""
    if row["response_time"] == "NaN":
        return NO_RESPONSE, np.nan
    rt = float(str(row["response_time"]))
    if "stimTop" in row:
        correct = 0 if row["stimLeft"] == row["stimTop"] else 1
        return (correct if row["accuracy_binarized"] else 1 - correct), rt
    correct = COLOURS.index(str(row["stimulus_color"]))
    return (correct if row["accuracy_binarized"] else WRONG_BUTTON), rt


# A release without defects


def test_a_whole_release(release: Release) -> None:
    cohort = release.read(
        tasks=("faces", "stroop", "stroop_run-2"),
        bold_regions={"pair": ["area_1", "area_4"], "one": ["area_6"]},
    )
    assert cohort.connectomes.subjects == tuple(map(subject, release.people))
    assert cohort.connectomes.regions == tuple(REGIONS)
    assert cohort.connectomes.rejected == ()
    assert cohort.tr_s == 0.8
    assert cohort.bold_regions == ("pair", "one")
    for (person, name), rows in release.events.items():
        index = release.people.index(person)
        data = cohort.tasks[name]
        choice, rt = np.array([expected(row) for row in rows]).T
        np.testing.assert_array_equal(data.choice[index], choice)
        np.testing.assert_array_equal(data.rt_s[index], rt.astype(np.float32))
        if name == "stroop_run-2":
            assert data.bold is None
            assert flags_of(cohort, person) == (f"bold_missing:{name}",)
            continue
        series = release.series[person, CODES[name]]
        wanted = np.stack([(series[:, 1] + series[:, 4]) / 2, series[:, 6]], axis=1)
        assert data.bold is not None
        np.testing.assert_allclose(data.bold[index], wanted, rtol=1e-6)
    for index, person in enumerate(release.people):
        r = np.corrcoef(release.series[person, "restAP"].T)[np.triu_indices(len(REGIONS), 1)]
        np.testing.assert_allclose(cohort.connectomes.edges[index], r, atol=1e-6)
    np.testing.assert_array_equal(
        cohort.participants["age_years"], 20.5 + np.arange(len(release.people))
    )
    assert cohort.participants["site"].tolist() == [1, 2, 1, 2, 1, 2]
    assert cohort.participants["group"].tolist() == ["GenPop", "Patient"] * 3
    assert set(cohort.participants) == {"age_years", "sex", "site", "group"}


def test_schedules_say_what_was_shown(release: Release) -> None:
    cohort = release.read(tasks=("faces", "stroop_run-2"))
    faces, stroop = (cohort.tasks[name].schedule for name in ("faces", "stroop_run-2"))
    rows = release.events[release.people[0], "faces"]
    assert (faces.run_s, faces.n_volumes(0.8), faces.task) == (394.4, 493, "faces")
    np.testing.assert_allclose(faces.onset_s, [float(str(row["onset"])) for row in rows])
    assert faces.condition == tuple(row["trial_type"] for row in rows)
    np.testing.assert_allclose(faces.cue_onset_s, 11.06 - 2.9 + 21.0 * np.arange(4))
    np.testing.assert_allclose(faces.cue_duration_s, 2.9)
    assert faces.cue[:, :2].tolist() == [[0, 1], [1, 0]] * 2
    code: dict[object, tuple[float, ...]] = {}
    for row, stimulus, correct in zip(rows, faces.stimulus, faces.correct, strict=True):
        for position, title in ((2, "stimTop"), (4, "stimLeft"), (6, "stimRight")):
            own = tuple(stimulus[position : position + 2].tolist())
            assert code.setdefault(row[title], own) == own
        match, sides = stimulus[2:4], stimulus[4:8].reshape(2, 2)
        np.testing.assert_array_equal(sides[correct], match)
        assert np.abs(sides[1 - correct] - match).max() > 0
    assert len(set(code.values())) == len(code)
    for picture, (x, y) in code.items():
        if picture in SHAPES:
            assert (x, y) in {(1, 0), (0, 1), (1, 1)}
        else:
            assert all(0 <= v <= 0.1 or 0.9 <= v <= 1 for v in (x, y))
    pairs = [{row["stimLeft"], row["stimRight"]} | {("top", row["stimTop"])} for row in rows]
    for i, one in enumerate(pairs):
        assert [one == other for other in pairs] == (faces.item == faces.item[i]).tolist()

    rows = release.events[release.people[0], "stroop_run-2"]
    assert (stroop.run_s, stroop.task) == (408.0, "stroop")
    np.testing.assert_array_equal(stroop.duration_s, 0.25)
    np.testing.assert_array_equal(stroop.window_s, [row["duration"] for row in rows])
    ink, word = stroop.stimulus[:, :3].argmax(1), stroop.stimulus[:, 3:6].argmax(1)
    assert [COLOURS[i] for i in ink] == [row["stimulus_color"] for row in rows]
    assert [COLOURS[i] for i in word] == [row["stimulus_text"] for row in rows]
    assert (stroop.stimulus.sum(axis=1) == 2).all()
    assert stroop.condition == tuple(np.where(ink == word, "con", "inc"))
    for name, schedule in (("faces", faces), ("stroop", stroop)):
        assert TASKS[name].encode(schedule, 0.08).shape == (schedule.n_steps(0.08), 9)


def test_onsets_are_medians(release: Release) -> None:
    shift = {person: 0.01 * i**2 for i, person in enumerate(release.people)}
    for person in release.people:
        rows = release.events[person, "faces"]
        moved = [{**row, "onset": float(str(row["onset"])) + shift[person]} for row in rows]
        release.write_events(person, "faces", moved)
    first = release.read(tasks=("faces",)).tasks["faces"].schedule.onset_s[0]
    assert first == pytest.approx(11.06 + np.median(list(shift.values())))


def test_all_regions_as_bold(release: Release) -> None:
    cohort = release.read(tasks=("stroop",), bold_regions="all")
    assert cohort.bold_regions == tuple(REGIONS)
    bold = cohort.tasks["stroop"].bold
    assert bold is not None
    np.testing.assert_allclose(bold[3], release.series[release.people[3], "stroopAP"], rtol=1e-6)


# People who lack something are kept and flagged, or left out and listed


def test_missing_events(release: Release) -> None:
    person = release.people[1]
    release.events_path(person, "faces").unlink()
    cohort = release.read(bold_regions={"a": ["area_0"]})
    assert (cohort.tasks["faces"].choice[1] == NOT_MEASURED).all()
    assert cohort.tasks["stroop"].measured[1].all()
    assert flags_of(cohort, person) == ("not_done:faces",)
    bold = cohort.tasks["faces"].bold
    assert bold is not None
    assert np.isfinite(bold[1]).all()  # BOLD without behaviour


def test_missing_bold(release: Release) -> None:
    release.series_path(release.people[2], "stroopAP").unlink()
    cohort = release.read(bold_regions={"a": ["area_0"]})
    bold = cohort.tasks["stroop"].bold
    assert bold is not None
    assert np.isnan(bold[2]).all()
    assert np.isfinite(bold[[0, 1, 3, 4, 5]]).all()
    assert flags_of(cohort, release.people[2]) == ("bold_missing:stroop",)


def test_without_a_resting_run_people_are_left_out(release: Release) -> None:
    release.series_path(release.people[0], "restAP").unlink()
    release.series_path(release.people[4], "restAP").write_bytes(b"\x89HDF no more")
    cohort = release.read()
    assert len(cohort) == 4
    assert rejected_of(cohort) == {
        subject(release.people[0]): "no_connectome",
        subject(release.people[4]): "unreadable",
    }


def test_nobody_has_a_resting_run(release: Release) -> None:
    for person in release.people:
        release.series_path(person, "restAP").unlink()
    cohort = release.read(bold_regions={"a": ["area_0"]})
    assert len(cohort) == 6
    assert cohort.connectomes.regions == ()
    assert cohort.connectomes.edges.shape == (6, 0)
    assert cohort.tasks["faces"].bold is not None


def test_every_resting_run_is_bad(release: Release) -> None:
    for person in release.people[:-1]:
        release.series_path(person, "restAP").write_bytes(b"damaged")
    release.series_path(release.people[-1], "restAP").unlink()
    with pytest.raises(DTwinInputError, match="unreadable"):
        release.read()


def test_short_runs_and_constant_regions(release: Release) -> None:
    short, constant, long = release.people[:3]
    release.write_series(short, "stroopAP", release.series[short, "stroopAP"][:95])
    release.write_series(short, "restAP", release.series[short, "restAP"][:100])
    series = release.series[constant, "stroopAP"].copy()
    series[:, 2] = 1e4
    series[30, 3] = np.nan
    release.write_series(constant, "stroopAP", series)
    more = release.rng.normal(50, 3, (1020, len(REGIONS)))
    release.write_series(long, "stroopAP", more)
    cohort = release.read(
        tasks=("stroop",), bold_regions={"mean": ["area_1", "area_2"], "two": ["area_2"]}
    )
    bold = cohort.tasks["stroop"].bold
    assert bold is not None
    assert bold.shape == (6, 510, 2)
    assert np.isnan(bold[0, 95:]).all()
    assert np.isfinite(bold[0, :95]).all()
    np.testing.assert_allclose(bold[1, :, 0], series[:, 1], rtol=1e-6)
    assert np.isnan(bold[1, :, 1]).all()
    np.testing.assert_allclose(bold[2, :, 1], more[:510, 2], rtol=1e-6)
    assert flags_of(cohort, short) == ("short_run:stroop:95/510", "short_rest:100/488")
    assert flags_of(cohort, constant) == ("dead_regions:stroop:1",)
    assert flags_of(cohort, long) == ("long_run:stroop:1020/510",)
    of_all = release.read(tasks=("stroop",), bold_regions="all").tasks["stroop"].bold
    assert of_all is not None
    assert np.isnan(of_all[1]).all(axis=0).tolist() == [False] * 2 + [True] * 2 + [False] * 3


def test_a_region_without_signal_at_rest(release: Release) -> None:
    series = release.series[release.people[3], "restAP"].copy()
    series[:, 5] = 0
    release.write_series(release.people[3], "restAP", series)
    cohort = release.read()
    assert cohort.connectomes.missing[3].tolist() == [False] * 5 + [True, False]
    assert flags_of(cohort, release.people[3]) == ("missing_regions:1",)


def test_another_order_of_trials(release: Release) -> None:
    person = release.people[2]
    rows = release.events[person, "stroop"]
    rows[3]["stimulus_text"] = "red" if rows[3]["stimulus_text"] == "green" else "green"
    release.write_events(person, "stroop", rows)
    cohort = release.read(bold_regions={"a": ["area_0"]})
    stroop = cohort.tasks["stroop"]
    assert (stroop.choice[2] == NOT_MEASURED).all()
    assert stroop.bold is not None
    assert np.isnan(stroop.bold[2]).all()
    assert flags_of(cohort, person) == ("other_trials:stroop",)


def test_other_onsets(release: Release) -> None:
    person = release.people[5]
    rows = release.events[person, "faces"]
    late = [{**row, "onset": float(str(row["onset"])) + 1.5} for row in rows]
    release.write_events(person, "faces", late)
    cohort = release.read()
    assert flags_of(cohort, person) == ("other_onsets:faces",)
    assert (cohort.tasks["faces"].choice[5] == NOT_MEASURED).all()
    assert cohort.tasks["faces"].schedule.onset_s[0] == pytest.approx(11.06)


def test_a_run_broken_off(release: Release) -> None:
    person = release.people[0]
    rows = release.events[person, "stroop"]
    release.write_events(person, "stroop", rows[:8])
    cohort = release.read(tasks=("stroop",))
    measured = cohort.tasks["stroop"].measured
    assert measured[0].tolist() == [True] * 8 + [False] * 13
    assert measured[1:].all()
    assert flags_of(cohort, person) == ("trials_missing:stroop:13",)


def test_responses_that_cannot_be(release: Release) -> None:
    person = release.people[4]
    rows = release.events[person, "stroop"]
    rows[0] |= {"response_time": -0.2, "accuracy_binarized": 1}
    rows[1] |= {"response_time": 0.149, "accuracy_binarized": 0}
    rows[2] |= {"response_time": 0.15, "accuracy_binarized": 1}
    rows[3] |= {"response_time": "NaN", "accuracy_binarized": 1}
    rows[4] |= {"response_time": float(str(rows[4]["duration"])) + 0.1, "accuracy_binarized": 1}
    rows[5] |= {"response_time": "n/a", "accuracy_binarized": "n/a"}
    release.write_events(person, "stroop", rows)
    cohort = release.read(tasks=("stroop",))
    measured = cohort.tasks["stroop"].measured[4]
    assert measured[:7].tolist() == [False, False, True, False, False, False, True]
    assert set(flags_of(cohort, person)) == {
        "early_responses:stroop:2",
        "contradictory:stroop:1",
        "late_responses:stroop:1",
        "trials_missing:stroop:1",
    }


def test_nobody_without_a_usable_trial(release: Release) -> None:
    person, without = release.people[:2]
    for name in ("faces", "stroop"):
        rows = release.events[person, name]
        empty: Row = {"response_time": "NaN", "accuracy_binarized": "NaN"}
        release.write_events(person, name, [{**row, **empty} for row in rows])
        release.events_path(without, name).unlink()
    cohort = release.read()
    assert len(cohort) == 4
    assert rejected_of(cohort) == {subject(person): "no_trials", subject(without): "no_trials"}
    both = release.read(tasks=("faces", "stroop", "stroop_run-2"))
    assert rejected_of(both) == {subject(without): "no_first_run"}  # one member did the second run
    assert release.read(tasks=("stroop_run-2",)).connectomes.rejected == ()


def test_events_of_one_person_are_damaged(release: Release) -> None:
    ragged, unknown, worst = release.people[:3]
    path = release.events_path(ragged, "faces")
    path.write_text(path.read_text() + "1\t2\n")
    path = release.events_path(unknown, "stroop")
    path.write_text(path.read_text().replace("response_time", "reaction"))
    for name in ("faces", "stroop"):
        release.events_path(worst, name).write_text("")
    cohort = release.read()
    assert flags_of(cohort, ragged) == ("events_unreadable:faces:table_ragged", "not_done:faces")
    assert flags_of(cohort, unknown) == ("events_unreadable:stroop:table_column", "not_done:stroop")
    assert rejected_of(cohort) == {subject(worst): "file_empty"}


def test_people_in_no_table_of_participants(release: Release) -> None:
    path = release.folder / "participants.tsv"
    lines = path.read_text().splitlines()
    other = lines[1].replace(release.people[0], "NDARINVOTHER")
    path.write_text("\n".join([lines[0], *lines[2:], other]) + "\n")
    cohort = release.read()
    assert flags_of(cohort, release.people[0]) == ("not_in_participants",)
    assert np.isnan(cohort.participants["age_years"][0])
    assert cohort.participants["sex"][0] == "n/a"
    assert cohort.participants["site"].tolist()[1:] == [2, 1, 2, 1, 2]
    assert rejected_of(cohort) == {"sub-NDARINVOTHER": "no_trials"}


def test_motion_and_phenotype(release: Release) -> None:
    fd = release.rng.uniform(0, 0.5, (5, 9))
    names = [person.replace("NDARINV", "NDAR_INV") for person in release.people[:5]]
    frames: list[Row] = [
        {"id": name, **{f"f{j}": v for j, v in enumerate(row)}}
        for name, row in zip(names, fd.tolist(), strict=True)
    ]
    frames[1]["f8"] = ""
    write_rows(release.folder / MOTION_FILE, frames[::-1], ",")
    write_rows(
        release.folder / "phenotype" / "scale01.tsv",
        [
            {"participant_id": name, "total": 999 if i == 3 else 10 * i, "rater": "abc"[i % 3]}
            for i, name in enumerate(map(subject, release.people))
        ],
    )
    cohort = release.read(phenotype=["scale01:total", "scale01:rater"])
    mean = [*fd.mean(axis=1), np.nan]
    mean[1] = fd[1, :8].mean()
    np.testing.assert_allclose(cohort.participants["mean_fd_mm"], mean)
    total = cohort.participants["scale01:total"]
    np.testing.assert_array_equal(total, [0, 10, 20, np.nan, 40, 50])
    assert cohort.participants["scale01:rater"].tolist() == list("abcabc")


def copy_into_a_session(release: Release) -> None:
    path = release.events_path(release.people[0], "faces")
    (path.parent / "ses-2").mkdir()
    (path.parent / "ses-2" / path.name).write_bytes(path.read_bytes())


Damage = Callable[[Release], object]
BAD: dict[str, tuple[str, Damage, dict[str, Any]]] = {
    "no such folder": ("folder_files", lambda r: setattr(r, "folder", r.folder / "no"), {}),
    "no such run": ("task", lambda r: None, {"tasks": ("faces", "rest")}),
    "no runs": ("task", lambda r: None, {"tasks": ()}),
    "two participants of one name": (
        "subject_duplicate",
        lambda r: (r.folder / "participants.tsv").write_text(
            "participant_id\tage\tsex\tSite\tGroup\n" + f"sub-{r.people[0]}\t1\tM\t1\tG\n" * 2
        ),
        {},
    ),
    "no participants": ("file_missing", lambda r: (r.folder / "participants.tsv").unlink(), {}),
    "no sites": (
        "table_column",
        lambda r: (r.folder / "participants.tsv").write_text(
            f"participant_id\tage\tsex\tGroup\nsub-{r.people[0]}\t3\tM\tGenPop\n"
        ),
        {},
    ),
    "participants are others": (
        "subject_mismatch",
        lambda r: (r.folder / "participants.tsv").write_text(
            "participant_id\tage\tsex\tSite\tGroup\nsub-01\t3\tM\t1\tGenPop\n"
        ),
        {},
    ),
    "motion without names": (
        "names_column",
        lambda r: write_rows(r.folder / MOTION_FILE, [{"1": 0.1, "2": 0.2}, {"1": 1, "2": 2}], ","),
        {},
    ),
    "negative motion": (
        "table_number",
        lambda r: write_rows(
            r.folder / MOTION_FILE, [{"id": f"sub-{r.people[0]}", "a": -0.1, "b": 0}], ","
        ),
        {},
    ),
    "no such phenotype": ("file_missing", lambda r: None, {"phenotype": ["scale:total"]}),
    "a phenotype elsewhere": ("argument", lambda r: None, {"phenotype": ["../scale:total"]}),
    "no such BOLD region": ("regions_missing", lambda r: None, {"bold_regions": {"a": ["x"]}}),
    "a mean of nothing": ("regions_missing", lambda r: None, {"bold_regions": {"a": []}}),
    "BOLD of no regions": ("regions_missing", lambda r: None, {"bold_regions": {}}),
    "two files of one person": ("subject_duplicate", copy_into_a_session, {}),
}


@pytest.mark.parametrize(("code", "damage", "options"), BAD.values(), ids=BAD)
def test_bad_releases(release: Release, code: str, damage: Damage, options: dict[str, Any]) -> None:
    damage(release)
    with pytest.raises(DTwinInputError) as caught:
        release.read(**options)
    assert caught.value.code == code


def test_bold_needs_names(release: Release) -> None:
    with pytest.raises(DTwinInputError, match="regions_unnamed"):
        read_tcp_release(release.folder, bold_regions="all")


def test_rows_of_the_release_are_434(release: Release) -> None:
    for person in release.people:
        release.write_series(person, "restAP", release.rng.normal(size=(488, 434)))
    cohort = read_tcp_release(release.folder)
    assert cohort.connectomes.edges.shape == (6, 93_961)
    assert cohort.connectomes.regions is None


# The same behaviour in one table, the command, files


def write_trials(release: Release, folder: Path, name: str = "trials.csv.gz") -> None:
    """The long table of ``read_tcp_trials`` with the events of a release."""
    rows: list[Row] = []
    for (person, run), events in release.events.items():
        for number, event in enumerate(events, start=1):
            kind = str(event["trial_type"])
            rows.append(
                {"subject": subject(person), "task": CODES[run], "trial": number}
                | {"onset": event["onset"], "duration": event["duration"]}
                | {"condition": kind.rstrip("123456789"), "trial_type": kind}
                | {"stim_text": event.get("stimulus_text", "")}
                | {"stim_color": event.get("stimulus_color", "")}
                | {"stim_left": event.get("stimLeft", ""), "stim_top": event.get("stimTop", "")}
                | {"stim_right": event.get("stimRight", "")}
                | {"rt": str(event["response_time"]).replace("NaN", "")}
                | {"accuracy": event["accuracy_binarized"]}
            )
    folder.mkdir()
    order = release.rng.permutation(len(rows))  # rows need not be sorted
    write_rows(folder / name, [rows[i] for i in order], ",")
    (folder / "participants.tsv").write_bytes((release.folder / "participants.tsv").read_bytes())


def assert_same_behaviour(one: Cohort, other: Cohort) -> None:
    assert one.connectomes.subjects == other.connectomes.subjects
    assert one.tasks.keys() == other.tasks.keys()
    for name, data in one.tasks.items():
        assert data.schedule.to_dict() == other.tasks[name].schedule.to_dict()
        np.testing.assert_array_equal(data.choice, other.tasks[name].choice)
        np.testing.assert_array_equal(data.rt_s, other.tasks[name].rt_s)
    assert one.participants.keys() == other.participants.keys()
    for name, column in one.participants.items():
        np.testing.assert_array_equal(column, other.participants[name])


@pytest.mark.parametrize("name", ["trials.csv.gz", "trials.csv"])
def test_release_and_table_give_one_cohort(release: Release, tmp_path: Path, name: str) -> None:
    tasks = ("stroop", "faces", "stroop_run-2")
    write_trials(release, tmp_path / "table", name)
    from_table = read_tcp_trials(tmp_path / "table", tasks=tasks)
    from_release = release.read(tasks=tasks)
    assert_same_behaviour(from_table, from_release)
    assert from_table.connectomes.flags == from_release.connectomes.flags
    assert from_table.connectomes.regions == ()


def run_command(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    command.add(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


def test_the_command_reads_a_release(
    release: Release, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release.events_path(release.people[1], "faces").unlink()
    release.series_path(release.people[3], "restAP").unlink()
    (tmp_path / "names.tsv").write_text("label\n" + "\n".join(REGIONS) + "\n")
    parts: list[Row] = [
        {"name": "pair", "region": "area_1"},
        {"name": "one", "region": "area_5"},
        {"name": "pair", "region": "area_4"},
    ]
    write_rows(tmp_path / "bold.tsv", parts)
    options = ("--regions", tmp_path / "names.tsv", "--bold", tmp_path / "bold.tsv", "--json")
    assert run_command("tcp", release.folder, "--out", tmp_path / "out", *options) == 3
    summary = json.loads(capsys.readouterr().out)
    wanted = release.read(bold_regions={"pair": ["area_1", "area_4"], "one": ["area_5"]})
    assert summary["people"] == 5
    assert summary["tasks"]["faces"]["people"] == 4
    assert summary["tasks"]["stroop"]["pressed"] == wanted.tasks["stroop"].pressed.sum()
    assert (summary["flagged"], summary["rejected"]) == (1, 1)
    read = load_cohort(tmp_path / "out")
    assert_same_behaviour(read, wanted)
    np.testing.assert_array_equal(read.connectomes.edges, wanted.connectomes.edges)
    assert read.bold_regions == ("pair", "one")
    for name, data in wanted.tasks.items():
        assert data.bold is not None
        assert read.tasks[name].bold is not None
        np.testing.assert_array_equal(np.asarray(read.tasks[name].bold), data.bold)
    flags = (tmp_path / "out" / "flags.tsv").read_text().splitlines()
    assert flags == ["participant_id\tflag", f"{subject(release.people[1])}\tnot_done:faces"]
    rejected = (tmp_path / "out" / "rejected.tsv").read_text().splitlines()
    assert rejected[1].split("\t")[:2] == [subject(release.people[3]), "no_connectome"]


def test_the_command_reads_a_table(
    release: Release, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_trials(release, tmp_path / "table")
    arguments = ("tcp", tmp_path / "table", "--out", tmp_path / "out")
    assert run_command(*arguments, "--task", "stroop_run-2") == 0
    assert "6 people, 0 regions" in capsys.readouterr().out
    cohort = load_cohort(tmp_path / "out")
    assert cohort.connectomes.regions == ()
    assert_same_behaviour(cohort, read_tcp_trials(tmp_path / "table", tasks=("stroop_run-2",)))
    with pytest.raises(DTwinInputError, match="cohort_options"):
        run_command("tcp", tmp_path / "table", "--out", tmp_path / "new", "--bold", "all")
    assert not (tmp_path / "new").exists()


def test_the_command_reads_own_tables(
    release: Release, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    titles = {"stimulus_text": "word", "stimulus_color": "ink", "response_time": "rt"}
    titles |= {"accuracy_binarized": "accuracy", "duration": "window", "onset": "onset"}
    rows: list[Row] = [
        {"subject": person, "task": "stroop", "trial": number, "duration": 0.25}
        | {own: event[title] for title, own in titles.items()}
        for person in release.people
        for number, event in enumerate(release.events[person, "stroop"], start=1)
    ]
    write_rows(tmp_path / "trials.tsv", rows)
    fc = release.rng.uniform(-0.9, 0.9, (5, 21)).astype(np.float32)
    np.savez(
        tmp_path / "fc.npz",
        fc=fc,
        subjects=np.array(release.people[:5]),
        regions=np.array(REGIONS),
    )
    options = ("--connectomes", tmp_path / "fc.npz", "--trials", tmp_path / "trials.tsv")
    assert run_command("tables", *options, "--out", tmp_path / "out", "--tr", "1.5") == 3
    assert "5 people, 7 regions, 0 BOLD regions, 0 flagged, 1 left out" in capsys.readouterr().out
    cohort = load_cohort(tmp_path / "out")
    np.testing.assert_array_equal(cohort.connectomes.edges, fc)
    assert cohort.tr_s == 1.5
    wanted = release.read(tasks=("stroop",)).tasks["stroop"]
    np.testing.assert_array_equal(cohort.tasks["stroop"].choice, wanted.choice[:5])


def test_the_command_wants_names_before_it_reads(release: Release, tmp_path: Path) -> None:
    for path in release.folder.rglob("*.tsv"):
        path.unlink()
    with pytest.raises(DTwinInputError, match="regions_unnamed"):
        run_command("tcp", release.folder, "--out", tmp_path / "out")
