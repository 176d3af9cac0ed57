"""``dtwin intervene``: files, what is printed, exit codes, and what is refused."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from command_line import Run, runner

from dtwin_fast import cli
from dtwin_fast.cohort_files import save_cohort
from dtwin_fast.commands.intervene import ALLOW_FORMS
from dtwin_fast.connectome import matrices
from dtwin_fast.interventions import EDIT_FORMS, TARGETS, network_edges, site_edges
from dtwin_fast.prediction_files import NOTICE
from dtwin_fast.simulate import simulate
from dtwin_fast.simulate.files import save_simulation
from dtwin_fast.twin import Twin

pytest.importorskip("torch")
pytest.importorskip("nilearn")

N_PEOPLE = 11
REGIONS = (
    *("LH_VisCent_1", "RH_VisCent_1", "LH_SomMotA_1", "RH_SomMotA_1", "LH_DefaultA_1"),
    *("RH_DefaultA_1", "LH_ContA_1", "RH_ContA_1", "LH_LimbicA_1", "RH_LimbicB_1", "lAMY-rh"),
    *("rAMY-rh", "hip-lh", "hip-rh", "tha-lh", "tha-rh"),
)
QUICK = ("--steps", 3, "--random", 4, "--any-matrix")


@dataclass(frozen=True)
class Inputs:
    """Two models that differ in their seed, one of faces alone, and people for them."""

    model: Path
    second: Path
    faces: Path
    fc: Path
    gap: Path
    names: tuple[str, Path, str, Path]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys, "intervene")


@pytest.fixture(scope="module")
def inputs(tiny_twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("inputs")
    twin = replace(tiny_twin, regions=REGIONS)
    twin.save(folder / "model")
    first = twin.layers[0]
    other = replace(first, weight=first.weight[:, ::-1].copy())
    replace(twin, layers=(other, *twin.layers[1:])).save(folder / "second")
    faces = {"schedules": twin.schedules, "projections": twin.projections,
             "contrasts": twin.contrasts}  # fmt: skip
    replace(twin, **{k: {"faces": v["faces"]} for k, v in faces.items()}).save(folder / "faces")
    rng = np.random.default_rng(1)
    z = twin.edge_mean + twin.edge_sd * rng.standard_normal((N_PEOPLE, twin.spec.n_edges))
    fc = matrices(np.tanh(z).astype(np.float32))
    np.save(folder / "fc.npy", fc)
    fc[3, 5] = fc[3, :, 5] = np.nan
    np.save(folder / "gap.npy", fc)
    (folder / "regions.csv").write_text("name\n" + "".join(f"{name}\n" for name in REGIONS))
    ids = "".join(f"person{i:02d}\n" for i in range(N_PEOPLE))
    (folder / "people.csv").write_text("subject\n" + ids)
    return Inputs(
        folder / "model",
        folder / "second",
        folder / "faces",
        folder / "fc.npy",
        folder / "gap.npy",
        ("--regions", folder / "regions.csv", "--subjects", folder / "people.csv"),
    )


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


# What it does


def test_a_cohort_is_moved_and_every_control_is_printed(
    inputs: Inputs, tmp_path: Path, run: Run
) -> None:
    out = tmp_path / "out"
    asked = ("--target", "amygdala", "--second", inputs.second, "--out", out)
    ran = run(inputs.model, inputs.fc, *inputs.names, *QUICK, *asked)
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[0] == f"target amygdala (SD), goal down: {N_PEOPLE} people"
    blocks = {
        name: ran.out.split(f"\n{name}:\n")[1].split("\n\n")[0]
        for name in ("connectome", "weights")
    }
    for block in blocks.values():
        for control in (
            "effect",
            "random directions",
            "doses -3 to 3",
            "off target",
            "map",
            "regression to mean",
        ):
            assert f"\n  {control} " in f"\n{block}", control
        assert "second model r n/a" not in block
        for other in set(TARGETS) - {"amygdala"}:
            assert f"{other} " in block
    assert "\n  by the gradient " in blocks["connectome"]
    assert "\n  out of range " in blocks["connectome"]
    assert "participation ratio" in blocks["weights"]
    assert "cross-validated" in blocks["weights"]
    assert NOTICE in ran.out
    assert "In silico, not clinical" in ran.out
    assert lines[-1].startswith(f"Written: {out}")
    found = json.loads((out / "intervention.json").read_text("utf-8"))
    assert found["notice"] == NOTICE
    assert found["methods"]["connectome"]["stability"]["seed_r"] is not None
    # The numbers that are printed are those that are written.
    summary = found["methods"]["connectome"]
    assert f"{summary['mean_effect']:.3g} SDs of people before" in blocks["connectome"]
    assert f"p {summary['random']['p']:.3g}" in blocks["connectome"]
    assert len(table(out / "effects.tsv")) == 2 * N_PEOPLE


def test_json_goes_to_stdout_alone(inputs: Inputs, tmp_path: Path, run: Run) -> None:
    asked = ("--target", "speed", "--method", "weights", "--random", 3, "--json")
    ran = run(inputs.model, inputs.fc, *inputs.names, *asked, "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    said = json.loads(ran.out)
    written = json.loads((tmp_path / "out" / "intervention.json").read_text("utf-8"))
    assert said == {"out": str(tmp_path / "out"), **written}
    assert said["notice"] == NOTICE
    assert list(said["methods"]) == ["weights"]
    assert "random directions" in ran.err, "progress goes to stderr"


def test_rejected_people_are_listed_and_told(inputs: Inputs, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    asked = ("--target", "amygdala", "--budget", 0.2, *QUICK, "--out", out)
    ran = run(inputs.model, inputs.gap, *inputs.names, *asked)
    assert ran.code == 3
    assert f"{N_PEOPLE - 1} people, 1 rejected" in ran.out
    (row,) = table(out / "rejected.tsv")
    assert (row["source_id"], row["code"]) == ("person03", "missing_regions")
    assert "person03" not in {r["source_id"] for r in table(out / "effects.tsv")}
    imputed = run(
        inputs.model,
        inputs.gap,
        *inputs.names,
        *asked[:-1],
        tmp_path / "imputed",
        "--missing",
        "impute",
    )
    assert imputed.code == 0, imputed.err
    assert len(table(tmp_path / "imputed" / "effects.tsv")) == 2 * N_PEOPLE


def test_a_simulated_cohort_brings_its_truth(tiny_twin: Twin, tmp_path: Path, run: Run) -> None:
    simulated = simulate(10, 16, seed=3, bold_regions=("LH_V1", "RH_V1"))
    cohort, model, out = (tmp_path / name for name in ("cohort", "model", "out"))
    save_simulation(simulated, cohort)
    save_cohort(simulated.cohort, cohort)
    replace(tiny_twin, regions=simulated.cohort.connectomes.regions).save(model)
    ran = run(model, cohort, "--target", "speed", "--budget", 0.2, *QUICK, "--out", out)
    assert ran.code == 0, ran.err
    assert ran.out.count("\n  truth (simulated) ") == 2
    assert "AUC of causal edges" in ran.out
    assert "same sign in" in ran.out
    found = json.loads((out / "intervention.json").read_text("utf-8"))
    assert found["methods"]["connectome"]["truth"]["trait"] == "speed"
    # A cohort that was not simulated has none, and people are moved all the same.
    plain = tmp_path / "plain"
    save_cohort(simulated.cohort, plain)
    ran = run(model, plain, "--target", "speed", "--budget", 0.2, *QUICK, "--out", tmp_path / "b")
    assert ran.code == 0, ran.err
    assert "truth" not in ran.out


@pytest.mark.parametrize("form", ALLOW_FORMS)
def test_allowed_edges(form: str, inputs: Inputs, tmp_path: Path, run: Run) -> None:
    kind = form.partition(":")[0]
    listed = tmp_path / "edges.csv"
    listed.write_text("region_2,region_1\nlAMY-rh,hip-lh\ntha-lh,LH_VisCent_1\n")
    text, wanted = {
        "site": ("site:lAMY-rh,rAMY-rh", site_edges(REGIONS, ["lAMY-rh", "rAMY-rh"])),
        "network": ("network:Default:VisCent", network_edges(REGIONS, "Default:VisCent")),
        "edges": (f"edges:{listed}", None),
    }[kind]
    out = tmp_path / "out"
    asked = ("--target", "amygdala", "--budget", 0.2, *QUICK, "--allow", text, "--out", out)
    assert run(inputs.model, inputs.fc, *inputs.names, *asked).code == 0
    changed = np.load(out / "maps" / "connectome_change.npy").any(axis=0)
    if wanted is None:
        pairs = [(0, 14), (10, 12)]
        rows, columns = np.triu_indices(len(REGIONS), 1)
        wanted = np.array([(i, j) in pairs for i, j in zip(rows, columns, strict=True)])
    np.testing.assert_array_equal(changed, wanted)
    assert json.loads((out / "intervention.json").read_text())["settings"]["allowed_edges"] == int(
        wanted.sum()
    )


def test_allowed_edges_add_up_with_other_limits(inputs: Inputs, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    asked = (
        *("--target", "amygdala", "--goal", "up", "--group"),
        *("--norm", "linf", "--budget", 0.1, "--top-k", 3, "--steps", 3, "--random", 0),
        *("--any-matrix", "--allow", "site:hip-lh", "--allow", "site:hip-rh", "--out", out),
    )
    ran = run(inputs.model, inputs.fc, *inputs.names, *asked)
    assert ran.code == 0, ran.err
    change = np.load(out / "maps" / "connectome_change.npy")
    assert (change == change[0]).all()
    assert np.abs(change).max() <= 0.1
    assert 1 <= (change[0] != 0).sum() <= 3
    allowed = site_edges(REGIONS, ["hip-lh", "hip-rh"])
    assert not change[:, ~allowed].any()
    settings = json.loads((out / "intervention.json").read_text())["settings"]
    assert (settings["goal"], settings["scope"], settings["norm"]) == ("up", "group", "linf")
    assert "random directions" not in ran.out


def test_kept_outcomes_are_named(inputs: Inputs, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    asked = ("--target", "amygdala", "--keep", "accuracy, speed", "--budget", 0.3, *QUICK)
    ran = run(inputs.model, inputs.fc, *inputs.names, *asked, "--out", out)
    assert ran.code == 0, ran.err
    settings = json.loads((out / "intervention.json").read_text())["settings"]
    assert settings["keep"] == ["accuracy", "speed"]


@pytest.mark.parametrize("form", EDIT_FORMS)
def test_edits(form: str, inputs: Inputs, tmp_path: Path, run: Run) -> None:
    (tmp_path / "edges.csv").write_text("region_1,region_2\nlAMY-rh,hip-lh\n")
    densities = "".join(f"{name},{i % 3}\n" for i, name in enumerate(REGIONS))
    (tmp_path / "map.csv").write_text("region,density\n" + densities)
    kind = form.partition(":")[0]
    text = {
        "site": "site:lAMY-rh,rAMY-rh:-0.2",
        "network": "network:DefaultA:0.5",
        "edges": f"edges:{tmp_path / 'edges.csv'}:0.3",
        "receptor": f"receptor:{tmp_path / 'map.csv'}:0.2",
        "lesion": "lesion:hip-lh",
    }[kind]
    out = tmp_path / "out"
    asked = ("--target", "amygdala", "--method", text, "--random", 2, "--out", out)
    ran = run(inputs.model, inputs.fc, *inputs.names, *asked)
    assert ran.code == 0, ran.err
    assert "\nedit:\n" in ran.out
    assert json.loads((out / "intervention.json").read_text())["settings"]["method"] == text
    assert np.load(out / "maps" / "edit_change.npy").any()


def test_a_seed_gives_the_same_files(inputs: Inputs, tmp_path: Path, run: Run) -> None:
    asked = ("--target", "amygdala", "--method", "site:hip-lh:0.2", "--random", 2)
    for out, seed in (("a", 7), ("b", 7), ("c", 8)):
        given = (*asked, "--seed", seed, "--out", tmp_path / out)
        assert run(inputs.model, inputs.fc, *inputs.names, *given).code == 0
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    same = [(tmp_path / out / "random.tsv").read_bytes() for out in ("a", "c")]
    assert same[0] != same[1]


# What it says and refuses


def test_help_names_everything_there_is(run: Run) -> None:
    ran = run("--help")
    assert ran.code == 0
    text = " ".join(ran.out.split())
    for name in (*TARGETS, *EDIT_FORMS, *ALLOW_FORMS, "TASK:CONTRAST:REGION"):
        assert name in text.replace("- ", "-"), name
    assert "exit codes" in ran.out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--target", "happiness"], "amygdala | speed | TASK:CONTRAST:REGION"),
        (["--target", "faces:faces>shapes:nowhere"], "LH_V1 | LH_amygdala"),
        (["--method", "magic"], "connectome | weights | lesion:REGION"),
        (["--method", "site:hip-lh"], "site:REGION[,REGION]:STRENGTH"),
        (["--method", "site:nowhere:0.2"], "nowhere"),
        (["--method", "site:hip-l:0.2"], "near: hip-lh"),
        (["--method", "network:Vulcan:0.2"], "VisCent | DefaultA"),
        (["--method", "weights", "--budget", 0.2], "constraint | connectome"),
        (["--method", "lesion:hip-lh", "--any-matrix"], "constraint | connectome"),
        (["--method", "weights", "--group"], "scope | connectome"),
        (["--method", "weights", "--keep", "accuracy"], "keep | connectome"),
        (["--keep", "happiness"], "amygdala | speed"),
        (["--budget", 0], "a positive number"),
        (["--budget", "nan"], "a positive number | nan"),
        (["--budget", -1], "a positive number"),
        (["--top-k", 121], "1 to 120"),
        (["--top-k", 0], "at least 1"),
        (["--norm", "l7"], "l2 | linf"),
        (["--steps", 0], "at least 1"),
        (["--random", -1], "at least 0"),
        (["--goal", "sideways"], "up | down"),
        (["--allow", "planet:mars"], "site:REGION[,REGION] | network:BLOCK | edges:FILE"),
        (["--allow", "site:"], "site:REGION[,REGION]"),
        (["--allow", "site:nowhere"], "nowhere"),
        (["--allow", "network:Vulcan"], "VisCent"),
        (["--backend", "abacus"], "cpu"),
        (["--seed", -1], "from 0"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_usage_errors(
    options: list[object], says: str, inputs: Inputs, tmp_path: Path, run: Run
) -> None:
    given = ["--target", "amygdala", *options]
    ran = run(inputs.model, inputs.fc, *inputs.names, *given, "--out", tmp_path / "out")
    assert ran.code == cli.EXIT_USAGE
    assert all(word in ran.err for word in says.split(" | ")), ran.err
    assert ran.out == ""
    assert not (tmp_path / "out").exists(), "an empty folder was left behind"


def test_a_task_that_the_model_lacks(inputs: Inputs, tmp_path: Path, run: Run) -> None:
    asked = ("--target", "interference", "--out", tmp_path / "out")
    ran = run(inputs.faces, inputs.fc, *inputs.names, *asked)
    assert ran.code == cli.EXIT_USAGE
    assert "wanted faces" in ran.err
    second = ("--target", "interference", "--second", inputs.faces, "--out", tmp_path / "out")
    ran = run(inputs.model, inputs.fc, *inputs.names, *second)
    assert ran.code == cli.EXIT_USAGE
    assert "wanted faces" in ran.err


def test_too_few_people(inputs: Inputs, tmp_path: Path, run: Run) -> None:
    np.save(tmp_path / "few.npy", np.load(inputs.fc)[:3])
    asked = (tmp_path / "few.npy", *inputs.names[:2], "--target", "amygdala", *QUICK)
    ran = run(inputs.model, *asked, "--out", tmp_path / "out")
    assert ran.code == cli.EXIT_USAGE
    assert "--budget" in ran.err
    ran = run(inputs.model, *asked, "--budget", 0.2, "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert "note: too few people for weights" in ran.out
    assert "cross-validated" not in ran.out


def test_unreadable_input(inputs: Inputs, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    asked = ("--target", "amygdala", "--out", out)
    for model, fc in (
        (tmp_path / "nothing", inputs.fc),
        (inputs.model, tmp_path / "nothing.npy"),
        (inputs.fc, inputs.fc),
    ):
        ran = run(model, fc, *inputs.names, *asked)
        assert ran.code == cli.EXIT_UNREADABLE, ran.err
        assert not out.exists()
    missing = ("--allow", f"edges:{tmp_path / 'nothing.csv'}")
    assert run(inputs.model, inputs.fc, *inputs.names, *asked, *missing).code == 4
    np.save(tmp_path / "gap.npy", np.load(inputs.gap)[3:4])
    ran = run(inputs.model, tmp_path / "gap.npy", *inputs.names[:2], *asked, "--budget", 1)
    assert ran.code == 4
    assert "nobody is left" in ran.err
    assert "missing_regions" in ran.err


def test_nothing_is_overwritten(inputs: Inputs, tmp_path: Path, run: Run) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    ran = run(inputs.model, inputs.fc, *inputs.names, "--target", "speed", "--out", tmp_path)
    assert ran.code == cli.EXIT_USAGE
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_target_and_out_must_be_given(inputs: Inputs, tmp_path: Path, run: Run) -> None:
    ran = run(inputs.model, inputs.fc, "--out", tmp_path / "out")
    assert ran.code == cli.EXIT_USAGE
    assert "--target" in ran.err
    assert run(inputs.model, inputs.fc, "--target", "speed").code == cli.EXIT_USAGE


def test_people_without_a_file_name_are_refused_before_the_work(
    inputs: Inputs, tmp_path: Path, run: Run
) -> None:
    people = tmp_path / "people.csv"
    people.write_text(
        "subject\n" + "".join(f"p {i // 2}{'-' * (i % 2)}\n" for i in range(N_PEOPLE))
    )
    asked = (*inputs.names[:2], "--subjects", people, "--target", "amygdala")
    ran = run(inputs.model, inputs.fc, *asked, "--out", tmp_path / "out")
    assert ran.code == 4
    assert "subject_label" in ran.err
    assert "search" not in ran.err
