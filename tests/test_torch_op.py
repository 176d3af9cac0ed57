"""dtwin_fast.torch.rollout: the reference's results and gradients, the engine's bits, refusals."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from dtwin_fast import _core, dispatch, reference, torch_arguments
from dtwin_fast import torch as dtwin_torch
from dtwin_fast.backends import cuda_tensors
from dtwin_fast.cells import CELLS
from dtwin_fast.errors import BackendUnavailableError, DTwinInputError
from dtwin_fast.spec import TwinSpec
from dtwin_fast.torch import rollout
from dtwin_fast.training import HyperNetwork
from dtwin_fast.weights import WEIGHT_NAMES, RNNWeights, weight_shapes

cells = pytest.mark.parametrize("cell", CELLS)
precisions = pytest.mark.parametrize("precision", ["float32", "float64"])
OPS = torch.ops.dtwin_fast
HOW = ("cpu", False)  # backend, bfloat16 weights


class Arguments(NamedTuple):
    """What both rollouts take, as leaves that require gradients (but for the projection)."""

    cell: str
    weights: dict[str, Tensor]
    inputs: Tensor
    h0: tuple[Tensor, ...] | None
    projection: Tensor | None

    def leaves(self) -> dict[str, Tensor]:
        state = {f"h0[{i}]": part for i, part in enumerate(self.h0 or ())}
        return {**self.weights, "inputs": self.inputs, **state}

    def state(self) -> Tensor | tuple[Tensor, ...] | None:
        return self.h0[0] if self.h0 is not None and len(self.h0) == 1 else self.h0

    def run(self, engine: Callable[..., reference.TorchRollout], *, states: bool = False) -> Any:
        return engine(
            self.cell,
            self.weights,
            self.inputs,
            self.state(),
            time_projection=self.projection,
            return_states=states,
        )

    def numpy(self) -> dict[str, Any]:
        h0 = tuple(part.detach().numpy() for part in self.h0 or ())
        return {
            "weights": RNNWeights(
                self.cell, *(self.weights[name].detach().numpy() for name in WEIGHT_NAMES)
            ),
            "inputs": self.inputs.detach().numpy(),
            "h0": None if not h0 else h0[0] if len(h0) == 1 else h0,
            "time_projection": None if self.projection is None else self.projection.numpy(),
            "precision": str(self.inputs.dtype).removeprefix("torch."),
        }

    def op(self) -> tuple[Any, ...]:
        weights = [self.weights[name] for name in WEIGHT_NAMES]
        return self.cell, weights, self.inputs, list(self.h0 or ()), self.projection


def make(
    cell: str,
    precision: str = "float64",
    *,
    sizes: tuple[int, ...] = (3, 2, 11, 4, 7, 5),
    shared: bool = False,
    state: bool = True,
    projected: str = "",
) -> Arguments:
    """Sizes are S, B, T, I, H, O."""
    n_subjects, n_sequences, n_steps, n_inputs, n_hidden, n_outputs = sizes
    rng = np.random.default_rng(sizes)

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.tensor(rng.normal(0, scale, shape).astype(precision))

    scale = 1 / np.sqrt(3 * n_hidden)  # the variance of torch's own initialisation
    shapes = weight_shapes(cell, n_inputs, n_hidden, n_outputs)
    made = Arguments(
        cell,
        {name: draw(n_subjects, *shape, scale=scale) for name, shape in shapes.items()},
        draw(*(() if shared else (n_subjects,)), n_sequences, n_steps, n_inputs),
        tuple(draw(n_subjects, n_sequences, n_hidden) for _ in range(CELLS[cell].n_states))
        if state
        else None,
        {
            "": None,
            "K,T": draw(3, n_steps, scale=n_steps**-0.5),
            "B,K,T": draw(n_sequences, 3, n_steps, scale=n_steps**-0.5),
        }[projected],
    )
    for leaf in made.leaves().values():
        leaf.requires_grad_()
    return made


def parts(result: reference.TorchRollout) -> list[Tensor]:
    """Outputs, states when there, h_final."""
    last = result.h_final if isinstance(result.h_final, tuple) else (result.h_final,)
    return [result.outputs, *([] if result.states is None else [result.states]), *last]


def gradients(
    arguments: Arguments, loss: Callable[[Any], Tensor], engine: Any, *, states: bool = False
) -> tuple[Tensor, ...]:
    leaves = tuple(arguments.leaves().values())
    return torch.autograd.grad(loss(arguments.run(engine, states=states)), leaves)


def weighted(*tensors: Tensor) -> Tensor:
    """A sum in which every element has a weight of its own, of size one on average."""
    total = torch.zeros((), dtype=tensors[0].dtype)
    for tensor in tensors:
        number = torch.arange(tensor.numel(), dtype=tensor.dtype).view_as(tensor)
        total = total + (tensor * torch.sin(3 * number + 1)).sum()
    return total


CASES: dict[str, dict[str, Any]] = {
    "own-inputs": {},
    "shared-inputs": {"shared": True},
    "no-h0": {"state": False},
    "one-of-all": {"sizes": (1, 1, 1, 1, 1, 1)},
    "one-subject": {"sizes": (1, 5, 33, 3, 17, 19)},
    "odd": {"sizes": (5, 3, 63, 9, 31, 23), "shared": True, "state": False},
    "projected": {"projected": "K,T"},
    "projected-per-sequence": {"projected": "B,K,T", "shared": True},
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


# --- equality ----------------------------------------------------------------------------------


@cells
@precisions
@cases
def test_forward_equals_the_reference(
    cell: str, precision: str, case: dict[str, Any], tolerances: ModuleType
) -> None:
    arguments = make(cell, precision, **case)
    quantity = "projected" if arguments.projection is not None else "outputs"
    got = arguments.run(rollout, states=True)
    wanted = arguments.run(reference.rollout, states=True)
    assert isinstance(got, reference.TorchRollout)
    assert isinstance(got.h_final, tuple) == isinstance(wanted.h_final, tuple)
    names = [quantity, *["states"] * (len(parts(wanted)) - 1)]
    for ours, theirs, name in zip(parts(got), parts(wanted), names, strict=True):
        assert ours.dtype == theirs.dtype
        tolerances.assert_close(ours.detach().numpy(), theirs.detach().numpy(), name, precision)


@cells
@precisions
@cases
def test_gradients_equal_the_reference(
    cell: str, precision: str, case: dict[str, Any], tolerances: ModuleType
) -> None:
    arguments = make(cell, precision, **case)

    def loss(result: reference.TorchRollout) -> Tensor:
        return weighted(result.outputs)

    got = gradients(arguments, loss, rollout)
    wanted = gradients(arguments, loss, reference.rollout)
    for ours, theirs in zip(got, wanted, strict=True):
        tolerances.assert_close(ours.numpy(), theirs.numpy(), "gradients", precision)


STATE_LOSSES: dict[str, Callable[[Any], Tensor]] = {
    "states": lambda r: weighted(r.states),
    "h_final": lambda r: weighted(parts(r)[2]),
    "all": lambda r: weighted(r.outputs, r.states, parts(r)[2]),
}


@cells
@pytest.mark.parametrize("loss", STATE_LOSSES.values(), ids=STATE_LOSSES)
@pytest.mark.parametrize("projected", ["", "B,K,T"], ids=["outputs", "projected"])
def test_states_and_h_final_have_gradients(
    cell: str, loss: Callable[[Any], Tensor], projected: str, tolerances: ModuleType
) -> None:
    arguments = make(cell, projected=projected)
    leaves = tuple(arguments.leaves().values())
    found = [
        torch.autograd.grad(
            loss(arguments.run(engine, states=True)), leaves, materialize_grads=True
        )
        for engine in (rollout, reference.rollout)
    ]
    for ours, theirs in zip(*found, strict=True):
        tolerances.assert_close(ours.numpy(), theirs.numpy(), "gradients", "float64")


@cells
def test_gradients_pass_through_calls_that_hand_on_the_state(
    cell: str, tolerances: ModuleType
) -> None:
    arguments = make(cell)

    def halves(cell: str, weights: Any, inputs: Tensor, h0: Any, **_: Any) -> Any:
        early = rollout(cell, weights, inputs[:, :, :4], h0)
        late = rollout(cell, weights, inputs[:, :, 4:], early.h_final)
        return reference.TorchRollout(
            torch.cat([early.outputs, late.outputs], 2), None, late.h_final
        )

    def loss(result: reference.TorchRollout) -> Tensor:
        return weighted(result.outputs)

    found = [gradients(arguments, loss, engine) for engine in (halves, reference.rollout)]
    for ours, theirs in zip(*found, strict=True):
        tolerances.assert_close(ours.numpy(), theirs.numpy(), "gradients", "float64")


@cells
@precisions
@cases
def test_bits_are_those_of_dispatch(cell: str, precision: str, case: dict[str, Any]) -> None:
    arguments = make(cell, precision, **case)
    got = parts(arguments.run(rollout, states=True))
    wanted = dispatch.rollout(backend="cpu", return_states=True, **arguments.numpy())
    last = wanted.h_final if isinstance(wanted.h_final, tuple) else (wanted.h_final,)
    for ours, theirs in zip(got, [wanted.outputs, wanted.states, *last], strict=True):
        np.testing.assert_array_equal(ours.detach().numpy(), theirs)
    ones, n_threads = np.ones_like(wanted.outputs), torch.get_num_threads()
    back = dispatch.rollout_vjp(d_outputs=ones, n_threads=n_threads, **arguments.numpy())
    found = gradients(arguments, lambda result: result.outputs.sum(), rollout)
    h0 = back.h0 if isinstance(back.h0, tuple) else (back.h0,)
    theirs = [*(getattr(back.weights, name) for name in WEIGHT_NAMES), back.inputs, *h0]
    for ours, gradient in zip(found, theirs, strict=arguments.h0 is not None):
        np.testing.assert_array_equal(ours.numpy(), gradient)


@cells
def test_a_cell_whose_gradients_the_reference_alone_has_trains(
    cell: str, monkeypatch: pytest.MonkeyPatch, tolerances: ModuleType
) -> None:
    monkeypatch.setattr(dispatch, "VJPS", {"reference": dispatch.VJPS["reference"]})
    arguments = make(cell)

    def loss(result: reference.TorchRollout) -> Tensor:
        return weighted(result.outputs)

    found = [gradients(arguments, loss, engine) for engine in (rollout, reference.rollout)]
    for ours, theirs in zip(*found, strict=True):
        tolerances.assert_close(ours.numpy(), theirs.numpy(), "gradients", "float64")


@cells
@pytest.mark.parametrize("shared", [False, True], ids=["own-inputs", "shared-inputs"])
@pytest.mark.parametrize("projected", ["", "B,K,T"], ids=["outputs", "projected"])
def test_gradcheck(cell: str, shared: bool, projected: str) -> None:
    arguments = make(cell, sizes=(2, 1, 3, 2, 3, 2), shared=shared, projected=projected)

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(WEIGHT_NAMES, tensors, strict=False))
        inputs, *h0 = tensors[len(WEIGHT_NAMES) :]
        replaced = arguments._replace(weights=named, inputs=inputs, h0=tuple(h0))
        return tuple(parts(replaced.run(rollout, states=True)))

    assert torch.autograd.gradcheck(run, tuple(arguments.leaves().values()))


# --- torch's own checks ------------------------------------------------------------------------


@cells
@pytest.mark.parametrize(
    ("states", "projected"),
    [(False, ""), (True, "B,K,T")],
    ids=["outputs", "projected-and-states"],
)
def test_opcheck_of_rollout(cell: str, states: bool, projected: str) -> None:
    op = make(cell, sizes=(2, 3, 5, 2, 4, 3), projected=projected, state=states).op()
    torch.library.opcheck(OPS.rollout.default, (*op, states, *HOW))
    with torch.no_grad():
        torch.library.opcheck(OPS.rollout.default, (*detached(op), states, *HOW))


@cells
@pytest.mark.parametrize("state", [False, True], ids=["bare", "with-states"])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_opcheck_of_rollout_vjp(cell: str, state: bool, backend: str) -> None:
    op = detached(make(cell, sizes=(2, 3, 5, 2, 4, 3), state=state, shared=state).op())
    d_outputs = torch.ones(2, 3, 5, 3, dtype=torch.float64)
    d_final = [torch.ones(2, 3, 4, dtype=torch.float64)] * CELLS[cell].n_states
    states = torch.ones(2, 3, 5, 4, dtype=torch.float64)
    last = (states, d_final, states) if state else (None, [], None)
    torch.library.opcheck(
        OPS.rollout_vjp.default, (*op[:3], d_outputs, *op[3:], *last, backend, False)
    )


def detached(op: tuple[Any, ...]) -> tuple[Any, ...]:
    return torch.utils._pytree.tree_map_only(Tensor, Tensor.detach, op)


# --- autograd's corners ------------------------------------------------------------------------


def test_frozen_tensors_get_no_gradient() -> None:
    arguments = make("gru")
    for name in ("w_ih", "b_hh", "w_out"):
        arguments.weights[name].requires_grad_(False)
    arguments.inputs.requires_grad_(False)
    weighted(arguments.run(rollout).outputs).backward()
    has_gradient = {name for name, leaf in arguments.leaves().items() if leaf.grad is not None}
    assert has_gradient == {"w_hh", "b_ih", "b_out", "h0[0]"}


def test_nothing_is_recorded_where_nothing_is_asked_for() -> None:
    arguments = make("lstm")
    with torch.no_grad():
        unrecorded = arguments.run(rollout, states=True)
    with torch.inference_mode():
        inferred = arguments.run(rollout, states=True)
    recorded = arguments.run(rollout, states=True)
    assert recorded.outputs.requires_grad
    for some in (unrecorded, inferred):
        assert not any(part.requires_grad for part in parts(some))
        for ours, theirs in zip(parts(some), parts(recorded), strict=True):
            assert torch.equal(ours, theirs)


@cells
def test_second_derivatives_are_refused(cell: str) -> None:
    arguments = make(cell)
    outputs = arguments.run(rollout).outputs
    (first,) = torch.autograd.grad(weighted(outputs), arguments.inputs, create_graph=True)
    with pytest.raises(BackendUnavailableError, match=r"second.*dtwin_fast\.reference\.rollout"):
        first.sum().backward()


@cells
def test_states_beyond_the_limit_are_computed_again(
    cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = make(cell, "float32")
    kept = []

    def loss(result: reference.TorchRollout) -> Tensor:
        kept.append(result.outputs.grad_fn.keep_states)  # type: ignore[union-attr]
        return weighted(result.outputs)

    found = []
    for limit in (3 * 2 * 11 * 7 * 4, 3 * 2 * 11 * 7 * 4 - 1):
        monkeypatch.setitem(dtwin_torch.KEPT_STATES_BYTES, "cpu", limit)
        found.append(gradients(arguments, loss, rollout))
    assert kept == [True, False]
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


def test_changing_an_argument_before_the_backward_pass_is_noticed() -> None:
    """The engine reads the tensors in place, so torch's own check must still see the change."""
    arguments = make("rnn")
    outputs = arguments.run(rollout).outputs
    with torch.no_grad():
        arguments.weights["w_hh"].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.sum().backward()


