"""Resting connectome -> pain sensitivity, across scanners (Spisak et al. 2020, Nat Commun)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.linear_model import ElasticNet
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .battery import BatteryPredictor, FitBattery, Models, shuffled_folds
from .linear import cpm, group_mean, krr_each, ridge_each
from .reading import as_matrices, bad_data, fisher_z, read_array, read_table
from .result import Row, as_dict, rows_of
from .scalar import MEAN, cross_validated, fit_predict, measures, p_value, permuted
from .scalar_twin import scalar_twin

Array = npt.NDArray[Any]

STUDY = "pain-sites"
N_FOLDS, N_SHUFFLES, N_PERMUTATIONS = 10, 5, 1000
FEWEST_AT_SITE = 10
MOTION = "motion only"


@dataclass(frozen=True, eq=False)
class PainSites:
    """S people: Fisher z (S,E) with NaN of constant regions, sensitivity (S,), motion (S,) mm."""

    fc_z: Array
    sensitivity: Array
    site: Array
    included: Array
    mean_fd_mm: Array
    subjects: Array

    def select(self, people: Array) -> PainSites:
        """Some people."""
        return PainSites(*(column[people] for column in vars(self).values()))


def read(folder: Path) -> PainSites:
    """Read the folder; NaN where the source has none.

    Raises:
        DTwinInputError: see ``reading``; fewer than two sites with enough people (code
            ``study_data``).
    """
    columns = ("subject", "site", "included", "pain_sensitivity", "meanFD")
    table = read_table(folder, "subjects.csv", columns)
    fc = read_array(folder, "fc_triu.npy", (len(table), None), may_lack=True)
    data = PainSites(
        fisher_z(fc),
        table["pain_sensitivity"].to_numpy(np.float64),
        table["site"].to_numpy(str),
        table["included"].to_numpy(bool),
        table["meanFD"].to_numpy(np.float64),
        table["subject"].to_numpy(str),
    )
    if len(sites := _large_sites(data)) < 2:
        wanted = f"two sites of at least {FEWEST_AT_SITE} people"
        raise bad_data(folder / "subjects.csv", wanted, str(len(sites)))
    return data


def run(
    folder: Path,
    *,
    models: Models | None = None,
    seed: int = 0,
    n_permutations: int = N_PERMUTATIONS,
) -> dict[str, Any]:
    """Train at one site and test at another, and 10 folds in everybody with site as covariate.

    People that the authors excluded, or without a measured sensitivity, are left out; a second
    test takes the excluded of the test site in.

    Args:
        folder: the data.
        models: name -> fit function with one condition and one output, beside the floors;
            None is :data:`TWINS`.
        seed: of folds, models, permutations and bootstrap.
        n_permutations: of the training people's sensitivity, for the closed-form floors.
    """
    data = read(folder)
    models = TWINS if models is None else models
    measured = np.isfinite(data.sensitivity) & np.isin(data.site, _large_sites(data))
    kept = data.select(np.flatnonzero(measured & data.included))
    everyone = data.select(np.flatnonzero(measured))
    rows: list[Row] = []
    for train_site in np.unique(kept.site):
        for test_site in np.unique(kept.site[kept.site != train_site]):
            for tested, label in ((kept, ""), (everyone, ", excluded people too")):
                split = f"train {train_site}, test {test_site}{label}"
                train = kept.select(np.flatnonzero(kept.site == train_site))
                test = tested.select(np.flatnonzero(tested.site == test_site))
                rows += _transfer(split, train, test, models, seed, n_permutations)
    rows += _pooled(kept, models, seed, n_permutations)
    return as_dict(
        STUDY,
        rows,
        people=len(kept.subjects),
        flags=_flags(data),
        settings={"folds": N_FOLDS, "shuffles": N_SHUFFLES, "seed": seed},
    )


def sparse_partial(x: Array, codes: Array, targets: Array, *, seed: int) -> BatteryPredictor:
    """The published kind of model: partial correlations, a few best edges, an elastic net.

    Partial correlations of all nodes, shrunk by :func:`oas_shrinkage`; 15 or 30 edges and the
    penalty by five-fold cross-validation.
    """
    pipeline = make_pipeline(
        StandardScaler(), SelectKBest(f_regression), ElasticNet(max_iter=100_000)
    )
    grid = {"selectkbest__k": [15, 30], "elasticnet__alpha": [0.03, 0.1, 0.3, 1.0]}
    search = GridSearchCV(pipeline, grid, cv=5, scoring="neg_mean_squared_error")
    search.fit(partial_correlations(x), targets[:, 0, 0])
    return _Regressor(search)


@dataclass(frozen=True, eq=False)
class _Regressor:
    search: GridSearchCV

    def predict(self, x: Array) -> Array:
        predicted: Array = self.search.predict(partial_correlations(x))[:, None, None]
        return predicted


def partial_correlations(fc_z: Array, n_volumes: int = 200) -> Array:
    """(S,E) Fisher z -> (S,E) float64 partial correlations after shrinkage towards identity.

    ``n_volumes`` is that of the shorter scans: everybody is shrunk as if scanned so long.
    """
    r = as_matrices(np.tanh(np.asarray(fc_z, np.float64)), diagonal=1.0)
    n = r.shape[1]
    shrinkage = oas_shrinkage(r, n_volumes)[:, None]
    values, vectors = np.linalg.eigh(r)
    # An imputed region can leave a matrix that no series has.
    values = (1 - shrinkage) * np.maximum(values, 0) + shrinkage
    precision = (vectors / values[:, None, :]) @ vectors.transpose(0, 2, 1)
    scale = np.sqrt(np.diagonal(precision, axis1=1, axis2=2))
    partial_r = -precision / (scale[:, :, None] * scale[:, None, :])
    rows, columns = np.triu_indices(n, 1)
    edges: Array = partial_r[:, rows, columns]
    return edges


def oas_shrinkage(r: Array, n_samples: int) -> Array:
    """(S,R,R) correlations -> (S,) weight of the identity (Chen et al. 2010), as scikit-learn's."""
    power = (r**2).mean(axis=(1, 2))
    # Of uncorrelated regions the identity is all there is to estimate.
    spread = np.maximum((n_samples + 1) * (power - 1 / r.shape[1]), 1e-300)
    return np.asarray(np.minimum(1.0, (power + 1) / spread))


