"""A twin as predictor: a hypernetwork trained on a fold, rolled out over the runs of its people."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..cohort import Cohort
from ..dispatch import RolloutResult, rollout
from ..hypernetwork import BLOCK_SUBJECTS, generate_weights
from ..readouts import READOUTS, hazard_steps
from ..spec import TwinSpec
from ..tasks import TASKS
from ..tasks.design import contrast_design
from ..tasks.schedule import Schedule
from ..training.descent import Descent
from ..training.fit import edge_scale
from ..training.recipes import Config, count_steps, default_config, train_layers
from ..training.segments import Segments, cut_segments
from ..training.sizes import fit_spec
from ..weights import RNNWeights
from .baselines.features import Features, Reader
from .predicted import Predicted
from .runner import joined

Float32 = npt.NDArray[np.float32]


class TwinPredictor:
    """A hypernetwork from features of people to RNN weights, and what these RNNs do.

    Args:
        name: what tables call it.
        features: what it knows of a person.
        config: settings, None for the default.
        preset: sizes.
        device: where it is trained; it predicts on the engine's default backend.
    """

    def __init__(
        self,
        name: str,
        features: Features,
        config: Config | None,
        preset: TwinSpec,
        device: torch.device,
    ) -> None:
        self.name = name
        self._features = features
        self._config = config
        self._preset = preset
        self._device = device

    def fit(self, train: Cohort, seed: int) -> None:
        """Train with this seed.

        Raises:
            DTwinInputError: a cohort that cannot be cut into segments (code ``cohort``), or
                settings that do not fit the preset (``train_config``).
            FloatingPointError: the loss is no longer a finite number.
        """
        train = _with_measured_bold(train)
        self._spec = fit_spec(self._preset, train)
        config = replace(self._config or default_config(self._spec), seed=seed)
        segments = cut_segments(train, self._spec)
        self._bold_sd = segments.bold_sd
        self._tasks = {segments.schedules[run].task for run in segments.run}
        self._read = _scaled(self._features(train), train, self._spec, config)
        self._train(train, segments, config)

    def predict(self, people: Cohort) -> dict[str, Predicted]:
        """Predictions of every run of a task that was trained, and nothing of others."""
        x = self._read(people)
        blocks = [slice(i, i + BLOCK_SUBJECTS) for i in range(0, len(x), BLOCK_SUBJECTS)]
        predictions = {}
        for name, data in people.tasks.items():
            if data.schedule.task not in self._tasks:
                predictions[name] = Predicted()
                continue
            run = TASKS[data.schedule.task].encode(data.schedule, self._spec.dt_s)
            parts = [self._roll(x[block], run) for block in blocks]
            predictions[name] = joined(
                [read_out(part, data.schedule, self._spec, self._bold_sd) for part in parts]
            )
        return predictions

    def _train(self, train: Cohort, segments: Segments, config: Config) -> None:
        descent = Descent(count_steps(config, segments, self._spec), config.seed)
        self._layers = train_layers(
            train, segments, self._read(train), self._spec, config, self._device, descent
        )

    def _roll(self, x: Float32, run: Float32) -> RolloutResult:
        weights = RNNWeights.from_flat(generate_weights(self._layers, x), self._spec)
        return rollout(weights, run[None])


@np.errstate(over="ignore", invalid="ignore")
def read_out(
    rolled: RolloutResult, schedule: Schedule, spec: TwinSpec, bold_sd: Float32
) -> Predicted:
    """What S people do and show in a run: outputs (S,1,T,O) as predictions.

    Contrasts are ordinary-least-squares effects of the whole run, as the model's BOLD has no
    noise to whiten; BOLD is in the units of the cohort's. Whose rollout left the finite numbers
    is NaN.
    """
    outputs = np.where(rolled.diverged[:, None, None], np.nan, rolled.outputs[:, 0])
    actions, series = np.split(outputs, [spec.n_actions], axis=2)
    trials: tuple[Any, ...] = schedule.response_windows(spec.dt_s), schedule.onset_s, spec.dt_s
    responses = READOUTS[spec.head](actions, *trials)
    predicted = Predicted(
        choice_prob=responses.choice_prob,
        rt_s=responses.rt_s,
        press_prob=hazard_steps(actions, *trials) if spec.head == "hazard" else None,
        step_s=spec.dt_s,
    )
    if len(bold_sd) == 0:
        return predicted
    bold = series[:, schedule.volume_steps(spec.tr_s, spec.dt_s)].astype(np.float64) * bold_sd
    bold -= bold.mean(axis=1, keepdims=True)
    design, vectors = contrast_design(schedule, TASKS[schedule.task].contrasts, spec.tr_s)
    contrasts = vectors @ np.linalg.pinv(design) @ bold
    return replace(predicted, contrasts=contrasts.astype(np.float32), bold=bold.astype(np.float32))


def _scaled(read: Reader, train: Cohort, spec: TwinSpec, config: Config) -> Reader:
    """(S,F) float32 with F >= 1, standardised as the edges of a twin are."""

    def raw(people: Cohort) -> Float32:
        x = read(people).astype(np.float32)
        return x if x.shape[1] else np.zeros((len(x), 1), np.float32)

    if not spec.standardize:
        return raw
    mean, sd = edge_scale(raw(train), config)
    return lambda people: (raw(people) - mean) / sd


def _with_measured_bold(train: Cohort) -> Cohort:
    """Runs in which nobody's BOLD was measured, as of a site without a scanner, have none."""
    tasks = {
        name: replace(data, bold=None)
        if data.bold is not None and np.isnan(data.bold).all()
        else data
        for name, data in train.tasks.items()
    }
    return replace(train, tasks=tasks)