# --- memory ------------------------------------------------------------------------------------


def test_tensors_are_read_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = make("lstm", projected="K,T")
    seen: dict[str, Any] = {}
    run = dispatch.rollout

    def spy(weights: RNNWeights, inputs: Any, h0: Any, **options: Any) -> Any:
        state = {f"h0[{i}]": part for i, part in enumerate(h0)}
        seen.update({name: getattr(weights, name) for name in WEIGHT_NAMES} | state)
        seen.update(inputs=inputs, projection=options["time_projection"])
        return run(weights, inputs, h0, **options)

    monkeypatch.setattr(dispatch, "rollout", spy)
    arguments.run(rollout)
    assert arguments.projection is not None
    for name, tensor in {**arguments.leaves(), "projection": arguments.projection}.items():
        assert seen[name].ctypes.data == tensor.data_ptr(), name


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
    "every-other": lambda t: t.repeat_interleave(2, -1)[..., ::2],
    "every-other-subject": lambda t: t.repeat_interleave(2, 0)[::2],
    "negative": lambda t: torch.complex(torch.zeros_like(t), -t).conj().imag,
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts_do_not_matter(layout: Callable[[Tensor], Tensor]) -> None:
    plain = make("gru", projected="B,K,T")
    assert plain.projection is not None
    assert plain.h0 is not None
    views = plain._replace(
        weights={name: layout(tensor) for name, tensor in plain.weights.items()},
        inputs=layout(plain.inputs),
        h0=tuple(layout(part) for part in plain.h0),
        projection=layout(plain.projection),
    )
    results = [plain.run(rollout).outputs, views.run(rollout).outputs]
    assert torch.equal(*results)
    leaves = tuple(plain.leaves().values())
    found = [torch.autograd.grad(weighted(result), leaves) for result in results]
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_expanded_tensors_collect_their_gradient(tolerances: ModuleType) -> None:
    """One subject's inputs and weights expanded to all, and the gradient of a sum is expanded."""
    arguments = make("rnn", sizes=(3, 2, 6, 2, 4, 3), state=False)
    found = []
    for engine in (rollout, reference.rollout):
        one = {name: tensor[:1].detach() for name, tensor in arguments.weights.items()}
        inputs = arguments.inputs[:1].detach()
        leaves = (*(leaf.requires_grad_() for leaf in one.values()), inputs.requires_grad_())
        weights = {name: leaf.expand(3, *leaf.shape[1:]) for name, leaf in one.items()}
        outputs = engine("rnn", weights, inputs.expand(3, -1, -1, -1)).outputs
        found.append(torch.autograd.grad(outputs.sum(), leaves))
    for ours, theirs in zip(*found, strict=True):
        tolerances.assert_close(ours.numpy(), theirs.numpy(), "gradients", "float64")


