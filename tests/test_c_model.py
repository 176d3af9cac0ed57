"""Models through the plain C interface: Python's numbers, Python's refusals, no leaks.

What the engine computes has Python's bits. Exponentials and arctanh are the C library's here and
numpy's there, so weights differ in their last digits, and what follows from them is compared at
the same weights.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from bad_inputs.cases import Place
from bad_inputs.models import MODELS
from fuzz_corpus import small_twin

from dtwin_fast.connectome import Connectomes
from dtwin_fast.dispatch import rollout, rollout_vjp
from dtwin_fast.interventions.gradients import target_gradients
from dtwin_fast.readouts import hazard_vjp
from dtwin_fast.twin import Twin
from dtwin_fast.weights import RNNWeights

TWINS = [("rnn", "hazard"), ("gru", "hazard"), ("lstm", "hazard"), ("rnn", "sigmoid")]
POLICIES = ("reject", "mask", "impute")
N_SUBJECTS = 5
ROOT = Path(__file__).resolve().parents[1]

OTHER_CODES = {
    # The C library opens files in the folder that it was given, and follows no link out of it.
    "config: absent": "file_missing",
    "folder: empty": "file_missing",
    "config: link to itself": "file_kind",
    # It counts the names of regions before it reads weights.
    "config: huge connectome": "model_content",
}

WANTED_STATUS = {
    "people_version": 1,
    "predictions_version": 1,
    "unit": 19,
    "missing": 19,
    "threads": 9,
    "many_threads": 9,
    "negative_subjects": 4,
    "negative_bytes": 4,
    "huge_subjects": 6,
    "no_edges": 7,
    "misaligned": 8,
    "overlap": 12,
    "no_names": 7,
    "negative_tasks": 4,
    "null_name": 7,
    "unknown_task": 18,
    "task_twice": 18,
    "many_tasks": 18,
    "infinite": 17,
    "nan": 17,
    "missing_regions": 17,
    "z_as_r": 17,
    "r_of_7": 17,
    "z_of_11": 17,
    "all_zero": 17,
    "no_subjects": 0,
    "nothing_wanted": 0,
    "vjp_version": 1,
    "vjp_no_d_edges": 7,
    "vjp_overlap": 12,
    "vjp_overlap_gradients": 12,
    "vjp_unknown_task": 18,
    "vjp_nan": 17,
    "vjp_no_subjects": 0,
    "null_model": 7,
    "null_people": 7,
    "null_folder": 7,
    "null_out": 7,
    "sizes_version": 1,
    "rollout_version": 1,
    "nobodys_weights": 0,
    "nobody_personalized": 0,
}


@pytest.fixture(scope="module")
def run(
    build_program: Callable[[str], Path], run_program: Callable[..., str]
) -> Callable[..., str]:
    """Run tests/cpp/c_model.c, linked with the C library that CMake builds."""
    return partial(run_program, build_program("c_model"))


@dataclass(frozen=True)
class Said:
    """What the program wrote, with the axes of a Prediction."""

    twin: Twin
    folder: Path
    tasks: tuple[str, ...]

    def __getitem__(self, name: str) -> np.ndarray:
        return np.fromfile(self.folder / name, np.uint8 if name == "diverged" else np.float32)

    def like(self, name: str, wanted: np.ndarray) -> np.ndarray:
        return self[name].reshape(wanted.shape)

    @property
    def weights(self) -> RNNWeights:
        return RNNWeights.from_flat(self["weights"].reshape(N_SUBJECTS, -1), self.twin.spec)

    @property
    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}


Asks = Callable[..., Said]
SameBits = Callable[[np.ndarray, np.ndarray], None]


@pytest.fixture
def check_bits(tolerances: ModuleType) -> SameBits:
    """Two arrays are the same; nearly so where the program is of another processor than Python."""

    def check(got: np.ndarray, wanted: np.ndarray) -> None:
        if "DTWIN_EMULATOR" in os.environ:
            tolerances.assert_close(got, wanted, "projected", "float32")
        else:
            assert np.array_equal(got, wanted)

    return check


@pytest.fixture
def ask(run: Callable[..., str], tmp_path: Path) -> Asks:
    """Run a twin from C: ``ask(twin, edges, unit, missing, tasks=, d_contrasts=, ...)``."""
    number = iter(range(100))

    def asked(
        twin: Twin,
        edges: np.ndarray,
        *,
        is_fisher_z: bool = False,
        missing: str = "reject",
        threads: int = 2,
        max_bytes: int = 0,
        tasks: tuple[str, ...] = (),
        **gradients: np.ndarray,
    ) -> Said:
        folder = tmp_path / str(next(number))
        twin.save(folder / "model")
        (folder / "in").mkdir()
        (folder / "out").mkdir()
        for name, array in {"edges": edges, **gradients}.items():
            array.astype(np.float32).tofile(folder / "in" / name)
        numbers = (len(edges), int(is_fisher_z), POLICIES.index(missing), threads, max_bytes)
        run("run", *(folder / name for name in ("model", "in", "out")), *map(str, numbers), *tasks)
        return Said(twin, folder / "out", tasks or tuple(twin.schedules))

    return asked


@pytest.fixture
def edges() -> np.ndarray:
    """(S,E) Pearson r of six regions; an edge of the first subject lies beyond the clip."""
    rng = np.random.default_rng(5)
    made = rng.uniform(-0.9, 0.9, (N_SUBJECTS, 15)).astype(np.float32)
    made[0, 2] = 1.0
    return made


def draw(twin: Twin, edges: np.ndarray, tasks: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Gradients of a loss with respect to a prediction."""
    rng = np.random.default_rng(6)
    prediction = twin.predict(edges, tasks or None, backend="cpu")
    names = ("choice_prob", "rt_s") if twin.spec.head == "hazard" else ()
    return {
        f"d_{name}": rng.standard_normal(getattr(prediction, name).shape).astype(np.float32)
        for name in (*names, "contrasts", "bold")
    }


