"""Resting connectome -> 24 task activations of 360 parcels, 20 people of the HCP.

Data: the toolbox of Cole et al. (ActflowToolbox), which also states the reference numbers of
activity flow that :func:`activity_flow` reproduces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .battery import FitBattery, Models, out_of_fold, shuffled_folds, training_means
from .linear import PENALTIES, group_mean, krr, ridge
from .reading import as_matrices, bad_data, check_people, fisher_z, n_nodes, read_array, read_table
from .regional_twin import connections, regional_twin
from .result import Measure, as_dict, rows_of
from .scores import condition_r, own_minus_others, rank, row_r, similarity, top_1

Array = npt.NDArray[Any]

STUDY = "hcp-battery"
N_FOLDS, N_SHUFFLES = 10, 5
FLOW = "activity flow, own FC"
FLOW_OTHER = "activity flow, others' FC"
FLOW_PENALTY = 0.3
TOP_1, RANK = "identification, top 1", "identification, normalised rank"
OWN_MINUS_OTHER = "own minus other's FC, mean-removed r"


@dataclass(frozen=True, eq=False)
class Battery:
    """S people: Pearson r of rest (S,E) float32 and activations (S,M,R) float32."""

    fc: Array
    betas: Array
    subjects: tuple[str, ...]
    conditions: tuple[str, ...]


def read(folder: Path) -> Battery:
    """Read the folder.

    Raises:
        DTwinInputError: see ``reading``; parts of different lengths (code ``study_data``).
    """
    subjects = read_table(folder, "subjects.csv", ("subject",))["subject"]
    conditions = read_table(folder, "conditions.csv", ("condition",))["condition"]
    check_people(folder, len(subjects))
    betas = read_array(folder, "task_betas.npy", (len(subjects), len(conditions), None))
    fc = read_array(folder, "fc_triu.npy", (len(subjects), None))
    if n_nodes(fc.shape[1]) != betas.shape[2]:
        n = betas.shape[2]
        wanted = f"{n * (n - 1) // 2} edges of {n} parcels"
        raise bad_data(folder / "fc_triu.npy", wanted, f"{fc.shape[1]} edges")
    return Battery(fc, betas, tuple(map(str, subjects)), tuple(map(str, conditions)))


def run(
    folder: Path, *, models: Models | None = None, seed: int = 0, n_shuffles: int = N_SHUFFLES
) -> dict[str, Any]:
    """Score the models and the floors on held-out people, 10 folds, several shuffles.

    Args:
        folder: the data.
        models: name -> fit function, beside the floors; None is :data:`TWINS`.
        seed: of folds, models and bootstrap.
        n_shuffles: fold assignments; a person's score is the mean over them.
    """
    data = read(folder)
    x, y = fisher_z(data.fc), data.betas.astype(np.float64)
    codes = np.eye(len(data.conditions), dtype=np.float32)
    n_folds = min(N_FOLDS, len(y) // 2)
    folds = shuffled_folds(len(y), n_folds, n_shuffles, seed)
    entries: dict[str, FitBattery] = {**FLOORS, **(TWINS if models is None else models)}
    flow = activity_flow(data)
    scored = []
    for k, fold in enumerate(folds):
        means = training_means(y, fold)
        predicted = {
            name: out_of_fold(fit, x, codes, y, fold, seed=seed + k * n_folds)
            for name, fit in entries.items()
        }
        scored.append({name: _scores(p, means, y, fold) for name, p in predicted.items()})
        scored[-1] |= _flow_scores(flow, means, y)
    by_entry = {name: _mean_scores([shuffle[name] for shuffle in scored]) for name in scored[0]}
    rows = rows_of(STUDY, _measures(by_entry, len(y)), (*FLOORS, FLOW, FLOW_OTHER), seed)
    return as_dict(
        STUDY,
        rows,
        people=len(y),
        flags=[
            "no ceiling: these people have one task session, so no reliability could be measured",
            "activity flow is told the person's own activations of all other parcels; "
            "the other predictors are told only the resting connectome",
            "identification is hard on models: the predictions for the others come from models "
            "that knew this person's activations, the own prediction does not; own minus other's "
            "FC has one model for both",
            *TWIN_FLAGS,
        ],
        settings={"folds": n_folds, "shuffles": n_shuffles, "seed": seed},
    )


def activity_flow(data: Battery) -> Array:
    """Activity flow (Cole et al. 2016): each parcel from the activations of all the others.

    Weights are those of the multiple regression that the inverse P of (FC + 0.3 I) stands for,
    w_rs = -P_rs / P_rr.

    Returns:
        (S,S,M,R): activations of the first person through the connectome of the second.
    """
    weights = connections(fisher_z(data.fc), FLOW_PENALTY)
    flow: Array = np.einsum("imq,jrq->ijmr", data.betas, weights, optimize=True)
    return flow


@dataclass(frozen=True, eq=False)
class _Through:
    """Deviation of activations = deviation of a person's (R,R) times ``weights`` (R,M).

    ``read`` makes the (S,R,R) of edges (S,E).
    """

    mean: Array
    centre: Array
    weights: Array
    read: Callable[[Array], Array]

    def predict(self, x: Array) -> Array:
        deviation = (self.read(x) - self.centre) @ self.weights
        predicted: Array = self.mean + deviation.transpose(0, 2, 1)
        return predicted


def group_through_fc(x: Array, codes: Array, targets: Array, *, seed: int) -> _Through:
    """Deviation = c (F_i - Fbar) @ group activations; the number c by least squares."""
    return _group_through(_correlations, x, targets)


def group_through_regression(x: Array, codes: Array, targets: Array, *, seed: int) -> _Through:
    """Activity flow of the group's activations: :func:`group_through_fc` on its weights."""
    return _group_through(_regressions, x, targets)


