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
====  =======================================================================

Arrays are C-order float32 and batch first. Square matrices are (to, from), as
``weight_hh`` in torch. "weights" are RNN weights only; a connectome has edges.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
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
        dt_s, tr_s: step of the RNN and repetition time of its BOLD targets, seconds.
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
            if type(size) is not int or size < least:
                raise _spec_error(field, f"an integer of at least {least}", size)
        if not self.hyper_hidden:
            raise _spec_error("hyper_hidden", "at least one layer", self.hyper_hidden)
        if self.head not in HEADS:
            raise _spec_error("head", f"one of {', '.join(HEADS)}", self.head)
        if not 0 <= self.dropout < 1:
            raise _spec_error("dropout", "a rate in [0, 1)", self.dropout)
        if not (self.dt_s > 0 and self.tr_s > 0):
            raise _spec_error("dt_s, tr_s", "positive seconds", (self.dt_s, self.tr_s))

    @property
    def n_edges(self) -> int:
        """E."""
        return n_edges(self.n_regions)

    @property
    def n_outputs(self) -> int:
        """O = actions + BOLD regions."""
        return self.n_actions + len(self.bold_regions)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form, the inverse of :meth:`from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TwinSpec:
        """Build from the JSON form.

        Raises:
            DTwinInputError: an unknown, missing or ill-typed field (code ``spec``).
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise _spec_error("spec", f"fields among {sorted(known)}", unknown)
        lists = {
            key: tuple(values[key]) for key in ("hyper_hidden", "bold_regions") if key in values
        }
        try:
            return cls(**{**values, **lists})
        except TypeError as error:
            raise _spec_error("spec", "a complete spec", str(error)) from error


def _spec_error(field: str, wanted: str, got: object) -> DTwinInputError:
    return DTwinInputError(
        "spec",
        "this twin cannot be built",
        field=field,
        wanted=wanted,
        got=repr(got),
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