# --- refusals ----------------------------------------------------------------------------------

REFUSED: dict[str, tuple[str, str, Callable[[Arguments], Arguments]]] = {  # code, field, change
    "cell": ("cell", "cell", lambda a: a._replace(cell="elman")),
    "weights-missing": ("weights", "weights", lambda a: a._replace(weights={"w_ih": a.inputs})),
    "weights-shape": ("shape", "b_ih", lambda a: with_weight(a, "b_ih", torch.ones(3, 6))),
    "weights-dtype": (
        "dtype",
        "w_hh",
        lambda a: with_weight(a, "w_hh", a.weights["w_hh"].double()),
    ),
    "inputs-shape": ("shape", "inputs", lambda a: a._replace(inputs=torch.ones(2, 11, 3))),
    "inputs-rank": ("shape", "inputs", lambda a: a._replace(inputs=torch.ones(11, 4))),
    "w_hh-number": ("shape", "w_ih, w_hh, w_out", lambda a: with_weight(a, "w_hh", torch.ones(()))),
    "w_out-number": (
        "shape",
        "w_ih, w_hh, w_out",
        lambda a: with_weight(a, "w_out", torch.ones((), requires_grad=True)),
    ),
    "inputs-double": ("dtype", "inputs", lambda a: a._replace(inputs=a.inputs.double())),
    "inputs-half": ("dtype", "inputs", lambda a: a._replace(inputs=a.inputs.half())),
    "inputs-integer": ("dtype", "inputs", lambda a: a._replace(inputs=a.inputs.int())),
    "inputs-sparse": ("dtype", "inputs", lambda a: a._replace(inputs=a.inputs.to_sparse())),
    "inputs-numpy": ("dtype", "inputs", lambda a: a._replace(inputs=np.ones((2, 11, 4), "f4"))),
    "inputs-nan": ("not_finite", "inputs", lambda a: a._replace(inputs=torch.ones(2, 1, 4) / 0)),
    "h0-shape": ("shape", "h0", lambda a: a._replace(h0=(torch.ones(3, 2, 6),))),
    "h0-list": ("dtype", "h0[0]", lambda a: a._replace(h0=([0.0],))),
    "projection-shape": (
        "shape",
        "time_projection",
        lambda a: a._replace(projection=torch.ones(2, 5)),
    ),
    "projection-gradient": (
        "gradient",
        "time_projection",
        lambda a: a._replace(projection=torch.ones(2, 11, requires_grad=True)),
    ),
}


