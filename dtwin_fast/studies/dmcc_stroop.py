"""Spoken colour-word Stroop with BOLD of the same people, 44 of the DMCC (Freund et al. 2021).

Everybody has an order of trials of their own, so a model is asked for the 32 stimuli, not for a
run: two sets of four colours, every word in every ink.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..cohort import NO_RESPONSE, NOT_MEASURED, WRONG_BUTTON
from ..evaluate.metrics_table import METRICS
from ..evaluate.observed import Observed
from ..evaluate.predicted import Predicted
from ..evaluate.statistics import mean_where
from .battery import FitBattery, Models, shuffled_folds, splits
from .linear import cpm, group_mean, krr_each, ridge_each
from .reading import bad_data, check_people, read_array, read_table
from .result import Measure, Row, as_dict, rows_of
from .scalar import MEAN, cross_validated, measures, p_value, permuted
from .scalar_twin import scalar_twin
from .trial_twin import TrialTwin, trial_twin

Array = npt.NDArray[Any]

STUDY = "dmcc-stroop"
SETS = {
    "mi": ("blue", "purple", "red", "white"),
    "pc50": ("black", "green", "pink", "yellow"),
}
"""Item set -> its colours, in the order of actions and inputs."""
N_COLOURS = 4
N_ITEMS = len(SETS) * N_COLOURS**2
DT_S, WINDOW_S = 0.08, 3.2
"""Step, and length of a trial's sequence: the longest reaction time is 3.1 s."""
N_FOLDS, N_SHUFFLES, N_PERMUTATIONS = 10, 5, 1000
SCORES = (
    "concordance",
    "NLL",
    "error-rate r",
    "RT person-mean r",
    "RT person-mean R2",
    "RT within-person r",
    "RT condition-effect r",
)
"""Of ``dtwin evaluate``; the conditions are named as in its Stroop task."""
_OVER_PEOPLE = ("error-rate r", "RT person-mean r", "RT condition-effect r")


@dataclass(frozen=True, eq=False)
class Trials:
    """N trials of S people, each person's in their own order.

    Attributes:
        run: (S,N) int 1 or 2.
        item: (S,N) int 0-31, the stimulus: set * 16 + word * 4 + ink.
        choice: (S,N) int8 colour said, 0-3 within the item's set, or ``NO_RESPONSE``,
            ``WRONG_BUTTON`` (a colour of the other set or an unclear one), ``NOT_MEASURED``
            (unintelligible).
        rt_s: (S,N) float32 voice onset, seconds; NaN where there is none or it could not be
            measured.
    """

    run: Array
    item: Array
    choice: Array
    rt_s: Array

    @property
    def correct(self) -> Array:
        """(S,N) int action of the ink."""
        return np.asarray(self.item % N_COLOURS, np.int64)

    @property
    def condition(self) -> Array:
        """(S,N) ``con`` or ``inc``."""
        return condition_of(self.item)

    def select(self, people: Array) -> Trials:
        """Some people."""
        return Trials(*(column[people] for column in vars(self).values()))

    def only(self, run: int) -> Trials:
        """The same with every other run not measured."""
        other = self.run != run
        return replace(
            self,
            choice=np.where(other, NOT_MEASURED, self.choice).astype(np.int8),
            rt_s=np.where(other, np.nan, self.rt_s).astype(np.float32),
        )


@dataclass(frozen=True, eq=False)
class Stroop:
    """Trials, and betas (S,16,R) float32 of the items of the first set, word by word.

    ``left_out`` are people without reaction times in both conditions of both runs.
    """

    trials: Trials
    betas: Array
    subjects: Array
    left_out: tuple[str, ...]


class TrialPredictor(Protocol):
    """A fitted model of choices and reaction times."""

    def predict(self, people: Array, x: Array, /) -> tuple[Array, Array]:
        """Names (S,), features (S,F) -> P(colour) (S,32,4), mean RT (S,32) in seconds."""
        ...


class FitTrials(Protocol):
    """A model or a floor; everything it learns it learns here."""

    def __call__(
        self, people: Array, x: Array, inputs: Array, trials: Trials, /, *, seed: int
    ) -> TrialPredictor:
        """Fit names (S,), features (S,F), sequences (32,T,9) of the stimuli and trials.

        Trials to be predicted are ``NOT_MEASURED``.
        """
        ...


