"""Heat on the arm -> BOLD time series of 122 regions (Woo et al. 2015, OpenfMRI ds000140)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from nilearn.glm.first_level import glover_hrf, make_first_level_design_matrix, run_glm

from ..evaluate.statistics import correlation
from ..tasks.design import HIGH_PASS_HZ
from .battery import shuffled_folds, splits
from .reading import bad_data, check_people, fisher_z, read_array, read_table
from .result import Measure, Row, as_dict, rows_of
from .scores import row_r
from .series_twin import SeriesTwin, series_twin

Array = npt.NDArray[Any]

STUDY = "pain-bold"
TR_S, DT_S = 2.0, 0.5
TRAIN_RUN, TEST_RUN = 1, 3
N_FOLDS = 10
HRF_S = 32.0
CENTRE_C, SCALE_C = 44.0, 2.0
"""Temperatures enter as (deg C - 44) / 2."""
CHANNELS = ("heat", "temperature", "rating")


@dataclass(frozen=True, eq=False)
class Run:
    """One run of S people.

    Attributes:
        inputs: (S,T,3) float32 at ``DT_S``, channels ``CHANNELS``: heat on, its temperature,
            rating on; a step that an event covers in part has that part.
        bold: (S,V,R) float32 at ``TR_S``, demeaned, in units of the person's SD in run 1.
        regulated: whether people were asked to regulate their pain.
    """

    inputs: Array
    bold: Array
    regulated: bool


@dataclass(frozen=True, eq=False)
class PainBold:
    """The runs that train and test, of the people who have both; ``left_out`` have one.

    ``without_signal`` are the regions in which somebody has none: they are left out of all.
    """

    train: Run
    test: Run
    subjects: tuple[str, ...]
    left_out: tuple[str, ...]
    without_signal: tuple[str, ...]


class SeriesPredictor(Protocol):
    """A fitted model of time series."""

    def predict(self, people: Array, x: Array, inputs: Array, /) -> Array:
        """People's names (S,), features (S,F), inputs (S,T,I) -> BOLD (S,V,R) at TR."""
        ...


class FitSeries(Protocol):
    """A model or a floor; everything it learns it learns here."""

    def __call__(
        self, people: Array, x: Array, inputs: Array, targets: Array, /, *, seed: int
    ) -> SeriesPredictor:
        """Fit names (S,), features (S,F) and inputs (S,T,I) at ``DT_S`` to (S,V,R) at ``TR_S``."""
        ...


def read(folder: Path) -> PainBold:
    """Read the folder; the global signal, column 0, is left out.

    Raises:
        DTwinInputError: see ``reading``; too few people with both runs, somebody without
            events, most regions without signal (code ``study_data``).
    """
    columns = ("subject", "run", "onset_in_run", "duration", "temperature", "regulate", "event")
    events = read_table(folder, "events.csv", columns)
    names, series = {}, {}
    for run in (TRAIN_RUN, TEST_RUN):
        names[run] = read_table(folder, f"bold_run-{run:02d}_subjects.csv", ("subject",))["subject"]
        file = f"bold_run-{run:02d}.npy"
        series[run] = read_array(folder, file, (len(names[run]), None, None))[:, :, 1:]
    both = sorted(set(names[TRAIN_RUN]) & set(names[TEST_RUN]))
    check_people(folder, len(both))
    bold = {
        run: _demeaned(series[run][[list(names[run]).index(subject) for subject in both]])
        for run in series
    }
    # One set of regions for everybody: scores over regions are compared between people.
    has_signal = np.all([(values.std(axis=1) > 0).all(axis=0) for values in bold.values()], axis=0)
    if has_signal.mean() < 0.5:
        raise bad_data(folder, "series that vary", f"{(~has_signal).sum()} regions without signal")
    labels = read_table(folder, "regions.csv", ("label",))["label"].to_numpy(str)[1:]
    if len(labels) != len(has_signal):
        raise bad_data(folder / "regions.csv", f"{len(has_signal)} regions", str(len(labels)))
    bold = {run: values[:, :, has_signal] for run, values in bold.items()}
    sd = bold[TRAIN_RUN].std(axis=1)
    scale = sd.mean(axis=1)[:, None, None]
    runs = {}
    for run, values in bold.items():
        of_run = events[events["run"] == run]
        inputs = [_inputs(of_run[of_run["subject"] == s], values.shape[1], folder, s) for s in both]
        regulated = bool(of_run["regulate"].notna().any())
        runs[run] = Run(np.stack(inputs), (values / scale).astype(np.float32), regulated)
    left_out = sorted(set(names[TRAIN_RUN]) ^ set(names[TEST_RUN]))
    return PainBold(
        runs[TRAIN_RUN], runs[TEST_RUN], tuple(both), tuple(left_out), tuple(labels[~has_signal])
    )