def with_weight(arguments: Arguments, name: str, tensor: Tensor) -> Arguments:
    return arguments._replace(weights=arguments.weights | {name: tensor})


@pytest.mark.parametrize(("code", "field", "change"), REFUSED.values(), ids=REFUSED)
def test_bad_arguments_are_refused(
    code: str, field: str, change: Callable[[Arguments], Arguments]
) -> None:
    with pytest.raises(DTwinInputError) as e:
        change(make("rnn", "float32")).run(rollout)
    assert (e.value.code, e.value.field) == (code, field)
    assert e.value.fix


def test_half_precision_weights_are_refused() -> None:
    arguments = make("rnn", "float32")
    halves = {name: tensor.bfloat16() for name, tensor in arguments.weights.items()}
    with pytest.raises(DTwinInputError, match=r"wanted torch\.float32; got torch\.bfloat16"):
        arguments._replace(weights=halves).run(rollout)


def test_a_projection_that_requires_a_gradient_runs_without_one() -> None:
    arguments = make("rnn", projected="K,T")
    assert arguments.projection is not None
    wanted = arguments.run(rollout).outputs
    with torch.no_grad():
        arguments.projection.requires_grad_()
        assert torch.equal(arguments.run(rollout).outputs, wanted)


def test_lstm_wants_both_states() -> None:
    arguments = make("lstm")
    assert arguments.h0 is not None
    with pytest.raises(DTwinInputError, match=r"\(h, c\)"):
        arguments._replace(h0=arguments.h0[:1]).run(rollout)


