"""Simulated people, whose traits are known: what models recover, and what control connectomes can.

Unlike the other studies it reads no folder. Five parts: true traits of people held out; a trait
that is in no connectome; what an oracle that knows the simulation reaches; own connectomes beside
permuted ones, random names and nothing, within people and on people held out; and how the true
trait is recovered with more training people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from ..cohort import Cohort
from ..evaluate.baselines.targets import mean_over_people
from ..evaluate.metrics_table import METRICS
from ..evaluate.predictor import Predictor
from ..evaluate.runner import Runner, RunResult, Scores
from ..evaluate.splits import SPLITS, Split, blank, make_split
from ..evaluate.statistics import correlation, correlation_over_people, mean_where, permutation_p
from ..evaluate.twin import twin_predictors
from ..simulate import SimulatedCohort, simulate
from ..spec import PRESETS
from ..tasks import TASKS
from ..training import StagedConfig
from ..training.encoder import kernel_ridge
from ..training.fit import edge_scale
from .battery import FitBattery, shuffled_folds
from .linear import Linear, krr_each, ridge_each, unit_rows
from .oracle import ORACLE, Oracle
from .reading import refuse_folder
from .result import Measure, as_dict, rows_of
from .scalar import cross_validated, fit_predict, p_value, permuted

Array = npt.NDArray[Any]
Model = Callable[[], Predictor]
Models = Mapping[str, Model]

STUDY = "ground-truth"
MODELS = ("twin", "permuted", "twin-random-id", "twin-zero")
TRAITS = ("speed", "interference", "amygdala")
KRR, RIDGE, TRUE_KRR = "KRR, observed trait", "ridge, observed trait", "KRR, true trait"
N_PERMUTATIONS = 199
SHOWN = (
    "concordance",
    "error-rate r",
    "RT person-mean r",
    "RT person-mean R2",
    "RT within-person r",
    "RT condition-effect r",
    "RT log-likelihood",
    "BOLD individual r",
    "BOLD mean-removed r",
    "BOLD region r",
)
SHARED = ("error-rate r", "RT person-mean r", "RT condition-effect r")
"""Metrics of which the share of the oracle's is said."""


