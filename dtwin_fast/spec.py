"""Letters, sizes and presets: every other module takes its names from here.

====  =======================================================================
S     subjects
B     sequences per subject (tasks, runs, segments, doses, noise draws)
T     time steps of ``dt_s`` seconds
I     inputs of the main RNN
H     hidden units
G     gates of the cell (rnn 1, gru 3, lstm 4)
O     outputs = actions + BOLD regions
R     regions of the connectome
E     edges = R(R-1)/2, row-major upper triangle without the diagonal (k=1)
K     contrasts
N     trials of a run
V     volumes of a run, ``tr_s`` seconds each
P     weights of the main RNN, per subject
====  =======================================================================

Arrays are C-order float32 and batch first. Square matrices are (to, from), as
``weight_hh`` in torch. "weights" are RNN weights only; a connectome has edges.
"""

from __future__ import annotations

import reprlib
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal

from .errors import DTwinInputError

Head = Literal["hazard", "sigmoid"]
HEADS: tuple[str, ...] = ("hazard", "sigmoid")

DT_S = 0.08
"""Step of the main RNN in seconds (Takahashi et al. 2026, Methods)."""
TR_S = 0.8
"""Repetition time of the TCP scans in seconds (OpenNeuro ds005237)."""
SEGMENT_STEPS = 262
"""Length of a training segment: 20.96 s (Takahashi et al. 2026, Methods)."""

N_INPUTS = 9
"""Eight sensory channels and the task flag (0 faces, 1 Stroop)."""
N_ACTIONS = 3
"""Action channels: faces (left, right, unused), Stroop (red, green, blue)."""

MAX_SIZE = 2**24
"""No size of a twin is larger; products of such sizes stay numbers that can be printed."""
MAX_LAYERS = 64
"""Hidden layers of a hypernetwork."""
MIN_STEP_S, MAX_TR_S = 1e-3, 1e3
"""Limits of ``dt_s`` and ``tr_s``: a run's length divided by them stays a sane number."""

_BILATERAL = (
    "aPFC",
    "VLPFC",
    "premotor",
    "M1",
    "S1",
    "SPL",
    "auditory",
    "HVC",
    "V1",
    "amygdala",
)
BOLD_REGIONS_20 = tuple(f"{hemi}_{name}" for hemi in ("LH", "RH") for name in _BILATERAL)
"""The paper's 20 BOLD outputs: ten bilateral regions."""


def n_edges(n_regions: int) -> int:
    """Number of edges E = R(R-1)/2 of a connectome with R regions."""
    return n_regions * (n_regions - 1) // 2


