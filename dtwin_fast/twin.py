"""Twin: a trained model that turns connectomes into weights and weights into predictions."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .connectome import (
    BadSubjects,
    Connectomes,
    MissingPolicy,
    fill_missing,
    fill_missing_vjp,
)
from .connectome_checks import check_regions
from .dispatch import isa, rollout
from .errors import DTwinInputError
from .files import as_path
from .hypernetwork import BLOCK_SUBJECTS, Layer, backpropagate_weights, generate_weights
from .model_card import model_card
from .model_files import save_model
from .prediction import Prediction
from .provenance import input_digest, package_version
from .readouts import READOUTS, Responses
from .spec import TwinSpec
from .tasks import TASKS
from .tasks.schedule import Schedule
from .twin_parts import check_gradient, check_tasks, content_error, gradient_error, tensor_shapes
from .weights import RNNWeights, count_weights

if TYPE_CHECKING:
    from .interventions.intervene import Intervention
    from .interventions.targets import Said, Target

Float32 = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
"""Called with (done, total) after each chunk of work."""

CHUNK_BYTES = 256 * 2**20
"""Generated weights and outputs in memory at once; a whole cohort's never are."""
CHUNK_SUBJECTS = 2 * BLOCK_SUBJECTS
"""At most this many at once, so that progress is told often."""


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

    Raises:
        DTwinInputError: parts that do not fit together or are not finite numbers (codes
            ``model_content``, ``region_name``, ``region_duplicate``).
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
        check_tasks(self.spec, self.schedules, self.contrasts)
        tensors = self._tensors()
        shapes = tensor_shapes(self.spec, self.schedules, self.contrasts)
        if set(tensors) != set(shapes):
            odd = sorted(set(tensors) ^ set(shapes))
            raise content_error("tensors", "is missing or too many", got=reprlib.repr(odd))
        for name, shape in shapes.items():
            tensor = tensors[name]
            if tensor.shape != shape or tensor.dtype != np.float32:
                raise content_error(
                    name,
                    "has the wrong shape or dtype",
                    wanted=f"{shape} float32",
                    got=f"{tensor.shape} {tensor.dtype}",
                )
            if not np.isfinite(tensor).all():
                raise content_error(name, "holds NaN or infinite values", wanted="finite weights")
        # Counted first: a list may hold millions, and check_regions looks at every name.
        if len(self.regions) != self.spec.n_regions:
            raise content_error(
                "regions",
                "does not name each region once",
                wanted=f"{self.spec.n_regions} names",
                got=f"{len(self.regions)} names",
            )
        check_regions(self.regions, field="regions")
        if not (self.edge_sd > 0).all():
            raise content_error("edge_sd", "holds values that are not positive")

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

    @np.errstate(over="ignore", invalid="ignore")
    def edge_gradients(
        self,
        fc: Connectomes | npt.ArrayLike,
        d_weights: RNNWeights,
        *,
        missing: MissingPolicy = "reject",
        bad_subjects: BadSubjects = "raise",
    ) -> Float32:
        """Gradient of ``sum(personalize(fc) * d_weights)`` with respect to the edges of fc.

        It is taken in the unit in which they were given: Pearson r (0 where |r| is beyond
        the clip of Fisher's transform), or Fisher z when the Connectomes hold it. An edge is
        one number: both halves of a matrix move with it. A subject's gradients are the same
        to the bit in any cohort.

        Args:
            fc, missing, bad_subjects: as given to :meth:`personalize`.
            d_weights: gradients of a loss with respect to the weights that
                :meth:`personalize` returns, e.g. ``rollout_vjp(...).weights``.
                NaN or infinite numbers spoil their subject alone.

        Returns:
            (S,E) float32. Rows are the subjects that were kept
            (``prepare(fc, ...).subjects``). Columns are the edges between ``self.regions``,
            row-major upper triangle (k=1), whatever the order of regions in fc; regions
            that this twin does not know have no column, as they have no effect. Edges of
            missing regions are 0: what is not there has no effect.

        Raises:
            DTwinInputError: input that does not fit this twin, or gradients that do not
                fit both (codes ``weights``, ``shape``).
        """
        check_gradient(d_weights, self.spec)
        connectomes = self.prepare(fc, missing=missing, bad_subjects=bad_subjects)
        n_subjects = len(connectomes)
        if d_weights.n_subjects != n_subjects:
            raise gradient_error(f"{n_subjects} subjects", f"{d_weights.n_subjects} subjects")
        gradients = np.empty(connectomes.edges.shape, np.float32)
        for start in range(0, n_subjects, BLOCK_SUBJECTS):  # flat gradients of a few at a time
            rows = slice(start, start + BLOCK_SUBJECTS)
            part = connectomes.select(rows)
            d_flat = d_weights.select(rows).to_flat()
            d_x = backpropagate_weights(self.layers, self.hyper_input(part, missing), d_flat)
            gradients[rows] = self.hyper_input_vjp(part, missing, d_x)
        return gradients

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
            tasks: names of the tasks to run, in this order; None runs all that the twin knows.
            bold: keep the BOLD series (S,V,regions); contrasts come in any case.
            backend, precision, n_threads: as in :func:`dtwin_fast.rollout`.
            progress: called with (subjects done, subjects in all).

        Raises:
            DTwinInputError: input, task or option that does not fit this twin.
            BackendUnavailableError: an explicitly named backend cannot run.
        """
        schedules = self._choose(tasks)
        connectomes = self.prepare(fc, missing=missing, bad_subjects=bad_subjects)
        n_subjects = len(connectomes)
        inputs = self.encode(list(schedules))
        parts: list[_Part] = []
        ran = backend
        for chunk in self.chunks(n_subjects, inputs.shape[:2]):
            weights = self._generate(connectomes.select(chunk), missing)
            result = rollout(
                weights, inputs, backend=backend, precision=precision, n_threads=n_threads
            )
            ran = result.backend
            parts.append(self._read_out(result.outputs, result.diverged, schedules, bold))
            if progress is not None:
                progress(chunk.stop, n_subjects)
        whole = _Part.join(parts)
        return Prediction(
            subjects=connectomes.subjects,
            schedules=schedules,
            head=self.spec.head,
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

    def intervene(
        self,
        fc: Connectomes | npt.ArrayLike,
        target: str | Target | Callable[[Mapping[str, Said]], Any] = "speed",
        **options: Any,
    ) -> Intervention:
        """Move a target of people in silico: :func:`dtwin_fast.interventions.intervene`.

        Args:
            fc: as in :meth:`personalize`.
            target: ``speed``, ``amygdala``, ..., ``TASK:CONTRAST:REGION``, or a function.
            options: of :func:`dtwin_fast.interventions.intervene`, such as ``method``.

        Raises:
            DTwinInputError: input, target or option that does not fit this twin.
            BackendUnavailableError: an explicitly named backend cannot run.
        """
        from .interventions.intervene import intervene

        return intervene(self, fc, target, **options)

    def prepare(
        self,
        fc: Connectomes | npt.ArrayLike,
        *,
        missing: MissingPolicy = "reject",
        bad_subjects: BadSubjects = "raise",
    ) -> Connectomes:
        """Check connectomes and bring their regions into this twin's order."""
        if isinstance(fc, Connectomes):
            connectomes = fc.align(self.regions, bad_subjects=bad_subjects)
        else:
            connectomes = Connectomes.from_arrays(
                fc, regions=self.regions, bad_subjects=bad_subjects
            )
        return connectomes.resolve_missing(missing, bad_subjects=bad_subjects)

    @np.errstate(over="ignore", invalid="ignore")  # `diverged` reports what overflows
    def hyper_input(self, connectomes: Connectomes, missing: MissingPolicy) -> Float32:
        """(S,E) what the hypernetwork reads of connectomes that :meth:`prepare` returned."""
        x, mean = connectomes.fisher_z(), self.edge_mean
        if self.spec.standardize:
            x, mean = (x - self.edge_mean) / self.edge_sd, np.zeros_like(self.edge_mean)
        return fill_missing(x, missing, mean)

    @np.errstate(over="ignore", invalid="ignore")
    def hyper_input_vjp(
        self, connectomes: Connectomes, missing: MissingPolicy, d_x: Float32
    ) -> Float32:
        """(S,E) gradient of ``sum(hyper_input(connectomes, missing) * d_x)`` by edge."""
        d_z = fill_missing_vjp(connectomes.edges, missing, d_x)
        if self.spec.standardize:
            d_z = d_z / self.edge_sd
        return connectomes.fisher_z_vjp(d_z)

    def encode(self, tasks: Sequence[str]) -> Float32:
        """Inputs (B,T,9) of the main RNN, a sequence for each of this twin's tasks that is named.

        All of them share a subject's weights in one rollout. A shorter run is padded at its
        end, which changes nothing before it.
        """
        schedules = self._choose(tasks)
        runs = [TASKS[name].encode(s, self.spec.dt_s) for name, s in schedules.items()]
        longest = max(len(run) for run in runs)
        return np.stack([np.pad(run, ((0, longest - len(run)), (0, 0))) for run in runs])

    def chunks(self, n_subjects: int, shape: tuple[int, ...]) -> Iterator[slice]:
        """Rows of subjects whose weights and outputs are in memory at once.

        One chunk at least, if an empty one: it gives an empty result its shapes.

        Args:
            n_subjects: S.
            shape: (B,T) of the rollout.
        """
        n_sequences, n_steps = shape
        values = count_weights(self.spec) + n_sequences * n_steps * self.spec.n_outputs
        size = min(max(1, CHUNK_BYTES // (4 * values)), CHUNK_SUBJECTS)
        for start in range(0, max(n_subjects, 1), size):
            yield slice(start, min(start + size, n_subjects))

    def config(self) -> dict[str, Any]:
        """What config.json holds of it that decides predictions: sizes, regions, tasks."""
        return {
            "spec": self.spec.to_dict(),
            "regions": list(self.regions),
            "tasks": {name: s.to_dict() for name, s in self.schedules.items()},
            "contrasts": {name: list(names) for name, names in self.contrasts.items()},
        }

    def save(self, folder: str | Path) -> Twin:
        """Write a model folder and return this twin with its new ``sha256``.

        Raises:
            DTwinInputError: no path, or no folder can be made there (codes ``argument``,
                ``out_unwritable``), or ``training`` holds what JSON cannot
                (``model_config``).
        """
        path = as_path(folder, field="folder")
        config = self.config() | {"training": self.training, "dtwin_fast": package_version()}
        card = model_card(self.spec, self.training, list(self.schedules))
        digest = save_model(path, self._tensors(), config, card)
        return replace(self, sha256=digest)

    def _generate(self, connectomes: Connectomes, missing: MissingPolicy) -> RNNWeights:
        x = self.hyper_input(connectomes, missing)
        return RNNWeights.from_flat(generate_weights(self.layers, x), self.spec)

    def _choose(self, tasks: Sequence[str] | None) -> dict[str, Schedule]:
        names = list(self.schedules) if tasks is None else tasks
        # A plain str is a sequence of its letters.
        is_list = isinstance(names, Sequence) and not isinstance(names, str)
        if not is_list or not names or not all(n in list(self.schedules) for n in names):
            raise DTwinInputError(
                "task",
                "these are not tasks that this twin was trained on",
                field="tasks",
                wanted=f"a list of {' | '.join(self.schedules)}",
                got=reprlib.repr(tasks),
                fix="Name tasks of this twin, or train one on the task",
            )
        return {name: self.schedules[name] for name in names}

    @np.errstate(over="ignore", invalid="ignore")
    def read_run(self, task: str, outputs: npt.NDArray[Any]) -> tuple[Responses, Float32]:
        """Responses of S subjects in a run, and contrasts (S,K,regions) of its BOLD.

        Args:
            task: one that this twin knows.
            outputs: (S,T,O) of its run, T at least the run's; padding is not read.
        """
        schedule = self.schedules[task]
        run = outputs[:, : schedule.n_steps(self.spec.dt_s)]
        actions, series = np.split(run, [self.spec.n_actions], axis=2)
        windows = schedule.response_windows(self.spec.dt_s)
        decode = READOUTS[self.spec.head]
        responses = decode(actions, windows, schedule.onset_s, self.spec.dt_s)
        return responses, np.matmul(self.projections[task], series).astype(np.float32)

    def _read_out(
        self,
        outputs: npt.NDArray[Any],
        diverged: npt.NDArray[np.bool_],
        schedules: dict[str, Schedule],
        keep_bold: bool,
    ) -> _Part:
        responses, bold, contrasts = [], [], []
        for b, (name, schedule) in enumerate(schedules.items()):
            done, effects = self.read_run(name, outputs[:, b])
            responses.append(done)
            contrasts.append(effects)
            if keep_bold:
                steps = schedule.volume_steps(self.spec.tr_s, self.spec.dt_s)
                bold.append(outputs[:, b, steps, self.spec.n_actions :].astype(np.float32))
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


class _Part(NamedTuple):
    """Predictions of one chunk of subjects, axes as in Prediction."""

    choice_prob: Float32
    rt_s: Float32
    bold: Float32 | None
    contrasts: Float32
    diverged: npt.NDArray[np.bool_]

    @classmethod
    def join(cls, parts: Sequence[_Part]) -> _Part:
        columns = zip(*parts, strict=True)
        return cls._make(None if c[0] is None else np.concatenate(c) for c in columns)
