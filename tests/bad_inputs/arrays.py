"""Arrays of connectomes: values, shapes, layouts and names."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dtwin_fast.connectome import Connectomes, stack

from .cases import Case, of_array, of_call
from .people import NAMES, E, R, bad, diagonal, edges, fisher_z, matrices, set_to

nan, inf = np.nan, np.inf


def lost(*regions: int) -> Any:
    """A change: these regions are NaN."""

    def change(person: Any) -> None:
        person[list(regions)] = person[:, list(regions)] = nan

    return change


def whole(value: Any) -> Any:
    """A change: another connectome."""
    return lambda person: np.broadcast_to(value, person.shape)


def upper(value: float) -> Any:
    """A change: this much is added to the upper triangle."""
    return lambda person: person + np.triu(np.full((R, R), value), 1)


def zeros_among_missing() -> Any:
    return np.pad(np.zeros((R - 2, R - 2)), (0, 2), constant_values=nan)


HALVES = np.where(np.kron(np.eye(2), np.ones((R // 2, R // 2))) == 1, 1, nan)
TRIANGLE = np.triu(np.ones((R, R), np.int8))

# One person of four, in the terms of one person: these are rejected and the others go on.
PEOPLE: dict[str, tuple[str, Any]] = {
    "one NaN": ("nan", bad(set_to(nan, 1, 2))),
    "NaN in edges": ("nan", bad(set_to(nan, 3), edges)),
    "NaN on one side": ("asymmetric", bad(set_to(nan, 1, 2, both=False))),
    "NaN in half a row": ("nan", bad(set_to(nan, 1, slice(2, 9)))),
    "NaN in two halves of a brain": ("nan", bad(whole(HALVES))),
    "all NaN": ("all_missing", bad(whole(nan))),
    "all NaN, edges": ("all_missing", bad(whole(nan), edges)),
    "one region left": ("all_missing", bad(lost(*range(1, R)))),
    "one region missing": ("missing_regions", bad(lost(3))),
    "three regions missing": ("missing_regions", bad(lost(0, 5, 15))),
    "one region missing, edges": (
        "missing_regions",
        bad(lost(3))[:, *np.triu_indices(R, 1)],
    ),
    "+Inf": ("infinite", bad(set_to(inf, 1, 2))),
    "-Inf": ("infinite", bad(set_to(-inf, 1, 2))),
    "+Inf on one side": ("infinite", bad(set_to(inf, 4, 2, both=False))),
    "Inf in edges": ("infinite", bad(set_to(inf, 3), edges)),
    "1e39 in float64": ("infinite", bad(set_to(1e39, 3), edges)),
    "1e308 in both triangles": ("infinite", bad(set_to(1e308, 1, 2))),
    "1e38": ("r_out_of_range", bad(set_to(1e38, 3), edges)),
    "r of 5": ("r_out_of_range", bad(set_to(5, 3), edges)),
    "percent": ("r_out_of_range", bad(lambda person: person * 100, edges)),
    "asymmetric by 1e-3": ("asymmetric", bad(upper(1e-3))),
    "asymmetric by 3e-5": ("asymmetric", bad(upper(3e-5))),
    "asymmetric": ("asymmetric", bad(set_to(0.99, 1, 2, both=False))),
    "antisymmetric": ("asymmetric", bad(lambda p: np.triu(p) - np.tril(p, -1))),
    "upper triangle only": ("asymmetric", bad(np.triu)),
    "lower triangle only": ("asymmetric", bad(np.tril)),
    "asymmetric by 1e308": ("asymmetric", bad(set_to(1e308, 1, 2, both=False))),
    "asymmetric integers": ("asymmetric", bad(whole(TRIANGLE), lambda: np.ones((4, R, R), "i1"))),
    "asymmetric float16": ("asymmetric", bad(set_to(0.9, 1, 2, both=False)).astype("f2")),
    "asymmetric, big-endian": ("asymmetric", bad(set_to(0.9, 1, 2, both=False)).astype(">f4")),
    "asymmetric, Fortran order": ("asymmetric", np.asfortranarray(bad(upper(0.1)))),
    "asymmetric, negative strides": ("asymmetric", bad(upper(0.1))[:, ::-1, ::-1]),
    "diagonal 0.9": ("diagonal", bad(diagonal(0.9))),
    "diagonal -1": ("diagonal", bad(diagonal(-1))),
    "diagonal 7": ("diagonal", bad(diagonal(7))),
    "diagonal 1e300": ("diagonal", bad(diagonal(1e300))),
    "-Inf diagonal": ("diagonal", bad(diagonal(-inf))),
    "one diagonal cell": ("diagonal", bad(set_to(0.5, 2, 2))),
    "covariances": ("diagonal", bad(lambda person: person * 30)),
    "all zero": ("all_zero", bad(whole(0.0))),
    "all zero, edges": ("all_zero", bad(whole(0.0), edges)),
    "all denormal": ("all_zero", bad(whole(1e-50), edges)),
    "identity": ("all_zero", bad(whole(np.eye(R)))),
    "zero where not missing": ("all_zero", bad(whole(zeros_among_missing()))),
}
Z_PEOPLE: dict[str, tuple[str, Any]] = {
    "Inf in Fisher z": ("infinite", bad(set_to(inf, 1, 2), fisher_z)),
    "z of 11": ("z_out_of_range", bad(set_to(11, 1, 2), fisher_z)),
    "z of -1e30": ("z_out_of_range", bad(set_to(-1e30, 1, 2), fisher_z)),
    "z diagonal 1.5": ("diagonal", bad(diagonal(1.5), fisher_z)),
    "z diagonal -Inf": ("diagonal", bad(diagonal(-inf), fisher_z)),
    "r among Fisher z": ("r_as_fisher_z", bad(whole(matrices(1)[0]), fisher_z)),
    "NaN in Fisher z": ("nan", bad(set_to(nan, 1, 2), fisher_z)),
}

WITH_DIAGONAL = matrices()[:, *np.triu_indices(R)]
LONG = "x" * 300

# Whole inputs: nobody is predicted.
WHOLE: dict[str, tuple[str, Any]] = {
    "r of 1.00002": ("fisher_z_as_r", bad(set_to(1.00002, 1, 2))),
    "r of -1.5": ("fisher_z_as_r", bad(set_to(-1.5, 3), edges)),
    "Fisher z announced as r": ("fisher_z_as_r", fisher_z()),
    "infinite diagonal of r": ("fisher_z_as_r", bad(diagonal(inf))),
    "a number": ("shape", np.float32(0.5)),
    "4-D": ("shape", matrices()[None]),
    "not square": ("shape", matrices()[:, :, :4]),
    "not square, 2-D": ("edge_count", matrices()[0, :4, :5]),
    "nobody": ("no_subjects", np.zeros((0, R, R))),
    "nobody's edges": ("no_subjects", np.zeros((0, E))),
    "no regions": ("region_count", np.zeros((2, 0, 0))),
    "one region": ("region_count", np.ones((2, 1, 1))),
    "no edges": ("edge_count", np.zeros((2, 0))),
    "one edge too many": ("edge_count", np.zeros((1, E + 1))),
    "one edge too few": ("edge_count", np.zeros(E - 1)),
    "diagonal in the edges": ("triangle_with_diagonal", WITH_DIAGONAL),
    "complex": ("dtype", matrices().astype(np.complex64)),
    "long double": ("dtype", matrices().astype(np.longdouble)),
    "bool": ("dtype", np.ones((R, R), bool)),
    "object": ("dtype", matrices().astype(object)),
    "an object array of None": ("dtype", np.array([None] * E)),
    "text": ("dtype", matrices().astype("U")),
    "bytes": ("dtype", matrices().astype("S8")),
    "dates": ("dtype", np.zeros(E, "datetime64[s]")),
    "durations": ("dtype", np.zeros(E, "timedelta64[s]")),
    "records": ("dtype", np.zeros(E, [("r", "f4")])),
    "void": ("dtype", np.zeros(E, "V4")),
}

VOXEL_EDGES = 10**5 * (10**5 - 1) // 2

# What no .npy file can hold.
NEVER_IN_A_FILE: dict[str, tuple[str, Any]] = {
    "ragged lists": ("dtype", [[0.1, 0.2, 0.3], [0.1]]),
    "None": ("dtype", None),
    "a path": ("dtype", "fc.npy"),
    "a dict": ("dtype", {"fc": 1.0}),
    "a generator": ("dtype", (row for row in matrices())),
    "masked array": ("dtype", np.ma.masked_greater(matrices(), 0.5)),
    "bfloat16 tensor": ("dtype", torch.zeros(E, dtype=torch.bfloat16)),
    "tensor that needs gradients": ("dtype", torch.zeros(E, requires_grad=True)),
    "sparse tensor": ("dtype", torch.zeros(R, R).to_sparse()),
    "tensor without data": ("dtype", torch.zeros(E, device="meta")),
    "conjugate tensor": ("dtype", torch.zeros(E, dtype=torch.complex64).conj()),
    "freed DLPack capsule": ("dtype", torch.utils.dlpack.to_dlpack(torch.zeros(E))),
    "more than fits": ("too_large", np.broadcast_to(np.float32(0), (10**6, 446, 446))),
    "more than 2^63 elements": ("too_large", np.broadcast_to(np.float32(0), (2**33, 4950))),
    "voxels for regions": ("region_count", np.broadcast_to(np.int8(0), (10**5, 10**5))),
    "edges of 10^5 voxels": ("region_count", np.broadcast_to(np.int8(0), (1, VOXEL_EDGES))),
}

SUBJECTS = ("a", "b", "c")
BAD_IDS = (
    *("", "a/b", "a\\b", "..", ".hidden", "../x", "a\nb", "a\0b", "a\x1b[0m", "=1+1"),
    *("+x", "-x", "@x", "a:b", "a*b", "a|b", "a\u2028b", "a\u202eb", LONG),
)
# Names: an array, and names for its regions or people.
NAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "15 names for 16 regions": ("region_count", {"regions": NAMES[:15]}),
    "one name": ("region_count", {"regions": ["a"]}),
    "a name twice": ("region_duplicate", {"regions": [*NAMES[:15], NAMES[0]]}),
    "an empty name": ("region_name", {"regions": [*NAMES[:15], ""]}),
    "a tab in a name": ("region_name", {"regions": [*NAMES[:15], "f\tg"]}),
    "NUL in a name": ("region_name", {"regions": [*NAMES[:15], "f\0"]}),
    "a newline in a name": ("region_name", {"regions": [*NAMES[:15], "f\ng"]}),
    "201 characters": ("region_name", {"regions": [*NAMES[:15], "f" * 201]}),
    "one subject too few": ("subject_count", {"subjects": SUBJECTS}),
    "one subject too many": ("subject_count", {"subjects": [*SUBJECTS, "d", "e"]}),
    "a subject twice": ("subject_duplicate", {"subjects": [*SUBJECTS, "a"]}),
    **{
        f"subject {ascii(name)[:20]}": ("subject_id", {"subjects": [*SUBJECTS, name]})
        for name in BAD_IDS
    },
}
# Names that a table cannot hold, or that it gives without the fault.
NEVER_IN_A_TABLE: dict[str, tuple[str, dict[str, Any]]] = {
    "no names": ("region_count", {"regions": []}),
    "names in one text": ("region_name", {"regions": "abcdef"}),
    "numbers for names": ("region_name", {"regions": range(R)}),
    "names by number": ("region_name", {"regions": R}),
    "a blank at the end": ("region_name", {"regions": [*NAMES[:15], "f "]}),
    "half a character": ("region_name", {"regions": [*NAMES[:15], "\ud800"]}),
    "subject of a blank": ("subject_id", {"subjects": [*SUBJECTS, " "]}),
    "no subjects": ("subject_count", {"subjects": []}),
    "subjects by number": ("subject_id", {"subjects": [1, 2, 3, 4]}),
    "subjects in one text": ("subject_id", {"subjects": "abcd"}),
    "subjects as bytes": ("subject_id", {"subjects": [b"a", b"b", b"c", b"d"]}),
    "unknown bad_subjects": ("argument", {"bad_subjects": "skip"}),
}


def _named(**options: Any) -> Any:
    return Connectomes.from_arrays(matrices(), **options)


def _stacked(**options: Any) -> Any:
    other = Connectomes.from_arrays(edges(), subjects=list("efgh"), **options)
    return stack([_named(regions=NAMES), other])


# Methods of connectomes that are good themselves.
METHODS: dict[str, Case] = {
    "align to absent names": of_call(
        "regions_missing", lambda p: _named(regions=NAMES).align(list("abcxyz"))
    ),
    "align to another case": of_call(
        "regions_missing",
        lambda p: _named(regions=NAMES).align([name.upper() for name in NAMES]),
    ),
    "align to a name twice": of_call(
        "region_duplicate", lambda p: _named(regions=NAMES).align(NAMES[:2] * 2)
    ),
    "align to one name": of_call("region_count", lambda p: _named(regions=NAMES).align(NAMES[:1])),
    "align without names": of_call("regions_unnamed", lambda p: _named().align(NAMES)),
    "predict without names": of_call("regions_unnamed", lambda p: p.twin.predict(_named())),
    "align to missing regions": of_call(
        "all_missing",
        lambda p: Connectomes.from_arrays(bad(lost(0, 1, 2)), regions=NAMES).align(NAMES[:4]),
    ),
    "two regions, NaN": of_call(
        "all_missing", lambda p: Connectomes.from_arrays(np.array([[1, nan], [nan, 1]]))
    ),
    "select beyond the end": of_call("subject_index", lambda p: _named().select([4])),
    "select by fraction": of_call("subject_index", lambda p: _named().select(np.array([0.5]))),
    "select by a short mask": of_call("subject_index", lambda p: _named().select(np.array([True]))),
    "select twice": of_call("subject_duplicate", lambda p: _named().select([0, 0])),
    "unknown policy": of_call("argument", lambda p: _named().resolve_missing("zero")),
    "stack nobody": of_call("no_subjects", lambda p: stack([])),
    "stack r and Fisher z": of_call(
        "mixed_units",
        lambda p: _stacked(regions=NAMES, is_fisher_z=True),
    ),
    "stack other regions": of_call(
        "regions_missing", lambda p: _stacked(regions=[f"x{i}" for i in range(R)])
    ),
}

ARRAYS: dict[str, Case] = {
    **{name: of_array(code, array) for name, (code, array) in {**PEOPLE, **WHOLE}.items()},
    **{name: of_array(code, array, is_fisher_z=True) for name, (code, array) in Z_PEOPLE.items()},
    **{
        name: of_array(code, array, in_file=False)
        for name, (code, array) in NEVER_IN_A_FILE.items()
    },
    **{name: of_array(code, matrices(), **options) for name, (code, options) in NAMED.items()},
    **{
        name: of_array(code, matrices(), in_file=False, **options)
        for name, (code, options) in NEVER_IN_A_TABLE.items()
    },
    "diagonal in the edges, by names": of_array(
        "triangle_with_diagonal", WITH_DIAGONAL * 0.5, regions=NAMES
    ),
    "16 names for edges of 18": of_array("region_count", edges(4, 18), regions=NAMES),
    **METHODS,
}