@dataclass(frozen=True)
class TwinSpec:
    """Sizes of a twin: the connectome, the hypernetwork and the main RNN.

    Attributes:
        name: preset or user name.
        n_regions: R.
        hyper_hidden: widths of the hypernetwork's hidden layers (Mish units).
        dropout: rate applied to the edges while training.
        cell: main RNN cell, a key of ``dtwin_fast.cells.CELLS``.
        n_hidden: H.
        bold_regions: names of the BOLD outputs, in output order after the actions.
        head: how the action outputs are read: ``hazard`` (discrete-time competing
            risks) or ``sigmoid`` (the paper's).
        standardize: z-score each edge with the training cohort's mean and SD before
            the hypernetwork; the paper feeds Fisher z as it is.
        segment_steps: T of a training segment.
        n_inputs, n_actions: I, and the outputs before the BOLD regions.
        dt_s, tr_s: step of the RNN and repetition time of its BOLD targets, seconds.

    Raises:
        DTwinInputError: a field of another type or out of range (code ``spec``).
    """

    name: str
    n_regions: int
    hyper_hidden: tuple[int, ...]
    n_hidden: int
    cell: str = "rnn"
    dropout: float = 0.1
    bold_regions: tuple[str, ...] = BOLD_REGIONS_20
    head: Head = "hazard"
    standardize: bool = True
    segment_steps: int = SEGMENT_STEPS
    n_inputs: int = N_INPUTS
    n_actions: int = N_ACTIONS
    dt_s: float = DT_S
    tr_s: float = TR_S

    def __post_init__(self) -> None:
        for field in ("name", "cell"):
            if not _is_name(getattr(self, field)):
                raise _spec_error(field, "printable text", getattr(self, field))
        if (
            not isinstance(self.hyper_hidden, tuple)
            or not 1 <= len(self.hyper_hidden) <= MAX_LAYERS
        ):
            raise _spec_error("hyper_hidden", f"1 to {MAX_LAYERS} layers", self.hyper_hidden)
        sizes = {
            "n_regions": self.n_regions,
            "n_hidden": self.n_hidden,
            "n_inputs": self.n_inputs,
            "n_actions": self.n_actions,
            "segment_steps": self.segment_steps,
            **{f"hyper_hidden[{i}]": n for i, n in enumerate(self.hyper_hidden)},
        }
        for field, size in sizes.items():
            least = 2 if field == "n_regions" else 1
            if type(size) is not int or not least <= size <= MAX_SIZE:
                raise _spec_error(field, f"an integer from {least} to {MAX_SIZE}", size)
        names = self.bold_regions
        if (
            not isinstance(names, tuple)
            or not all(map(_is_name, names))
            or len(set(names)) < len(names)
        ):
            raise _spec_error("bold_regions", "distinct names", names)
        if self.head not in HEADS:
            raise _spec_error("head", f"one of {', '.join(HEADS)}", self.head)
        if type(self.standardize) is not bool:
            raise _spec_error("standardize", "true or false", self.standardize)
        if not _is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise _spec_error("dropout", "a rate in [0, 1)", self.dropout)
        seconds = (self.dt_s, self.tr_s)
        if (
            not all(map(_is_number, seconds))
            or not MIN_STEP_S <= seconds[0] <= seconds[1] <= MAX_TR_S
        ):
            raise _spec_error(
                "dt_s, tr_s", f"{MIN_STEP_S:g} <= dt_s <= tr_s <= {MAX_TR_S:g} seconds", seconds
            )

    @property
    def n_edges(self) -> int:
        """E."""
        return n_edges(self.n_regions)

    @property
    def n_outputs(self) -> int:
        """O = actions + BOLD regions."""
        return self.n_actions + len(self.bold_regions)

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON, the inverse of :meth:`from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TwinSpec:
        """Build from the JSON form.

        Raises:
            DTwinInputError: an unknown, missing or ill-typed field (code ``spec``).
        """
        if not isinstance(values, dict):
            raise _spec_error("spec", "an object with the fields of TwinSpec", values)
        known = {f.name for f in fields(cls)}
        if unknown := sorted(map(str, set(values) - known)):
            raise _spec_error("spec", f"fields among {', '.join(sorted(known))}", unknown)
        required = {f.name for f in fields(cls) if f.default is MISSING}
        if absent := sorted(required - set(values)):
            raise _spec_error("spec", f"the fields {', '.join(absent)}", sorted(values))
        # JSON has no tuples.
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**plain)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and value == value.strip() != ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _spec_error(field: str, wanted: str, got: object) -> DTwinInputError:
    return DTwinInputError(
        "spec",
        "this twin cannot be built",
        field=field,
        wanted=wanted,
        got=reprlib.repr(got),
        fix="Start from a preset of dtwin_fast.spec.PRESETS",
    )


def _paper(name: str, n_regions: int) -> TwinSpec:
    return TwinSpec(
        name, n_regions, hyper_hidden=(200, 200), n_hidden=400, head="sigmoid", standardize=False
    )


PRESETS: dict[str, TwinSpec] = {
    "tcp446": _paper("tcp446", 446),
    "tcp434": _paper("tcp434", 434),
    "demo": TwinSpec("demo", 100, hyper_hidden=(64, 64), n_hidden=64),
    "tiny": TwinSpec(
        "tiny",
        16,
        hyper_hidden=(64, 64),
        n_hidden=16,
        bold_regions=("LH_V1", "RH_V1", "LH_amygdala", "RH_amygdala"),
        segment_steps=48,
    ),
}
"""``tcp446`` is the paper's model, ``tcp434`` the same for the OpenNeuro release, ``demo``
trains in about a minute, ``tiny`` has the sizes of the authors' small example."""