def features(run: Run) -> npt.NDArray[np.float32]:
    """(S,E) Fisher z of the connectome in what the design leaves of each person's series."""
    rows, columns = np.triu_indices(run.bold.shape[2], 1)
    edges = []
    for bold, inputs in zip(run.bold, run.inputs, strict=True):
        design = design_matrix(inputs, len(bold))
        residual = bold - design @ np.linalg.lstsq(design, bold, rcond=None)[0]
        edges.append(np.corrcoef(residual.T)[rows, columns])
    return fisher_z(np.array(edges))


def run(
    folder: Path, *, models: Mapping[str, FitSeries] | None = None, seed: int = 0
) -> dict[str, Any]:
    """Train on run 1, test on run 3: of the same people, and of people held out (10 folds).

    Args:
        folder: the data.
        models: name -> fit function, beside the floors; the features are :func:`features`.
            None is :data:`TWINS`.
        seed: of folds, models and bootstrap.
    """
    data = read(folder)
    models = TWINS if models is None else models
    x, people = features(data.train), np.array(data.subjects)
    entries: dict[str, FitSeries] = {ZERO: _zero, GROUP: _group_betas, **models}
    n_folds = min(N_FOLDS, len(people) // 2)
    folds = shuffled_folds(len(people), n_folds, 1, seed)[0]
    everyone = np.arange(len(people))
    betas = {"train": _betas(data.train), "test": _betas(data.test)}

    def predicted(fit: FitSeries, parts: list[tuple[Array, Array]]) -> Array:
        out = np.empty(data.test.bold.shape)
        for k, (train, test) in enumerate(parts):
            fitted = fit(
                people[train], x[train], data.train.inputs[train], data.train.bold[train],
                seed=seed + k,
            )  # fmt: skip
            out[test] = _demeaned(fitted.predict(people[test], x[test], data.test.inputs[test]))
        return out

    rows: list[Row] = []
    for split, parts in (
        ("run 1 -> run 3, same people", [(everyone, everyone)]),
        ("run 1 -> run 3, held-out people", list(splits(folds))),
    ):
        own = {OWN: _own_betas} if len(parts) == 1 else {}
        by_entry = {name: predicted(fit, parts) for name, fit in {**entries, **own}.items()}
        measures = _measures(split, by_entry, data.test, betas["train"], betas["test"])
        rows += rows_of(STUDY, measures, (ZERO, GROUP, OWN), seed)
    return as_dict(
        STUDY,
        rows,
        people=len(people),
        flags=_flags(data),
        settings={"folds": n_folds, "seed": seed, "hrf": "Glover", "noise": "AR(1)"},
    )


def design_matrix(inputs: Array, n_volumes: int) -> Array:
    """(V,C) float64: the inputs (T,I) through Glover's response, cosine drifts, a constant."""
    response = glover_hrf(DT_S, oversampling=1, time_length=HRF_S)
    step = round(TR_S / DT_S)
    regressors = np.stack(
        [np.convolve(channel, response)[: len(channel) : step] for channel in inputs.T], axis=1
    )
    frame = make_first_level_design_matrix(
        TR_S * np.arange(n_volumes),
        drift_model="cosine",
        high_pass=HIGH_PASS_HZ,
        add_regs=regressors,
        add_reg_names=list(CHANNELS),
    )
    return np.asarray(frame, np.float64)


def hrf_betas(bold: Array, inputs: Array) -> Array:
    """(I,R) effects of one person's inputs (T,I) on (V,R), GLM with AR(1) prewhitening."""
    labels, results = run_glm(
        bold.astype(np.float64), design_matrix(inputs, len(bold)), noise_model="ar1"
    )
    betas = np.empty((inputs.shape[1], bold.shape[1]))
    for label, fitted in results.items():
        betas[:, labels == label] = fitted.theta[: len(betas)]
    return betas


@dataclass(frozen=True, eq=False)
class _Betas:
    """Predicts inputs through the response times ``betas`` (I,R): own ones, or everybody's."""

    everybody: Array
    own: Mapping[str, Array]

    def predict(self, people: Array, x: Array, inputs: Array) -> Array:
        n_volumes = round(inputs.shape[1] * DT_S / TR_S)
        return np.stack(
            [
                design_matrix(sequence, n_volumes)[:, : len(self.everybody)]
                @ self.own.get(person, self.everybody)
                for person, sequence in zip(people, inputs, strict=True)
            ]
        )


ZERO, GROUP, OWN = "no response", "group betas of run 1", "own betas of run 1"


def _zero(people: Array, x: Array, inputs: Array, targets: Array, *, seed: int) -> _Betas:
    return _Betas(np.zeros((inputs.shape[2], targets.shape[2])), {})


def _group_betas(people: Array, x: Array, inputs: Array, targets: Array, *, seed: int) -> _Betas:
    each = [hrf_betas(*pair) for pair in zip(targets, inputs, strict=True)]
    return _Betas(np.mean(each, axis=0), {})


def _own_betas(people: Array, x: Array, inputs: Array, targets: Array, *, seed: int) -> _Betas:
    each = [hrf_betas(*pair) for pair in zip(targets, inputs, strict=True)]
    return _Betas(np.mean(each, axis=0), dict(zip(people, each, strict=True)))


def twin(people: Array, x: Array, inputs: Array, targets: Array, *, seed: int) -> SeriesTwin:
    """:func:`series_twin` at this study's steps; the design's drifts are left to the noise."""
    drifts = design_matrix(inputs[0], targets.shape[1])[:, inputs.shape[2] :]
    return series_twin(people, x, inputs, targets, drifts, dt_s=DT_S, tr_s=TR_S, seed=seed)


TWINS: dict[str, FitSeries] = {"twin": twin}


def _betas(run: Run) -> Array:
    """(S,R) effects of heat."""
    return np.stack([hrf_betas(*pair)[0] for pair in zip(run.bold, run.inputs, strict=True)])


def _measures(
    split: str, by_entry: Mapping[str, Array], test: Run, train_betas: Array, test_betas: Array
) -> list[Measure]:
    """Scores of predicted series (S,V,R), and of their heat betas (S,R)."""
    heat = {name: _heat_effect(p, test.inputs) for name, p in by_entry.items()}
    mean = train_betas.mean(axis=0)
    reliability = "ceiling: square root of the correlation of the two runs' betas"
    pairs = {name: np.hstack([h, test_betas]) for name, h in heat.items()}
    return [
        Measure(
            split,
            "time-course R2",
            {name: _explained(p, test.bold) for name, p in by_entry.items()},
        ),
        Measure(
            split,
            "time-course r, mean over regions",
            {name: _region_r(p, test.bold) for name, p in by_entry.items()},
        ),
        Measure(
            split,
            "heat betas, group-pattern r",
            pairs,
            group_pattern_r,
            ceiling=_root(group_pattern_r(np.hstack([train_betas, test_betas]))),
            note=reliability,
        ),
        Measure(
            split,
            "heat betas, individual r",
            {name: row_r(h, test_betas) for name, h in heat.items()},
            ceiling=_root(row_r(train_betas, test_betas).mean()),
            note=reliability,
        ),
        Measure(
            split,
            "heat betas, mean-removed r",
            {name: row_r(_cleaned(h - mean), test_betas - mean) for name, h in heat.items()},
            ceiling=_root(row_r(train_betas - mean, test_betas - mean).mean()),
            notes={ZERO: "less than the mean of run 1, which scores where responses shrink"},
            note=f"minus the group's mean of run 1; {reliability}",
        ),
    ]


def group_pattern_r(rows: Array) -> float:
    """(S,2R) predicted and observed betas -> correlation over R regions of their means."""
    return correlation(*np.split(rows.mean(axis=0), 2))


def _heat_effect(predicted: Array, inputs: Array) -> Array:
    """(S,R) least-squares effect of heat in predicted series, which have no noise to whiten."""
    return np.stack(
        [
            np.linalg.lstsq(design_matrix(sequence, len(series)), series, rcond=None)[0][0]
            for series, sequence in zip(predicted, inputs, strict=True)
        ]
    )


def _explained(predicted: Array, observed: Array) -> Array:
    observed = observed.astype(np.float64)
    sse = ((observed - predicted) ** 2).sum(axis=(1, 2))
    share: Array = 1 - sse / (observed**2).sum(axis=(1, 2))
    return share


def _region_r(predicted: Array, observed: Array) -> Array:
    by_region = (
        part.transpose(0, 2, 1).reshape(-1, part.shape[1]) for part in (predicted, observed)
    )
    mean: Array = row_r(*by_region).reshape(len(observed), -1).mean(axis=1)
    return mean


def _cleaned(deviation: Array) -> Array:
    """Deviations without the rounding that least squares leaves where there are none."""
    return np.round(deviation, 9)


def _root(reliability: float) -> float:
    return float(np.sqrt(max(reliability, 0.0)))


def _demeaned(series: Array) -> Array:
    centred: Array = series - series.mean(axis=1, keepdims=True, dtype=np.float64)
    return centred


def _inputs(events: pd.DataFrame, n_volumes: int, folder: Path, subject: str) -> Array:
    if events.empty:
        raise bad_data(folder / "events.csv", "events of every run", "none", subject)
    start = DT_S * np.arange(round(n_volumes * TR_S / DT_S))
    onset, duration = (events[c].to_numpy(np.float64) for c in ("onset_in_run", "duration"))
    covered = np.minimum(onset + duration, start[:, None] + DT_S) - np.maximum(
        onset, start[:, None]
    )
    on = np.clip(covered, 0, None) / DT_S
    is_heat = (events["event"] == "heat").to_numpy()
    temperature = (events["temperature"].to_numpy(np.float64)[is_heat] - CENTRE_C) / SCALE_C
    if not np.isfinite(temperature).all() or not np.isfinite(on).all():
        raise bad_data(folder / "events.csv", "times, and temperatures of heat", "gaps", subject)
    channels = on[:, is_heat].sum(axis=1), on[:, is_heat] @ temperature, on[:, ~is_heat].sum(axis=1)
    return np.stack(channels, axis=1).astype(np.float32)


def _flags(data: PainBold) -> list[str]:
    flags = []
    if data.left_out:
        flags.append(f"left out, one of the two runs is missing: {', '.join(data.left_out)}")
    if data.without_signal:
        regions = ", ".join(data.without_signal)
        flags.append(f"regions left out because somebody has no signal there: {regions}")
    if data.test.regulated != data.train.regulated:
        flags.append("people regulated their pain in one of the two runs only: the tasks differ")
    flags.append(
        "the twin's design was revised twice after its scores on run 3 had been seen (features of "
        "unit length, ridges by stretches of the run, a chain for every input): they are not blind"
    )
    return flags