def test_tensors_on_another_device_are_refused() -> None:
    arguments = make("rnn")
    with pytest.raises(BackendUnavailableError, match=r"inputs is on meta.*reference\.rollout"):
        arguments._replace(inputs=arguments.inputs.to("meta")).run(rollout)


def test_without_torch_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import dtwin_fast\n"
        "try: import dtwin_fast.torch\n"
        "except dtwin_fast.MissingExtraError as error: print(error.package, error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("torch ")
    assert "dtwin_fast[torch]" in ran.stdout


# --- training ----------------------------------------------------------------------------------


@cells
def test_a_training_step_equals_the_step_of_the_reference(
    cell: str, tolerances: ModuleType
) -> None:
    spec = TwinSpec("test", 8, hyper_hidden=(6,), n_hidden=9, cell=cell)
    rng = np.random.default_rng(4)
    edges = torch.tensor(rng.normal(size=(4, 28)), dtype=torch.float32)
    inputs = torch.tensor(rng.normal(size=(3, 20, spec.n_inputs)), dtype=torch.float32)
    stepped = []
    for engine in (rollout, reference.rollout):
        torch.manual_seed(0)
        network = HyperNetwork(spec)
        optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
        engine(cell, network.weights(edges), inputs).outputs.square().mean().backward()
        before = [p.detach().clone() for p in network.parameters()]
        optimiser.step()
        assert all(
            not torch.equal(p, old) for p, old in zip(network.parameters(), before, strict=True)
        )
        stepped.append([p.detach().numpy() for p in network.parameters()])
    for ours, theirs in zip(*stepped, strict=True):
        tolerances.assert_close(ours, theirs, "gradients", "float32")