def imputing(fit: FitBattery) -> FitBattery:
    """The same fit, with features that are NaN replaced by the mean of the training people."""

    def filled(x: Array, codes: Array, targets: Array, *, seed: int) -> BatteryPredictor:
        n_known = np.isfinite(x).sum(axis=0)
        mean = np.nan_to_num(x).sum(axis=0) / np.maximum(n_known, 1)
        return _Imputing(fit(_fill(x, mean), codes, targets, seed=seed), mean)

    return filled


@dataclass(frozen=True, eq=False)
class _Imputing:
    predictor: BatteryPredictor
    mean: Array

    def predict(self, x: Array) -> Array:
        return self.predictor.predict(_fill(x, self.mean))


def _fill(x: Array, mean: Array) -> Array:
    return np.where(np.isnan(x), mean, x).astype(x.dtype)


TWINS: dict[str, FitBattery] = {
    "twin": partial(scalar_twin, views=(np.asarray, partial_correlations))
}
CLOSED_FORM: dict[str, FitBattery] = {"ridge": ridge_each, "KRR": krr_each, "CPM": cpm}
SPARSE = "sparse partial correlation"
FLOORS = (MEAN, *CLOSED_FORM, MOTION, SPARSE)
PERMUTED = (*CLOSED_FORM, MOTION)