@pytest.mark.parametrize(("cell", "head"), TWINS)
def test_predictions_are_pythons(
    cell: str,
    head: str,
    ask: Asks,
    edges: np.ndarray,
    tolerances: ModuleType,
    check_bits: SameBits,
) -> None:
    twin = small_twin(cell, head)
    said = ask(twin, edges, **draw(twin, edges))
    wanted = twin.personalize(edges).to_flat()
    tolerances.assert_close(said.like("weights", wanted), wanted, "c_weights", "float32")

    inputs = twin.encode(said.tasks)
    check_bits(said.like("inputs", inputs), inputs)
    rolled = rollout(said.weights, inputs, backend="cpu")
    outputs = said.like("outputs", rolled.outputs)
    check_bits(outputs, rolled.outputs)
    assert not said["diverged"].any()
    runs = [twin.read_run(name, outputs[:, b]) for b, name in enumerate(said.tasks)]
    for name in ("choice_prob", "rt_s"):
        responses = np.concatenate([getattr(run[0], name) for run in runs], axis=1)
        tolerances.assert_close(said.like(name, responses), responses, "c_readouts", "float32")
    contrasts = np.concatenate([run[1] for run in runs], axis=1)
    tolerances.assert_close(said.like("contrasts", contrasts), contrasts, "projected", "float32")
    n_actions = twin.spec.n_actions
    series = [
        outputs[:, b, twin.schedules[name].volume_steps(0.8, 0.08), n_actions:]
        for b, name in enumerate(said.tasks)
    ]
    bold = np.concatenate(series, axis=1)
    assert np.array_equal(said.like("bold", bold), bold)

    folds = np.zeros((len(said.tasks), 1, inputs.shape[1]), np.float32)
    for b, name in enumerate(said.tasks):
        folds[b, :, : twin.projections[name].shape[1]] = twin.projections[name]
    folded = rollout(said.weights, inputs, backend="cpu", time_projection=folds).outputs
    alone = folded[:, :, 0, n_actions:]
    check_bits(said.like("contrasts_alone", alone), alone)


