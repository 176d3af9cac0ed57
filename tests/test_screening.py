"""Screening: bits, shards, resuming, refusals and results."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtwin_fast.connectome import vectorise
from dtwin_fast.errors import DTwinInputError
from dtwin_fast.interventions import find_target, range_scores
from dtwin_fast.interventions.effect import improvement
from dtwin_fast.prediction_files import condition_means
from dtwin_fast.readers import read_connectomes
from dtwin_fast.screening import Resources, Summary, merge_run, open_results, prepare, run
from dtwin_fast.screening.lock import locked
from dtwin_fast.screening.manifest import Done, Manifest, RunFolder, open_manifest
from dtwin_fast.twin import Twin

pytest.importorskip("pyarrow")
zarr = pytest.importorskip("zarr")

N_PEOPLE = 23
BAD = {5: "r_out_of_range", 11: "missing_regions", 22: "infinite"}
"""Position of each person who cannot be used, and why."""
CONTRASTS = ("contrasts", "range")
QUICK_TARGET = "faces:faces>shapes:LH_V1"


@dataclass(frozen=True)
class Inputs:
    """A model folder, and people of whom some cannot be used."""

    model: Path
    fc: Path
    regions: Path
    subjects: Path

    @property
    def people(self) -> dict[str, Any]:
        """Arguments of open_people."""
        return {"path": self.fc, "regions": self.regions, "subjects": self.subjects}

    def some(self, folder: Path, rows: list[int]) -> Inputs:
        """Some of these people, in files of their own."""
        np.save(folder / "some.npy", np.load(self.fc)[rows])
        names = [f"sub-{i:03d}" for i in rows]
        (folder / "some.tsv").write_text("\n".join(["participant_id", *names]) + "\n")
        return replace(self, fc=folder / "some.npy", subjects=folder / "some.tsv")

    def screen(self, out: Path, *, engine: str = "local", **options: Any) -> Summary:
        """A run from its arguments to its summary."""
        return run(prepare(self.model, self.people, out, **options), engine=engine)


@pytest.fixture(scope="module")
def inputs(tiny_twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("screening")
    tiny_twin.save(folder / "model")
    rng = np.random.default_rng(3)
    edges = np.tanh(rng.normal(0.1, 0.25, (N_PEOPLE, tiny_twin.spec.n_edges))).astype(np.float32)
    edges[5, 7] = 6.5
    n_regions = tiny_twin.spec.n_regions
    lost = np.zeros((n_regions, n_regions), np.bool_)
    lost[2], lost[:, 2] = True, True
    edges[11, vectorise(lost)] = np.nan
    edges[22, 0] = np.inf
    np.save(folder / "fc.npy", edges)
    (folder / "regions.tsv").write_text("\n".join(["name", *tiny_twin.regions]) + "\n")
    subjects = [f"sub-{i:03d}" for i in range(N_PEOPLE)]
    (folder / "subjects.tsv").write_text("\n".join(["participant_id", *subjects]) + "\n")
    return Inputs(*(folder / name for name in ("model", "fc.npy", "regions.tsv", "subjects.tsv")))


@pytest.fixture(scope="module")
def whole(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of everybody in shards of 7."""
    out = tmp_path_factory.mktemp("whole") / "out"
    inputs.screen(out, shard_size=7)
    return out


def results_of(out: Path) -> dict[str, Any]:
    """All arrays and tables, as numpy and lists."""
    results = open_results(out)
    return {
        **{name: results.array(name) for name in results.arrays},
        **{
            f"scores.{name}": np.array(column.to_pylist())
            for name, column in zip(
                results.scores().column_names, results.scores().columns, strict=True
            )
        },
        "rejected": results.rejected().to_pylist(),
    }