def run(
    folder: Path | None = None,
    *,
    models: Models | None = None,
    seed: int = 0,
    people: int = 228,
    n_regions: int = 100,
    n_factors: int = 40,
    n_folds: int = 5,
    n_cohorts: int = 20,
    sizes: Sequence[int] = (100, 228, 500, 1000, 3000),
    n_test: int = 1000,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:
    """Score models against the truth of simulated cohorts.

    Args:
        folder: there is none.
        models: name -> factory; the first is the model, the others its controls. None is the
            twin and those of :data:`MODELS`.
        seed: of the cohort, folds, models and bootstrap.
        people, n_regions, n_factors: of the cohort, see :func:`dtwin_fast.simulate.simulate`.
        n_folds: of people held out.
        n_cohorts: cohorts in which the null trait is predicted.
        sizes: numbers of training people of the learning curve.
        n_test: its test people, the same for all sizes.
        progress: is told steps done, from 0, their number, and what was done.

    Raises:
        DTwinInputError: a folder (code ``folder``), or sizes that cannot be simulated or split.
    """
    refuse_folder(folder)
    models = _twins() if models is None else models
    model = next(iter(models))
    ticks = _Ticks(progress, (1 + n_folds) * len(models) + n_cohorts + len(sizes))
    whole = simulate(people, n_regions, seed=seed, n_factors=n_factors)
    oracle = Oracle(whole.truth)
    measures, flags = [], []
    for name in "AB":
        split = make_split(name, whole.cohort, n_folds=n_folds, seed=seed)
        runner = Runner(whole.cohort, split, seed, ticks)
        own, _, results = runner.model_scores(model, models[model], 0)
        scored = {model: own}
        scored |= {other: runner.scores(other, models[other]) for other in models if other != model}
        scored[ORACLE] = Runner(whole.cohort, split, seed, lambda note: None).scores(
            ORACLE, lambda: oracle
        )
        measures += _side_by_side(SPLITS[name], runner, scored)
        flags += [*split.flags, *runner.flags]
        if name == "B":
            measures += _recovered(model, whole, split, results, seed)
    draw = partial(simulate, n_regions=n_regions, n_factors=n_factors, with_bold=False)
    cohorts = (draw(people, seed=seed + 1 + i) for i in range(n_cohorts))
    measures += _null_trait(cohorts, n_folds, seed, ticks)
    population = draw(n_test + max(sizes), seed=seed)
    measures += _learning_curve(model, models[model], population, sizes, n_test, seed, ticks)
    floors = (KRR, RIDGE, TRUE_KRR, ORACLE, *(name for name in models if name != model))
    return as_dict(
        STUDY,
        rows_of(STUDY, measures, floors, seed),
        people=people,
        flags=list(dict.fromkeys(flags)),
        settings={
            "regions": n_regions,
            "factors": n_factors,
            "folds": n_folds,
            "cohorts": n_cohorts,
            "sizes": list(sizes),
            "test people": n_test,
            "seed": seed,
        },
    )


def _twins() -> Models:
    twins = twin_predictors(None, PRESETS["demo"], "cpu")
    return {name: twins[name] for name in MODELS}


@dataclass(eq=False)
class _Ticks:
    """Counts what takes time."""

    progress: Callable[[int, int, str], None] | None
    total: int
    done: int = 0

    def __post_init__(self) -> None:
        self._tell("")

    def __call__(self, note: str) -> None:
        self.done += 1
        self._tell(note)

    def _tell(self, note: str) -> None:
        if self.progress is not None:
            self.progress(self.done, self.total, note)


def _side_by_side(split: str, runner: Runner, scored: Mapping[str, Scores]) -> list[Measure]:
    """Every predictor on the same trials, and its share of what the oracle reaches."""
    measures = []
    for task in runner.runs:
        ceilings = runner.ceilings(task)
        where = f"{split}: {task}"
        for metric in (METRICS[name] for name in SHOWN):
            values = {
                name: rows[0]
                for name, scores in scored.items()
                if np.isfinite(rows := runner.rows(scores, task, metric)).any()
            }
            measures.append(
                Measure(
                    where,
                    metric.name,
                    values,
                    metric.combine,
                    metric.higher_is_better,
                    ceiling=ceilings.get(metric.name, np.nan),
                )
            )
            if metric.name in SHARED:
                shares = {
                    name: np.hstack([rows, values[ORACLE]])
                    for name, rows in values.items()
                    if name != ORACLE
                }
                name = f"{metric.name}, share of the oracle's"
                measures.append(Measure(where, name, shares, _share))
    return measures


def _share(rows: Array) -> float:
    """Ratio of two correlations, of columns 0 and 1 to 2 and 3."""
    best = correlation_over_people(rows[:, 2:])
    return correlation_over_people(rows[:, :2]) / best if best else float("nan")


def _recovered(
    model: str, whole: SimulatedCohort, split: Split, results: Mapping[str, RunResult], seed: int
) -> list[Measure]:
    """True traits against those predicted of people held out, as deviations from their fold.

    Everything is in the order of the folds.
    """
    order = np.concatenate([fold.people for fold in split.folds])
    fold_of = np.repeat(np.arange(len(split.folds)), [len(fold.people) for fold in split.folds])
    theta = whole.truth.theta[order]
    said = {task: found.predicted for task, found in results.items()}
    seen = {task: found.observed for task, found in results.items()}
    observed = _traits(whole.cohort, seen, seen["faces"].contrasts)
    x = whole.cohort.connectomes.fisher_z()[order]
    predicted = {
        model: _traits(whole.cohort, said, said["faces"].contrasts),
        KRR: _out_of_fold(krr, x, observed, fold_of),
        RIDGE: _out_of_fold(ridge_each, x, observed, fold_of),
        TRUE_KRR: _out_of_fold(krr, x, theta[:, : len(TRAITS)], fold_of),
    }
    measures = []
    for t, trait in enumerate(TRAITS):
        truth = _in_fold(theta[:, t], fold_of)
        values = {
            name: np.stack([_in_fold(traits[:, t], fold_of), truth], axis=1)
            for name, traits in predicted.items()
            if np.isfinite(traits[:, t]).any()
        }
        measures.append(
            Measure(
                "true traits of held-out people",
                f"r with true {trait}",
                values,
                correlation_over_people,
                ceiling=float(np.sqrt(whole.truth.heritability[t])),
                note="ceiling: sqrt of the share that connectomes hold",
            )
        )
    speed, null = (_in_fold(v, fold_of) for v in (predicted[model][:, 0], theta[:, len(TRAITS)]))
    rng = np.random.default_rng([seed, 0x41])
    by_chance = [correlation(speed, rng.permutation(null)) for _ in range(N_PERMUTATIONS)]
    p = permutation_p(abs(correlation(speed, null)), np.abs(by_chance))
    measures.append(
        Measure(
            "null trait",
            "r of predicted speed with the null trait",
            {model: np.stack([speed, null], axis=1)},
            correlation_over_people,
            p={model: p},
            note="p: permutations, two-sided",
        )
    )
    return measures


def _traits(cohort: Cohort, runs: Mapping[str, Any], contrasts: Array | None = None) -> Array:
    """(S,3) of :data:`TRAITS` from ``rt_s`` of both tasks, and contrasts (S,K,R) of the faces."""
    means = {}
    for task, found in runs.items():
        condition = np.array(cohort.tasks[task].schedule.condition)
        known = np.isfinite(found.rt_s)
        means[task] = mean_where(found.rt_s, known)
        for name in np.unique(condition):
            means[str(name)] = mean_where(found.rt_s, known & (condition == name))
    speed = -(means["faces"] + means["stroop"]) / 2
    amygdala = np.full(len(speed), np.nan)
    if contrasts is not None:
        which = list(TASKS["faces"].contrasts).index("faces>shapes")
        is_amygdala = np.array(["amygdala" in name for name in cohort.bold_regions], bool)
        amygdala = contrasts[:, which][:, is_amygdala].mean(axis=1)
    return np.stack([speed, means["inc"] - means["con"], amygdala], axis=1).astype(np.float64)


def krr(x: Array, codes: Array, targets: Array, *, seed: int) -> Linear:
    """``linear.krr_each`` on deviations from the training people's mean connectome."""
    mean = x.mean(axis=0)
    fitted = krr_each(x - mean, codes, targets, seed=seed)
    return replace(fitted, transform=lambda new: unit_rows(new - mean))


def first_layer(x: Array, codes: Array, targets: Array, *, seed: int) -> Linear:
    """The twin's first layer, from standardised edges, with the target in place of latents."""
    config = StagedConfig()
    mean, scale = edge_scale(x, config)
    z = targets.reshape(len(x), -1).astype(np.float64)
    weight, intercept = kernel_ridge(((x - mean) / scale).astype(np.float32), z, config.ridge)
    return Linear(
        intercept.reshape(targets.shape[1:]),
        np.zeros(x.shape[1]),
        weight.T.astype(np.float64),
        np.eye(z.shape[1]),
        lambda new: np.asarray((new - mean) / scale, np.float64),
    )


def _out_of_fold(fit: FitBattery, x: Array, y: Array, fold_of: Array) -> Array:
    """(S,P) predictions of (S,P) ``y``."""
    predicted = np.empty(y.shape)
    for fold in np.unique(fold_of):
        test = fold_of == fold
        predicted[test] = fit_predict(fit, x[~test], x[test], y[~test], seed=0)
    return predicted


def _in_fold(values: Array, fold_of: Array) -> Array:
    """(S,) deviations from the mean over the people of the fold with a value."""
    rest = values.astype(np.float64)
    for fold in np.unique(fold_of):
        rest[fold_of == fold] -= mean_over_people(rest[fold_of == fold, None])
    return rest


def _null_trait(
    cohorts: Iterable[SimulatedCohort], n_folds: int, seed: int, ticks: _Ticks
) -> list[Measure]:
    """r and permutation p of the null trait in other cohorts; p values should be uniform."""
    fits: dict[str, FitBattery] = {"KRR": krr, "first layer of the twin": first_layer}
    r: dict[str, list[float]] = {name: [] for name in fits}
    p: dict[str, list[float]] = {name: [] for name in fits}
    for i, cohort in enumerate(whole.cohort for whole in cohorts):
        y = cohort.participants["null_trait"]
        groups = np.zeros(len(y), int)
        columns = np.column_stack([y, permuted(y, groups, N_PERMUTATIONS, seed + i)])
        folds = shuffled_folds(len(y), n_folds, 1, seed + i)
        x = cohort.connectomes.fisher_z()
        for name, fit in fits.items():
            predicted, observed = cross_validated(
                fit, x, columns, groups=groups, folds=folds, seed=seed
            )
            r[name].append(correlation(predicted[:, 0], observed[:, 0]))
            p[name].append(
                p_value(predicted[:, 0], observed[:, 0], predicted[:, 1:], observed[:, 1:])
            )
        ticks(f"null trait, cohort {i + 1}")
    # p is one of 1/n ... n/n, the middle of whose step is uniform.
    step = 1 / (N_PERMUTATIONS + 1)
    uniform = {
        name: float(stats.kstest(np.array(values) - step / 2, "uniform").pvalue)
        for name, values in p.items()
    }
    low = {name: np.array(values, np.float64) <= 0.05 for name, values in p.items()}
    note = "n: cohorts; p: Kolmogorov-Smirnov of permutation p values against uniform"
    return [
        Measure("null trait", "r of held-out people", _arrays(r), p=uniform, note=note),
        Measure("null trait", "share of p <= 0.05", _arrays(low), note="n: cohorts"),
    ]


def _arrays(values: Mapping[str, Any]) -> dict[str, Array]:
    return {name: np.asarray(each, np.float64) for name, each in values.items()}


def _learning_curve(
    model: str,
    make: Model,
    whole: SimulatedCohort,
    sizes: Sequence[int],
    n_test: int,
    seed: int,
    ticks: _Ticks,
) -> list[Measure]:
    """r with true speed of the first people, from behaviour alone, with more training people."""
    cohort, theta = whole.cohort, whole.truth.theta[:, 0]
    x = cohort.connectomes.fisher_z()
    observed = _traits(cohort, cohort.tasks)[:, 0]
    test = np.arange(n_test)
    asked = blank(cohort.select(test))
    measures = []
    for size in sizes:
        train = np.arange(n_test, n_test + size)
        predictor = make()
        predictor.fit(cohort.select(train), seed)
        both = np.stack([observed[train], theta[train]], axis=1)
        from_krr = fit_predict(krr, x[train], x[test], both, seed=seed)
        predicted = {
            model: _traits(cohort, predictor.predict(asked))[:, 0],
            KRR: from_krr[:, 0],
            TRUE_KRR: from_krr[:, 1],
        }
        measures.append(
            Measure(
                f"learning curve: {size} training people",
                "r with true speed",
                {name: np.stack([v, theta[test]], axis=1) for name, v in predicted.items()},
                correlation_over_people,
                ceiling=float(np.sqrt(whole.truth.heritability[0])),
            )
        )
        ticks(f"{size} training people")
    return measures