def gradients_of(
    twin: Twin, said: Said, edges: Any, given: dict[str, np.ndarray], policy: Any
) -> np.ndarray:
    """Python's gradients of edges at the weights that C made."""
    inputs = twin.encode(said.tasks)
    outputs = rollout(said.weights, inputs, backend="cpu").outputs
    gradient = np.zeros(outputs.shape, np.float32)
    n_actions, dt_s, tr_s = twin.spec.n_actions, twin.spec.dt_s, twin.spec.tr_s
    trial = volume = row = 0
    for b, name in enumerate(said.tasks):
        schedule = twin.schedules[name]
        n_steps, n_rows = schedule.n_steps(dt_s), len(twin.contrasts[name])
        trials = slice(trial, trial := trial + schedule.n_trials)
        volumes = slice(volume, volume := volume + schedule.n_volumes(tr_s))
        rows = slice(row, row := row + n_rows)
        part = gradient[:, b, :n_steps]
        if "d_rt_s" in given:
            part[:, :, :n_actions] = hazard_vjp(
                outputs[:, b, :n_steps, :n_actions],
                schedule.response_windows(dt_s),
                schedule.onset_s,
                dt_s,
                given["d_choice_prob"][:, trials],
                given["d_rt_s"][:, trials],
            )
        part[:, :, n_actions:] = np.matmul(twin.projections[name].T, given["d_contrasts"][:, rows])
        if "d_bold" in given:
            part[:, schedule.volume_steps(tr_s, dt_s), n_actions:] += given["d_bold"][:, volumes]
    d_weights = rollout_vjp(said.weights, inputs, gradient, backend="cpu").weights
    return twin.edge_gradients(edges, d_weights, missing=policy)


@pytest.mark.parametrize(("cell", "head"), TWINS)
@pytest.mark.parametrize("alone", [False, True], ids=["all", "contrasts"])
def test_gradients_are_pythons(
    cell: str, head: str, alone: bool, ask: Asks, edges: np.ndarray, tolerances: ModuleType
) -> None:
    twin = small_twin(cell, head)
    given = draw(twin, edges)
    if alone:
        given = {"d_contrasts": given["d_contrasts"]}
    said = ask(twin, edges, **given)
    wanted = gradients_of(twin, said, edges, given, "reject")
    assert np.abs(wanted).max() > 0
    got = said.like("d_edges", wanted)
    assert got[0, 2] == 0  # beyond the clip
    scale = np.abs(wanted).max()
    tolerances.assert_close(got / scale, wanted / scale, "target_gradients", "float32")


@pytest.mark.parametrize("policy", ["mask", "impute"])
@pytest.mark.parametrize(("head", "is_fisher_z"), [("hazard", False), ("sigmoid", True)])
def test_missing_regions_are_filled_as_in_python(
    policy: Any,
    head: str,
    is_fisher_z: bool,
    ask: Asks,
    edges: np.ndarray,
    tolerances: ModuleType,
) -> None:
    twin = small_twin("gru", head)
    edges = edges * 2 if is_fisher_z else edges
    # Region b has no data; another subject lacks a and b, between which a number is left.
    edges[1, [0, 5, 6, 7, 8]] = np.nan
    edges[3, 1:9] = np.nan
    connectomes = Connectomes.from_arrays(edges, regions=twin.regions, is_fisher_z=is_fisher_z)
    assert connectomes.missing.sum(axis=1).tolist() == [0, 1, 0, 2, 0]
    d_contrasts = draw(twin, np.nan_to_num(np.clip(edges, -1, 1)))["d_contrasts"]
    said = ask(twin, edges, is_fisher_z=is_fisher_z, missing=policy, d_contrasts=d_contrasts)
    wanted = twin.personalize(connectomes, missing=policy).to_flat()
    tolerances.assert_close(said.like("weights", wanted), wanted, "c_weights", "float32")
    gradients = gradients_of(twin, said, connectomes, {"d_contrasts": d_contrasts}, policy)
    got = said.like("d_edges", gradients)
    assert np.array_equal(got == 0, gradients == 0)
    scale = np.abs(gradients).max()
    tolerances.assert_close(got / scale, gradients / scale, "target_gradients", "float32")


def test_bits_do_not_depend_on_threads_memory_or_company(ask: Asks, edges: np.ndarray) -> None:
    twin = small_twin("gru", "hazard")
    given = draw(twin, edges)
    whole = ask(twin, edges, **given).files
    assert len(whole) == 10
    assert ask(twin, edges, threads=1, **given).files == whole
    assert ask(twin, edges, max_bytes=1, **given).files == whole
    rows = slice(2, 3)
    one = ask(twin, edges[rows], **{name: array[rows] for name, array in given.items()}).files
    for name, content in one.items():
        of_each = len(whole[name]) // N_SUBJECTS
        wanted = whole[name] if name == "inputs" else whole[name][2 * of_each : 3 * of_each]
        assert content == wanted, name