# --- backend, precision, device ----------------------------------------------------------------


@cells
def test_a_named_backend_runs(cell: str) -> None:
    arguments = make(cell, "float32")
    weights, inputs, h0 = arguments.weights, arguments.inputs, arguments.h0
    state = h0 if h0 is None or len(h0) > 1 else h0[0]
    engine, loop = (
        rollout(cell, weights, inputs, state, backend=name).outputs for name in ("cpu", "reference")
    )
    assert torch.equal(engine, rollout(cell, weights, inputs, state).outputs)
    assert torch.equal(loop, reference.rollout(cell, weights, inputs, state).outputs)


@cells
def test_bfloat16_weights(cell: str, tolerances: ModuleType) -> None:
    """Outputs and gradients are those at the rounded weights."""
    arguments = make(cell, "float32")
    rounded = arguments._replace(
        weights={
            name: tensor.detach().bfloat16().float().requires_grad_()
            for name, tensor in arguments.weights.items()
        }
    )

    def engine(*positional: Any, **named: Any) -> reference.TorchRollout:
        return rollout(*positional, **named, precision="bfloat16")

    def loss(result: reference.TorchRollout) -> Tensor:
        return weighted(result.outputs)

    got = gradients(arguments, loss, engine)
    wanted = gradients(rounded, loss, rollout)
    for ours, theirs in zip(got, wanted, strict=True):
        tolerances.assert_close(ours.numpy(), theirs.numpy(), "gradients", "float32")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backend": "cuda"}, BackendUnavailableError, "does not run on CPU tensors"),
        ({"backend": "triton"}, BackendUnavailableError, "cpu, reference, or move the tensors"),
        ({"backend": "gpu"}, DTwinInputError, "there is no such backend"),
        ({"precision": "float32"}, DTwinInputError, "'float64', or 'bfloat16'"),
        ({"precision": "bfloat16"}, DTwinInputError, "'bfloat16' with float32 tensors"),
        ({"precision": "float16"}, DTwinInputError, "the tensors have another precision"),
    ],
)
def test_what_a_call_cannot_ask_for(
    options: dict[str, str], error: type[Exception], message: str
) -> None:
    arguments = make("rnn", "float64")
    with pytest.raises(error, match=message):
        rollout("rnn", arguments.weights, arguments.inputs, **options)