def _group_through(read: Callable[[Array], Array], x: Array, targets: Array) -> _Through:
    mean, centre, matrices, deviation = _deviations(read(x), targets)
    flow = matrices @ mean.T
    c = (flow * deviation).sum() / ((flow**2).sum() or 1.0)
    return _Through(mean, centre, c * mean.T, read)


def fingerprint(x: Array, codes: Array, targets: Array, *, seed: int) -> _Through:
    """Ridge from a parcel's row of F_i - Fbar to its M deviations, one map for all parcels.

    The penalty is chosen by leaving out one training person at a time.
    """
    mean, centre, fc, deviation = _deviations(_correlations(x), targets)
    grams = fc.transpose(0, 2, 1) @ fc
    products = fc.transpose(0, 2, 1) @ deviation
    gram, product = grams.sum(axis=0), products.sum(axis=0)
    penalties = PENALTIES * (np.trace(gram) / len(gram) or 1.0)
    errors = np.zeros(len(penalties))
    for i in range(len(fc)):
        values, vectors = np.linalg.eigh(gram - grams[i])
        values = np.maximum(values, 0)
        projected, rows = vectors.T @ (product - products[i]), fc[i] @ vectors
        errors += [
            ((deviation[i] - rows @ (projected / (values[:, None] + p))) ** 2).sum()
            for p in penalties
        ]
    ridge_gram = gram + penalties[errors.argmin()] * np.eye(len(gram))
    return _Through(mean, centre, np.linalg.solve(ridge_gram, product), _correlations)


FLOORS: dict[str, FitBattery] = {
    "group mean": group_mean,
    "ridge": ridge,
    "KRR": krr,
    "group activations through own FC": group_through_fc,
    "fingerprint ridge": fingerprint,
    "activity flow, own FC, group activations": group_through_regression,
}

TWINS: dict[str, FitBattery] = {"twin": regional_twin}
TWIN_FLAGS = (
    "the twin's penalties are chosen inside every fold; its kind of connections was chosen once, "
    "by people left out among the 18 who train the first fold, most of whom are tested in other "
    "folds: correlations (also row-scaled, demeaned, strongest tenth, squared), partial "
    "correlations, regression weights, pairs of these, homotopic weights; regression weights "
    "were best",
)


def _correlations(x: Array) -> Array:
    return as_matrices(_float64(x))


def _regressions(x: Array) -> Array:
    return connections(x, FLOW_PENALTY)


def _deviations(matrices: Array, targets: Array) -> tuple[Array, Array, Array, Array]:
    """Mean activations (M,R), mean (R,R), deviations of (S,R,R) and deviations (S,R,M)."""
    mean = np.asarray(np.nanmean(targets, axis=0, dtype=np.float64))
    centre = matrices.mean(axis=0)
    deviation = np.nan_to_num(targets - mean).transpose(0, 2, 1)
    return mean, centre, matrices - centre, deviation


def _scores(predicted: Array, means: Array, y: Array, folds: Array) -> dict[str, Array]:
    """Metric -> (S,) of predictions for held-out people."""
    observed, deviation = y - means, predicted - means
    return {
        **_pattern_scores(predicted, means, y),
        **_identification(similarity(observed, deviation)),
        OWN_MINUS_OTHER: own_minus_others(observed, deviation, folds),
    }


def _flow_scores(flow: Array, means: Array, y: Array) -> dict[str, dict[str, Array]]:
    """The same of activity flow; the others to be told from are others' connectomes."""
    n = len(y)
    own = flow[np.arange(n), np.arange(n)]
    others = [flow[np.arange(n), (np.arange(n) + shift) % n] for shift in range(1, n)]
    r = np.array(
        [row_r(flow[:, j] - means, y - means) for j in range(n)],
    ).T
    others_r = (r.sum(axis=1) - np.diag(r)) / (n - 1)
    return {
        FLOW: {
            **_pattern_scores(own, means, y),
            **_identification(r),
            OWN_MINUS_OTHER: np.diag(r) - others_r,
        },
        FLOW_OTHER: _mean_scores([_pattern_scores(p, means, y) for p in others]),
    }


def _pattern_scores(predicted: Array, means: Array, y: Array) -> dict[str, Array]:
    return {
        "pattern r": row_r(predicted, y),
        "pattern r, mean over conditions": condition_r(predicted, y),
        "mean-removed r": row_r(predicted - means, y - means),
    }


def _identification(r: Array) -> dict[str, Array]:
    return {TOP_1: top_1(r), RANK: rank(r)}


def _mean_scores(scores: list[dict[str, Array]]) -> dict[str, Array]:
    return {metric: np.mean([s[metric] for s in scores], axis=0) for metric in scores[0]}


def _measures(by_entry: Mapping[str, Mapping[str, Array]], n_subjects: int) -> list[Measure]:
    chance = {TOP_1: f"chance {1 / n_subjects:.3g}", RANK: "chance 0.5"}
    told = "is told the person's own activations of the other parcels"
    swapped = f"{told}; told apart from others' connectomes with the same activations"
    measures = []
    for metric in by_entry[FLOW]:
        values = {name: scores[metric] for name, scores in by_entry.items() if metric in scores}
        notes = dict.fromkeys(
            (FLOW, FLOW_OTHER), swapped if metric in (TOP_1, RANK, OWN_MINUS_OTHER) else told
        )
        measures.append(
            Measure("held-out people", metric, values, notes=notes, note=chance.get(metric, ""))
        )
    return measures


def _float64(x: Array) -> Array:
    return np.asarray(x, np.float64)