def test_tasks_come_in_the_order_in_which_they_are_named(ask: Asks, edges: np.ndarray) -> None:
    twin = small_twin("rnn", "hazard")
    both = ask(twin, edges, **draw(twin, edges))
    turned = ask(
        twin,
        edges,
        tasks=("stroop", "faces"),
        **draw(twin, edges, ("stroop", "faces")),
    )
    rt_s, turned_rt_s = (said["rt_s"].reshape(N_SUBJECTS, 2, 2) for said in (both, turned))
    assert np.array_equal(turned_rt_s, rt_s[:, ::-1])
    one = ask(twin, edges, tasks=("stroop",), **draw(twin, edges, ("stroop",)))
    assert np.array_equal(one["rt_s"].reshape(N_SUBJECTS, 2), rt_s[:, 1])


def test_an_exploding_subject_is_flagged_and_changes_nobody(ask: Asks, edges: np.ndarray) -> None:
    twin = small_twin("rnn", "hazard")
    first = twin.layers[0]
    # Mish passes large positive sums on; weights of 1e38 times them leave float32.
    last = replace(twin.layers[1], weight=np.full_like(twin.layers[1].weight, 1e38))
    weight = np.zeros_like(first.weight)
    weight[:, 0] = 100
    twin = replace(twin, layers=(replace(first, weight=weight), last))
    edges[:, 0] = [-0.9, -0.8, 0.9, -0.85, -0.9]
    given = draw(twin, edges)
    said = ask(twin, edges, **given)
    assert said["diverged"].tolist() == [0, 0, 1, 0, 0]
    assert np.isnan(said["rt_s"].reshape(N_SUBJECTS, -1)).all(axis=1).tolist() == [
        *(False, False, True, False, False)
    ]
    others = [0, 1, 3, 4]
    without = ask(twin, edges[others], **{name: array[others] for name, array in given.items()})
    whole = said["contrasts"].reshape(N_SUBJECTS, -1)
    assert np.array_equal(without["contrasts"].reshape(4, -1), whole[others])


def test_sizes_and_names(run: Callable[..., str], tmp_path: Path) -> None:
    twin = small_twin("lstm", "sigmoid")
    sha256 = twin.save(tmp_path).sha256
    sizes, digest, regions, bold_regions, *tasks = run("describe", tmp_path).splitlines()
    weights = twin.personalize(np.full((1, 15), 0.5)).to_flat().shape[1]
    assert sizes == f"2 1 6 15 2 9 5 3 2 {weights} 2 0.080000000000000002 0.80000000000000004"
    assert digest == sha256
    assert regions.split() == list(twin.regions)
    assert bold_regions.split() == list(twin.spec.bold_regions)
    wanted = []
    for name, schedule in twin.schedules.items():
        counts = (schedule.n_steps(0.08), schedule.n_trials, schedule.n_volumes(0.8), 1)
        wanted.append(" ".join([name, *map(str, counts), *twin.contrasts[name]]))
    assert tasks == wanted


@pytest.mark.parametrize(("head", "more"), [("hazard", {}), ("sigmoid", {"vjp_behaviour": 20})])
def test_every_misuse_has_its_status_and_writes_nothing(
    head: Any, more: dict[str, int], run: Callable[..., str], tiny_twin: Twin, tmp_path: Path
) -> None:
    replace(tiny_twin, spec=replace(tiny_twin.spec, head=head)).save(tmp_path)
    said = [line.split(" ", 3) for line in run("misuses", tmp_path).splitlines()]
    assert {name: int(status) for name, status, *_ in said} == WANTED_STATUS | more
    assert [name for name, _, kept, _ in said if kept != "1"] == []
    texts = {name: text for name, _, _, text in said}
    assert texts["unknown_task"].startswith("[task] tasks: ")
    assert "faces | stroop" in texts["unknown_task"]
    assert texts["z_as_r"].startswith("[fisher_z_as_r] edges, subject number 1: ")


