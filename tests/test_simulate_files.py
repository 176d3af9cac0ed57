"""simulation.json: the truth of a cohort on disk is made again, and never another one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtwin_fast import cli
from dtwin_fast.cohort_files import load_cohort, save_cohort
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.provenance import package_version
from dtwin_fast.simulate import SimulatedCohort, simulate
from dtwin_fast.simulate import files as simulation_files
from dtwin_fast.simulate.files import SIMULATION_FILE, load_truth, save_simulation
from dtwin_fast.simulate.traits import HERITABILITY
from dtwin_fast.simulate.truth import Truth

N_PEOPLE, N_REGIONS = 6, 20


@pytest.fixture(scope="module")
def simulated() -> SimulatedCohort:
    return simulate(N_PEOPLE, N_REGIONS, seed=11, with_bold=False)


@pytest.fixture(scope="module")
def saved(simulated: SimulatedCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    save_simulation(simulated, folder)
    save_cohort(simulated.cohort, folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "cohort"))


def _set(folder: Path, **values: Any) -> None:
    path = folder / SIMULATION_FILE
    path.write_text(json.dumps(json.loads(path.read_bytes()) | values))


def _assert_same(got: Truth | None, wanted: Truth) -> None:
    assert got is not None
    np.testing.assert_array_equal(got.theta, wanted.theta)
    np.testing.assert_array_equal(got.gradient, wanted.gradient)
    np.testing.assert_array_equal(got.heritability, wanted.heritability)
    np.testing.assert_array_equal(got.observed.edges, wanted.observed.edges)
    for task in ("faces", "stroop"):
        np.testing.assert_array_equal(got.betas(task), wanted.betas(task))


# What comes back


def test_the_truth_comes_back(simulated: SimulatedCohort, saved: Path) -> None:
    _assert_same(load_truth(saved), simulated.truth)
    _assert_same(load_truth(str(saved)), simulated.truth)


NAMES = tuple(f"RH_Default{'AB'[i % 2]}_{i}" for i in range(18))


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"seed": 2**63, "n_factors": 5}, None),
        ({"heritability": {"speed": 0.123456789, "null": 0.0}, "confounds": False}, None),
        ({"region_names": NAMES}, NAMES),
        ({"bold_regions": ("LH_V1", "RH_amygdala")}, None),
    ],
    ids=["seed and factors", "heritability and confounds", "regions", "BOLD regions"],
)
def test_arguments_come_back(
    arguments: dict[str, Any], names: tuple[str, ...] | None, tmp_path: Path
) -> None:
    made = simulate(3, 18, with_bold=False, **arguments)
    save_simulation(made, tmp_path, names)
    save_cohort(made.cohort, tmp_path)
    _assert_same(load_truth(tmp_path), made.truth)


def test_the_file_says_what_was_simulated(saved: Path) -> None:
    assert json.loads((saved / SIMULATION_FILE).read_bytes()) == {
        "format": "dtwin_fast simulation",
        "people": N_PEOPLE,
        "n_regions": N_REGIONS,
        "region_names": None,
        "seed": 11,
        "factors": 20,
        "heritability": HERITABILITY,
        "confounds": True,
        "dtwin_fast": package_version(),
    }


@pytest.mark.parametrize("own_names", [False, True])
def test_the_command_writes_it(own_names: bool, tmp_path: Path) -> None:
    pytest.importorskip("nilearn")
    out, names = tmp_path / "cohort", tmp_path / "names.csv"
    names.write_text("name\n" + "\n".join(NAMES))
    regions = ["--regions", str(names)] if own_names else ["--n-regions", "18"]
    argv = ["simulate", "--out", str(out), "--people", "3", *regions]
    assert cli.main([*argv, "--factors", "4", "--seed", "8"]) == 0
    given = NAMES if own_names else None
    wanted = simulate(3, 18, seed=8, n_factors=4, region_names=given, with_bold=False)
    _assert_same(load_truth(out), wanted.truth)


def test_a_cohort_without_the_file_has_no_truth(folder: Path, tmp_path: Path) -> None:
    (folder / SIMULATION_FILE).unlink()
    assert load_truth(folder) is None
    assert load_truth(tmp_path / "nowhere") is None


# Another truth is never given


def test_rounded_edges_are_the_cohort_and_moved_ones_are_not(
    simulated: SimulatedCohort, folder: Path
) -> None:
    edges = np.load(folder / "connectomes.npy")
    # BLAS rounds differently with other threads and on other processors.
    np.save(folder / "connectomes.npy", np.nextafter(edges, np.float32(0)))
    _assert_same(load_truth(folder), simulated.truth)
    edges[-1, -1] += 1e-3
    np.save(folder / "connectomes.npy", edges)
    _check_another_cohort(folder, "connectomes")


def _check_another_cohort(folder: Path, what: str) -> None:
    with pytest.raises(DTwinInputError, match=what) as caught:
        load_truth(folder)
    assert caught.value.code == "cohort"
    assert caught.value.field == str(folder / SIMULATION_FILE)


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "another seed": ({"seed": 12}, "connectomes"),
    "other factors": ({"factors": 19}, "connectomes"),
    "no confounds": ({"confounds": False}, "connectomes"),
    # The connectomes are those of the folder; what people did is not.
    "another speed": ({"heritability": {**HERITABILITY, "speed": 0.1}}, "behaviour in faces"),
    "another interference": (
        {"heritability": {**HERITABILITY, "interference": 1.0}},
        "behaviour in stroop",
    ),
    "other names": ({"region_names": [f"area {i}" for i in range(N_REGIONS)]}, "regions"),
    "more people": ({"people": N_PEOPLE + 1}, f"{N_PEOPLE} people"),
    "fewer people": ({"people": N_PEOPLE - 1}, f"{N_PEOPLE} people"),
    "a size that would take hours": ({"people": 10**7}, f"{N_PEOPLE} people"),
    "other regions": ({"n_regions": 21}, f"{N_REGIONS} regions"),
    "people are text": ({"people": str(N_PEOPLE)}, f"{N_PEOPLE} people"),
}


@pytest.mark.parametrize(("values", "what"), OTHERS.values(), ids=OTHERS)
def test_another_simulation_is_refused(folder: Path, values: dict[str, Any], what: str) -> None:
    _set(folder, **values)
    _check_another_cohort(folder, what)


def test_people_left_out_of_the_folder_are_noticed(
    simulated: SimulatedCohort, folder: Path
) -> None:
    save_cohort(simulated.cohort.select([1, 0, 2, 3, 4, 5]), folder)
    _check_another_cohort(folder, "people and regions")


def test_a_simulator_that_changed_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another drift of everybody: connectomes as before, reaction times not."""
    from dtwin_fast.simulate import traits

    drift = replace(traits._PARAMETERS["drift"], mean=2.76)
    monkeypatch.setitem(traits._PARAMETERS, "drift", drift)
    _check_another_cohort(folder, "behaviour in faces")


