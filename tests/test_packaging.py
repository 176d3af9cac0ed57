"""The recipes of containers in packaging/: linted, and true to the project. Nothing is built.

There is no linter of Apptainer recipes: what apptainer's own parser asks of them is checked here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from dtwin_fast.cli import build_parser
from dtwin_fast.serve import Settings

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "packaging" / "Dockerfile"
RECIPE = ROOT / "packaging" / "dtwin.def"
SECTIONS = {
    *("arguments", "setup", "files", "appinstall", "post", "environment", "runscript"),
    *("startscript", "test", "labels", "help"),
}
SCRIPTS = ("post", "environment", "runscript", "startscript", "test")
Stage = tuple[dict[str, str], dict[str, list[str]]]


def hadolint(path: Path) -> subprocess.CompletedProcess[str]:
    known = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    program = shutil.which("hadolint", path=known)
    if program is None:
        pytest.skip("hadolint is not installed (its wheels are for x86-64)")
    words = [program, "--failure-threshold=style", str(path)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


def stages(text: str) -> list[Stage]:
    """Header and sections (by their whole title) of each stage of an Apptainer recipe.

    Raises:
        ValueError: lines where no line may be.
    """
    found: list[Stage] = []
    lines: list[str] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.fullmatch(r"(Bootstrap|From|Stage): (\S+)", line):
            if header[1] == "Bootstrap":
                found.append(({}, {}))
                lines = None
            if lines is not None or header[1] in found[-1][0]:
                raise ValueError(f"line {number}: a header after its sections, or twice")
            found[-1][0][header[1]] = header[2]
        elif title := re.fullmatch(r"%((\w+)( from \w+)?)", line):
            if title[2] not in SECTIONS or title[1] in found[-1][1]:
                raise ValueError(f"line {number}: no section, or one twice")
            lines = found[-1][1].setdefault(title[1], [])
        elif line.startswith("    ") and lines is not None:
            lines.append(line.strip())
        elif line:
            raise ValueError(f"line {number}: {line!r}")
    return found


@pytest.fixture(scope="module")
def recipe() -> list[Stage]:
    return stages(RECIPE.read_text())


def copied() -> dict[str, str]:
    """Source -> place, of what Docker copies from the project."""
    pairs = {}
    for line in DOCKERFILE.read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            *sources, target = line.split()[1:]
            folder = "" if target == "./" else target
            pairs |= {source: f"/src/{folder or source}" for source in sources}
    return pairs


def test_the_linter_finds_nothing() -> None:
    ran = hadolint(DOCKERFILE)
    assert (ran.returncode, ran.stdout) == (0, "")


def test_the_linter_would_find_something(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN cd /src && pip install numpy\n")
    ran = hadolint(bad)
    assert ran.returncode != 0
    assert "DL3006" in ran.stdout


def test_what_is_copied_is_enough_to_build(tmp_path: Path, tool: Callable[..., str]) -> None:
    for source in copied():
        here, there = ROOT / source, tmp_path / "src" / source
        there.parent.mkdir(parents=True, exist_ok=True)
        if here.is_dir():
            shutil.copytree(here, there, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(here, there)
    tool("cmake", "-S", tmp_path / "src", "-B", tmp_path / "build", "-DDTWIN_CUDA=OFF")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = project["tool"]["scikit-build"]["wheel"]["packages"].values()
    files = [project["project"]["readme"], *project["project"]["license-files"]]
    assert {*folders, *files} <= set(copied())


def test_the_server_starts_as_docker_says() -> None:
    text = DOCKERFILE.read_text()
    words: list[str] = []
    for name in ("ENTRYPOINT", "CMD"):
        (line,) = re.findall(rf"^{name} (\[.*\])$", text, re.MULTILINE)
        words += json.loads(line)
    assert words.pop(0) == "dtwin"
    args = build_parser().parse_args(words)
    # Others reach it, so it must ask for tokens.
    settings = Settings(host=args.host, tokens=args.tokens)
    assert not settings.is_loopback
    (ports,) = re.findall(r"^EXPOSE (.*)$", text, re.MULTILINE)
    assert ports == f"{settings.port} {settings.grpc_port}"
    assert re.findall(r"^USER (\d+)", text, re.MULTILINE) == ["10001"]
    (stop,) = re.findall(r"--stop-timeout (\d+)", text)
    assert int(stop) > settings.drain_s


def test_apptainer_builds_what_docker_does(recipe: list[Stage]) -> None:
    (build, of_build), (final, of_final) = recipe
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.MULTILINE)
    assert [build["From"], final["From"]] == bases
    assert {build["Bootstrap"], final["Bootstrap"]} == {"docker"}
    assert dict(line.split() for line in of_build["files"]) == copied()
    assert f"files from {build['Stage']}" in of_final
    assert "exec dtwin serve" in of_final["runscript"][0]
    assert of_final["runscript"] == of_final["startscript"]


def test_scripts_are_shell(recipe: list[Stage]) -> None:
    for _, sections in recipe:
        for name in SCRIPTS:
            script = "\n".join(sections.get(name, []))
            ran = subprocess.run(["sh", "-n"], input=script, capture_output=True, text=True)
            assert (ran.returncode, ran.stderr) == (0, ""), name


@pytest.mark.parametrize(
    "text",
    [
        "Bootstrap: docker\nFrom: a\n%pots\n    true\n",
        "Bootstrap: docker\n%post\n    true\nFrom: a\n",
        "Bootstrap: docker\nBase: a\n",
        "Bootstrap: docker\n%post\n    true\n%post\n    true\n",
    ],
)
def test_recipes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="line"):
        stages(text)