def test_a_bad_model_folder_has_pythons_code(
    run: Callable[..., str], tiny_twin: Twin, tmp_path: Path
) -> None:
    tiny_twin.save(tmp_path / "model")
    folders = {}
    for number, (row, case) in enumerate(MODELS.items()):
        a_file = tmp_path / "model" / "config.json"
        place = Place(tmp_path / str(number), tiny_twin, tmp_path / "model", a_file)
        place.folder.mkdir()
        assert case.words is not None
        folders[row] = str(case.words(place)[1]).split("\0")[0]
    said = run("load", tmp_path / "model", *folders.values()).splitlines()
    assert said.pop(0) == "0 "
    got = {row: line.split(" ", 2)[:2] for row, line in zip(folders, said, strict=True)}
    wanted = {row: OTHER_CODES.get(row, case.code) for row, case in MODELS.items()}
    assert got == {row: ["16", f"[{code}]"] for row, code in wanted.items()}


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ('{"format": 1, "format": 1}', "model_config"),  # which of the two would be meant?
        ('{"format": "\\ud800"}', "model_config"),
        ('{"format": "a\tb"}', "model_config"),
        ('\ufeff{"format": 1}', "model_config"),
        ("{} {}", "model_config"),
        ('{"a": 01}', "model_config"),
        ('{"a": 1.}', "model_config"),
        ('{"a": tru}', "model_config"),
        ('{"a": [1,]}', "model_config"),
    ],
)
def test_json_is_read_strictly(
    content: str, code: str, run: Callable[..., str], tmp_path: Path
) -> None:
    small_twin("rnn", "hazard").save(tmp_path)
    (tmp_path / "config.json").write_text(content, "utf-8")
    assert run("load", tmp_path).startswith(f"16 [{code}] {tmp_path}/config.json: ")


def test_a_file_of_the_folder_may_be_no_link(run: Callable[..., str], tmp_path: Path) -> None:
    small_twin("rnn", "hazard").save(tmp_path / "real")
    shutil.copytree(tmp_path / "real", tmp_path / "linked")
    (tmp_path / "linked" / "model.safetensors").unlink()
    (tmp_path / "linked" / "model.safetensors").symlink_to(tmp_path / "real/model.safetensors")
    (tmp_path / "folder").symlink_to(tmp_path / "real")  # the folder itself may be one
    linked, folder = run("load", tmp_path / "linked", tmp_path / "folder").splitlines()
    assert linked.startswith("16 [file_kind] ")
    assert "symbolic link" in linked
    assert folder == "0 "


