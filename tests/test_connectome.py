"""Connectomes: what is kept, what is put in order, and what missing regions become."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtwin_fast.connectome import (
    FISHER_CLIP,
    Connectomes,
    fill_missing,
    matrices,
    stack,
    vectorise,
)
from dtwin_fast.connectome_checks import n_regions_of
from dtwin_fast.errors import DTwinInputError

NAMES = tuple(f"R{i}" for i in range(9))


def correlations(n_subjects: int, n_regions: int, seed: int = 0) -> npt.NDArray[np.float64]:
    series = np.random.default_rng(seed).normal(size=(n_subjects, n_regions, 40))
    return np.stack([np.corrcoef(one) for one in series])


def with_missing(fc: npt.NDArray[Any], subject: int, regions: list[int]) -> npt.NDArray[Any]:
    fc = fc.copy()
    fc[subject, regions] = np.nan
    fc[subject, :, regions] = np.nan
    return fc


def test_matrices_edges_and_single_subjects_give_the_same_edges() -> None:
    fc = correlations(3, 9)
    wanted = fc[:, *np.triu_indices(9, 1)].astype(np.float32)
    np.testing.assert_array_equal(Connectomes.from_arrays(fc).edges, wanted)
    np.testing.assert_array_equal(Connectomes.from_arrays(wanted).edges, wanted)
    np.testing.assert_array_equal(Connectomes.from_arrays(fc[1]).edges, wanted[1:2])
    np.testing.assert_array_equal(Connectomes.from_arrays(wanted[1]).edges, wanted[1:2])


def test_sizes_and_default_names() -> None:
    made = Connectomes.from_arrays(correlations(3, 9))
    assert (len(made), made.n_subjects, made.n_regions, made.n_edges) == (3, 3, 9, 36)
    assert made.subjects == ("sub-0001", "sub-0002", "sub-0003")
    assert made.regions is None
    assert made.edges.dtype == np.float32
    assert made.edges.flags.c_contiguous
    assert made.flags == ((), (), ())


LAYOUTS = {
    "float64": lambda a: a.astype(np.float64),
    "big-endian": lambda a: a.astype(">f4"),
    "Fortran order": np.asfortranarray,
    "negative strides": lambda a: a[:, ::-1, ::-1][:, ::-1, ::-1],
    "every second subject": lambda a: np.repeat(a, 2, axis=0)[::2],
    "misaligned": lambda a: _misaligned(a),
    "subclass": lambda a: a.view(np.matrix) if a.ndim == 2 else a.view(np.recarray),
    "nested lists": lambda a: a.tolist(),
}


def _misaligned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    raw = np.zeros(array.nbytes + 1, np.uint8)
    raw[1:] = np.frombuffer(array.tobytes(), np.uint8)
    return raw[1:].view(array.dtype).reshape(array.shape)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_of_the_input_changes_no_bit(layout: str) -> None:
    fc = correlations(3, 9).astype(np.float32)
    made = Connectomes.from_arrays(LAYOUTS[layout](fc))
    np.testing.assert_array_equal(made.edges, Connectomes.from_arrays(fc).edges)


def test_float16_and_integers_are_numbers() -> None:
    half = correlations(1, 9).astype(np.float16)
    np.testing.assert_array_equal(
        Connectomes.from_arrays(half).edges, vectorise(half).astype(np.float32)
    )
    signs = np.where(np.eye(4, dtype=bool), 1, -1).astype(np.int8)
    np.testing.assert_array_equal(Connectomes.from_arrays(signs).edges, -np.ones((1, 6)))


def test_input_is_copied_and_left_alone() -> None:
    edges = vectorise(correlations(2, 9)).astype(np.float32)
    edges[0, 0] = 1 + 5e-6
    before = edges.copy()
    made = Connectomes.from_arrays(edges)
    assert made.edges[0, 0] == 1
    np.testing.assert_array_equal(edges, before)
    assert not np.shares_memory(made.edges, edges)


def test_rounding_noise_between_the_triangles_is_averaged() -> None:
    fc = correlations(1, 9)
    fc[0, 2, 5] += 4e-6
    made = Connectomes.from_arrays(fc)
    assert made.edges[0, 15 + 2] == np.float32(fc[0, 5, 2] + 2e-6)


@pytest.mark.parametrize("diagonal", [1.0, 0.0, np.nan, 0.9995])
def test_diagonals_of_r(diagonal: float) -> None:
    fc = correlations(1, 9)
    edges = Connectomes.from_arrays(fc).edges
    fc[:, range(9), range(9)] = diagonal
    np.testing.assert_array_equal(Connectomes.from_arrays(fc).edges, edges)


@pytest.mark.parametrize("diagonal", [np.inf, 0.0, np.nan, 7.25, 18.7])
def test_diagonals_of_fisher_z(diagonal: float) -> None:
    z = matrices(np.arctanh(vectorise(correlations(1, 9))).astype(np.float32), diagonal=diagonal)
    made = Connectomes.from_arrays(z, is_fisher_z=True)
    np.testing.assert_array_equal(made.fisher_z(), vectorise(z))


def test_fisher_z_is_bounded_and_keeps_nan() -> None:
    edges = np.array([[1, -1, 0.5], [np.nan, np.nan, 0.5]], np.float32)
    z = Connectomes.from_arrays(edges).fisher_z()
    limit = np.arctanh(np.float32(FISHER_CLIP))
    assert z.dtype == np.float32
    np.testing.assert_array_equal(z[0], np.array([limit, -limit, np.arctanh(np.float32(0.5))]))
    np.testing.assert_array_equal(np.isnan(z[1]), [True, True, False])
    assert limit < 7.26


@pytest.mark.parametrize("lost", [[3], [0, 8], [1, 2, 3, 4, 5, 6]], ids=str)
def test_missing_regions_are_found_and_flagged(lost: list[int]) -> None:
    fc = with_missing(correlations(3, 9), 1, lost)
    for given_fc in (fc, vectorise(fc)):
        made = Connectomes.from_arrays(given_fc)
        np.testing.assert_array_equal(np.flatnonzero(made.missing[1]), lost)
        assert not made.missing[[0, 2]].any()
        assert made.flags == ((), (f"missing_regions:{len(lost)}",), ())
        touched = np.isin(np.triu_indices(9, 1), lost).any(axis=0)
        np.testing.assert_array_equal(np.isnan(made.edges[1]), touched)


def test_number_between_two_missing_regions_is_no_data() -> None:
    fc = with_missing(correlations(1, 9), 0, [2, 6])
    fc[0, 2, 6] = fc[0, 6, 2] = 0
    made = Connectomes.from_arrays(fc)
    np.testing.assert_array_equal(np.flatnonzero(made.missing[0]), [2, 6])
    assert np.isnan(vectorise(fc)[0]).sum() + 1 == np.isnan(made.edges).sum()


def test_a_region_of_zeros_is_flagged() -> None:
    fc = correlations(1, 9)
    fc[0, 4, :] = fc[0, :, 4] = 0
    assert Connectomes.from_arrays(fc).flags == (("zero_regions:1",),)


@given(order=st.permutations(range(9)), lost=st.sets(st.integers(0, 8), max_size=5))
@settings(max_examples=200, deadline=None)
def test_order_of_named_regions_changes_no_bit(order: list[int], lost: set[int]) -> None:
    fc = with_missing(correlations(2, 9).astype(np.float32), 0, sorted(lost))
    fc[1, 2, 7] += 3e-6  # averaging must not depend on the order either
    straight = Connectomes.from_arrays(fc, regions=NAMES)
    shuffled = Connectomes.from_arrays(
        fc[:, order][:, :, order], regions=[NAMES[i] for i in order]
    ).align(NAMES)
    assert shuffled.regions == NAMES
    np.testing.assert_array_equal(shuffled.edges, straight.edges)
    np.testing.assert_array_equal(shuffled.missing, straight.missing)


def test_extra_regions_are_left_out_and_flagged() -> None:
    fc = correlations(2, 9)
    keep = [7, 0, 3]
    made = Connectomes.from_arrays(fc, regions=NAMES).align([NAMES[i] for i in keep])
    np.testing.assert_array_equal(made.edges, vectorise(fc[:, keep][:, :, keep]).astype(np.float32))
    assert made.flags == (("extra_regions_dropped:6",),) * 2


def test_aligning_to_the_own_order_copies_nothing() -> None:
    made = Connectomes.from_arrays(correlations(2, 9), regions=NAMES)
    assert made.align(list(NAMES)) is made


def test_dropping_bad_subjects_changes_no_bit_of_the_others() -> None:
    fc = correlations(6, 9)
    bad = fc.copy()
    bad[1, 0, 1] = 0.9
    bad[4] = np.nan
    made = Connectomes.from_arrays(bad, regions=NAMES, bad_subjects="drop")
    good = Connectomes.from_arrays(fc, regions=NAMES)
    assert made.subjects == ("sub-0001", "sub-0003", "sub-0004", "sub-0006")
    np.testing.assert_array_equal(made.edges, good.edges[[0, 2, 3, 5]])
    assert [(e.subject, e.code) for e in made.rejected] == [
        ("sub-0002", "asymmetric"),
        ("sub-0005", "all_missing"),
    ]


def test_fisher_z_of_one_subject_stops_everybody() -> None:
    """Two of three people have z below 1, which would pass for r."""
    z = np.full((3, 36), 0.4)
    z[1, 5] = 1.3
    for bad_subjects in ("raise", "drop"):
        with pytest.raises(DTwinInputError, match=r"\[fisher_z_as_r\].*subject sub-0002"):
            Connectomes.from_arrays(z, bad_subjects=bad_subjects)
    z[1, 5] = 5
    made = Connectomes.from_arrays(z, bad_subjects="drop")
    assert made.subjects == ("sub-0001", "sub-0003")
    assert [error.code for error in made.rejected] == ["r_out_of_range"]


@pytest.mark.parametrize(
    ("names", "wanted", "said"),
    [
        (list("abc"), ["a", "B", "C"], "2 differ only in case, blanks or the ending _ROI: "
         "'B' is 'b', 'C' is 'c'"),
        (["V1", "area 1"], ["V1", "area1"], "'area1' is 'area 1'"),
        (["V1", "V2"], ["V1_ROI", "V2_ROI"], "'V1_ROI' is 'V1', 'V2_ROI' is 'V2'"),
        (list("abc"), ["a", "x"], None),
    ],
    ids=["case", "blanks", "ending", "other names"],
)  # fmt: skip
def test_names_in_another_spelling_are_pointed_out(
    names: list[str], wanted: list[str], said: str | None
) -> None:
    made = Connectomes.from_arrays(correlations(1, len(names)), regions=names)
    with pytest.raises(DTwinInputError) as caught:
        made.align(wanted)
    assert caught.value.code == "regions_missing"
    assert ("differ only" in caught.value.fix) == (said is not None)
    assert (said or "") in caught.value.fix


def test_everybody_can_be_dropped() -> None:
    made = Connectomes.from_arrays(np.zeros((2, 9, 9)), regions=NAMES, bad_subjects="drop")
    assert (len(made), made.edges.shape, made.missing.shape) == (0, (0, 36), (0, 9))
    assert [error.code for error in made.rejected] == ["all_zero", "all_zero"]
    assert made.align(NAMES[:3]).edges.shape == (0, 3)
    assert made.fisher_z().shape == (0, 36)


@pytest.mark.parametrize(
    "indices",
    [[2, 0], slice(2, None, -2), np.array([2, 0]), (2, 0)],
    ids=["list", "slice", "array", "tuple"],
)
def test_select(indices: Any) -> None:
    made = Connectomes.from_arrays(with_missing(correlations(3, 9), 2, [1]))
    chosen = made.select(indices)
    assert chosen.subjects == ("sub-0003", "sub-0001")
    assert chosen.flags == (("missing_regions:1",), ())
    np.testing.assert_array_equal(chosen.edges, made.edges[[2, 0]])


def test_select_by_mask_and_nobody() -> None:
    made = Connectomes.from_arrays(correlations(3, 9))
    assert made.select(np.array([False, True, False])).subjects == ("sub-0002",)
    assert len(made.select([])) == 0


def test_policies_for_missing_regions() -> None:
    made = Connectomes.from_arrays(with_missing(correlations(3, 9), 1, [1, 5]))
    assert made.resolve_missing("mask").flags[1] == ("missing_regions:2", "masked_regions:2")
    assert made.resolve_missing("impute").flags[1] == ("missing_regions:2", "imputed_regions:2")
    kept = made.resolve_missing("reject", bad_subjects="drop")
    assert kept.subjects == ("sub-0001", "sub-0003")
    assert [error.subject for error in kept.rejected] == ["sub-0002"]
    np.testing.assert_array_equal(kept.edges, made.edges[[0, 2]])
    with pytest.raises(DTwinInputError, match=r"\[missing_regions\] .*sub-0002.*2 missing"):
        made.resolve_missing("reject")
    complete = made.select([0, 2])
    assert complete.resolve_missing("reject") is complete


def test_masked_edges_keep_the_scale_of_the_first_layer() -> None:
    edges = np.array([[1, 2, 3, 4], [np.nan, 2, np.nan, 4]], np.float32)
    filled = fill_missing(edges, "mask")
    np.testing.assert_array_equal(filled, [[1, 2, 3, 4], [0, 4, 0, 8]])
    assert np.isnan(edges[1, 0])  # the input is left alone


def test_imputed_edges_are_the_training_mean() -> None:
    edges = np.array([[1, 2, 3], [np.nan, 2, np.nan]], np.float32)
    filled = fill_missing(edges, "impute", np.array([7, 8, 9], np.float32))
    np.testing.assert_array_equal(filled, [[1, 2, 3], [7, 2, 9]])


def test_complete_edges_pass_as_they_are() -> None:
    edges = np.ones((2, 3), np.float32)
    for policy in ("reject", "mask", "impute"):
        assert fill_missing(edges, policy) is edges


@pytest.mark.parametrize(
    ("policy", "mean", "code"),
    [
        ("reject", None, "missing_regions"),
        ("impute", None, "argument"),
        ("impute", np.zeros(2, np.float32), "argument"),
        ("zero", None, "argument"),
    ],
    ids=["reject", "no mean", "mean of another length", "no such policy"],
)
def test_filling_refuses(policy: Any, mean: Any, code: str) -> None:
    edges = np.array([[np.nan, 1, 2]], np.float32)
    with pytest.raises(DTwinInputError) as caught:
        fill_missing(edges, policy, mean)
    assert caught.value.code == code


@given(n_regions=st.integers(2, 40))
def test_matrices_and_vectorise_are_inverse(n_regions: int) -> None:
    edges = np.random.default_rng(n_regions).normal(size=(2, n_regions * (n_regions - 1) // 2))
    full = matrices(edges.astype(np.float32), diagonal=2.0)
    np.testing.assert_array_equal(full, np.swapaxes(full, 1, 2))
    np.testing.assert_array_equal(vectorise(full), edges.astype(np.float32))
    np.testing.assert_array_equal(full[:, range(n_regions), range(n_regions)], 2.0)


@given(n_regions=st.integers(2, 10**9))
def test_regions_of_an_edge_count_are_exact(n_regions: int) -> None:
    count = n_regions * (n_regions - 1) // 2
    assert n_regions_of(count) == n_regions
    if n_regions > 2:
        with pytest.raises(DTwinInputError, match=f"{count:d} for {n_regions:d} regions"):
            n_regions_of(count + 1)


def test_stack_aligns_by_name() -> None:
    fc = correlations(2, 9)
    first = Connectomes.from_arrays(fc[0], regions=NAMES, subjects=["a"])
    second = Connectomes.from_arrays(fc[1][::-1, ::-1], regions=NAMES[::-1], subjects=["b"])
    both = stack([first, second])
    assert both.subjects == ("a", "b")
    np.testing.assert_array_equal(both.edges, vectorise(fc).astype(np.float32))


def _units() -> list[Connectomes]:
    fc = correlations(1, 9) * 0.5
    fc[:, range(9), range(9)] = 0
    return [Connectomes.from_arrays(fc), Connectomes.from_arrays(fc, is_fisher_z=True)]


STACKS = {
    "no_subjects": list,
    "mixed_units": _units,
    "region_count": lambda: [
        Connectomes.from_arrays(correlations(1, n), subjects=[f"s{n}"]) for n in (8, 9)
    ],
    "subject_duplicate": lambda: [Connectomes.from_arrays(correlations(1, 9)) for _ in range(2)],
    "regions_unnamed": lambda: [
        Connectomes.from_arrays(correlations(1, 9), regions=NAMES),
        Connectomes.from_arrays(correlations(1, 9), subjects=["b"]),
    ],
}


@pytest.mark.parametrize("code", STACKS)
def test_stack_refuses(code: str) -> None:
    with pytest.raises(DTwinInputError) as caught:
        stack(STACKS[code]())
    assert caught.value.code == code


def test_errors_travel_between_processes() -> None:
    with pytest.raises(DTwinInputError) as caught:
        Connectomes.from_arrays(np.full((1, 3, 3), np.inf), subjects=["anna"])
    again = copy.copy(caught.value)  # by __reduce__, as worker processes do
    assert str(again) == str(caught.value)
    assert again.subject == "anna"


def test_inconsistent_parts_are_refused() -> None:
    with pytest.raises(DTwinInputError, match=r"\[shape\]"):
        Connectomes(
            edges=np.zeros((1, 4), np.float32),
            subjects=("a",),
            regions=None,
            is_fisher_z=False,
            missing=np.zeros((1, 3), np.bool_),
            flags=((),),
        )


def test_as_many_subjects_as_edges_are_told_from_a_matrix_by_the_names() -> None:
    edges = np.random.default_rng(0).uniform(-0.5, 0.5, (15, 15))
    found = Connectomes.from_arrays(edges, regions=[f"r{i}" for i in range(6)])
    assert (found.n_subjects, found.n_regions) == (15, 6)
    np.testing.assert_array_equal(found.edges, edges.astype(np.float32))
    with pytest.raises(DTwinInputError) as caught:
        Connectomes.from_arrays(edges)
    assert caught.value.code == "diagonal"


def test_align_can_drop_a_subject_who_lacks_the_wanted_regions() -> None:
    matrices = with_missing(correlations(3, 5), 1, [3, 4])
    names = list("abcde")
    whole = Connectomes.from_arrays(matrices, regions=names)
    wanted = ["d", "e", "c"]
    with pytest.raises(DTwinInputError, match="sub-0002"):
        whole.align(wanted)
    kept = whole.align(wanted, bad_subjects="drop")
    assert kept.subjects == ("sub-0001", "sub-0003")
    assert [error.code for error in kept.rejected] == ["all_missing"]
    np.testing.assert_array_equal(kept.edges, whole.select([0, 2]).align(wanted).edges)
