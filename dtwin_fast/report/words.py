"""What a report says in words, and how it prints numbers."""

from __future__ import annotations

import math

from .reading import Fields

LARGE_EFFECT = 0.8
"""The paper's benchmark: an effect of this many SDs is called large."""

TARGETS = {
    "amygdala": "the response of both amygdalae to faces more than to shapes",
    "amygdala-left": "the response of the left amygdala to faces more than to shapes",
    "amygdala-right": "the response of the right amygdala to faces more than to shapes",
    "speed": "speed: minus the mean reaction time over all trials",
    "speed-faces": "speed with faces: minus the mean reaction time over all trials",
    "speed-stroop": "speed in Stroop: minus the mean reaction time over all trials",
    "interference": "Stroop interference: reaction time on incongruent minus congruent trials",
    "accuracy": "the mean probability of the correct answer",
    "bold-variability": "how much BOLD varies over time",
}
"""Names of ``interventions.TARGETS``; a target of another name speaks for itself."""

_METHODS = {
    "connectome": (
        "Altered connectome",
        "each person's connectome is altered a little along the target's gradient and goes "
        "through the whole model again (closed loop)",
    ),
    "weights": (
        "Shifted weights",
        "the weights that the model generates are shifted along one direction, as Takahashi et "
        "al. 2026 do; no connectome is altered",
    ),
}


def method_name(method: str) -> str:
    """A heading for a method."""
    return _METHODS[method][0] if method in _METHODS else "Edited connectome"


def method_words(method: str, settings: Fields) -> str:
    """What a method does."""
    if method in _METHODS:
        return _METHODS[method][1]
    return (
        f"the edit {edit_name(settings)} is made in each connectome, which goes through the whole "
        "model again"
    )


def edit_name(settings: Fields) -> str:
    """The edit that was asked for, as on the command line."""
    name = settings.values.get("method")
    return name if isinstance(name, str) else "without a name"


def target_words(name: str) -> str:
    """What a target is."""
    return TARGETS.get(name, name)


def answer(summary: Fields, goal: str, unit: str, people: int) -> str:
    """The effect of a method in one sentence."""
    effect = summary.number("mean_effect")
    if math.isnan(effect):
        return "The effect could not be computed."
    against = {"up": "down", "down": "up"}.get(goal, goal)
    way = f"{goal}, as wished," if effect >= 0 else f"{against}, against the wish,"
    moved = summary.number("mean_change_in_unit")
    change = f" ({signed(moved)} {unit})" if math.isfinite(moved) else ""
    large = summary.number("share_above_0.8")
    beyond = f", {percent(large)} by more than {LARGE_EFFECT} SD" if math.isfinite(large) else ""
    return (
        f"The target goes {way} by {number(abs(effect))} SD of the people before on average{change}"
        f", SD over people {number(summary.number('sd_effect'))}; "
        f"{percent(summary.number('share_improved'))} of {people} people improve{beyond}."
    )


def number(value: float, digits: int = 2) -> str:
    """A number with fixed decimals, or three significant digits where these would show 0."""
    if not math.isfinite(value):
        return "n/a"
    if value != 0 and abs(value) < 0.5 * 10**-digits:
        return _minus(f"{value:.2g}")
    return _minus(f"{value:.{digits}f}")


def signed(value: float, digits: int = 2) -> str:
    """The same with its sign."""
    text = number(value, digits)
    return f"+{text}" if math.isfinite(value) and value > 0 else text


def significant(value: float) -> str:
    """Three significant digits, for numbers of unknown size."""
    return _minus(f"{value:.3g}") if math.isfinite(value) else "n/a"


def percent(share: float) -> str:
    """A share as whole per cent; not 0 or 100 where it is not all or none."""
    if not math.isfinite(share):
        return "n/a"
    text = f"{100 * share:.0f}"
    return f"{100 * share:.3g} %" if text in ("0", "100") and 0 < share < 1 else f"{text} %"


def p_value(p: float) -> str:
    """``p 0.012``."""
    if not math.isfinite(p):
        return "p n/a"
    return "p < 0.001" if p < 0.001 else f"p {p:.2g}"


def _minus(text: str) -> str:
    return text.replace("-", "−", 1) if text.startswith("-") else text
