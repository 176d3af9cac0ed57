"""The readers on real files; the folder's README files say where each comes from."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtwin_fast.connectome import Connectomes, vectorise
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.readers import read_connectomes
from dtwin_fast.readers.timeseries import connectome_of_series

pytestmark = pytest.mark.realdata

FLOAT32_ATOL = 1e-6
"""Correlations of 500 to 1200 volumes stored in float32: a few units of rounding."""


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_series(path: Path, names: list[str], series: np.ndarray[Any, Any]) -> Path:
    lines = ["\t".join(names), *("\t".join(map(repr, row)) for row in series.tolist())]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.fixture(scope="module")
def hcp(shared_data: Path) -> Connectomes:
    folder = shared_data / "hcp-rest-task30"
    return read_connectomes(
        folder / "fc_triu.npy", regions=folder / "parcels.csv", subjects=folder / "subjects.csv"
    )


def test_hcp_connectomes(hcp: Connectomes, shared_data: Path) -> None:
    folder = shared_data / "hcp-rest-task30"
    assert hcp.edges.shape == (20, 64_620)
    assert hcp.regions == tuple(row["parcel"] for row in rows(folder / "parcels.csv"))
    assert hcp.subjects == tuple(f"sub-{number:02d}" for number in range(1, 21))
    assert not hcp.missing.any()
    np.testing.assert_array_equal(hcp.edges, np.load(folder / "fc_triu.npy"))


def test_hemispheres_swapped_are_put_back_by_name(hcp: Connectomes) -> None:
    assert hcp.regions is not None
    order = np.r_[180:360, 0:180]
    place = np.zeros((360, 360), np.intp)
    place[np.triu_indices(360, 1)] = np.arange(hcp.n_edges)
    place += place.T
    swapped = Connectomes.from_arrays(
        hcp.edges[:, vectorise(place[order][:, order])],
        regions=[hcp.regions[i] for i in order],
    )
    assert not np.array_equal(swapped.edges, hcp.edges)
    np.testing.assert_array_equal(swapped.align(hcp.regions).edges, hcp.edges)


def test_half_precision_connectomes(hcp: Connectomes, shared_data: Path) -> None:
    folder = shared_data / "hcp-rest-task30"
    halves = [read_connectomes(folder / f"fc_half{i}_triu_f16.npy").edges for i in (1, 2)]
    z = [np.corrcoef(np.stack([a, b]))[0, 1] for a, b in zip(*halves, strict=True)]
    assert min(z) > 0.5
    assert np.corrcoef((halves[0] + halves[1]).ravel() / 2, hcp.edges.ravel())[0, 1] > 0.99


def test_time_series_table_gives_the_stored_connectome(
    hcp: Connectomes, shared_data: Path, tmp_path: Path
) -> None:
    assert hcp.regions is not None
    series = np.load(shared_data / "hcp-rest-task30/rest_ts_sub-01.npy").T
    path = write_series(tmp_path / "sub-01_timeseries.tsv", list(hcp.regions), series)
    made = read_connectomes(path)
    assert (made.subjects, made.regions) == (("sub-01",), hcp.regions)
    np.testing.assert_allclose(made.edges[0], hcp.edges[0], rtol=0, atol=FLOAT32_ATOL)


def test_pain_connectomes_have_eight_people_with_a_missing_region(shared_data: Path) -> None:
    folder = shared_data / "rest-fc-pain3site"
    made = read_connectomes(folder / "fc_triu.npy", subjects=folder / "subjects.csv")
    people = rows(folder / "subjects.csv")
    assert made.edges.shape == (90, 7503)
    np.testing.assert_array_equal(
        made.missing.sum(axis=1), [int(person["n_constant_regions"]) for person in people]
    )
    incomplete = [name for name, flags in zip(made.subjects, made.flags, strict=True) if flags]
    assert len(incomplete) == 8
    assert {name.split("-")[0] for name in incomplete} == {"bochum"}
    assert set(made.flags) == {(), ("missing_regions:1",)}
    kept = made.resolve_missing("reject", bad_subjects="drop")
    assert len(kept) == 82
    assert tuple(error.subject for error in kept.rejected) == tuple(incomplete)
    assert np.isfinite(kept.fisher_z()).all()


def test_pain_region_names_repeat_and_are_refused(shared_data: Path) -> None:
    folder = shared_data / "rest-fc-pain3site"
    with pytest.raises(DTwinInputError, match=r"\[region_duplicate\].*L_IPlob.*regions.csv:COLUMN"):
        read_connectomes(folder / "fc_triu.npy", regions=folder / "regions.csv")


def test_pain_regions_are_named_by_a_column_without_repeats(shared_data: Path) -> None:
    folder = shared_data / "rest-fc-pain3site"
    made = read_connectomes(
        folder / "fc_triu.npy",
        regions=f"{folder / 'regions.csv'}:column",
        subjects=folder / "subjects.csv",
    )
    assert made.regions == tuple(str(number) for number in range(123))
    assert made.subjects == tuple(row["subject"] for row in rows(folder / "subjects.csv"))


@pytest.mark.parametrize("person", ["bochum-01", "essen-01"])
def test_pain_time_series_give_the_stored_connectome(
    person: str, shared_data: Path, tmp_path: Path
) -> None:
    folder = shared_data / "rest-fc-pain3site"
    stored = read_connectomes(folder / "fc_triu.npy", subjects=folder / "subjects.csv")
    stored = stored.select([stored.subjects.index(person)])
    series = np.load(folder / f"rest_ts_{person}.npy")
    path = write_series(
        tmp_path / f"{person}_timeseries.tsv", [f"node {i}" for i in range(123)], series
    )
    made = read_connectomes(path)
    np.testing.assert_array_equal(made.missing, stored.missing)
    np.testing.assert_allclose(made.edges, stored.edges, rtol=0, atol=FLOAT32_ATOL)


@pytest.mark.parametrize("name", ["group_main", "group_second", "individual_a"])
def test_schaefer_connectomes(name: str, shared_data: Path) -> None:
    folder = shared_data / "group-fc-schaefer400"
    made = read_connectomes(folder / f"{name}_triu.npy", regions=folder / "regions.csv")
    assert (made.subjects, made.n_regions) == ((f"{name}_triu",), 400)
    assert made.regions is not None
    assert made.regions[0] == "7Networks_LH_Vis_1"
    np.testing.assert_array_equal(made.edges[0], np.load(folder / f"{name}_triu.npy"))


def test_connectomes_of_another_atlas_are_refused(hcp: Connectomes, shared_data: Path) -> None:
    folder = shared_data / "group-fc-schaefer400"
    made = read_connectomes(folder / "group_main_triu.npy", regions=folder / "regions.csv")
    assert hcp.regions is not None
    with pytest.raises(DTwinInputError, match=r"\[regions_missing\].*360 of 360"):
        made.align(hcp.regions)


def test_tcp_regions_name_a_tcp_file(shared_data: Path, tmp_path: Path) -> None:
    import h5py

    table = shared_data / "tcp-atlas434" / "regions.csv"
    path = tmp_path / "NDAR_INVXX00YY00" / "rest.h5"
    path.parent.mkdir()
    data = np.random.default_rng(0).normal(size=(434, 60))
    with h5py.File(path, "w") as file:
        file["dataset"] = data
    made = read_connectomes(path, regions=table)
    assert made.subjects == ("sub-NDARINVXX00YY00",)
    assert made.regions == tuple(row["label"] for row in rows(table))
    np.testing.assert_allclose(
        made.edges[0], vectorise(np.corrcoef(data)), rtol=0, atol=FLOAT32_ATOL
    )


def test_pconn_is_the_stored_connectome_in_another_order(
    hcp: Connectomes, shared_data: Path
) -> None:
    assert hcp.regions is not None
    made = read_connectomes(shared_data / "nifti-cifti/hcp_sub-01_rest_mmp360.pconn.nii")
    assert made.subjects == ("hcp_sub-01_rest_mmp360",)
    assert made.regions is not None
    assert set(made.regions) == set(hcp.regions)
    assert made.regions[0].startswith("R_")
    aligned = made.align(hcp.regions)
    np.testing.assert_allclose(aligned.edges[0], hcp.edges[0], rtol=0, atol=FLOAT32_ATOL)


def test_ptseries_gives_the_connectome_of_its_300_volumes(
    hcp: Connectomes, shared_data: Path
) -> None:
    assert hcp.regions is not None
    made = read_connectomes(shared_data / "nifti-cifti/hcp_sub-01_rest300_mmp360.ptseries.nii")
    aligned = made.align(hcp.regions)
    first = np.load(shared_data / "hcp-rest-task30/rest_ts_sub-01.npy")[:, :300]
    np.testing.assert_allclose(
        aligned.edges[0], vectorise(np.corrcoef(first)), rtol=0, atol=FLOAT32_ATOL
    )
    # A quarter of the run is a noisier measure of the same connectome.
    assert 0.8 < np.corrcoef(aligned.edges[0], hcp.edges[0])[0, 1] < 0.95


@pytest.mark.parametrize(
    "name",
    ["mmp360_stroop_target_t.pscalar.nii", "atlas_Schaefer400-17N_TianS2.dlabel.nii"],
)
def test_other_cifti_files_are_refused(name: str, shared_data: Path, tmp_path: Path) -> None:
    with pytest.raises(DTwinInputError):
        read_connectomes(shared_data / "nifti-cifti" / name)
    for ending in ("ptseries", "pconn"):
        path = tmp_path / f"a.{ending}.nii"
        path.symlink_to(shared_data / "nifti-cifti" / name)
        with pytest.raises(DTwinInputError):
            read_connectomes(path)


def test_series_painted_on_the_atlas_are_read_back(shared_data: Path, tmp_path: Path) -> None:
    import nibabel as nib

    folder = shared_data / "nifti-cifti"
    image_path = folder / "atlas_Schaefer400-7N_TianS2_MNI152NLin6Asym_2mm.nii.gz"
    table = folder / "atlas_Schaefer400-7N_TianS2_labels.csv"
    atlas: Any = nib.load(image_path)
    labels = np.asarray(atlas.dataobj).astype(int)
    rng = np.random.default_rng(5)
    series = rng.normal(size=(433, 12)).astype(np.float32)
    series[0] = 0
    bold = np.empty((*labels.shape, 12), np.float32)
    for volume in range(12):
        bold[..., volume] = series[labels, volume]
    path = tmp_path / "sub-9_bold.nii"
    nib.Nifti1Image(bold, atlas.affine).to_filename(path)
    made = read_connectomes(path, atlas=(image_path, table))
    names = [row["name"] for row in rows(table)]
    assert (made.subjects, made.regions) == (("sub-9",), tuple(names))
    assert not made.missing.any()
    np.testing.assert_allclose(
        made.edges[0], vectorise(np.corrcoef(series[1:])), rtol=0, atol=FLOAT32_ATOL
    )
    other = folder / "atlas_Schaefer400-7N_TianS2_MNI152NLin2009cAsym_2mm.nii.gz"
    with pytest.raises(DTwinInputError, match=r"\[grid\].*[Rr]esample"):
        read_connectomes(path, atlas=(other, table))


def test_a_real_run_with_a_small_atlas(shared_data: Path, tmp_path: Path) -> None:
    import nibabel as nib

    source = shared_data / "nifti-cifti" / "bold4d_nitime_fmri1.nii.gz"
    run: Any = nib.load(source)
    bold = np.asarray(run.dataobj, np.float64)
    labels = np.zeros(bold.shape[:3], np.int16)
    labels[2:5, 2:5, 5:9] = 7
    labels[5:8, 2:5, 5:9] = 3
    labels[2:5, 5:8, 5:9] = 40
    nib.Nifti1Image(labels, run.affine).to_filename(tmp_path / "atlas.nii.gz")
    (tmp_path / "atlas.tsv").write_text("index\tname\n3\ta\n7\tb\n40\tc\n")
    made = read_connectomes(source, atlas=(tmp_path / "atlas.nii.gz", tmp_path / "atlas.tsv"))
    means = np.stack([bold[labels == value].mean(axis=0) for value in (3, 7, 40)], axis=1)
    np.testing.assert_allclose(
        made.edges[0],
        vectorise(connectome_of_series(means, source)),
        rtol=0,
        atol=FLOAT32_ATOL,
    )


def test_confound_tables_are_not_connectomes(shared_data: Path) -> None:
    folder = shared_data / "fmriprep-confounds"
    tables = sorted(folder.glob("*.tsv"))
    assert tables
    for path in tables:
        with pytest.raises(DTwinInputError):
            read_connectomes(path)
    with pytest.raises(DTwinInputError, match=r"\[folder_files\]"):
        read_connectomes(folder)
