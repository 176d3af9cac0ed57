"""Choices and reaction times read from the RNN's outputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtwin_fast import readouts
from dtwin_fast.readouts import READOUTS, hazard, hazard_vjp, sigmoid

DT_S = 0.08
WINDOWS = np.array([[2, 7], [10, 14], [4, 9], [12, 17]])  # equally long ones, which overlap
ONSET_S = np.array([0.15, 0.8, 0.3, 0.9])


@pytest.fixture(params=[1, readouts.DECODED], ids=["trial by trial", "together"], autouse=True)
def decoded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readouts, "DECODED", request.param)


EXACT = 1e-6  # results are stored in float32


def hazard_by_definition(actions: np.ndarray, start: int, stop: int, onset_s: float):
    """P(c, t) multiplied out step by step, in float64."""
    n_actions = actions.shape[1]
    alive, prob, seconds = 1.0, np.zeros(n_actions), 0.0
    for t in range(start, stop):
        odds = np.exp(actions[t].astype(np.float64))
        risk = odds / (1 + odds.sum())
        prob += alive * risk
        seconds += alive * risk.sum() * ((t + 0.5) * DT_S - onset_s)
        alive *= 1 - risk.sum()
    return prob, seconds / prob.sum()


def test_hazard_equals_its_definition():
    actions = np.random.default_rng(0).normal(-1, 1.5, (4, 20, 3)).astype(np.float32)
    found = hazard(actions, WINDOWS, ONSET_S, DT_S)
    for s in range(4):
        for n, (start, stop) in enumerate(WINDOWS):
            prob, rt_s = hazard_by_definition(actions[s], start, stop, ONSET_S[n])
            np.testing.assert_allclose(found.choice_prob[s, n], prob, atol=EXACT)
            np.testing.assert_allclose(found.rt_s[s, n], rt_s, atol=EXACT)


def test_hazard_of_zero_outputs_is_known_in_closed_form():
    # Two actions and none are equally likely at each step: survival is 3^-steps.
    found = hazard(np.zeros((1, 20, 2)), WINDOWS, ONSET_S, DT_S)
    np.testing.assert_allclose(found.choice_prob[0, 0], (1 - 3.0**-5) / 2, atol=EXACT)


@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.floats(-1e4, 1e4),
    st.integers(0, 2**32 - 1),
)
def test_hazard_is_a_distribution_whatever_the_outputs(n_subjects, n_actions, level, seed):
    rng = np.random.default_rng(seed)
    actions = (level + rng.normal(0, 50, (n_subjects, 20, n_actions))).astype(np.float32)
    found = hazard(actions, WINDOWS, ONSET_S, DT_S)
    total = found.choice_prob.sum(axis=2)
    assert (found.choice_prob >= 0).all()
    assert (total <= 1 + EXACT).all()
    seen = found.rt_s[total > 0]
    first_s = (WINDOWS[:, 0] + 0.5) * DT_S - ONSET_S
    last_s = (WINDOWS[:, 1] - 0.5) * DT_S - ONSET_S
    assert (seen >= first_s.min() - EXACT).all()
    assert (seen <= last_s.max() + EXACT).all()


def test_a_certain_press_has_its_time_and_action():
    actions = np.full((1, 20, 3), -200.0, np.float32)
    actions[0, 4, 1] = 200.0
    found = hazard(actions, WINDOWS[:1], ONSET_S[:1], DT_S)
    np.testing.assert_allclose(found.choice_prob[0, 0], [0, 1, 0], atol=EXACT)
    np.testing.assert_allclose(found.rt_s[0, 0], 4.5 * DT_S - ONSET_S[0], atol=EXACT)


def test_an_impossible_press_has_no_reaction_time():
    found = hazard(np.full((1, 20, 3), -np.inf), WINDOWS, ONSET_S, DT_S)
    assert (found.choice_prob == 0).all()
    assert np.isnan(found.rt_s).all()


@pytest.mark.parametrize("head", READOUTS)
def test_outputs_outside_the_window_do_not_matter(head):
    rng = np.random.default_rng(1)
    actions = rng.normal(size=(2, 20, 3)).astype(np.float32)
    changed = actions.copy()
    outside = np.ones(20, bool)
    for start, stop in WINDOWS:
        outside[start:stop] = False
    changed[:, outside] = 99
    for one, other in zip(
        READOUTS[head](actions, WINDOWS, ONSET_S, DT_S),
        READOUTS[head](changed, WINDOWS, ONSET_S, DT_S),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("head", READOUTS)
def test_nan_stays_with_its_subject(head):
    actions = np.random.default_rng(2).normal(size=(3, 20, 3)).astype(np.float32)
    broken = actions.copy()
    broken[1] = np.nan
    for one, other in zip(
        READOUTS[head](actions, WINDOWS, ONSET_S, DT_S),
        READOUTS[head](broken, WINDOWS, ONSET_S, DT_S),
        strict=True,
    ):
        np.testing.assert_array_equal(one[[0, 2]], other[[0, 2]])
        assert np.isnan(other[1]).all()


def test_sigmoid_takes_the_highest_peak_even_when_it_saturates():
    actions = np.full((1, 20, 3), -5.0, np.float32)
    actions[0, 3, 0] = 40.0  # the sigmoids of 40 and 50 are both 1 in float32
    actions[0, 5, 2] = 50.0
    found = sigmoid(actions, WINDOWS[:1], ONSET_S[:1], DT_S)
    np.testing.assert_allclose(found.rt_s[0, 0], 5.5 * DT_S - ONSET_S[0], atol=EXACT)
    np.testing.assert_allclose(found.choice_prob[0, 0].sum(), 1, atol=EXACT)


@pytest.mark.parametrize("head", READOUTS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_company_changes_no_bit(head, dtype):
    actions = np.random.default_rng(3).normal(0, 2, (40, 20, 3)).astype(dtype)
    whole = READOUTS[head](actions, WINDOWS, ONSET_S, DT_S)
    for n in (1, 2, 3, 5, 13, 32, 40):
        rows = np.random.default_rng(n).permutation(40)[:n]
        some = READOUTS[head](actions[rows], WINDOWS, ONSET_S, DT_S)
        assert some.choice_prob.tobytes() == whole.choice_prob[rows].tobytes()
        assert some.rt_s.tobytes() == whole.rt_s[rows].tobytes()


@pytest.mark.parametrize("head", READOUTS)
def test_no_subjects(head):
    found = READOUTS[head](np.empty((0, 20, 3), np.float32), WINDOWS, ONSET_S, DT_S)
    assert (found.choice_prob.shape, found.rt_s.shape) == ((0, 4, 3), (0, 4))


@pytest.mark.parametrize("level", [-1e38, -800, -100, 100, 800, 1e38])
def test_saturated_sigmoids_still_share(level):
    found = sigmoid(np.full((1, 20, 3), level, np.float32), WINDOWS, ONSET_S, DT_S)
    np.testing.assert_allclose(found.choice_prob, 1 / 3, atol=EXACT)
    assert np.isfinite(found.rt_s).all()


@pytest.mark.parametrize("head", READOUTS)
@pytest.mark.parametrize("value", [np.inf, -np.inf], ids=str)
def test_infinity_warns_of_nothing_and_stays_alone(head, value):
    actions = np.random.default_rng(4).normal(size=(3, 20, 3)).astype(np.float32)
    wanted = READOUTS[head](actions, WINDOWS, ONSET_S, DT_S)
    actions[1] = value
    found = READOUTS[head](actions, WINDOWS, ONSET_S, DT_S)
    for one, other in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(one[[0, 2]], other[[0, 2]])


@pytest.mark.parametrize("level", [-6.0, 0.0, 9.0])
def test_hazard_vjp_equals_autograd(level):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(17)
    actions = level + rng.normal(0, 1.5, (3, 20, 3))
    d_prob, d_rt_s = rng.normal(size=(3, 4, 3)), rng.normal(size=(3, 4))
    leaf = torch.tensor(actions, requires_grad=True)
    total = torch.zeros((), dtype=torch.float64)
    for n, (start, stop) in enumerate(WINDOWS):
        alive, prob, seconds = torch.ones(3), torch.zeros(3, 3), torch.zeros(3)
        for t in range(start, stop):
            risk = torch.softmax(torch.cat([leaf[:, t], torch.zeros(3, 1)], dim=1), dim=1)
            prob = prob + alive[:, None] * risk[:, :3]
            seconds = seconds + alive * (1 - risk[:, 3]) * ((t + 0.5) * DT_S - ONSET_S[n])
            alive = alive * risk[:, 3]
        total = total + (prob * torch.tensor(d_prob[:, n])).sum()
        total = total + (seconds / prob.sum(dim=1) * torch.tensor(d_rt_s[:, n])).sum()
    total.backward()
    found = hazard_vjp(actions, WINDOWS, ONSET_S, DT_S, d_prob, d_rt_s)
    wanted = leaf.grad.numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-8 * np.abs(wanted).max())
    outside = np.ones(20, bool)
    for start, stop in WINDOWS:
        outside[start:stop] = False
    assert not found[:, outside].any()


def test_company_changes_no_bit_of_gradients():
    rng = np.random.default_rng(19)
    actions, d_prob, d_rt_s = (rng.normal(size=s) for s in ((40, 20, 3), (40, 4, 3), (40, 4)))
    whole = hazard_vjp(actions, WINDOWS, ONSET_S, DT_S, d_prob, d_rt_s)
    for n in (1, 2, 13, 40):
        rows = rng.permutation(40)[:n]
        some = hazard_vjp(actions[rows], WINDOWS, ONSET_S, DT_S, d_prob[rows], d_rt_s[rows])
        assert some.tobytes() == whole[rows].tobytes()


def test_hazard_vjp_spoils_only_the_subject_that_diverged():
    rng = np.random.default_rng(18)
    actions, d_prob, d_rt_s = (rng.normal(size=s) for s in ((3, 20, 2), (3, 4, 2), (3, 4)))
    whole = hazard_vjp(actions, WINDOWS, ONSET_S, DT_S, d_prob, d_rt_s)
    actions[1, 11] = np.nan
    found = hazard_vjp(actions, WINDOWS, ONSET_S, DT_S, d_prob, d_rt_s)
    assert np.isnan(found[1]).any()
    np.testing.assert_array_equal(found[[0, 2]], whole[[0, 2]])
