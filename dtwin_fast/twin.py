"""Twin: a trained model that turns connectomes into weights and weights into predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .connectome import BadSubjects, Connectomes, MissingPolicy, fill_missing
from .dispatch import isa, rollout
from .errors import DTwinInputError
from .hypernetwork import Layer, generate_weights, layer_sizes
from .model_card import model_card
from .model_files import (
    WEIGHTS_FILE,
    check_weights,
    decode_safetensors,
    read_config,
    save_model,
)
from .prediction import Prediction
from .provenance import input_digest, package_version
from .readouts import READOUTS
from .spec import TwinSpec
from .tasks import TASKS
from .tasks.schedule import Schedule
from .weights import RNNWeights, count_weights

Float32 = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
"""Called with (done, total) after each chunk of work."""

CHUNK_BYTES = 256 * 2**20
"""Generated weights and outputs in memory at once; a whole cohort's never are."""


@dataclass(frozen=True, eq=False)
class Twin:
    """A hypernetwork, the tasks it was trained on and the constants of its cohort.

    Attributes:
        spec: sizes.
        regions: R region names; input is matched to them by name.
        layers: the hypernetwork.
        edge_mean, edge_sd: (E,) Fisher z mean and SD of the training cohort.
        bold_sd: (BOLD regions,) SD of the training BOLD, in its units; predictions are in
            these units of one.
        schedules: task name -> the trials of its run.
        projections: task name -> (K,T) rows that turn BOLD outputs into contrast effects
            (:func:`dtwin_fast.tasks.design.contrast_projection`).
        contrasts: task name -> names of those K rows.
        training: provenance of the training (cohort, seed, steps, losses).
        sha256: of the weights file this twin was loaded from, else "".
    """

    spec: TwinSpec
    regions: tuple[str, ...]
    layers: tuple[Layer, ...]
    edge_mean: Float32
    edge_sd: Float32
    bold_sd: Float32
    schedules: dict[str, Schedule]
    projections: dict[str, Float32]
    contrasts: dict[str, tuple[str, ...]]
    training: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""

    def __post_init__(self) -> None:
        tensors = self._tensors()
        shapes = _tensor_shapes(self.spec, self.schedules, self.contrasts)
        for name, shape in shapes.items():
            if tensors[name].shape != shape:
                raise _model_error(
                    name, "has the wrong shape", wanted=str(shape), got=str(tensors[name].shape)
                )
            if not np.isfinite(tensors[name]).all():
                raise _model_error(name, "holds NaN or infinite values", wanted="finite weights")
        if len(set(self.regions)) != self.spec.n_regions:
            raise _model_error(
                "regions",
                "does not name each region once",
                wanted=f"{self.spec.n_regions} distinct names",
                got=f"{len(set(self.regions))} distinct names of {len(self.regions)}",
            )
        if not (self.edge_sd > 0).all():
            raise _model_error("edge_sd", "holds values that are not positive")

    def personalize(
        self,
        fc: Connectomes | npt.ArrayLike,
        *,
        missing: MissingPolicy = "reject",
        bad_subjects: BadSubjects = "raise",
    ) -> RNNWeights:
        """Weights of the main RNN for each subject.

        Args:
            fc: Connectomes with region names (matched by name), or Pearson r as
                (S,R,R) or (S,E) in the order of ``self.regions``.
            missing: what to do with regions that a subject lacks (NaN edges):
                ``reject`` the subject, ``mask`` (the missing edges contribute nothing,
                the others are scaled by E / E present as dropout does in training) or
                ``impute`` the training cohort's mean edge.
            bad_subjects: ``raise`` on the first bad subject, or ``drop`` bad subjects.

        Raises:
            DTwinInputError: input that does not fit this twin.
        """
        connectomes = self.prepare(fc, missing=missing, bad_subjects=bad_subjects)
        return self._generate(connectomes, missing)

    def predict(
        self,
        fc: Connectomes | npt.ArrayLike,
        tasks: Sequence[str] | None = None,
        *,
        missing: MissingPolicy = "reject",
        bad_subjects: BadSubjects = "raise",
        bold: bool = True,
        backend: str = "auto",
        precision: str = "float32",
        n_threads: int | None = None,
        progress: Progress | None = None,
    ) -> Prediction:
        """Choices, reaction times, BOLD and contrasts of each subject.

        Args:
            fc, missing, bad_subjects: as in :meth:`personalize`.
            tasks: names of the tasks to run; None runs all that the twin knows.
            bold: keep the BOLD series (S,V,regions); contrasts come in any case.
            backend, precision, n_threads: as in :func:`dtwin_fast.rollout`.
            progress: called with (subjects done, subjects in all).

        Raises:
            DTwinInputError: input, task or option that does not fit this twin.
            BackendUnavailableError: an explicitly named backend cannot run.
        """
        schedules = {name: self._schedule(name) for name in tasks or self.schedules}
        connectomes = self.prepare(fc, missing=missing, bad_subjects=bad_subjects)
        n_subjects = len(connectomes)
        inputs = self._inputs(schedules)
        parts: list[_Part] = []
        ran = backend
        for chunk in self._chunks(n_subjects, inputs.shape[:2]):
            weights = self._generate(connectomes.select(chunk), missing)
            result = rollout(
                weights, inputs, backend=backend, precision=precision, n_threads=n_threads
            )
            ran = result.backend
            parts.append(self._read_out(result.outputs, result.diverged, schedules, bold))
            if progress is not None:
                progress(int(chunk[-1]) + 1, n_subjects)
        whole = parts[0] if len(parts) == 1 else _Part.join(parts)
        return Prediction(
            subjects=connectomes.subjects,
            schedules=schedules,
            choice_prob=whole.choice_prob,
            rt_s=whole.rt_s,
            bold=whole.bold,
            contrasts=whole.contrasts,
            contrast_names=tuple(c for name in schedules for c in self.contrasts[name]),
            bold_regions=self.spec.bold_regions,
            tr_s=self.spec.tr_s,
            diverged=whole.diverged,
            flags=connectomes.flags,
            rejected=connectomes.rejected,
            provenance={
                "model": self.spec.name,
                "model_sha256": self.sha256,
                "dtwin_fast": package_version(),
                "backend": ran,
                "isa": isa(ran),
                "precision": precision,
                "training_seed": self.training.get("seed"),
                "input_sha256": input_digest(connectomes),
                "missing_policy": missing,
            },
        )

    def prepare(
        self,
        fc: Connectomes | npt.ArrayLike,
        *,
        missing: MissingPolicy = "reject",
        bad_subjects: BadSubjects = "raise",
    ) -> Connectomes:
        """Check connectomes and bring their regions into this twin's order."""
        if isinstance(fc, Connectomes):
            connectomes = fc.align(self.regions)
        else:
            connectomes = Connectomes.from_arrays(
                fc, regions=self.regions, bad_subjects=bad_subjects
            )
        return connectomes.resolve_missing(missing, bad_subjects=bad_subjects)

    def save(self, folder: str | Path) -> Twin:
        """Write a model folder and return this twin with its new ``sha256``."""
        config = {
            "spec": self.spec.to_dict(),
            "regions": list(self.regions),
            "tasks": {name: s.to_dict() for name, s in self.schedules.items()},
            "contrasts": {name: list(names) for name, names in self.contrasts.items()},
            "training": self.training,
            "dtwin_fast": package_version(),
        }
        card = model_card(self.spec, self.training, list(self.schedules))
        digest = save_model(Path(folder), self._tensors(), config, card)
        return Twin(**{**vars(self), "sha256": digest})

    def _generate(self, connectomes: Connectomes, missing: MissingPolicy) -> RNNWeights:
        x, mean = connectomes.fisher_z(), self.edge_mean
        if self.spec.standardize:
            x, mean = (x - self.edge_mean) / self.edge_sd, np.zeros_like(self.edge_mean)
        x = fill_missing(x, missing, mean)
        return RNNWeights.from_flat(generate_weights(self.layers, x), self.spec)

    def _schedule(self, task: str) -> Schedule:
        if task not in self.schedules:
            raise DTwinInputError(
                "task",
                "this twin was not trained on the task",
                field="tasks",
                wanted=" | ".join(self.schedules),
                got=repr(task),
                fix="Name tasks of this twin, or train one on the task",
            )
        return self.schedules[task]

    def _inputs(self, schedules: dict[str, Schedule]) -> Float32:
        # One sequence per task: all of them share a subject's weights in one rollout. A
        # shorter run is padded at its end, which changes nothing before it.
        runs = [TASKS[name].encode(s, self.spec.dt_s) for name, s in schedules.items()]
        longest = max(len(run) for run in runs)
        return np.stack([np.pad(run, ((0, longest - len(run)), (0, 0))) for run in runs])

    def _chunks(self, n_subjects: int, shape: tuple[int, ...]) -> Iterator[npt.NDArray[np.int64]]:
        n_sequences, n_steps = shape
        values = count_weights(self.spec) + n_sequences * n_steps * self.spec.n_outputs
        size = max(1, CHUNK_BYTES // (4 * values))
        for start in range(0, max(n_subjects, 1), size):
            yield np.arange(start, min(start + size, n_subjects))

    def _read_out(
        self,
        outputs: npt.NDArray[Any],
        diverged: npt.NDArray[np.bool_],
        schedules: dict[str, Schedule],
        keep_bold: bool,
    ) -> _Part:
        decode = READOUTS[self.spec.head]
        responses, bold, contrasts = [], [], []
        for b, (name, schedule) in enumerate(schedules.items()):
            run = outputs[:, b, : schedule.n_steps(self.spec.dt_s)]
            actions, series = np.split(run, [self.spec.n_actions], axis=2)
            windows = schedule.response_windows(self.spec.dt_s)
            responses.append(decode(actions, windows, schedule.onset_s, self.spec.dt_s))
            contrasts.append(np.matmul(self.projections[name], series).astype(np.float32))
            if keep_bold:
                steps = schedule.volume_steps(self.spec.tr_s, self.spec.dt_s)
                bold.append(series[:, steps].astype(np.float32))
        return _Part(
            np.concatenate([r.choice_prob for r in responses], axis=1),
            np.concatenate([r.rt_s for r in responses], axis=1),
            np.concatenate(bold, axis=1) if keep_bold else None,
            np.concatenate(contrasts, axis=1),
            diverged,
        )

    def _tensors(self) -> dict[str, Float32]:
        tensors = {
            "edge_mean": self.edge_mean,
            "edge_sd": self.edge_sd,
            "bold_sd": self.bold_sd,
        }
        for i, layer in enumerate(self.layers):
            tensors[f"hyper.{i}.weight"] = layer.weight
            tensors[f"hyper.{i}.bias"] = layer.bias
        for name, projection in self.projections.items():
            tensors[f"projection.{name}"] = projection
        return tensors


@dataclass(frozen=True)
class _Part:
    """Predictions of one chunk of subjects, axes as in Prediction."""

    choice_prob: Float32
    rt_s: Float32
    bold: Float32 | None
    contrasts: Float32
    diverged: npt.NDArray[np.bool_]

    @classmethod
    def join(cls, parts: Sequence[_Part]) -> _Part:
        bold = [part.bold for part in parts if part.bold is not None]
        return cls(
            np.concatenate([part.choice_prob for part in parts]),
            np.concatenate([part.rt_s for part in parts]),
            np.concatenate(bold) if bold else None,
            np.concatenate([part.contrasts for part in parts]),
            np.concatenate([part.diverged for part in parts]),
        )


def load(path: str | Path) -> Twin:
    """Load a model folder.

    Raises:
        DTwinInputError: not a model folder, another version, a wrong SHA-256, tensors
            that do not fit the config, NaN weights (codes ``model_*``, ``spec``).
    """
    folder = Path(path)
    config = read_config(folder)
    spec = TwinSpec.from_dict(_typed(config, "spec", dict))
    schedules = {
        str(name): Schedule.from_dict(values)
        for name, values in _typed(config, "tasks", dict).items()
    }
    contrasts = {
        str(name): tuple(map(str, names))
        for name, names in _typed(config, "contrasts", dict).items()
    }
    if not schedules or set(schedules) != set(contrasts) or not set(schedules) <= set(TASKS):
        raise _model_error(
            "tasks", "are not tasks of this version with their contrasts", wanted=" | ".join(TASKS)
        )
    check_weights(folder, config.get("weights_sha256"))
    tensors = decode_safetensors(folder / WEIGHTS_FILE, _tensor_shapes(spec, schedules, contrasts))
    return Twin(
        spec=spec,
        regions=tuple(map(str, _typed(config, "regions", list))),
        layers=tuple(
            Layer(tensors[f"hyper.{i}.weight"], tensors[f"hyper.{i}.bias"])
            for i in range(len(layer_sizes(spec)))
        ),
        edge_mean=tensors["edge_mean"],
        edge_sd=tensors["edge_sd"],
        bold_sd=tensors["bold_sd"],
        schedules=schedules,
        projections={name: tensors[f"projection.{name}"] for name in schedules},
        contrasts=contrasts,
        training=_typed(config, "training", dict),
        sha256=str(config["weights_sha256"]),
    )


def _tensor_shapes(
    spec: TwinSpec, schedules: dict[str, Schedule], contrasts: dict[str, tuple[str, ...]]
) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "edge_mean": (spec.n_edges,),
        "edge_sd": (spec.n_edges,),
        "bold_sd": (len(spec.bold_regions),),
    }
    for i, (n_in, n_out) in enumerate(layer_sizes(spec)):
        shapes[f"hyper.{i}.weight"] = (n_out, n_in)
        shapes[f"hyper.{i}.bias"] = (n_out,)
    for name, schedule in schedules.items():
        shapes[f"projection.{name}"] = (len(contrasts[name]), schedule.n_steps(spec.dt_s))
    return shapes


def _typed(config: dict[str, Any], key: str, kind: type) -> Any:
    if not isinstance(config.get(key), kind):
        raise _model_error(
            key, "is missing or ill-typed", wanted=kind.__name__, got=repr(config.get(key))[:80]
        )
    return config[key]


def _model_error(field_name: str, what: str, *, wanted: str = "", got: str = "") -> DTwinInputError:
    return DTwinInputError(
        "model_content",
        f"this part of the model {what}",
        field=field_name,
        wanted=wanted,
        got=got,
        fix="Copy the model folder again from its source, or train it again",
    )
