"""``dtwin screen``: both grammars, what is printed, exit codes, signals."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from command_line import Run, runner

from dtwin_fast.connectome import matrices
from dtwin_fast.prediction_files import NOTICE
from dtwin_fast.screening import open_results
from dtwin_fast.tables import write_tsv
from dtwin_fast.twin import Twin

pytest.importorskip("pyarrow")
pytest.importorskip("zarr")

SCRIPT = Path(sys.executable).with_name("dtwin")
N_PEOPLE = 12
BAD = 4


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys, "screen")


@dataclass(frozen=True)
class Inputs:
    """A model, an array of people of whom one cannot be used, and the same people as BIDS files."""

    model: Path
    fc: Path
    good: Path
    names: tuple[object, ...]
    bids: Path


@pytest.fixture(scope="module")
def inputs(tiny_twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("screen")
    tiny_twin.save(folder / "model")
    rng = np.random.default_rng(8)
    edges = np.tanh(rng.normal(0.1, 0.2, (N_PEOPLE, tiny_twin.spec.n_edges))).astype(np.float32)
    np.save(folder / "good.npy", edges)
    write_tsv(folder / "regions.tsv", ["name"], ([name] for name in tiny_twin.regions))
    for i, matrix in enumerate(matrices(edges)):
        for session in ("1", "2")[: 1 + (i < 2)]:
            name = f"sub-{i:02d}_ses-{session}_task-rest_seg-x_stat-pearsoncorrelation_relmat.tsv"
            rows = zip(tiny_twin.regions, matrix.tolist(), strict=True)
            write_tsv(
                folder / "bids" / f"sub-{i:02d}" / f"ses-{session}" / "func" / name,
                ["Node", *tiny_twin.regions],
                [[region, *map(repr, row)] for region, row in rows],
            )
    edges[BAD, 0] = np.inf
    np.save(folder / "fc.npy", edges)
    names = ("--regions", folder / "regions.tsv")
    return Inputs(folder / "model", folder / "fc.npy", folder / "good.npy", names, folder / "bids")


def test_plain_grammar(run: Run, inputs: Inputs, tmp_path: Path) -> None:
    ran = run(inputs.model, inputs.fc, tmp_path / "out", *inputs.names)
    assert ran.code == 3
    lines = [re.split(r"\s{2,}", line) for line in ran.out.splitlines()]
    assert ["people with results", "11"] in lines
    assert ["rejected: infinite", "1"] in lines
    assert f"Who was rejected, and why: {tmp_path / 'out' / 'rejected.parquet'}" in ran.out
    assert ["diverged", "0"] in lines
    assert any(line[0] == "faces_face_rt_s" and len(line) == 3 for line in lines)
    assert NOTICE in ran.out
    assert "people/s" in ran.err
    assert open_results(tmp_path / "out").scores().num_rows == 11


def test_json_says_the_same(run: Run, inputs: Inputs, tmp_path: Path) -> None:
    ran = run(
        *(inputs.model, inputs.good, tmp_path / "out", *inputs.names, "--json"),
        *("--task", "faces", "--outputs", "contrasts,range"),
    )
    said = json.loads(ran.out)
    assert ran.code == 0
    assert (said["people"], said["rejected"], said["complete"]) == (N_PEOPLE, {}, True)
    table = open_results(tmp_path / "out").scores().to_pydict()
    assert said["scores"]["deviation"]["mean"] == pytest.approx(np.mean(table["deviation"]))
    assert said["scores"]["deviation"]["sd"] == pytest.approx(np.std(table["deviation"], ddof=1))


def test_dry_run_writes_nothing(run: Run, inputs: Inputs, tmp_path: Path) -> None:
    arguments = (inputs.model, inputs.fc, tmp_path / "out", *inputs.names, "--shard-size", 5)
    ran = run(*arguments, "--dry-run")
    assert ran.code == 0
    assert "12 people in 3 of 3 shards of 5" in ran.out
    plan = json.loads(run(*arguments, "--dry-run", "--json", "--shard", "1/2").out)
    assert (plan["shards_to_do"], plan["people_to_do"]) == (1, 5)
    assert plan["memory_mb"] > 100
    assert list(tmp_path.iterdir()) == []
    run(inputs.model, inputs.bids, tmp_path / "out", "--session-label", 1, "--dry-run")
    assert list(tmp_path.iterdir()) == []


def test_bids_grammar(run: Run, inputs: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "out"
    app = (inputs.bids, out, "participant", "--model", inputs.model)
    labels = ("--participant-label", "01", "sub-03", "--session_label", "ses-1")
    ran = run(*app, *labels)
    assert (ran.code, ran.err.count("dtwin:")) == (0, 0)
    results = open_results(out)
    assert results.scores()["participant_id"].to_pylist() == ["sub-01", "sub-03"]
    run(inputs.model, inputs.good, tmp_path / "plain", *inputs.names)
    np.testing.assert_allclose(
        results.array("contrasts"),
        open_results(tmp_path / "plain").array("contrasts")[[1, 3]],
        rtol=1e-4,
        atol=1e-6,
    )
    assert (out / ".dtwin/index.parquet").is_file()


def test_people_with_several_sessions(run: Run, inputs: Inputs, tmp_path: Path) -> None:
    app = (inputs.bids, tmp_path / "out", "participant", "--model", inputs.model)
    assert run(*app, "--participant-label", "01", "02").code == 0
    table = open_results(tmp_path / "out").scores().to_pydict()
    assert table["participant_id"] == ["sub-01", "sub-01", "sub-02"]
    assert table["session_id"] == ["ses-1", "ses-2", None]
    assert table["source_id"] == ["sub-01_ses-1", "sub-01_ses-2", "sub-02"]


def test_bids_filter_file(run: Run, inputs: Inputs, tmp_path: Path) -> None:
    (tmp_path / "filter.json").write_text(json.dumps({"session": "2", "suffix": "relmat"}))
    ran = run(
        *(inputs.bids, tmp_path / "out", "participant", "--model", inputs.model, "--json"),
        *("--bids-filter-file", tmp_path / "filter.json"),
    )
    assert (ran.code, json.loads(ran.out)["people"]) == (0, 2)


def test_parts_and_group(run: Run, inputs: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "out"
    app = (inputs.bids, out, "participant", "--model", inputs.model, "--session-label", "1")
    group = (inputs.bids, out, "group", "--model", inputs.model)
    first = run(*app, "--shard-size", 3, "--shard", "0/2")
    assert first.code == 0
    assert "Other parts are not done yet" in first.out
    missing = run(*group)
    assert missing.code == 4
    assert "without 1, 3" in missing.err
    assert "Other parts" not in run(*app, "--shard", "1/2").out
    (out / "dataset_description.json").unlink()
    again = run(*group, "--json")
    assert (again.code, json.loads(again.out)["people"]) == (0, N_PEOPLE)
    assert open_results(out).scores().num_rows == N_PEOPLE


def test_a_run_is_gone_on_with_when_asked(run: Run, inputs: Inputs, tmp_path: Path) -> None:
    arguments = (inputs.model, inputs.fc, tmp_path / "out", *inputs.names)
    assert run(*arguments).code == 3
    refused = run(*arguments)
    assert refused.code == 2
    assert "[out_not_empty]" in refused.err
    assert run(*arguments, "--resume").code == 3
    other = run(*arguments, "--resume", "--missing", "mask")
    assert (other.code, "[other_config]" in other.err) == (2, True)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--device", "gpu"), 2, "[device]"),
        (("--outputs", "dreams"), 2, "[argument]"),
        (("--task", "chess"), 2, "[task]"),
        (("--target", "wisdom"), 2, "[target]"),
        (("--shard", "2/2"), 2, "0/16"),
        (("--nprocs", "0"), 2, "from 1 to 1024"),
        (("--model", "x"), 2, "participant | group"),
        (("--sbatch", "--shard", "0/2"), 2, "--sbatch without --shard"),
        (("--participant-label", "01"), 2, "no use"),
    ],
)
def test_usage(
    run: Run, inputs: Inputs, tmp_path: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    ran = run(inputs.model, inputs.fc, tmp_path / "out", *inputs.names, *options)
    assert ran.code == code
    assert said in re.sub(r"\s+", " ", ran.err)
    assert list(tmp_path.iterdir()) == []


def test_bids_grammar_without_a_model(run: Run, inputs: Inputs, tmp_path: Path) -> None:
    ran = run(inputs.bids, tmp_path / "out", "participant")
    assert (ran.code, "--model MODEL" in ran.err) == (2, True)


def test_cells_that_are_no_numbers_are_not_quoted(run: Run, inputs: Inputs, tmp_path: Path) -> None:
    shutil.copytree(inputs.bids, tmp_path / "bids")
    cell, name = sorted((tmp_path / "bids").rglob("*ses-1*relmat.tsv"))[:2]
    for file, column in ((cell, 1), (name, 0)):
        rows = [line.split("\t") for line in file.read_text().splitlines()]
        rows[2][column] = "0.43179x"
        file.write_text("\n".join(map("\t".join, rows)))
    app = (tmp_path / "bids", tmp_path / "out", "participant", "--model", inputs.model)
    assert run(*app, "--session-label", "1").code == 3
    table = open_results(tmp_path / "out").rejected().to_pylist()
    assert [entry["code"] for entry in table] == ["table_number", "table_names"]
    assert "43179" not in json.dumps(table)


def test_input_that_cannot_be_read(run: Run, inputs: Inputs, tmp_path: Path) -> None:
    assert run(inputs.model, tmp_path / "none.npy", tmp_path / "out").code == 4
    assert run(tmp_path / "none", inputs.fc, tmp_path / "out", *inputs.names).code == 4
    assert list(tmp_path.iterdir()) == []


def test_a_named_device_runs_or_is_refused(
    run: Run, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    ran = run(inputs.model, inputs.fc, tmp_path / "out", *inputs.names, "--device", "cuda:0")
    assert (ran.code, "[device]" in ran.err) == (2, True)
    ran = run(inputs.model, inputs.fc, tmp_path / "out", *inputs.names, "--device", "cuda")
    assert ran.code == 2
    assert "backend='cuda' cannot run" in ran.err


def test_missing_packages_are_named(
    run: Run, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    ran = run(inputs.model, inputs.fc, tmp_path / "out", *inputs.names)
    assert (ran.code, "pip install 'dtwin_fast[screen]'" in ran.err) == (2, True)


def test_sbatch_prints_a_script(
    run: Run, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [str(w) for w in (inputs.model, inputs.fc, "my out", *inputs.names, "--sbatch")]
    monkeypatch.setattr(sys, "argv", ["dtwin", "screen", *words])
    ran = run(*words)
    script = tmp_path / "job.sh"
    script.write_text(ran.out)
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    assert "#SBATCH --array=0-15" in ran.out
    assert "'my out'" in ran.out
    assert '--shard "$SLURM_ARRAY_TASK_ID/16"' in ran.out
    assert "--sbatch" not in ran.out.split("srun")[1]


@pytest.mark.parametrize(("stop", "nprocs"), [(signal.SIGTERM, 1), (signal.SIGINT, 2)])
def test_a_stopped_run_leaves_nothing_torn(
    run: Run, inputs: Inputs, tiny_twin: Twin, tmp_path: Path, stop: signal.Signals, nprocs: int
) -> None:
    n_people = 4000
    rng = np.random.default_rng(1)
    shape = (n_people, tiny_twin.spec.n_edges)
    np.save(tmp_path / "many.npy", np.tanh(rng.normal(0, 0.2, shape)).astype(np.float32))
    words = ["screen", inputs.model, tmp_path / "many.npy", tmp_path / "out", *inputs.names]
    words += ["--outputs", "contrasts", "--shard-size", 4, "--nprocs", nprocs]
    with subprocess.Popen(
        [SCRIPT, *map(str, words)], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        done = tmp_path / "out/.dtwin/done"
        while not (done.is_dir() and any(done.iterdir())):
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, stop)
        _, err = process.communicate()
    assert process.returncode == 128 + stop
    assert "Traceback" not in err
    assert not list((tmp_path / "out").rglob("*.part"))
    assert 0 < len(list(done.iterdir())) < n_people // 4
    assert not (tmp_path / "out/scores.parquet").exists()
