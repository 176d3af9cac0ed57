"""Schedules of the two tasks, their JSON form and their inputs to the main RNN."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtwin_fast.errors import DTwinInputError
from dtwin_fast.spec import DT_S, N_INPUTS, TR_S
from dtwin_fast.tasks import TASKS, Schedule
from dtwin_fast.tasks.stroop import STIMULI

SEEDS = (0, 1, 7)


@pytest.fixture(params=SEEDS, ids=lambda seed: f"seed{seed}")
def faces(request: pytest.FixtureRequest) -> Schedule:
    return TASKS["faces"].make_schedule(request.param)


@pytest.fixture(params=SEEDS, ids=lambda seed: f"seed{seed}")
def stroop(request: pytest.FixtureRequest) -> Schedule:
    return TASKS["stroop"].make_schedule(request.param)


def test_faces_times(faces: Schedule) -> None:
    assert faces.n_trials == 108
    assert faces.onset_s[0] == 11.06
    blocks = faces.onset_s.reshape(18, 6)
    np.testing.assert_allclose(np.diff(blocks, axis=1), 3.0)
    np.testing.assert_allclose(np.diff(blocks[:, 0]), 21.0)
    assert set(faces.duration_s) == {1.9} == set(faces.window_s)
    assert faces.onset_s[-1] + 1.9 == pytest.approx(384.96)
    assert faces.run_s == 394.4
    assert (faces.n_volumes(TR_S), faces.n_steps(DT_S)) == (493, 4930)
    np.testing.assert_allclose(faces.cue_onset_s, blocks[:, 0] - 2.9)
    assert set(faces.cue_duration_s) == {2.9}


def test_faces_conditions_and_sides(faces: Schedule) -> None:
    blocks = np.array(faces.condition).reshape(18, 6)
    assert [set(block) for block in blocks] == [{"shape"}, {"face"}] * 9
    for condition in ("face", "shape"):
        sides = faces.correct[np.array(faces.condition) == condition]
        assert Counter(sides.tolist()) == {0: 27, 1: 27}
    np.testing.assert_array_equal(faces.cue[:, 0], np.arange(18) % 2)
    np.testing.assert_array_equal(faces.cue[:, 1], 1 - np.arange(18) % 2)
    assert not faces.cue[:, 2:].any()


def test_faces_pictures(faces: Schedule) -> None:
    top, left, right = np.moveaxis(faces.stimulus[:, 2:].reshape(-1, 3, 2), 1, 0)
    at_left = (faces.correct == 0)[:, None]
    np.testing.assert_array_equal(top, np.where(at_left, left, right))
    assert (np.where(at_left, right, left) != top).any(axis=1).all()
    is_face = np.array(faces.condition) == "face"
    codes = faces.stimulus[is_face, 2:]
    assert (((codes >= 0) & (codes <= 0.1)) | ((codes >= 0.9) & (codes <= 1))).all()
    assert set(faces.stimulus[~is_face, 2:].ravel().tolist()) == {0, 1}
    assert faces.stimulus[~is_face, 2:].reshape(-1, 3, 2).any(axis=2).all(), "a blank shape"
    assert not faces.stimulus[:, :2].any()


def test_stroop_times(stroop: Schedule) -> None:
    assert stroop.n_trials == 78
    assert stroop.onset_s[0] == 2.0
    assert Counter(stroop.window_s.tolist()) == {2.25: 25, 4.5: 26, 8.25: 27}
    np.testing.assert_array_equal(np.diff(stroop.onset_s), stroop.window_s[:-1])
    assert stroop.onset_s[-1] + stroop.window_s[-1] == 398.0
    assert set(stroop.duration_s) == {0.25}
    assert stroop.run_s == 408.0
    assert (stroop.n_volumes(TR_S), stroop.n_steps(DT_S)) == (510, 5100)
    assert len(stroop.cue) == 0


def test_stroop_counts_and_codes(stroop: Schedule) -> None:
    assert Counter(stroop.condition) == {"con": 54, "inc": 24}
    ink, word = stroop.stimulus[:, :3], stroop.stimulus[:, 3:6]
    assert (ink.sum(axis=1) == 1).all()
    assert (word.sum(axis=1) == 1).all()
    assert not stroop.stimulus[:, 6:].any()
    np.testing.assert_array_equal(ink.argmax(axis=1), stroop.correct)
    pairs = Counter(zip(word.argmax(axis=1).tolist(), stroop.correct.tolist(), strict=True))
    assert pairs == {pair: 18 if pair[0] == pair[1] else 4 for pair in STIMULI}
    same = ink.argmax(axis=1) == word.argmax(axis=1)
    np.testing.assert_array_equal(same, np.array(stroop.condition) == "con")


@pytest.mark.parametrize("task", TASKS)
def test_items_name_stimuli(task: str) -> None:
    schedule = TASKS[task].make_schedule(0)
    by_item: dict[int, set[tuple[float, ...]]] = {}
    for item, codes, correct in zip(
        schedule.item, schedule.stimulus, schedule.correct, strict=True
    ):
        # The same two shapes with the sides exchanged are one item.
        key = tuple(codes[:4].tolist()) if task == "faces" else tuple(codes.tolist())
        by_item.setdefault(int(item), set()).add(key)
        assert correct < len(TASKS[task].action_names)
    assert all(len(stimuli) == 1 for stimuli in by_item.values())
    assert len(by_item) == {"faces": 60, "stroop": 9}[task]


@pytest.mark.parametrize("task", TASKS)
def test_seed_decides_the_schedule(task: str) -> None:
    make = TASKS[task].make_schedule
    assert make(3).to_dict() == make(3).to_dict()
    assert make(3).to_dict() != make(4).to_dict()


@pytest.mark.parametrize("task", TASKS)
def test_json_round_trip_is_exact(task: str) -> None:
    schedule = TASKS[task].make_schedule(5)
    back = Schedule.from_dict(json.loads(json.dumps(schedule.to_dict())))
    for field in dataclasses.fields(Schedule):
        one, other = getattr(schedule, field.name), getattr(back, field.name)
        assert type(one) is type(other), field.name
        np.testing.assert_array_equal(one, other, err_msg=field.name)
        if isinstance(one, np.ndarray):
            assert (one.dtype, one.shape) == (other.dtype, other.shape), field.name


BROKEN = {
    "unknown field": {"extra": 1},
    "text for a number": {"run_s": "408"},
    "bool for a number": {"run_s": True},
    "run too short": {"run_s": 100.0},
    "endless run": {"run_s": 1e300},
    "condition not a list": {"condition": "con"},
    "onsets not a list": {"onset_s": 3.0},
    "one onset too few": {"onset_s": [2.0]},
    "NaN onset": {"onset_s": [float("nan")] * 78},
    "onsets that do not ascend": {"onset_s": [2.0] * 78},
    "huge code": {"stimulus": [[1e300] * 8] * 78},
    "ragged codes": {"stimulus": [[0.0] * 8] * 77 + [[0.0]]},
    "negative action": {"correct": [-1] * 78},
    "fractional action": {"correct": [0.5] * 78},
    "huge action": {"correct": [2**70] * 78},
    "no codes": {"n_codes": 0},
    "cue without codes": {"cue_onset_s": [1.0], "cue_duration_s": [1.0]},
    "zero window": {"window_s": [0.0] * 78},
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_bad_json_is_refused(change: dict[str, object]) -> None:
    values = TASKS["stroop"].make_schedule(0).to_dict() | change
    with pytest.raises(DTwinInputError) as caught:
        Schedule.from_dict(values)
    assert caught.value.code == "schedule"


def test_missing_field_is_refused() -> None:
    values = TASKS["stroop"].make_schedule(0).to_dict()
    del values["item"]
    with pytest.raises(DTwinInputError, match="item"):
        Schedule.from_dict(values)


def test_arrays_of_another_type_are_refused() -> None:
    schedule = TASKS["faces"].make_schedule(0)
    with pytest.raises(DTwinInputError, match="1-D float32"):
        dataclasses.replace(schedule, onset_s=schedule.onset_s.astype(np.float32))


def test_stimulus_steps_are_shifted_by_one() -> None:
    # The first word comes on at 2.0 s, exactly at the start of step 25, hence in row 26; the
    # second at 4.25, 6.5 or 10.25 s.
    schedule = TASKS["stroop"].make_schedule(0)
    inputs = TASKS["stroop"].encode(schedule, DT_S)
    assert inputs.shape == (5100, N_INPUTS)
    assert inputs.dtype == np.float32
    assert not inputs[:26, :8].any()
    for row in (26, 27, 28):
        np.testing.assert_array_equal(inputs[row, :8], schedule.stimulus[0])
    assert not inputs[29, :8].any()
    second = int(np.ceil(schedule.onset_s[1] / DT_S)) + 1
    assert not inputs[29:second, :8].any()
    np.testing.assert_array_equal(inputs[second, :8], schedule.stimulus[1])


def test_faces_steps() -> None:
    # 11.06 s lies in step 138 (11.04 to 11.12 s); 1.9 s are 23.75 steps, so 24; the cue of
    # 2.9 s, 36.25 steps, comes on at 8.16 s, the start of step 102.
    schedule = TASKS["faces"].make_schedule(0)
    inputs = TASKS["faces"].encode(schedule, DT_S)
    on = inputs[:, :8].any(axis=1)
    assert np.flatnonzero(on)[[0, 36]].tolist() == [103, 140]
    np.testing.assert_array_equal(inputs[103:139, :8], np.tile(schedule.cue[0], (36, 1)))
    np.testing.assert_array_equal(inputs[140:164, :8], np.tile(schedule.stimulus[0], (24, 1)))
    assert not on[164]


def test_input_sums_are_exact() -> None:
    stroop = TASKS["stroop"].encode(TASKS["stroop"].make_schedule(0), DT_S)
    # 26 trials of each colour, 26 of each word, 3 steps each; the flag is on throughout.
    np.testing.assert_array_equal(stroop.sum(axis=0), [78.0] * 6 + [0.0, 0.0, 5100.0])
    schedule = TASKS["faces"].make_schedule(0)
    faces = TASKS["faces"].encode(schedule, DT_S)
    np.testing.assert_array_equal(faces[:, [0, 1, 8]].sum(axis=0), [9 * 36, 9 * 36, 0])
    np.testing.assert_allclose(
        faces[:, 2:8].sum(axis=0, dtype=np.float64),
        24 * schedule.stimulus[:, 2:].sum(axis=0, dtype=np.float64),
    )


def test_schedule_of_another_task_is_refused() -> None:
    with pytest.raises(DTwinInputError, match="faces"):
        TASKS["faces"].encode(TASKS["stroop"].make_schedule(0), DT_S)


def test_response_windows() -> None:
    stroop = TASKS["stroop"].make_schedule(0).response_windows(DT_S)
    np.testing.assert_array_equal(stroop[1:, 0], stroop[:-1, 1])
    # 2.0 s starts step 25; 398.0 s lies in the middle of step 4975.
    assert (stroop[0, 0], stroop[-1, 1]) == (25, 4975)
    faces = TASKS["faces"].make_schedule(0).response_windows(DT_S)
    assert faces[0].tolist() == [139, 162]
    assert (faces[1:, 0] >= faces[:-1, 1]).all()


@given(
    task=st.sampled_from(sorted(TASKS)),
    trial=st.integers(0, 77),
    share=st.floats(0.0, 1.0, exclude_max=True),
    dt_s=st.sampled_from([0.02, 0.05, 0.08, 0.1]),
)
def test_every_response_lies_in_its_window(
    task: str, trial: int, share: float, dt_s: float
) -> None:
    schedule = TASKS[task].make_schedule(0)
    # A response within one step of the onset is in the step of the onset itself.
    rt_s = dt_s + share * (schedule.window_s[trial] - dt_s) * (1 - 1e-9)
    step = int((schedule.onset_s[trial] + rt_s) / dt_s)
    start, stop = schedule.response_windows(dt_s)[trial]
    assert start <= step < stop


def test_volume_steps() -> None:
    steps = TASKS["faces"].make_schedule(0).volume_steps(TR_S, DT_S)
    np.testing.assert_array_equal(steps, 10 * np.arange(493))


@pytest.mark.parametrize("dt_s", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_step_is_refused(dt_s: float) -> None:
    with pytest.raises(DTwinInputError, match="dt_s"):
        TASKS["faces"].make_schedule(0).n_steps(dt_s)


@pytest.mark.realdata
@pytest.mark.parametrize(("task", "run"), [("faces", "hammerAP"), ("stroop", "stroopAP")])
def test_like_the_real_schedules(task: str, run: str, shared_data: Path) -> None:
    import pandas as pd

    trials = pd.read_csv(shared_data / "tcp-behaviour" / "trials.csv.gz")
    trials = trials[trials.task == run]
    counts = trials.groupby("subject").trial.count()
    people = counts.index[counts == counts.max()]
    real = trials[trials.subject == people[0]].sort_values("trial")
    ours = TASKS[task].make_schedule(0)
    assert len(real) == ours.n_trials
    assert Counter(real.condition) == Counter(ours.condition)
    order = ["left", "right"] if task == "faces" else ["red", "green", "blue"]
    correct = [order.index(choice) for choice in real.correct_choice]
    assert Counter(correct) == Counter(ours.correct.tolist())
    if task == "stroop":
        assert Counter(real.duration) == Counter(ours.window_s.tolist())
        assert real.onset.iloc[0] == ours.onset_s[0]
        assert real.onset.iloc[-1] + real.duration.iloc[-1] == 398.0
    else:
        assert tuple(real.condition) == ours.condition
        # Real onsets wander by a screen refresh or two, and up to 0.1 s in some trials.
        np.testing.assert_allclose(real.onset, ours.onset_s, atol=0.25)
        np.testing.assert_allclose(real.duration.median(), 1.9, atol=0.02)


# --- variations: other stimuli that ask the same ---


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_correct_answer_moves_with_the_actions(task: str, seed: int) -> None:
    schedule = TASKS[task].make_schedule(seed)
    varied = TASKS[task].vary(schedule, np.random.default_rng(seed))
    assert varied.stimulus.dtype == np.float32
    assert varied.stimulus.shape == schedule.stimulus.shape
    assert (np.sort(varied.action, axis=1) == [0, 1, 2]).all()
    correct = varied.action[np.arange(schedule.n_trials), schedule.correct]
    if task == "stroop":
        np.testing.assert_array_equal(varied.stimulus[:, :3].argmax(axis=1), correct)
    else:
        assert (varied.action[:, 2] == 2).all()
        top, *sides = np.moveaxis(varied.stimulus[:, 2:].reshape(-1, 3, 2), 1, 0)
        side = np.stack(sides, axis=1)
        rows = np.arange(schedule.n_trials)
        np.testing.assert_array_equal(side[rows, correct], top)
        assert (side[rows, 1 - correct] != top).any(axis=1).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_varied_words_keep_their_congruence(seed: int) -> None:
    schedule = TASKS["stroop"].make_schedule(seed)
    stimulus, action = TASKS["stroop"].vary(schedule, np.random.default_rng(seed + 1))
    ink, word = stimulus[:, :3], stimulus[:, 3:6]
    assert set(stimulus.ravel().tolist()) == {0.0, 1.0}
    assert (ink.sum(axis=1) == 1).all()
    assert (word.sum(axis=1) == 1).all()
    assert not stimulus[:, 6:].any()
    same = ink.argmax(axis=1) == word.argmax(axis=1)
    np.testing.assert_array_equal(same, np.array(schedule.condition) == "con")
    # The word names the action that a person who reads it would take.
    was = schedule.stimulus[:, 3:6].argmax(axis=1)
    np.testing.assert_array_equal(word.argmax(axis=1), action[np.arange(len(was)), was])


@pytest.mark.parametrize("seed", SEEDS)
def test_varied_pictures_stay_what_they_are(seed: int) -> None:
    schedule = TASKS["faces"].make_schedule(seed)
    stimulus, action = TASKS["faces"].vary(schedule, np.random.default_rng(seed + 1))
    is_face = np.array(schedule.condition) == "face"
    codes = stimulus[is_face, 2:]
    assert (((codes >= 0) & (codes <= 0.1)) | ((codes >= 0.9) & (codes <= 1))).all()
    shapes = stimulus[~is_face, 2:].reshape(-1, 2)
    assert set(map(tuple, shapes.tolist())) == {(1, 0), (0, 1), (1, 1)}
    assert not stimulus[:, :2].any()
    # Pictures differ in as many dimensions, and by as much, as they did.
    gap = [
        np.abs(codes[is_face, 4:6] - codes[is_face, 6:8]) for codes in (schedule.stimulus, stimulus)
    ]
    np.testing.assert_allclose(gap[0], gap[1], atol=1e-7)
    swapped = action[:, 0] == 1
    assert 0 < swapped.sum() < len(swapped)


@pytest.mark.parametrize("task", TASKS)
def test_variations_reach_every_exchange_alike(task: str) -> None:
    """Two sides by four flips of a face or six orders of the shapes; six orders of colours."""
    schedule = TASKS[task].make_schedule(0)
    rng = np.random.default_rng(8)
    draws = [TASKS[task].vary(schedule, rng) for _ in range(400)]
    for condition in set(schedule.condition):
        trial = schedule.condition.index(condition)
        kinds = Counter(
            (*np.rint(stimulus[trial]).tolist(), *action[trial].tolist())
            for stimulus, action in draws
        )
        wanted = {"con": 6, "inc": 6, "face": 8, "shape": 12}[condition]
        assert len(kinds) == wanted
        expected = 400 / wanted
        assert max(abs(n - expected) for n in kinds.values()) < 5 * np.sqrt(expected)


@pytest.mark.parametrize("task", TASKS)
def test_trials_vary_independently_and_by_the_seed_alone(task: str) -> None:
    schedule = TASKS[task].make_schedule(0)
    one, same, other = (TASKS[task].vary(schedule, np.random.default_rng(s)) for s in (4, 4, 5))
    np.testing.assert_array_equal(one.stimulus, same.stimulus)
    np.testing.assert_array_equal(one.action, same.action)
    assert not np.array_equal(one.stimulus, other.stimulus)
    assert len(set(map(tuple, one.action.tolist()))) == {"faces": 2, "stroop": 6}[task]