def test_names_in_other_scripts_survive(run: Callable[..., str], tmp_path: Path) -> None:
    twin = small_twin("rnn", "hazard")
    twin.save(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["regions"] = ["左", "é", "🧠", "d", "e", "f"]
    path.write_text(json.dumps(config))  # with \u escapes, some of them in pairs
    assert run("describe", tmp_path).splitlines()[2].split() == config["regions"]


def test_threads_may_share_a_model(
    build_program: Callable[[str], Path], run_program: Callable[..., str], tmp_path: Path
) -> None:
    small_twin("gru", "hazard").save(tmp_path)
    said = run_program(build_program("model_threads"), tmp_path)
    assert said == "4 threads, 5 rounds, 0 wrong\n"


def test_no_memory_is_a_status_and_no_leak(
    build_program: Callable[[str], Path], run_program: Callable[..., str], tmp_path: Path
) -> None:
    small_twin("lstm", "hazard").save(tmp_path)
    said = run_program(build_program("model_memory"), tmp_path)
    counts, rest = said.split(" without memory: ")
    assert rest == "0 leaks, 0 other statuses\n"
    loads, calls = (int(part.split()[0]) for part in counts.split(", "))
    assert loads > 100
    assert calls > 50


@pytest.fixture(scope="module")
def prefix(
    build_folder: Path,
    build_program: Callable[[str], Path],
    tool: Callable[..., str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Where `cmake --install` put the C library."""
    if os.environ.get("DTWIN_CMAKE_OPTIONS"):
        pytest.skip("what links a sanitized or foreign library must be built like it")
    build_program("dtwin")
    folder = tmp_path_factory.mktemp("installed")
    tool("cmake", "--install", build_folder, "--prefix", folder / "first")
    return Path(shutil.move(folder / "first", folder / "moved"))  # it holds no path of its own


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A model, people, and what the examples must print of them."""
    folder = tmp_path_factory.mktemp("example")
    twin = small_twin("gru", "hazard").save(folder / "model")
    edges = np.random.default_rng(8).uniform(-0.9, 0.9, (2, 15)).astype(np.float32)
    edges.tofile(folder / "edges")
    prediction = twin.predict(edges, ["faces"], backend="cpu")
    target = "faces:faces>shapes:LH_V1"
    gradients = target_gradients(twin, edges, target, backend="cpu").edges.astype(np.float64)
    lines = [["subject", "quantity", "where", "value"]]
    for s in range(2):
        lines.append([str(s), "mean_rt_s", "faces", f"{prediction.rt_s[s].mean():.6f}"])
        for q, region in enumerate(prediction.bold_regions):
            lines.append([str(s), "faces>shapes", region, f"{prediction.contrasts[s, 0, q]:.6f}"])
        lines.append([str(s), "squared_gradient", "edges", f"{(gradients[s] ** 2).sum():.6f}"])
    return folder / "model", folder / "edges", "".join("\t".join(line) + "\n" for line in lines)


def check_table(said: str, wanted: str) -> None:
    """Two tables have the same names, and numbers within tolerances.py and their six digits."""
    got_rows, wanted_rows = ([line.split("\t") for line in t.splitlines()] for t in (said, wanted))
    assert [row[:3] for row in got_rows] == [row[:3] for row in wanted_rows]
    for got, expected in zip(got_rows[1:], wanted_rows[1:], strict=True):
        assert float(got[3]) == pytest.approx(float(expected[3]), rel=4e-5, abs=2e-6)


def check_refusals(program: Path, edges: Path, folder: Path) -> None:
    """An example refuses what is no model, and a model without BOLD."""
    twin = small_twin("gru", "hazard", bold_regions=())
    twin.save(folder / "no-bold")
    for model, said in ((edges, "[model_folder]"), (folder / "no-bold", "no contrast in a region")):
        refused = subprocess.run([program, model, edges], capture_output=True, text=True)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert said in refused.stderr


def test_the_c_example_builds_by_cmake(
    prefix: Path, example: tuple[Path, Path, str], tool: Callable[..., str], tmp_path: Path
) -> None:
    model, edges, wanted = example
    tool("cmake", "-S", ROOT / "examples/c", "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}")
    tool("cmake", "--build", tmp_path)
    check_table(tool(str(tmp_path / "predict"), model, edges), wanted)


def test_the_c_example_builds_by_pkg_config_and_leaks_nothing(
    prefix: Path, example: tuple[Path, Path, str], tool: Callable[..., str], tmp_path: Path
) -> None:
    if not shutil.which("pkg-config") or not shutil.which("cc"):
        pytest.skip("pkg-config or a C compiler called cc is not here")
    model, edges, wanted = example
    found = str(prefix / "lib" / "pkgconfig")
    flags = tool("pkg-config", "--cflags", "--libs", "dtwin", PKG_CONFIG_PATH=found).split()
    source, program = ROOT / "examples" / "c" / "predict.c", tmp_path / "predict"
    strict = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror")
    tool("cc", *strict, source, *flags, f"-Wl,-rpath,{prefix}/lib", "-o", program)
    check_table(tool(str(program), model, edges), wanted)
    check_refusals(program, edges, tmp_path)
    if not shutil.which("valgrind"):
        pytest.skip("the example ran; valgrind, which looks for leaks, is not here")
    # valgrind knows no AVX-512.
    said = tool(
        *("valgrind", "--quiet", "--error-exitcode=9", "--leak-check=full"),
        *("--show-leak-kinds=all", "--errors-for-leak-kinds=all", program, model, edges),
        DTWIN_ISA="baseline",
    )
    check_table(said, wanted)


def test_the_rust_example_builds_by_cargo(
    prefix: Path, example: tuple[Path, Path, str], tool: Callable[..., str], tmp_path: Path
) -> None:
    if not shutil.which("cargo") or not shutil.which("pkg-config"):
        pytest.skip("cargo or pkg-config is not here")
    model, edges, wanted = example
    shutil.copytree(ROOT / "examples" / "rust", tmp_path / "rust")
    tool(
        *("cargo", "build", "--offline", "--quiet"),
        *("--manifest-path", tmp_path / "rust" / "Cargo.toml", "--target-dir", tmp_path / "built"),
        PKG_CONFIG_PATH=str(prefix / "lib" / "pkgconfig"),
        RUSTFLAGS="-D warnings",
    )
    program = tmp_path / "built" / "debug" / "predict"
    check_table(tool(str(program), model, edges), wanted)
    check_refusals(program, edges, tmp_path)
