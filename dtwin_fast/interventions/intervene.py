"""An intervention on people, from a target to effects and their controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from ..connectome import BadSubjects, Connectomes, MissingPolicy
from ..errors import DTwinInputError
from ..provenance import input_digest, package_version
from ..simulate import Truth
from ..twin import Twin
from .constraints import Constraint
from .effect import Effect
from .gradients import Simulator, check_target, edited, in_fisher_z
from .presets import Edit
from .search import N_STEPS, PRECISION, Scope, search
from .targets import TARGETS, Goal, Said, Target, find_target
from .weight_space import FEWEST_PEOPLE
from .workbench import DOSE, Progress, Workbench

METHODS = ("connectome", "weights")
N_RANDOM = 100


@dataclass(frozen=True, eq=False)
class Intervention:
    """What :meth:`dtwin_fast.twin.Twin.intervene` returns.

    Attributes:
        subjects: S names.
        target: its name.
        unit, goal: of the target.
        tasks: that the target needs.
        effects: by method.
        outcomes: K names of everything that was simulated, the target first.
        outcome_units: of these.
        connectomes: of the S people as they were, Fisher z.
        changed: their changed connectomes, Pearson r, or None where only weights were moved.
        notes: what a reader should know of the whole.
        settings, provenance: as intervention.json has them.
    """

    subjects: tuple[str, ...]
    target: str
    unit: str
    goal: Goal
    tasks: tuple[str, ...]
    effects: dict[str, Effect]
    outcomes: tuple[str, ...]
    outcome_units: tuple[str, ...]
    connectomes: Connectomes
    changed: Connectomes | None
    notes: tuple[str, ...]
    settings: dict[str, Any]
    provenance: dict[str, Any]


def intervene(
    twin: Twin,
    fc: Connectomes | npt.ArrayLike,
    target: str | Target | Callable[[Mapping[str, Said]], Any] = "speed",
    *,
    method: str | Edit = "connectome",
    goal: Goal | None = None,
    keep: Sequence[str | Target] = (),
    constraint: Constraint | None = None,
    scope: Scope = "person",
    n_steps: int = N_STEPS,
    n_random: int = N_RANDOM,
    second: Twin | None = None,
    truth: Truth | None = None,
    missing: MissingPolicy = "reject",
    bad_subjects: BadSubjects = "raise",
    seed: int = 0,
    backend: str = "auto",
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> Intervention:
    """Move a target of people in silico, and hold controls against what came of it.

    In silico, not clinical: it says what this model would do, not what a brain would.

    Args:
        twin: the model.
        fc, missing, bad_subjects: as given to :meth:`dtwin_fast.twin.Twin.personalize`.
        target: a key of ``TARGETS``, ``TASK:CONTRAST:REGION``, a :class:`Target`, or a function
            as of :class:`Function`.
        method: ``connectome``, a change of each connectome found by projected gradient and run
            back through the whole twin, with ``weights`` beside it where there are people enough;
            ``weights``, the paper's shift of generated weights; or an edit of ``presets``.
        goal: ``up`` or ``down``; None: the target's own.
        keep: outcomes that are to stay as they are (method ``connectome``).
        constraint: of the change (method ``connectome``); None: that it leaves a correlation
            matrix. Without a budget people are moved by ``DOSE`` SDs of these people along the
            group's gradient.
        scope: ``person``, a change for each, or ``group``, one for all (method ``connectome``;
            what makes a person's connectome valid is their own).
        n_steps: of the projected gradient, at most.
        n_random: random directions to compare with; 0: none.
        second: a twin of another seed, to compare maps with.
        truth: of simulated people.
        seed: of random directions, noise and shuffles.
        backend, n_threads: as of :func:`dtwin_fast.rollout`.
        progress: see ``Progress``.

    Raises:
        DTwinInputError: input, target, region, option or constraint that cannot be used (codes of
            :meth:`Twin.personalize`, ``target``, ``region``, ``edit``, ``constraint``,
            ``too_few``, ``argument``).
        BackendUnavailableError: an explicitly named backend cannot run.
    """
    wanted = find_target(target)
    goal = goal or wanted.goal
    _check(method, goal, scope, n_steps, n_random, seed, keep, constraint)
    constraint = constraint or Constraint(valid=True)
    tasks = check_target(twin, wanted)
    name = target if isinstance(target, str) else _own_name(wanted)
    outcomes = {name: wanted, **_others(twin, name)}
    kept = [find_target(other) for other in keep]
    for other in kept:
        check_target(twin, other)
    options: dict[str, Any] = {"missing": missing, "backend": backend, "n_threads": n_threads}
    given = twin.prepare(fc, missing=missing, bad_subjects=bad_subjects)
    people = in_fisher_z(given)
    if len(people) == 0:
        raise _nobody(people)
    if second is not None:  # refused now, not after the work
        check_target(second, wanted)
        second.prepare(people, missing=missing)
    if truth is not None:
        truth.edited(people)
    constraint.check(people.n_edges)
    bench = Workbench(
        people,
        name,
        goal,
        Simulator(twin, [wanted], **options),
        Simulator(twin, list(outcomes.values()), **options),
        truth=truth,
        second=second,
        n_random=n_random,
        seed=seed,
        progress=progress or (lambda what, done, total: None),
    )
    settings: dict[str, Any] = {
        "method": method if isinstance(method, str) else method.name,
        "goal": goal,
        "dose": DOSE,
        "seed": seed,
        "n_random": n_random,
        "missing_policy": missing,
    }
    notes: list[str] = []
    effects: dict[str, Effect] = {}
    if method == "connectome":
        searched = Simulator(twin, [wanted, *kept], precision=PRECISION, **options)
        budget = bench.budget(constraint)
        settings |= {
            "scope": scope,
            "steps": n_steps,
            "norm": constraint.norm,
            "budget": budget,
            "top_k": constraint.top_k,
            "allowed_edges": None if constraint.allowed is None else int(constraint.allowed.sum()),
            "valid": constraint.valid,
            "keep": [o if isinstance(o, str) else type(o).__name__ for o in keep],
        }
        found = search(
            searched,
            people,
            constraint,
            budget,
            bench.sign,
            scope=scope,
            n_steps=n_steps,
            progress=lambda done, total: bench.progress("search", done, total),
        )
        settings["mean_steps"] = float(found.n_steps.mean())
        length = np.linalg.norm(found.change, axis=1)
        if not length.any():
            raise _infeasible(constraint, budget)
        if stuck := int((length == 0).sum()):
            notes.append(f"{stuck} people are unchanged: no change within the constraints helps")
        kept_share = float(np.median(length)) / budget
        if constraint.norm == "l2" and kept_share < 0.5:
            notes.append(
                f"the median change is {kept_share:.0%} of the budget: nothing more of it "
                "is allowed or helps"
            )
        effects["connectome"] = bench.in_connectomes("connectome", found.change, constraint)
    elif not isinstance(method, str):
        change = method.change(people.edges, twin.regions).astype(np.float32)
        settings["budget"] = float(np.linalg.norm(change, axis=1).mean())
        effects["edit"] = bench.in_connectomes("edit", change, constraint)
    if method in ("connectome", "weights"):
        if len(people) >= FEWEST_PEOPLE or method == "weights":
            effects["weights"] = bench.in_weights()
        else:
            notes.append(f"too few people for weights as the paper moves them: {len(people)}")
    changed = next((e.change for e in effects.values() if e.change is not None), None)
    return Intervention(
        subjects=people.subjects,
        target=name,
        unit=wanted.unit,
        goal=goal,
        tasks=tasks,
        effects=effects,
        outcomes=tuple(outcomes),
        outcome_units=tuple(outcome.unit for outcome in outcomes.values()),
        connectomes=people,
        changed=None if changed is None else _pearson_r(edited(people, changed)),
        notes=(*notes, *bench.notes(effects)),
        settings=settings,
        provenance={
            "model": twin.spec.name,
            "model_sha256": twin.sha256,
            "dtwin_fast": package_version(),
            "backend": bench.target.backend,
            "precision": "float32",
            "search_precision": PRECISION if method == "connectome" else None,
            "training_seed": twin.training.get("seed"),
            "input_sha256": input_digest(given),
            "missing_policy": missing,
        },
    )


def _others(twin: Twin, name: str) -> dict[str, Target]:
    """The other targets that this twin has, by name."""
    found = {}
    for other, make in TARGETS.items():
        target = make()
        try:
            check_target(twin, target)
        except DTwinInputError:
            continue
        if other != name:
            found[other] = target
    return found


def _pearson_r(connectomes: Connectomes) -> Connectomes:
    edges = np.tanh(connectomes.edges)
    return replace(connectomes, edges=edges, is_fisher_z=False)


def _own_name(target: Target) -> str:
    """Of a target that is none of ``TARGETS``, and no other one's name."""
    name = str(getattr(target, "name", type(target).__name__))
    return f"own {name}" if name in TARGETS else name


def _check(
    method: str | Edit,
    goal: Goal,
    scope: Scope,
    n_steps: int,
    n_random: int,
    seed: int,
    keep: Sequence[Any],
    constraint: Constraint | None,
) -> None:
    """Options that are none."""
    if isinstance(method, str) and method not in METHODS:
        raise _error(
            "argument",
            "there is no such method",
            "method",
            method,
            " | ".join(METHODS) + " | an edit",
        )
    for field, value, known in (("goal", goal, get_args(Goal)), ("scope", scope, get_args(Scope))):
        if value not in known:
            raise _error("argument", f"there is no such {field}", field, value, " | ".join(known))
    for field, number, least in (
        ("n_steps", n_steps, 1),
        ("n_random", n_random, 0),
        ("seed", seed, 0),
    ):
        if type(number) is not int or number < least:
            wanted = f"an integer of at least {least}"
            raise _error("argument", "this number cannot be used", field, number, wanted)
    if isinstance(keep, str):  # a sequence of its letters
        raise _error("argument", "these are no outcomes", "keep", keep, "a list of targets")
    for field, is_given in (
        ("keep", bool(keep)),
        ("constraint", constraint is not None),
        ("scope", scope != "person"),
    ):
        if is_given and method != "connectome":
            name = method if isinstance(method, str) else method.name
            what = "only a search in the connectome takes this"
            raise _error("argument", what, field, name, "method='connectome'")
    if keep and constraint is not None and (constraint.norm != "l2" or constraint.top_k):
        # Signs, and the largest edges, of what leaves outcomes be do not leave them be.
        what = "outcomes cannot be kept within this constraint"
        got = f"norm {constraint.norm}, top_k {constraint.top_k}"
        raise _error("argument", what, "keep", got, "norm='l2' without top_k")


def _infeasible(constraint: Constraint, budget: float) -> DTwinInputError:
    return DTwinInputError(
        "constraint",
        "nobody can be moved within these constraints",
        field="constraint",
        wanted="edges on which the target depends, and room to change them",
        got=f"budget {budget:.3g}, valid={constraint.valid}",
        fix="Allow more edges, keep fewer outcomes, or leave valid out where connectomes are "
        "hardly valid themselves",
    )


def _nobody(people: Connectomes) -> DTwinInputError:
    rejected = people.rejected
    return DTwinInputError(
        "no_subjects",
        "nobody is left to intervene on",
        field="fc",
        wanted="at least one person",
        got=f"{len(rejected)} rejected, the first for: {rejected[0]}" if rejected else "none",
        fix="Give people whose connectomes can be used",
    )


def _error(code: str, what: str, field: str, got: object, wanted: str = "") -> DTwinInputError:
    return DTwinInputError(
        code, what, field=field, wanted=wanted, got=repr(got)[:80], fix="Name one of these"
    )