def assert_same_bits(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            assert found[name].tobytes() == value.tobytes(), name
        else:
            np.testing.assert_array_equal(found[name], value)


def digests(out: Path) -> dict[str, str]:
    """SHA-256 of every file of results."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.relative_to(out).parts[0] not in (".dtwin", "logs")
    }


def code_of(call: Callable[[], Any]) -> DTwinInputError:
    with pytest.raises(DTwinInputError) as caught:
        call()
    return caught.value


def test_results_are_those_of_predict(inputs: Inputs, whole: Path, tiny_twin: Twin) -> None:
    fc = read_connectomes(
        inputs.fc, regions=inputs.regions, subjects=inputs.subjects, bad_subjects="drop"
    )
    wanted = tiny_twin.predict(fc, bad_subjects="drop")
    found = results_of(whole)
    kept = found["scores.row"]
    assert [i for i in range(N_PEOPLE) if i not in BAD] == kept.tolist()
    assert tuple(found["scores.source_id"]) == wanted.subjects
    for name in ("choice_prob", "rt_s", "contrasts"):
        assert found[name][kept].tobytes() == getattr(wanted, name).tobytes()
        assert np.isnan(found[name][list(BAD)]).all()
    for name, column in condition_means(wanted).items():
        np.testing.assert_array_equal(found[f"scores.{name}"], column.astype(np.float64))
    prepared = tiny_twin.prepare(fc, bad_subjects="drop")
    scores = range_scores(prepared.fisher_z(), tiny_twin.edge_mean, tiny_twin.edge_sd)
    np.testing.assert_allclose(found["scores.deviation"], scores.deviation, rtol=1e-6)
    np.testing.assert_array_equal(found["scores.beyond_share"], scores.beyond_share)


def test_contrasts_alone_are_folded_on_the_way(inputs: Inputs, whole: Path, tmp_path: Path) -> None:
    inputs.screen(tmp_path / "out", outputs=CONTRASTS, shard_size=7)
    results = open_results(tmp_path / "out")
    assert results.arrays == ("contrasts",)
    wanted = open_results(whole).array("contrasts")
    np.testing.assert_allclose(results.array("contrasts"), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("outputs", [("behaviour", "contrasts", "range", "bold"), CONTRASTS])
def test_a_person_has_the_same_bits_in_any_shard(
    inputs: Inputs, tmp_path: Path, outputs: tuple[str, ...]
) -> None:
    for size in (1, 7, N_PEOPLE):
        inputs.screen(tmp_path / str(size), shard_size=size, outputs=outputs)
    wanted = results_of(tmp_path / "7")
    for other in ("1", str(N_PEOPLE)):
        assert_same_bits(results_of(tmp_path / other), wanted)


def test_bad_people_change_no_bit_of_the_others(inputs: Inputs, tmp_path: Path) -> None:
    good = [i for i in range(N_PEOPLE) if i not in BAD]
    assert inputs.some(tmp_path, good).screen(tmp_path / "good", shard_size=6).rejected == {}
    summary = inputs.screen(tmp_path / "all", shard_size=6)
    assert summary.rejected == dict.fromkeys(BAD.values(), 1)
    found, wanted = results_of(tmp_path / "all"), results_of(tmp_path / "good")
    assert [entry["row"] for entry in found.pop("rejected")] == list(BAD)
    assert wanted.pop("rejected") == []
    for name in ("choice_prob", "rt_s", "contrasts"):
        found[name] = found[name][good]
    found["scores.row"] = np.arange(len(good))
    assert_same_bits(found, wanted)


def test_rejected_people_have_a_reason_and_no_number_of_theirs(whole: Path) -> None:
    table = open_results(whole).rejected().to_pylist()
    assert {entry["row"]: entry["code"] for entry in table} == BAD
    assert [entry["source_id"] for entry in table] == [f"sub-{i:03d}" for i in BAD]
    assert all(entry["reason"] and entry["fix"] for entry in table)
    assert "6.5" not in json.dumps(table)


def test_one_person_in_another_unit_is_rejected_alone_and_without_numbers(
    inputs: Inputs, tmp_path: Path
) -> None:
    people = inputs.some(tmp_path, list(range(9)))
    good = np.load(people.fc)
    people.screen(tmp_path / "good", shard_size=4)
    wanted = open_results(tmp_path / "good").array("contrasts")
    edges = good.copy()
    edges[5, 7], edges[8, 3] = 0.1, 1.234
    np.save(people.fc, edges)
    out = tmp_path / "out"
    summary = people.screen(out, shard_size=4)
    assert (summary.people, summary.rejected) == (8, {"fisher_z_as_r": 1})
    results = open_results(out)
    (entry,) = results.rejected().to_pylist()
    assert (entry["row"], entry["source_id"], entry["got"]) == (8, "sub-008", "")
    same = [0, 1, 2, 3, 4, 6, 7]
    assert results.array("contrasts")[same].tobytes() == wanted[same].tobytes()
    said = "".join(log.read_text() for log in (out / "logs").iterdir())
    assert "1.23" not in said + json.dumps(entry)


def test_an_input_in_another_unit_is_refused_before_the_work(
    inputs: Inputs, tmp_path: Path
) -> None:
    """Wherever most of the people who are looked at say so."""
    people = inputs.some(tmp_path, list(range(20)))
    edges = np.load(people.fc)
    edges[6:] *= 3
    np.save(people.fc, edges)
    error = code_of(lambda: people.screen(tmp_path / "out"))
    assert (error.code, error.got) == ("fisher_z_as_r", "")
    assert not (tmp_path / "out").exists()


def test_everybody_may_be_rejected(inputs: Inputs, tmp_path: Path) -> None:
    bad = inputs.some(tmp_path, list(BAD))
    for outputs in (("behaviour", "contrasts", "range", "eigenvalue"), CONTRASTS):
        out = tmp_path / outputs[0]
        summary = bad.screen(out, shard_size=2, outputs=outputs, target=QUICK_TARGET, budget=1.0)
        assert (summary.people, sum(summary.rejected.values())) == (0, 3)
        assert np.isnan(open_results(out).array("contrasts")).all()


def test_two_runs_give_the_same_bytes(inputs: Inputs, whole: Path, tmp_path: Path) -> None:
    inputs.screen(tmp_path / "again", shard_size=7, resources=Resources(2))
    assert digests(tmp_path / "again") == digests(whole)


def test_a_resumed_run_is_the_unbroken_one(inputs: Inputs, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    inputs.screen(out, shard_size=7)
    folder = RunFolder(out)
    for shard in (1, 3):
        folder.done(shard).unlink()
    (folder.arrays / "rt_s" / "c.1.0").unlink()
    litter = folder.arrays / "rt_s" / ".0123.part"
    litter.write_bytes(b"half")
    done = [Done.read(folder, shard).files for shard in (0, 2)]
    stamps = {name: (out / name).stat().st_mtime_ns for files in done for name in files}
    prepared = prepare(inputs.model, inputs.people, out, resume=True)
    assert prepared.to_do == [1, 3]
    run(prepared)
    assert digests(out) == digests(whole)
    assert stamps == {name: (out / name).stat().st_mtime_ns for name in stamps}
    assert not litter.exists()


def test_resuming_a_new_folder_begins(inputs: Inputs, whole: Path, tmp_path: Path) -> None:
    inputs.screen(tmp_path / "out", shard_size=7, resume=True)
    assert digests(tmp_path / "out") == digests(whole)


def test_a_run_without_resume_is_not_gone_on_with(inputs: Inputs, whole: Path) -> None:
    error = code_of(lambda: prepare(inputs.model, inputs.people, whole))
    assert error.code == "out_not_empty"
    assert "--resume" in error.fix


def test_other_files_are_not_written_among(inputs: Inputs, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for resume in (False, True):
        error = code_of(lambda r=resume: prepare(inputs.model, inputs.people, tmp_path, resume=r))
        assert error.code == "out_not_empty"


def test_another_models_run_is_refused(
    inputs: Inputs, whole: Path, tiny_twin: Twin, tmp_path: Path
) -> None:
    other = replace(tiny_twin, edge_mean=tiny_twin.edge_mean + np.float32(0.01))
    digest = other.save(tmp_path / "other").sha256
    error = code_of(lambda: prepare(tmp_path / "other", inputs.people, whole, resume=True))
    assert error.code == "other_model"
    assert digest in error.wanted
    assert Manifest.read(RunFolder(whole)).model_sha256 in error.got


def test_the_same_weights_with_other_trials_are_another_model(
    inputs: Inputs, whole: Path, tiny_twin: Twin, tmp_path: Path
) -> None:
    task, schedule = next(iter(tiny_twin.schedules.items()))
    later = replace(schedule, onset_s=schedule.onset_s + np.float32(0.08))
    other = replace(tiny_twin, schedules=tiny_twin.schedules | {task: later})
    assert other.save(tmp_path / "other").sha256 == tiny_twin.save(tmp_path / "same").sha256
    error = code_of(lambda: prepare(tmp_path / "other", inputs.people, whole, resume=True))
    assert error.code == "other_model"
    assert "model_config_sha256" in error.wanted


@pytest.fixture
def broken_off(inputs: Inputs, tmp_path: Path) -> Path:
    """A run of which a shard is missing."""
    out = tmp_path / "broken-off"
    inputs.screen(out, shard_size=7)
    RunFolder(out).done(2).unlink()
    return out


def test_a_run_that_ended_before_its_first_shard_is_in_nobodys_way(
    inputs: Inputs, whole: Path, tmp_path: Path
) -> None:
    people, out = inputs.some(tmp_path, [0]), tmp_path / "out"
    prepared = prepare(inputs.model, people.people, out, outputs=["bold"])
    people.fc.write_bytes(people.fc.read_bytes()[:-8])
    assert code_of(lambda: run(prepared)).code == "input_changed"
    orphan = RunFolder(out).arrays / "bold" / "c.0.0.0"
    orphan.write_bytes(b"of a shard that was not done")
    inputs.screen(out, shard_size=7)
    assert digests(out) == digests(whole)
    assert not orphan.exists()


def test_what_part_of_a_run_is_beginning_is_kept(
    inputs: Inputs, whole: Path, tmp_path: Path
) -> None:
    """No shard is done, but somebody is at it."""
    out = tmp_path / "out"
    prepared = prepare(inputs.model, inputs.people, out, shard_size=7)
    begun = prepare(inputs.model, inputs.people, out, shard_size=7, part=(0, 2))
    folder = RunFolder(out)
    folder.state.mkdir(parents=True)
    open_manifest(folder, begun.job.manifest)
    with locked(folder, (0, 2)):
        assert code_of(lambda: run(prepared)).code == "locked"
        assert code_of(lambda: prepare(inputs.model, inputs.people, out)).code == "locked"
        locks = {path: path.read_bytes() for path in folder.state.glob("*.lock")}
        planned = prepare(inputs.model, inputs.people, out, resume=True, dry=True)
        assert planned.n_people_to_do == N_PEOPLE
        assert locks == {path: path.read_bytes() for path in folder.state.glob("*.lock")}
    assert folder.manifest.exists()
    run(prepared)
    assert digests(out) == digests(whole)


def test_another_versions_run_is_refused(inputs: Inputs, broken_off: Path) -> None:
    path = RunFolder(broken_off).manifest
    values = json.loads(path.read_text())
    now, values["version"] = values["version"], "0.0.7"
    path.write_text(json.dumps(values))
    error = code_of(lambda: prepare(inputs.model, inputs.people, broken_off, resume=True))
    assert error.code == "other_version"
    assert (now in error.wanted, "0.0.7" in error.got) == (True, True)


def test_other_settings_are_refused(inputs: Inputs, broken_off: Path) -> None:
    error = code_of(
        lambda: prepare(inputs.model, inputs.people, broken_off, resume=True, missing="mask")
    )
    assert error.code == "other_config"
    assert ("missing mask" in error.wanted, "missing reject" in error.got) == (True, True)


def test_an_input_that_changed_is_refused(inputs: Inputs, broken_off: Path, tmp_path: Path) -> None:
    edges = np.load(inputs.fc)
    edges[0, 0] += 0.01
    np.save(tmp_path / "fc.npy", edges)
    changed = replace(inputs, fc=tmp_path / "fc.npy")
    error = code_of(lambda: prepare(inputs.model, changed.people, broken_off, resume=True))
    assert error.code == "input_changed"
    assert error.wanted
    assert error.got


def test_regions_of_another_atlas_are_refused_before_the_work(
    inputs: Inputs, tmp_path: Path
) -> None:
    names = [f"parcel_{i}" for i in range(16)]
    (tmp_path / "regions.tsv").write_text("\n".join(["name", *names]) + "\n")
    people = inputs.people | {"regions": tmp_path / "regions.tsv"}
    assert (
        code_of(lambda: prepare(inputs.model, people, tmp_path / "out")).code == "regions_missing"
    )
    assert not (tmp_path / "out").exists()


def test_people_whose_regions_have_no_names_are_refused(inputs: Inputs, tmp_path: Path) -> None:
    people = {"path": inputs.fc}
    assert code_of(lambda: prepare(inputs.model, people, tmp_path / "o")).code == "regions_unnamed"


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"tasks": ["chess"]}, "task"),
        ({"tasks": ["faces", "faces"]}, "argument"),
        ({"outputs": ["dreams"]}, "argument"),
        ({"outputs": []}, "argument"),
        ({"target": "wisdom"}, "target"),
        ({"budget": 1.0}, "argument"),
        ({"target": "speed", "budget": -1.0}, "constraint"),
        ({"target": "speed", "edit": "site:nowhere:1"}, "region"),
        ({"target": "speed", "edit": "site:region_00:1", "budget": 1.0}, "argument"),
        ({"mem_mb": 1}, "argument"),
    ],
)
def test_settings_that_cannot_be_used(
    inputs: Inputs, tmp_path: Path, settings: dict[str, Any], code: str
) -> None:
    error = code_of(lambda: prepare(inputs.model, inputs.people, tmp_path / "out", **settings))
    assert error.code == code
    assert not (tmp_path / "out").exists()


def test_less_memory_makes_smaller_shards(inputs: Inputs, tmp_path: Path) -> None:
    usual = prepare(inputs.model, inputs.people, tmp_path / "out", shard_size=4096)
    free = replace(usual.job.manifest, shard_size=4096)
    roomy = replace(usual, job=replace(usual.job, manifest=free)).memory_bytes
    small = prepare(
        inputs.model,
        inputs.people,
        tmp_path / "out",
        shard_size=4096,
        mem_mb=(usual.memory_bytes + roomy) // 2 // 2**20,
    )
    assert small.memory_bytes < roomy


@pytest.mark.parametrize("part", [None, (0, 2)])
def test_who_holds_a_folder_is_named(
    inputs: Inputs, tmp_path: Path, part: tuple[int, int] | None
) -> None:
    folder = RunFolder(tmp_path / "out")
    folder.state.mkdir(parents=True)
    program = (
        "import sys; from pathlib import Path\n"
        "from dtwin_fast.screening.lock import locked\n"
        "from dtwin_fast.screening.manifest import RunFolder\n"
        f"with locked(RunFolder(Path(sys.argv[1])), {part}):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    arguments = [sys.executable, "-c", program, str(folder.out)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        prepared = prepare(inputs.model, inputs.people, folder.out)
        error = code_of(lambda: run(prepared))
        assert error.code == "locked"
        assert f"pid {holder.pid} on " in error.got
        if part is not None:
            with locked(folder, (1, 2)):  # other parts may work beside it
                pass
        holder.kill()
    run(prepared)  # a killed holder holds nothing


def test_parts_make_the_whole(inputs: Inputs, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = inputs.screen(out, shard_size=7, part=(0, 2))
    assert (first.complete, first.people) == (False, 13)
    assert code_of(lambda: open_results(out)).code == "results_incomplete"
    assert not list(out.rglob("zarr.json"))  # no reader takes what is missing for NaN
    last = inputs.screen(out, shard_size=7, part=(1, 2))
    assert (last.complete, last.people) == (True, N_PEOPLE - len(BAD))
    assert digests(out) == digests(whole)
    again = inputs.screen(out, part=(0, 2))
    assert again.complete
    assert digests(out) == digests(whole)


def test_group_says_what_is_missing(inputs: Inputs, broken_off: Path, whole: Path) -> None:
    error = code_of(lambda: merge_run(inputs.model, broken_off))
    assert (error.code, error.got) == ("results_incomplete", "without 2")
    inputs.screen(broken_off, part=(2, 4))
    (broken_off / "dataset_description.json").unlink()
    assert code_of(lambda: open_results(broken_off)).code == "results_incomplete"
    merge_run(inputs.model, broken_off)
    assert digests(broken_off) == digests(whole)


@pytest.mark.parametrize("how", ["missing", "damaged"])
@pytest.mark.parametrize(
    "name",
    [
        "arrays.zarr/contrasts/c.1.0.0",
        ".dtwin/parts/shard-00001.scores.parquet",
        ".dtwin/done/shard-00001.json",
        "scores.parquet",
    ],
)
def test_files_that_are_not_as_written_are_never_results(
    inputs: Inputs, tmp_path: Path, name: str, how: str
) -> None:
    out = tmp_path / "out"
    inputs.screen(out, shard_size=7)
    path = out / name
    data = path.read_bytes()
    path.unlink()
    if how == "damaged":
        path.write_bytes(data[:-9] + bytes(9))

    def read() -> None:
        results = open_results(out)
        results.array("contrasts", 8, 9)
        results.scores()

    allowed = {"results_damaged", "results_incomplete"} if "done" in name else {"results_damaged"}
    if "parts" not in name:
        assert code_of(read).code in allowed
    if name != "scores.parquet":
        assert code_of(lambda: merge_run(inputs.model, out)).code in allowed
    elif how == "missing":
        merge_run(inputs.model, out)
        read()


def test_arrays_without_metadata_are_damaged(inputs: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "out"
    inputs.screen(out, outputs=CONTRASTS)
    results, metadata = open_results(out), out / "arrays.zarr/contrasts/zarr.json"
    for damage in (lambda: metadata.write_text("{}"), metadata.unlink):
        damage()
        assert code_of(lambda: results.array("contrasts")).code == "results_damaged"
    merge_run(inputs.model, out)
    assert results.array("contrasts").shape[0] == N_PEOPLE


def test_other_rows_can_be_read_beside_a_damaged_chunk(inputs: Inputs, tmp_path: Path) -> None:
    inputs.screen(tmp_path / "out", shard_size=7)
    (tmp_path / "out/arrays.zarr/contrasts/c.1.0.0").unlink()
    rows = open_results(tmp_path / "out").array("contrasts", 0, 7)
    assert np.isfinite(rows[[i for i in range(7) if i not in BAD]]).all()


def test_any_zarr_reader_reads_the_arrays(whole: Path) -> None:
    group = zarr.open_group(whole / "arrays.zarr", mode="r")
    contrasts = group["contrasts"]
    assert contrasts.shape[0] == N_PEOPLE
    assert np.isnan(contrasts.fill_value)
    assert contrasts.metadata.dimension_names == ("person", "contrast", "region")
    assert contrasts.attrs["contrast"] == ["faces>shapes", "incongruent>congruent"]
    np.testing.assert_array_equal(contrasts[:], open_results(whole).array("contrasts"))


def test_columns_are_described(whole: Path) -> None:
    described = json.loads((whole / "scores.json").read_text())
    assert list(described) == open_results(whole).scores().column_names
    assert described["faces_face_rt_s"]["Units"] == "s"
    assert list(json.loads((whole / "rejected.json").read_text())) == [
        *("row", "source_id", "code", "reason", "fix", "wanted", "got")
    ]


@pytest.mark.parametrize("settings", [{"budget": 1.0}, {"edit": "site:region_03:0.2"}])
def test_interventions_of_each_person(
    inputs: Inputs, tmp_path: Path, settings: dict[str, Any]
) -> None:
    few = inputs.some(tmp_path, [0, 1, 5, 2, 11])
    options = {"outputs": ["range"], "target": QUICK_TARGET, "missing": "mask", **settings}
    few.screen(tmp_path / "2", shard_size=2, **options)
    few.screen(tmp_path / "9", shard_size=9, **options)
    found, wanted = results_of(tmp_path / "2"), results_of(tmp_path / "9")
    assert_same_bits(found, wanted)
    pre, post = found["scores.pre"], found["scores.post"]
    effect = improvement(pre, post, find_target(QUICK_TARGET).goal)
    np.testing.assert_array_equal(found["scores.effect"], effect)
    if "budget" in settings:
        assert (post < pre).all()
        assert (found["scores.change_norm"] <= 1).all()
    assert "masked_regions:1" in found["scores.flags"][found["scores.row"] == 4][0]
    assert json.loads((tmp_path / "9/scores.json").read_text())["pre"]["Units"] == "SD"


def test_the_eigenvalue_comes_when_asked_for(inputs: Inputs, tmp_path: Path) -> None:
    inputs.screen(tmp_path / "out", outputs=["eigenvalue"])
    table = open_results(tmp_path / "out").scores().to_pydict()
    lowest = np.array(table["min_eigenvalue"])
    assert (lowest < 0).any()  # random edges are no correlation matrices
    assert all(
        ("min_eigenvalue" in flags) == (value < -0.02)
        for flags, value in zip(table["flags"], lowest, strict=True)
    )


def test_a_killed_worker_ends_the_run_and_resume_goes_on(
    inputs: Inputs, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    prepared = prepare(inputs.model, inputs.people, out, shard_size=7, resources=Resources(2))

    def kill(done: int, total: int) -> None:
        for child in multiprocessing.active_children():
            assert child.pid is not None
            os.kill(child.pid, signal.SIGSTOP)
            os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(ChildProcessError, match="SIGKILL"):
        run(prepared, progress=kill)
    assert not multiprocessing.active_children()
    inputs.screen(out, resume=True)
    assert digests(out) == digests(whole)


def test_connectomes_are_in_no_core_dump(inputs: Inputs, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    prepare(inputs.model, inputs.people, tmp_path / "out")
    assert resource.getrlimit(resource.RLIMIT_CORE) == (0, before[1])


def test_logs_say_nothing_of_people(inputs: Inputs, tmp_path: Path) -> None:
    inputs.screen(tmp_path / "out", shard_size=7)
    (log,) = (tmp_path / "out/logs").iterdir()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", *["done"] * 4, "end"]
    assert "sub-0" not in log.read_text()