def _large_sites(data: PainSites) -> Array:
    """Sites with enough people to learn from."""
    names, counts = np.unique(
        data.site[np.isfinite(data.sensitivity) & data.included], return_counts=True
    )
    return np.asarray(names[counts >= FEWEST_AT_SITE])


def _entries(data: PainSites, models: Models) -> dict[str, tuple[FitBattery, Array]]:
    """Name -> fit function and the (S,F) features it is given."""
    on_fc = {MEAN: group_mean, **CLOSED_FORM, SPARSE: sparse_partial, **models}
    entries = {name: (imputing(fit), data.fc_z) for name, fit in on_fc.items()}
    return entries | {MOTION: (imputing(ridge_each), data.mean_fd_mm[:, None])}


def _transfer(
    split: str, train: PainSites, test: PainSites, models: Models, seed: int, n_permutations: int
) -> list[Row]:
    y = train.sensitivity
    null = permuted(y, train.site, n_permutations, seed)
    predicted, p = {}, {}
    test_x = _entries(test, models)
    for name, (fit, x) in _entries(train, models).items():
        at_test = partial(fit_predict, fit, x, test_x[name][1], seed=seed)
        predicted[name] = at_test(y[:, None])[:, 0]
        if n_permutations and name in PERMUTED:
            observed = np.broadcast_to(
                test.sensitivity[:, None], (len(test.subjects), null.shape[1])
            )
            p[name] = p_value(predicted[name], test.sensitivity, at_test(null), observed)
    means = np.full(len(test.subjects), y.mean())
    scored = measures(split, predicted, test.sensitivity, means, p=p, unit=", z")
    return rows_of(STUDY, scored, FLOORS, seed)


def _pooled(data: PainSites, models: Models, seed: int, n_permutations: int) -> list[Row]:
    folds = shuffled_folds(len(data.subjects), N_FOLDS, N_SHUFFLES, seed, data.site)
    y = data.sensitivity
    null = permuted(y, data.site, n_permutations, seed)
    predicted, p = {}, {}
    for name, (fit, x) in _entries(data, models).items():
        out = partial(cross_validated, fit, x, groups=data.site, folds=folds, seed=seed)
        of_true, true = out(y[:, None])
        predicted[name], observed = of_true[:, 0], true[:, 0]
        if n_permutations and name in PERMUTED:
            p[name] = p_value(predicted[name], observed, *out(null))
    note = f"deviation from the site's training mean; mean over {N_SHUFFLES} shuffles of the folds"
    zeros = np.zeros(len(y))
    scored = measures(
        f"both sites, {N_FOLDS} folds", predicted, observed, zeros, p=p, note=note, unit=", z"
    )
    return rows_of(STUDY, scored, FLOORS, seed)


def _flags(data: PainSites) -> list[str]:
    edges = as_matrices(data.fc_z)
    # A region without signal lacks all its edges; the others lack only those to it.
    n_missing = (np.isnan(edges).sum(axis=2) >= edges.shape[1] - 1).sum(axis=1)
    flags = [
        f"{subject}: {n} region(s) without signal; edges imputed by the training mean"
        for subject, n in zip(data.subjects, n_missing, strict=True)
        if n
    ]
    unmeasured = data.subjects[~np.isfinite(data.sensitivity)]
    if len(unmeasured):
        flags.append(f"no pain sensitivity, left out: {', '.join(unmeasured)}")
    flags += [
        f"site {name} left out: fewer than {FEWEST_AT_SITE} people"
        for name in np.setdiff1d(data.site, _large_sites(data))
    ]
    unmoved = data.subjects[~np.isfinite(data.mean_fd_mm)]
    if len(unmoved):
        flags.append(f"no mean FD, imputed by the training mean: {', '.join(unmoved)}")
    n_excluded = int((~data.included).sum())
    flags.append(
        f"{n_excluded} people excluded by the authors (motion, thresholds) are left out but where "
        "a split says otherwise"
    )
    flags.append("no ceiling: sensitivity was measured once")
    return flags
