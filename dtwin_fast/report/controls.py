"""The controls of an intervention: what was found, and what it means."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from .intervention import WEIGHTS, Intervention, OffTarget
from .reading import Fields
from .words import number, p_value, percent, signed

NOT_DONE, NOT_MEANT = "not done", "does not apply"
LEVEL = 0.05
"""Of p values that are called beyond chance."""


@dataclass(frozen=True)
class Control:
    """A line of the table.

    Attributes:
        name: of the control.
        meaning: one plain sentence.
        values: what was found, for each method.
    """

    name: str
    meaning: str
    values: list[str]


def controls(run: Intervention) -> list[Control]:
    """The lines, in the order of the table."""
    methods = [run.about.fields("methods").fields(name) for name in run.methods]
    lines = [
        Control(
            name,
            meaning,
            [
                (found(summary) or NOT_DONE) if _applies(name, method) else NOT_MEANT
                for method, summary in zip(run.methods, methods, strict=True)
            ],
        )
        for name, meaning, found in _LINES
    ]
    off_target = [_off_target(run.off_target.get(name, [])) or NOT_DONE for name in run.methods]
    line = Control(
        "Off-target change",
        "Other outcomes should stay where they are; this is the one that moves most, in SDs of "
        "the people before.",
        off_target,
    )
    return [*lines[:_BEFORE_OFF_TARGET], line, *lines[_BEFORE_OFF_TARGET:]]


def _applies(control: str, method: str) -> bool:
    if method == WEIGHTS:
        return control not in _OF_CONNECTOMES
    return control not in _OF_WEIGHTS


def _ratio(method: Fields) -> str:
    pls = method.fields("pls")
    ratio = pls.number("participation_ratio")
    if math.isnan(ratio):
        return ""
    return f"{number(ratio, 1)}; r {number(pls.number('null_r'))} by chance"


def _fit(method: Fields) -> str:
    pls = method.fields("pls")
    r, p = pls.number("in_sample_r"), pls.number("permutation_p")
    return "" if math.isnan(r) else f"r {number(r)}, {p_value(p)}{_chance(p)}"


def _cross_validated(method: Fields) -> str:
    r = method.fields("pls").number("cv_r")
    return "" if math.isnan(r) else f"r {number(r)}"


def _predicted(method: Fields) -> str:
    r = method.number("predicted_r")
    return "" if math.isnan(r) else f"r {number(r)}"


def _random(method: Fields) -> str:
    random = method.fields("random")
    z, p = random.number("z"), random.number("p")
    if math.isnan(z):
        return ""
    drawn = f"{random.count('n')} directions, {random.count('people')} people"
    mean = number(random.number("mean_effect"))
    how = random.values.get("drawn")
    what = f"; {how}" if isinstance(how, str) else ""
    return f"z {number(z, 1)}, {p_value(p)}{_chance(p)} ({drawn}, which move {mean} SD{what})"


def _spread(method: Fields) -> str:
    random = method.fields("random")
    own, others = random.number("sd_of_intervention"), random.number("sd_effect_mean")
    if math.isnan(own) or math.isnan(others):
        return ""
    z, p = random.number("sd_z"), random.number("sd_p")
    found = f"SD {number(own)} against {number(others)}"
    return f"{found}; z {number(z, 1)}, {p_value(p)}{_chance(p)}" if math.isfinite(z) else found


def _monotone(method: Fields) -> str:
    share = method.number("monotone_share")
    return "" if math.isnan(share) else f"{percent(share)} of people"


def _range(method: Fields) -> str:
    found = method.fields("range")
    before, after = found.number("flagged_before"), found.number("flagged_after")
    if math.isnan(before) or math.isnan(after):
        return ""
    medians = (number(found.number(f"median_deviation_{when}")) for when in ("before", "after"))
    return (
        f"{before:.0f} people flagged before, {after:.0f} after; median deviation "
        + " to ".join(medians)
    )


def _stability(kind: str) -> Callable[[Fields], str]:
    def found(method: Fields) -> str:
        stability = method.fields("stability")
        r, dice = stability.number(f"{kind}_r"), stability.number(f"{kind}_dice")
        return "" if math.isnan(r) else f"r {number(r)}, Dice {number(dice)}"

    return found


def _regression(method: Fields) -> str:
    r = method.number("regression_to_mean_r")
    return "" if math.isnan(r) else f"r {number(r)}"


def _truth(method: Fields) -> str:
    truth = method.fields("truth")
    if not truth.values:
        return ""
    area = f"{number(truth.number('auc'))} {_interval(truth, 'auc')}".rstrip()
    cosine = f"{signed(truth.number('cosine'))} {_interval(truth, 'cosine')}".rstrip()
    text = f"cosine {cosine}, area of causal edges {area}; trait {truth.text('trait')}"
    moved = truth.number("true_change")
    if math.isnan(moved):  # no connectome was changed
        return text
    slope = f"{number(truth.number('slope'))} (r {number(truth.number('slope_r'))})"
    promised = signed(method.number("mean_change_in_unit"))
    signs = percent(truth.number("sign_accuracy"))
    return (
        f"{text}; a true change of {signed(moved)} where the twin says {promised}, slope over "
        f"people {slope}, the same sign in {signs}"
    )


def _interval(fields: Fields, name: str) -> str:
    low, high = fields.number(f"{name}_low"), fields.number(f"{name}_high")
    return f"[{number(low)}, {number(high)}]" if math.isfinite(low) else ""


def _off_target(outcomes: list[OffTarget]) -> str:
    known = [outcome for outcome in outcomes if math.isfinite(outcome.mean)]
    if not known:
        return ""
    most = max(known, key=lambda outcome: abs(outcome.mean))
    return f"{most.outcome} {signed(most.mean)} SD (SD {number(most.sd)}); {len(known)} looked at"


def _chance(p: float) -> str:
    if math.isnan(p):
        return ""
    return ": beyond chance" if p < LEVEL else ": no more than chance"


_LINES: tuple[tuple[str, str, Callable[[Fields], str]], ...] = (
    (
        "Participation ratio",
        "How many independent directions the generated weights vary along; the more there are, the "
        "larger the r that a direction fitted to few people reaches by chance.",
        _ratio,
    ),
    (
        "Fit of the direction",
        "Correlation with the target in the very people that the direction was fitted to, beside "
        "targets exchanged between people.",
        _fit,
    ),
    (
        "Cross-validated r",
        "The same in people that the direction was not fitted to: what it is worth.",
        _cross_validated,
    ),
    (
        "Matched random directions",
        "Changes of the same size in random directions; an effect that they have too says nothing "
        "of where to intervene.",
        _random,
    ),
    (
        "Spread over people",
        "Whether people differ more in their effect than they do under random directions.",
        _spread,
    ),
    (
        "First-order prediction",
        "Correlation over people of what the gradient promises with what the simulation does.",
        _predicted,
    ),
    (
        "Dose monotonicity",
        "People in whom more of the change is always more of the effect, from −3 to 3 SD.",
        _monotone,
    ),
    (
        "Out of range",
        "Altered connectomes unlike any that the model was trained on are predicted without "
        "support.",
        _range,
    ),
    (
        "Split-half stability",
        "Whether two halves of the people give the same map of edges (Dice: of the top 1 %).",
        _stability("split_half"),
    ),
    (
        "Seed stability",
        "Whether a model trained again from another seed gives the same map of edges.",
        _stability("seed"),
    ),
    (
        "Regression to the mean",
        "Correlation of the effect with the value before; far from 0, who improves is mostly who "
        "had far to go.",
        _regression,
    ),
    (
        "True effect",
        "Simulated people alone have a known one: how well the map and the effects agree with it.",
        _truth,
    ),
)
_BEFORE_OFF_TARGET = [name for name, _, _ in _LINES].index("Out of range")
_OF_WEIGHTS = ("Participation ratio", "Fit of the direction", "Cross-validated r")
_OF_CONNECTOMES = ("First-order prediction", "Out of range")
