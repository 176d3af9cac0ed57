"""The wheel in an environment with numpy alone: what it holds, what works, what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dtwin_fast.twin import Twin

ROOT = Path(__file__).resolve().parents[1]
HEAVY = (
    *("torch", "triton", "nilearn", "nibabel", "h5py", "pandas", "scipy", "xarray", "tqdm"),
    *("sklearn", "rich", "matplotlib", "pip"),
)

pytestmark = pytest.mark.slow

Completed = subprocess.CompletedProcess[str]
RunScript = Callable[..., Completed]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the checkout, built beside it."""
    pytest.importorskip("scikit_build_core")
    pytest.importorskip("pybind11")
    folder = tmp_path_factory.mktemp("wheel")
    pip(
        sys.executable,
        *("wheel", "--no-build-isolation", "--no-deps", f"-Cbuild-dir={folder / 'build'}"),
        *("--wheel-dir", folder, ROOT),
    )
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with numpy and the wheel."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=True)
    interpreter = folder / "bin" / "python"
    pip(interpreter, "install", "--only-binary=:all:", "numpy")
    pip(interpreter, "install", "--no-index", wheel)
    return interpreter


@pytest.fixture(scope="module")
def inputs(tiny_twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, connectomes and the names of their regions."""
    folder = tmp_path_factory.mktemp("inputs")
    tiny_twin.save(folder / "model")
    series = np.random.default_rng(2).standard_normal((3, len(tiny_twin.regions), 60))
    np.save(folder / "fc.npy", np.stack([np.corrcoef(person) for person in series]))
    (folder / "regions.tsv").write_text("\n".join(["name", *tiny_twin.regions]))
    return folder


def pip(python: str | Path, *words: str | Path) -> None:
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    ran = subprocess.run(
        [*command, *map(str, words)], capture_output=True, text=True, timeout=900, check=False
    )
    assert ran.returncode == 0, ran.stderr[-3000:]


def run(*words: str | Path) -> Completed:
    # Of the surroundings nothing may help: no PYTHONPATH, no checkout as working directory.
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        list(map(str, words)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
        cwd="/",
    )


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for name in ("__init__.py", "py.typed", "kernels/__init__.py", "export/__init__.py",
                 "benchmarks/suite.py", "benchmarks/limits.cpp"):  # fmt: skip
        assert f"dtwin_fast/{name}" in names
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "dtwin_fast").rglob("*.py")}
    assert package <= set(names)
    core, *others = sorted(name for name in names if name.endswith(".so"))
    assert core.startswith("dtwin_fast/_core.")
    assert others in ([], ["dtwin_fast/libdtwin_ort.so"])  # there where its header was found
    assert any(name.endswith("licenses/LICENSE") for name in names)
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"dtwin_fast"}
    endings = {Path(name).suffix for name in names if name.startswith("dtwin_fast/")}
    assert endings == {".py", ".pyi", ".typed", ".so", ".cpp", ".toml", ".html", ".css", ".js"}
    assert "dtwin_fast/report/templates/page.html" in names
    assert [name for name in names if name.endswith(".cpp")] == ["dtwin_fast/benchmarks/limits.cpp"]


def test_the_wheel_needs_numpy_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    needs = [line.split(": ")[1] for line in lines if line.startswith("Requires-Dist")]
    assert [need for need in needs if "extra ==" not in need] == ["numpy>=1.26"]


def test_import_loads_numpy_alone(python: Path) -> None:
    code = f"import dtwin_fast, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    ran = run(python, "-W", "error", "-c", code)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "[]\n", "")


def test_import_comes_from_the_wheel(python: Path) -> None:
    ran = run(python, "-c", "import dtwin_fast; print(dtwin_fast.__file__)")
    assert Path(ran.stdout.strip()).is_relative_to(python.parents[1])


def test_a_model_predicts_from_an_array(python: Path, inputs: Path, tiny_twin: Twin) -> None:
    code = (
        "import dtwin_fast, numpy, sys\n"
        "twin = dtwin_fast.load(sys.argv[1] + '/model')\n"
        "p = twin.predict(numpy.load(sys.argv[1] + '/fc.npy'))\n"
        "numpy.savez(sys.argv[1] + '/result.npz', prob=p.choice_prob, contrasts=p.contrasts)\n"
    )
    ran = run(python, "-W", "error", "-c", code, inputs)
    assert (ran.returncode, ran.stderr) == (0, "")
    result = np.load(inputs / "result.npz", allow_pickle=False)
    here = tiny_twin.predict(np.load(inputs / "fc.npy", allow_pickle=False))
    # Another numpy may bring another BLAS.
    np.testing.assert_allclose(result["prob"], here.choice_prob, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(result["contrasts"], here.contrasts, rtol=1e-3, atol=1e-4)


def test_dtwin_predict(python: Path, inputs: Path, tmp_path: Path) -> None:
    words = [inputs / "model", inputs / "fc.npy", "--regions", inputs / "regions.tsv"]
    ran = run(python.with_name("dtwin"), "predict", *words, "--out", tmp_path / "out", "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["subjects"] == 3
    assert "pip install 'dtwin_fast[cli]'" in ran.stderr
    assert (tmp_path / "out" / "dataset_description.json").is_file()


def test_dtwin_doctor_names_what_is_missing(python: Path) -> None:
    ran = run(python.with_name("dtwin"), "doctor")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "reference: no: torch is not installed" in ran.stdout
    assert "triton: no: torch and triton not installed" in ran.stdout
    for extra in ("torch", "triton", "neuro", "xarray", "cli", "evaluate", "report"):
        assert f"pip install 'dtwin_fast[{extra}]'" in ran.stdout


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["demo", "--out", "{out}"], "demo"),
        (["bench"], "bench"),
        (["study", "pain-sites", "{in}", "--out", "{out}"], "evaluate"),
        (["train", "{out}/cohort", "--out", "{out}/model"], "torch"),
        (["simulate", "--out", "{out}", "--people", "3", "--n-regions", "16"], "neuro"),
        (["predict", "{in}/model", "{in}/x.pconn.nii", "--out", "{out}"], "neuro"),
    ],
    ids=["demo", "bench", "study", "train", "simulate", "predict CIFTI"],
)
def test_a_missing_extra_is_one_line_with_the_way_out(
    python: Path, inputs: Path, tmp_path: Path, words: list[str], extra: str
) -> None:
    (inputs / "x.pconn.nii").write_bytes(b"\x00" * 1000)
    named = [
        word.replace("{out}", f"{tmp_path}/out").replace("{in}", str(inputs)) for word in words
    ]
    ran = run(python.with_name("dtwin"), *named)
    assert ran.returncode == 2
    assert ran.stdout == ""
    message = [line for line in ran.stderr.splitlines() if not line.startswith("predict ...")]
    assert len(message) == 1
    assert message[0].startswith("dtwin: ")
    assert message[0].endswith(f"pip install 'dtwin_fast[{extra}]'")
    assert not (tmp_path / "out").exists()


def test_training_needs_torch_and_says_so(python: Path) -> None:
    code = (
        "import dtwin_fast\n"
        "try: import dtwin_fast.training\n"
        "except dtwin_fast.MissingExtraError as error: print(error.package, error)\n"
    )
    ran = run(python, "-c", code)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("torch ")
    assert "pip install 'dtwin_fast[" in ran.stdout