@cells
@pytest.mark.parametrize("shared", [False, True], ids=["own-inputs", "shared-inputs"])
@pytest.mark.parametrize("projected", ["", "B,K,T"], ids=["outputs", "projected"])
def test_the_arrays_that_a_launch_on_a_gpu_gets(
    cell: str, shared: bool, projected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their names, shapes and layouts: the CPU engine takes the same ones in the GPU's place."""

    def launch(cell: str, arrays: dict[str, Tensor | None], *, vjp: bool, **options: Any) -> None:
        assert options["allocate"](100).shape == (100,)
        named = {name: None if t is None else t.numpy() for name, t in arrays.items()}
        named |= {name: named.get(name) for name in ("h0", "c0")}
        missing = ("d_h_final", "d_c_final", "d_c0") if vjp else ("c_final",)
        named |= {name: named.get(name) for name in missing}
        run = _core.rollout_vjp if vjp else _core.rollout
        run(cell=cell, **named, bfloat16_weights=options["bfloat16_weights"], n_threads=1)

    monkeypatch.setattr(cuda_tensors, "launch", launch)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))
    arguments = make(cell, "float32", shared=shared, projected=projected)
    wanted = arguments.run(rollout, states=True)
    outputs, states, last = cuda_tensors.rollout(
        cell, arguments.weights, arguments.inputs, arguments.h0,
        time_projection=arguments.projection, return_states=True, bfloat16_weights=False,
    )  # fmt: skip
    for ours, theirs in zip((outputs, states, *last), parts(wanted), strict=True):
        assert torch.equal(ours, theirs)

    def loss(result: reference.TorchRollout) -> Tensor:
        return weighted(*parts(result))

    leaves = [t.detach().requires_grad_() for t in parts(wanted)]
    d_outputs, d_states, *d_final = torch.autograd.grad(weighted(*leaves), leaves)
    true = gradients(arguments, loss, rollout, states=True)
    for known in (None, states):
        found, d_inputs, d_h0 = cuda_tensors.rollout_vjp(
            cell, arguments.weights, arguments.inputs, d_outputs, arguments.h0,
            time_projection=arguments.projection, d_states=d_states, d_final=tuple(d_final),
            states=known, bfloat16_weights=False,
        )  # fmt: skip
        for ours, theirs in zip((*found.values(), d_inputs, *d_h0), true, strict=True):
            assert torch.equal(ours, theirs)


def test_tensors_on_different_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is computed; meta stands for a GPU."""
    monkeypatch.setitem(torch_arguments.DEVICES, "meta", ())
    arguments = make("rnn")
    with pytest.raises(DTwinInputError, match=r"inputs: all tensors are on one device") as e:
        arguments._replace(inputs=arguments.inputs.to("meta")).run(rollout)
    assert (e.value.code, e.value.wanted, e.value.got) == ("device", "cpu", "meta")