def condition_of(item: Array) -> Array:
    """Items -> ``con`` where word and ink agree, else ``inc``."""
    return np.where(item // N_COLOURS % N_COLOURS == item % N_COLOURS, "con", "inc")


def trial_sequences(dt_s: float = DT_S, window_s: float = WINDOW_S) -> npt.NDArray[np.float32]:
    """(32,T,9) inputs of one trial of each stimulus, from its onset.

    Channels 0-3 are the ink and 4-7 the word, one-hot within the item set, 8 is the set. The
    stimulus stays on: how long it was shown is not in the data.
    """
    item = np.arange(N_ITEMS)
    code = np.zeros((N_ITEMS, 2 * N_COLOURS + 1), np.float32)
    code[item, item % N_COLOURS] = 1
    code[item, N_COLOURS + item // N_COLOURS % N_COLOURS] = 1
    code[:, -1] = item // N_COLOURS**2
    return np.repeat(code[:, None], round(window_s / dt_s), axis=1)


def read(folder: Path) -> Stroop:
    """Read the folder.

    Raises:
        DTwinInputError: see ``reading``; unknown sets, words or inks, people without trials or
            with numbers of trials that differ (code ``study_data``).
    """
    path = folder / "trials.csv.gz"
    columns = ("subject", "run", "word", "color", "item_set", "rt_ms", "response", "outcome")
    table = read_table(folder, path.name, columns)
    subjects = read_table(folder, "subjects.csv", ("subject",))["subject"].to_numpy(str)
    item = np.array([_item(*cells) for cells in table[["item_set", "word", "color"]].to_numpy()])
    if (item < 0).any():
        row = table.iloc[int((item < 0).argmax())]
        got = f"{row['item_set']}: {row['word']} in {row['color']}"
        raise bad_data(path, "words and inks of the two item sets", got, str(row["subject"]))
    rt_s = table["rt_ms"].to_numpy(np.float64) / 1000
    rt_s = np.where(rt_s > 0, rt_s, np.nan)
    outcome = table["outcome"].astype(str)
    choice = np.array(
        [_choice(*cells) for cells in zip(item, table["response"].fillna(""), outcome, strict=True)]
    )
    rt_s[(choice == NO_RESPONSE) | (choice == NOT_MEASURED)] = np.nan
    flat = Trials(table["run"].to_numpy(), item, choice.astype(np.int8), rt_s.astype(np.float32))
    rows = [np.flatnonzero(table["subject"] == subject) for subject in subjects]
    lengths = [len(r) for r in rows]
    if min(lengths) == 0 or len(set(lengths)) > 1:
        odd = subjects[int(np.argmin(lengths))]
        wanted = f"{max(lengths)} trials of everybody"
        raise bad_data(path, wanted, str(min(lengths)), str(odd))
    items = read_table(folder, "conditions.csv", ("word", "color"))
    order = [_item("mi", *pair) for pair in items[["word", "color"]].to_numpy()]
    if sorted(order) != list(range(N_COLOURS**2)):
        raise bad_data(folder / "conditions.csv", "the 16 items of the set mi", str(len(order)))
    betas = read_array(folder, "betas.npy", (len(subjects), len(order), None))
    trials = flat.select(np.stack(rows))
    effects = np.stack([stroop_effect(trials.only(run)) for run in (1, 2)])
    usable = np.isfinite(effects).all(axis=0)
    check_people(path, int(usable.sum()))
    return Stroop(
        trials.select(usable),
        betas[usable][:, np.argsort(order)],
        subjects[usable],
        tuple(map(str, subjects[~usable])),
    )


def run(
    folder: Path,
    *,
    models: Mapping[str, FitTrials] | None = None,
    battery: Models | None = None,
    seed: int = 0,
    n_permutations: int = N_PERMUTATIONS,
) -> dict[str, Any]:
    """Run 1 trains and run 2 tests; people held out; reaction times from betas.

    Args:
        folder: the data.
        models: name -> fit function of trials, beside the floors; features are the betas. None is
            :data:`TWINS`.
        battery: name -> fit function from the betas to one number, beside those floors. None
            is :data:`SCALAR_TWINS`.
        seed: of folds, models, permutations and bootstrap.
        n_permutations: of people, for the closed-form floors.
    """
    data = read(folder)
    models = TWINS if models is None else models
    battery = SCALAR_TWINS if battery is None else battery
    x = data.betas.reshape(len(data.betas), -1)
    n_folds = min(N_FOLDS, len(x) // 2)
    folds = shuffled_folds(len(x), n_folds, N_SHUFFLES, seed)
    rows = _within(data, x, models, seed)
    rows += _held_out(data, x, models, folds[0], seed)
    rows += _from_betas(data.trials, x, battery, folds, seed, n_permutations)
    return as_dict(
        STUDY,
        rows,
        people=len(x),
        flags=_flags(data),
        settings={"folds": n_folds, "shuffles": N_SHUFFLES, "seed": seed},
    )


@dataclass(frozen=True, eq=False)
class _Table:
    """Predicts from tables: everybody's (32,), or those of the people in ``own``."""

    p_correct: Array
    rt_s: Array
    own: Mapping[str, tuple[Array, Array]]

    def predict(self, people: Array, x: Array) -> tuple[Array, Array]:
        each = [self.own.get(person, (self.p_correct, self.rt_s)) for person in people]
        p_correct, rt_s = (np.stack(part) for part in zip(*each, strict=True))
        ink = np.arange(N_ITEMS) % N_COLOURS
        prob = np.repeat((1 - p_correct[:, :, None]) / (N_COLOURS - 1), N_COLOURS, axis=2)
        prob[:, np.arange(N_ITEMS), ink] = p_correct
        return prob, rt_s


def _by_cell(trials: Trials, cell: Array) -> tuple[Array, Array]:
    """(32,) P(correct) and mean RT of the measured trials whose items share a ``cell`` (32,)."""
    measured, timed = trials.choice != NOT_MEASURED, np.isfinite(trials.rt_s)
    right = trials.choice == trials.correct
    overall = right[measured].mean()
    p_correct, rt_s = np.empty(N_ITEMS), np.full(N_ITEMS, np.nanmean(trials.rt_s))
    for name in np.unique(cell):
        inside = cell[trials.item] == name
        # Two imagined trials keep a cell with few trials near the rest.
        n_right, n = (right & inside & measured).sum(), (inside & measured).sum()
        p_correct[cell == name] = (n_right + 2 * overall) / (n + 2)
        if (inside & timed).any():
            rt_s[cell == name] = trials.rt_s[inside & timed].mean(dtype=np.float64)
    return p_correct, rt_s


def _group_by(cell: Array, people: Array, x: Array, inputs: Array, trials: Trials, /, *, seed: int
) -> _Table:  # fmt: skip
    return _Table(*_by_cell(trials, cell), {})


def _own_by(cell: Array, people: Array, x: Array, inputs: Array, trials: Trials, /, *, seed: int
) -> _Table:  # fmt: skip
    own = {person: _by_cell(trials.select(np.array([i])), cell) for i, person in enumerate(people)}
    return _Table(*_by_cell(trials, cell), own)


_ITEMS = np.arange(N_ITEMS)
GROUP_FLOORS: dict[str, FitTrials] = {
    "group condition mean": partial(_group_by, condition_of(_ITEMS)),
    "item mean": partial(_group_by, _ITEMS),
}
OWN_FLOORS: dict[str, FitTrials] = {
    "own mean": partial(_own_by, np.zeros(N_ITEMS, int)),
    "own condition mean": partial(_own_by, condition_of(_ITEMS)),
}


def press_counts(trials: Trials, dt_s: float = DT_S, window_s: float = WINDOW_S) -> Array:
    """(S,32,T,9) how often each code of ``Segments.press`` was there, by stimulus and step.

    Answers without a measured onset do not count, as nobody knows when their risk ended.
    """
    n_steps = round(window_s / dt_s)
    counts = np.zeros((len(trials.item), N_ITEMS, n_steps, 1 + 2 * N_COLOURS))
    answered = (trials.choice >= 0) | (trials.choice == WRONG_BUTTON)
    usable = np.where(
        answered, np.isfinite(trials.rt_s) & (trials.rt_s < window_s), trials.choice == NO_RESPONSE
    )
    codes = 1 + np.where(trials.choice == WRONG_BUTTON, N_COLOURS + trials.correct, trials.choice)
    for person, trial in np.argwhere(usable):
        steps = counts[person, trials.item[person, trial]]
        if not answered[person, trial]:
            steps[:, 0] += 1
            continue
        pressed = int(trials.rt_s[person, trial] / dt_s)
        steps[:pressed, 0] += 1
        steps[pressed, codes[person, trial]] += 1
    return counts


def recoloured(inputs: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Sequences (32,T,9) with the colours in other channels, and the (4,) channel of each."""
    order = rng.permutation(N_COLOURS)
    shown = inputs.copy()
    shown[..., order] = inputs[..., :N_COLOURS]
    shown[..., N_COLOURS + order] = inputs[..., N_COLOURS : 2 * N_COLOURS]
    return shown, order


def twin(people: Array, x: Array, inputs: Array, trials: Trials, /, *, seed: int) -> TrialTwin:
    """:func:`trial_twin` of the measured trials; run 1 lacks some stimuli, hence other colours."""
    return trial_twin(
        people,
        x,
        inputs,
        press_counts(trials),
        partial(recoloured, inputs),
        dt_s=DT_S,
        seed=seed,
    )


TWINS: dict[str, FitTrials] = {"twin": twin}
SCALAR_TWINS: dict[str, FitBattery] = {"twin": scalar_twin}


def _within(data: Stroop, x: Array, models: Mapping[str, FitTrials], seed: int) -> list[Row]:
    trials, people, inputs = data.trials, data.subjects, trial_sequences()
    entries = {**GROUP_FLOORS, **OWN_FLOORS, **models}
    train, test = trials.only(1), trials.only(2)
    predicted = {
        name: fit(people, x, inputs, train, seed=seed).predict(people, x)
        for name, fit in entries.items()
    }
    means = np.full(len(people), np.nanmean(train.rt_s))
    ceilings = {
        "RT person-mean r": _root_r(_mean_rt(train), _mean_rt(test)),
        "RT condition-effect r": _root_r(stroop_effect(train), stroop_effect(test)),
    }
    scored = _measures(
        "run 1 -> run 2, same people", predicted, test, means, ceilings, is_held_out=False
    )
    return rows_of(STUDY, scored, (*GROUP_FLOORS, *OWN_FLOORS), seed)


def _held_out(
    data: Stroop, x: Array, models: Mapping[str, FitTrials], folds: Array, seed: int
) -> list[Row]:
    trials, people, inputs = data.trials, data.subjects, trial_sequences()
    means = np.empty(len(people))
    predicted = {}
    for name, fit in {**GROUP_FLOORS, **models}.items():
        prob = np.empty((len(people), N_ITEMS, N_COLOURS))
        rt_s = np.empty((len(people), N_ITEMS))
        for k, (train, test) in enumerate(splits(folds)):
            known = trials.select(train)
            fitted = fit(people[train], x[train], inputs, known, seed=seed + k)
            prob[test], rt_s[test] = fitted.predict(people[test], x[test])
            means[test] = np.nanmean(known.rt_s)
        predicted[name] = prob, rt_s
    split = "held-out people, trials"
    scored = _measures(split, predicted, trials, means, {}, is_held_out=True)
    return rows_of(STUDY, scored, tuple(GROUP_FLOORS), seed)


def _measures(
    split: str,
    predicted: Mapping[str, tuple[Array, Array]],
    trials: Trials,
    means: Array,
    ceilings: Mapping[str, float],
    *,
    is_held_out: bool,
) -> list[Measure]:
    """Scores of (S,32,4) and (S,32) predictions on the measured trials."""
    person = np.arange(len(trials.item))[:, None]
    observed = Observed(
        choice=trials.choice,
        rt_s=trials.rt_s,
        correct=trials.correct,
        condition=trials.condition,
        reference={"rt_mean": means},
    )
    of_trials = {
        name: Predicted(choice_prob=prob[person, trials.item], rt_s=rt_s[person, trials.item])
        for name, (prob, rt_s) in predicted.items()
    }
    notes = {"concordance": "all floors say the correct colour always"}
    if is_held_out:
        # The others' mean is low where the person left out is high.
        notes |= dict.fromkeys(
            _OVER_PEOPLE, "r of a mean of other people is below 0 by construction"
        )
    return [
        Measure(
            split,
            metric.name,
            {name: metric.summarise(p, observed) for name, p in of_trials.items()},
            metric.combine,
            metric.higher_is_better,
            ceiling=ceilings.get(metric.name, np.nan),
            note=notes.get(metric.name, ""),
        )
        for metric in (METRICS[name] for name in SCORES)
    ]


def _from_betas(
    trials: Trials, x: Array, models: Models, folds: Array, seed: int, n_permutations: int
) -> list[Row]:
    closed_form: dict[str, FitBattery] = {"ridge": ridge_each, "KRR": krr_each, "CPM": cpm}
    one_group = np.zeros(len(x), int)
    note = f"deviation from the training mean; mean over {len(folds)} shuffles of the folds"
    rows: list[Row] = []
    for target, y in (
        ("mean reaction time", _mean_rt(trials)),
        ("Stroop effect", stroop_effect(trials)),
    ):
        null = permuted(y, one_group, n_permutations, seed)
        predicted, p = {}, {}
        for name, fit in {MEAN: group_mean, **closed_form, **models}.items():
            out = partial(cross_validated, fit, x, groups=one_group, folds=folds, seed=seed)
            of_true, true = out(y[:, None])
            predicted[name], observed = of_true[:, 0], true[:, 0]
            if n_permutations and name in closed_form:
                p[name] = p_value(predicted[name], observed, *out(null))
        split = f"held-out people, betas to {target}"
        scored = measures(split, predicted, observed, np.zeros(len(y)), p=p, note=note, unit=", s")
        reliability = _root_r(*(_target_of(target, trials.only(r)) for r in (1, 2)))
        scored[0] = replace(scored[0], ceiling=reliability)
        rows += rows_of(STUDY, scored, (MEAN, *closed_form), seed)
    return rows


def stroop_effect(trials: Trials) -> Array:
    """(S,) mean RT of incongruent minus that of congruent trials, seconds."""
    timed, rt_s = np.isfinite(trials.rt_s), trials.rt_s.astype(np.float64)
    inc, con = (mean_where(rt_s, timed & (trials.condition == c)) for c in ("inc", "con"))
    return inc - con


def _mean_rt(trials: Trials) -> Array:
    return mean_where(trials.rt_s.astype(np.float64), np.isfinite(trials.rt_s))


def _target_of(target: str, trials: Trials) -> Array:
    return stroop_effect(trials) if target == "Stroop effect" else _mean_rt(trials)


def _root_r(first: Array, second: Array) -> float:
    """Square root of the correlation of two measurements: the r that the truth would reach."""
    both = np.isfinite(first) & np.isfinite(second)
    return float(np.sqrt(max(np.corrcoef(first[both], second[both])[0, 1], 0.0)))


def _item(item_set: str, word: str, ink: str) -> int:
    colours = SETS.get(item_set, ())
    if word not in colours or ink not in colours:
        return -1
    number = list(SETS).index(item_set) * N_COLOURS + colours.index(word)
    return number * N_COLOURS + colours.index(ink)


def _choice(item: int, response: str, outcome: str) -> int:
    if outcome == "1":
        return item % N_COLOURS
    if outcome == "0":
        colours = list(SETS.values())[item // N_COLOURS**2]
        return colours.index(response) if response in colours else WRONG_BUTTON
    return NO_RESPONSE if outcome == "no.response" else NOT_MEASURED


def _flags(data: Stroop) -> list[str]:
    trials = data.trials
    answered = (trials.choice >= 0) | (trials.choice == WRONG_BUTTON)
    flags = [
        "17 co-twin pairs are somewhere in the source; who they are is not in the data, so folds "
        "may part twins and scores on held-out people may be too good",
        "betas come from the correct trials of both runs whose reaction times they predict",
        "the twin's first settings fitted noise, as its scores on run 2 said; the present ones "
        "were chosen in run 1, one half of everybody's trials telling the other, and colours are "
        "exchanged in training, which is longer, since it failed on stimuli that run 1 lacks",
        f"{int((trials.choice == NOT_MEASURED).sum())} unintelligible trials do not count; "
        f"{int((answered & np.isnan(trials.rt_s)).sum())} answers have no measurable onset",
    ]
    if data.left_out:
        flags.append(f"left out, a condition without reaction times: {', '.join(data.left_out)}")
    return flags
