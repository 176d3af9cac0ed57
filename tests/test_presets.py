"""Fixed edits of connectomes, and how the command line names them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dtwin_fast.errors import DTwinInputError
from dtwin_fast.interventions import presets
from dtwin_fast.interventions.presets import EDIT_FORMS, EDITS, parse_edit

REGIONS = ("LH_DefaultA_1", "LH_ContB_1", "RH_DefaultA_1", "lAMY-rh", "odd, one", "V1:left", "V2")
PAIRS = list(itertools.combinations(range(len(REGIONS)), 2))
Z = np.random.default_rng(0).normal(0.2, 0.4, (5, len(PAIRS))).astype(np.float32)
DENSITY = dict(zip(REGIONS, (4.0, 1.0, 0.0, 8.0, 2.0, 0.0, 0.0), strict=True))


def write(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(row.replace(" ", "\t") for row in rows) + "\n", "utf-8")
    return path


def factors(edited: npt.NDArray[np.float32]) -> dict[tuple[int, int], float]:
    """What the Fisher z of the first person were multiplied by, where that is not 1."""
    found = dict(zip(PAIRS, (edited / Z)[0].tolist(), strict=True))
    return {pair: value for pair, value in found.items() if value != 1}


def test_site() -> None:
    touched = np.array([3 in pair for pair in PAIRS])
    dx = presets.site("lAMY-rh", -0.25).change(Z, REGIONS)
    assert dx.dtype == np.float32
    np.testing.assert_array_equal(dx, np.tile(np.where(touched, -0.25, 0), (5, 1)))
    both = presets.site(["V1:left", "V2"], 0.5)
    assert both.name == "site:V1:left,V2:0.5"
    wanted = np.array([bool({5, 6} & set(pair)) for pair in PAIRS]) * 0.5
    np.testing.assert_array_equal(both.change(Z, REGIONS)[0], wanted)


def test_network() -> None:
    doubled = factors(Z + presets.network("DefaultA", 2).change(Z, REGIONS))
    assert doubled == {(0, 2): 2}
    silenced = factors(Z + presets.network("DefaultA:ContB", 0).change(Z, REGIONS))
    assert silenced == {(0, 1): 0, (1, 2): 0}


def test_edges() -> None:
    mask = np.arange(len(PAIRS)) % 4 == 1
    dx = presets.edges(mask, 0.125).change(Z, REGIONS)
    np.testing.assert_array_equal(dx, np.tile(mask * 0.125, (5, 1)))
    pairs = [("V2", "lAMY-rh"), ("lAMY-rh", "V2"), ("LH_ContB_1", "V2")]
    dx = presets.edges(pairs, 0.125).change(Z, REGIONS)
    assert [pair for pair, change in zip(PAIRS, dx[0], strict=True) if change] == [(1, 6), (3, 6)]
    kept = presets.edges(mask, 0.125)
    mask[:] = False
    assert kept.change(Z, REGIONS).any()


def test_receptor() -> None:
    edit = presets.receptor(DENSITY | {"a region of another atlas": 0.5}, -0.5)
    got = factors((Z + edit.change(Z, REGIONS)).astype(np.float32))
    share = np.array(list(DENSITY.values())) / 8
    for i, j in PAIRS:
        assert got.get((i, j), 1) == pytest.approx(1 - 0.5 * (share[i] + share[j]) / 2, rel=1e-6)
    assert (2, 5) not in got
    in_other_units = presets.receptor({name: 7 * value for name, value in DENSITY.items()}, -0.5)
    np.testing.assert_allclose(
        in_other_units.change(Z, REGIONS), presets.receptor(DENSITY, -0.5).change(Z, REGIONS)
    )


def test_lesion() -> None:
    edited = Z + presets.lesion(["lAMY-rh", "V2"]).change(Z, REGIONS)
    gone = np.array([bool({3, 6} & set(pair)) for pair in PAIRS])
    assert not edited[:, gone].any()
    np.testing.assert_array_equal(edited[:, ~gone], Z[:, ~gone])


ALL: dict[str, Any] = {
    "site": presets.site("lAMY-rh", 0.2),
    "network": presets.network("DefaultA:ContB", 1.5),
    "edges": presets.edges([("lAMY-rh", "V2")], 0.2),
    "receptor": presets.receptor(DENSITY, 0.3),
    "lesion": presets.lesion("lAMY-rh"),
}


@pytest.mark.parametrize("name", ALL)
def test_people_and_missing_edges(name: str) -> None:
    whole = ALL[name].change(Z, REGIONS)
    holes = Z.copy()
    holes[1, ::3] = np.nan
    dx = ALL[name].change(holes, REGIONS)
    assert dx.dtype == np.float32
    assert dx.shape == Z.shape
    assert not dx[1, ::3].any()
    np.testing.assert_array_equal(dx[~np.isnan(holes)], whole[~np.isnan(holes)])
    for i in range(len(Z)):
        np.testing.assert_array_equal(ALL[name].change(holes[[i]], REGIONS)[0], dx[i])


def test_every_edit_is_tested_and_has_its_form() -> None:
    assert set(ALL) == set(EDITS) == {form.partition(":")[0] for form in EDIT_FORMS}


# Texts


def test_texts_and_functions_agree(tmp_path: Path) -> None:
    listed = write(tmp_path / "pairs.tsv", "region_2 other region_1", "V2 x lAMY-rh")
    rows = [f"{value}\t{region}" for region, value in DENSITY.items()]
    densities = tmp_path / "map.tsv"
    densities.write_text("\n".join(["density\tregion", *rows]) + "\n", "utf-8")
    texts = {
        "site:lAMY-rh:0.2": ALL["site"],
        "site:V1:left:-1e-1": presets.site("V1:left", -0.1),
        "site:lAMY-rh,V2:.2": presets.site(["lAMY-rh", "V2"], 0.2),
        "network:DefaultA:ContB:1.5": ALL["network"],
        "network:Default:0": presets.network("Default", 0),
        f"edges:{listed}:0.2": ALL["edges"],
        f"receptor:{densities}:0.3": ALL["receptor"],
        "lesion:lAMY-rh": ALL["lesion"],
        "lesion:lAMY-rh,V2": presets.lesion(["lAMY-rh", "V2"]),
    }
    for text, edit in texts.items():
        parsed = parse_edit(text)
        assert parsed.name == text
        np.testing.assert_array_equal(parsed.change(Z, REGIONS), edit.change(Z, REGIONS))


@pytest.mark.parametrize(
    "text",
    [
        *("", "site", "site:", "site::", "site:lAMY-rh", "site::0.2", "site:lAMY-rh:", "lesion"),
        *("lesion:", "stimulate:lAMY-rh:1", "network:DefaultA", "edges:file.tsv", "receptor:1"),
        *(" site:lAMY-rh:1", "Site:lAMY-rh:1", ":lAMY-rh:1"),
    ],
)
def test_texts_of_no_form(text: str) -> None:
    with pytest.raises(DTwinInputError) as caught:
        parse_edit(text)
    assert caught.value.code == "edit"
    for form in EDIT_FORMS:
        assert form in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("site:lAMY-rh:much", "'much'"),
        ("site:lAMY-rh:nan", "finite"),
        ("site:lAMY-rh:inf", "finite"),
        ("site:lAMY-rh:0", "changes nothing"),
        ("site:lAMY-rh,:1", "no region"),
        ("network:DefaultA:1", "changes nothing"),
        ("network:DefaultA:-inf", "finite"),
        ("lesion:,", "no region"),
    ],
)
def test_texts_of_no_edit(text: str, says: str) -> None:
    with pytest.raises(DTwinInputError) as caught:
        parse_edit(text)
    assert caught.value.code == "edit"
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "rows", "code", "says"),
    [
        ("edges", ["region_1 other", "V2 lAMY-rh"], "names_column", "region_1 and region_2"),
        ("edges", ["region_1 region_2"], "edit", "changes nothing"),
        ("receptor", ["region value", "V2 1"], "names_column", "region and density"),
        ("receptor", ["region density", "V2 1", "V2 2"], "region_duplicate", "V2"),
        ("receptor", ["region density", "V2 n/a"], "edit", "V2"),
        ("receptor", ["region density", "V2 nan"], "edit", "finite"),
        ("receptor", ["region density", "V2 -1"], "edit", "V2"),
        ("receptor", ["region density", "V2 0"], "edit", "changes nothing"),
    ],
)
def test_bad_files(tmp_path: Path, kind: str, rows: list[str], code: str, says: str) -> None:
    path = write(tmp_path / "file.tsv", *rows)
    with pytest.raises(DTwinInputError) as caught:
        parse_edit(f"{kind}:{path}:0.5")
    assert caught.value.code == code
    assert says in str(caught.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(DTwinInputError, match=r"\[file_missing\]"):
        parse_edit("edges:nowhere.tsv:0.5")


# Functions


@pytest.mark.parametrize(
    "make",
    [
        lambda: presets.site([], 1),
        lambda: presets.site("", 1),
        lambda: presets.site("V2", 0),
        lambda: presets.site("V2", np.nan),
        lambda: presets.site("V2", True),
        lambda: presets.site("V2", "1"),  # type: ignore[arg-type]
        lambda: presets.network("DefaultA", 1.0),
        lambda: presets.edges(np.zeros(21, bool), 1),
        lambda: presets.edges([], 1),
        lambda: presets.edges(np.ones(21), 1),  # type: ignore[arg-type]
        lambda: presets.edges(["V1", "V2"], 1),  # type: ignore[list-item]
        lambda: presets.edges(np.ones(21, bool), 0),
        lambda: presets.receptor(DENSITY, 0),
        lambda: presets.receptor({}, 1),
        lambda: presets.receptor({"V2": 0.0}, 1),
        lambda: presets.receptor({"V2": -1.0, "V1": 1.0}, 1),
        lambda: presets.receptor({"V2": np.inf}, 1),
        lambda: presets.lesion([]),
    ],
)
def test_refused_at_once(make: Any) -> None:
    with pytest.raises(DTwinInputError) as caught:
        make()
    assert caught.value.code == "edit"


@pytest.mark.parametrize(
    ("edit", "code", "says"),
    [
        (presets.site("v2", 1), "region", "near: V2"),
        (presets.lesion("V3"), "region", "'V3'"),
        (presets.network("Limbic", 2), "region", "DefaultA, ContB"),
        (presets.network("ContB", 2), "edit", "changes nothing"),
        (presets.edges([("V2", "V3")], 1), "region", "'V3'"),
        (presets.edges(np.ones(20, bool), 1), "edit", "(21,)"),
        (presets.receptor({"V2": 1.0}, 1), "edit", "6 of 7 regions"),
        (
            presets.receptor(DENSITY | dict.fromkeys(REGIONS, 0.0) | {"else": 1.0}, 1),
            "edit",
            "nothing",
        ),
    ],
)
def test_edits_that_do_not_fit_the_regions(edit: Any, code: str, says: str) -> None:
    with pytest.raises(DTwinInputError) as caught:
        edit.change(Z, REGIONS)
    assert caught.value.code == code
    assert says in str(caught.value)


def test_absent_regions_of_a_map_are_named() -> None:
    some = {name: value for name, value in DENSITY.items() if name != "LH_ContB_1"}
    with pytest.raises(DTwinInputError, match="LH_ContB_1"):
        presets.receptor(some, 1).change(Z, REGIONS)