def test_a_cohort_in_fisher_z_is_another(simulated: SimulatedCohort, folder: Path) -> None:
    connectomes = replace(simulated.cohort.connectomes, is_fisher_z=True)
    save_cohort(replace(simulated.cohort, connectomes=connectomes), folder)
    _check_another_cohort(folder, "connectomes")


# Damage

Damage = Callable[[Path], None]


def _text(text: bytes) -> Damage:
    return lambda path: (path.write_bytes(text), None)[1]


def _values(**values: Any) -> Damage:
    return lambda path: _set(path.parent, **values)


def _without(key: str) -> Damage:
    def damage(path: Path) -> None:
        values = json.loads(path.read_bytes())
        del values[key]
        path.write_text(json.dumps(values))

    return damage


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


DAMAGE: dict[str, tuple[Damage, str]] = {
    "empty": (_text(b""), "file_empty"),
    "a folder": (_folder, "file_kind"),
    "a link to nowhere": (_dangling, "file_missing"),
    "noise": (_text(bytes(range(256))), "cohort_file"),
    "cut": (_text(b'{"format": "dtwin_fast simulation", "peo'), "cohort_file"),
    "deep": (_text(b"[" * 10**5), "cohort_file"),
    "a number of a million digits": (_text(b"1" * 10**6), "cohort_file"),
    "a list": (_text(b"[]"), "cohort_file"),
    "another format": (_values(format="dtwin_fast cohort"), "cohort_file"),
    **{
        f"no {key}": (_without(key), "cohort_file")
        for key in (
            *("people", "n_regions", "region_names", "seed", "factors"),
            *("heritability", "confounds", "dtwin_fast"),
        )
    },
    "seed is negative": (_values(seed=-1), "cohort_file"),
    "seed is text": (_values(seed="11"), "cohort_file"),
    "seed is true": (_values(seed=True), "cohort_file"),
    "seed is a fraction": (_values(seed=11.0), "cohort_file"),
    "factors are null": (_values(factors=None), "cohort_file"),
    "too many factors": (_values(factors=10**6), "cohort_file"),
    "confounds are a number": (_values(confounds=1), "cohort_file"),
    "heritability is a number": (_values(heritability=0.5), "cohort_file"),
    "heritability of an unknown trait": (_values(heritability={"charm": 0.5}), "cohort_file"),
    "heritability above 1": (_values(heritability={"speed": 1.5}), "cohort_file"),
    "heritability is NaN": (_values(heritability={"speed": float("nan")}), "cohort_file"),
    "heritability is text": (_values(heritability={"speed": "high"}), "cohort_file"),
    "names are text": (_values(region_names="LH_VisCent_1"), "cohort_file"),
    "names are numbers": (_values(region_names=list(range(N_REGIONS))), "cohort_file"),
    "names are too few": (_values(region_names=["a", "b"]), "cohort_file"),
    "names are repeated": (_values(region_names=["a"] * N_REGIONS), "cohort_file"),
}


@pytest.mark.parametrize(("damage", "code"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_one_typed_error(folder: Path, damage: Damage, code: str) -> None:
    damage(folder / SIMULATION_FILE)
    with pytest.raises(DTwinInputError, match=r"simulation\.json") as caught:
        load_truth(folder)
    assert caught.value.code == code


def test_a_folder_that_is_no_cohort(folder: Path) -> None:
    (folder / "cohort.json").unlink()
    with pytest.raises(DTwinInputError, match=r"cohort\.json"):
        load_truth(folder)


def test_the_command_never_leaves_a_complete_cohort_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nilearn")

    def stop(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(simulation_files, "write_json", stop)
    argv = ["simulate", "--out", str(tmp_path / "cohort"), "--people", "1", "--n-regions", "16"]
    assert cli.main(argv) == 1
    with pytest.raises(DTwinInputError):
        load_cohort(tmp_path / "cohort")
