"""``dtwin report``: what is read, what stands in the pages, what is refused."""

from __future__ import annotations

import base64
import itertools
import json
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtwin_fast.cli import main
from dtwin_fast.errors import DTwinInputError, MissingExtraError
from dtwin_fast.prediction_files import NOTICE
from dtwin_fast.report import page, write_report
from dtwin_fast.report.controls import controls
from dtwin_fast.report.figures.predictions import person_means
from dtwin_fast.report.intervention import read_intervention
from dtwin_fast.report.networks import arrange, as_matrix, strongest
from dtwin_fast.report.positions import drawn_regions
from dtwin_fast.report.scores import read_scores
from dtwin_fast.report.tables import person_blocks
from dtwin_fast.report.words import answer, number, p_value, percent, signed, significant
from dtwin_fast.spec import BOLD_REGIONS_20
from dtwin_fast.twin import Twin

HERE = Path(__file__).parent
write_folder = runpy.run_path(str(HERE / "report_folder.py"))["write_folder"]
REAL = runpy.run_path(str(HERE / "report_real.py"))

MEGABYTE = 10**6
PEOPLE: int = REAL["PEOPLE"]


@pytest.fixture(scope="module")
def results(tiny_twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an intervention and scores of the same people, as their commands write them."""
    out: Path = REAL["reported_results"](tiny_twin, tmp_path_factory.getbasetemp())
    return out


@pytest.fixture
def report(results: Path) -> Path:
    """Its report."""
    return results / "report"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an intervention alone, of two methods."""
    write_folder(tmp_path / "intervention", n_people=3)
    return tmp_path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with an intervention that is quickly reported."""
    write_folder(tmp_path / "intervention", n_people=3, methods=("weights",))
    return tmp_path


@dataclass
class Seen(HTMLParser):
    """What a page holds."""

    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ("meta", "img", "br", "link", "input"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.problems.append(f"</{tag}> closes something else")

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.text.append(data)

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def seen(path: Path) -> Seen:
    parser = Seen()
    parser.feed(path.read_text("utf-8"))
    parser.close()
    assert parser.problems == []
    assert parser._open == []
    return parser


def test_a_page_for_the_cohort_and_for_everybody(report: Path) -> None:
    names = {path.name for path in report.iterdir()}
    assert names == {"index.html", *(f"sub-{i + 1:05d}.html" for i in range(PEOPLE))}


def test_every_page_is_small_and_needs_nothing_from_outside(report: Path) -> None:
    for path in report.iterdir():
        assert path.stat().st_size < MEGABYTE
        text = path.read_text("utf-8")
        assert re.findall(r"(?i)https?:|//[a-z0-9]|@import|url\(", _without_images(text)) == []
        content = seen(path)
        assert content.of("script") == content.of("link") == content.of("iframe") == []
        assert all(image["src"].startswith("data:image/") for image in content.of("img"))
        (policy,) = (m for m in content.of("meta") if "http-equiv" in m)
        assert policy["content"].startswith("default-src 'none'; img-src data:;")


def _without_images(text: str) -> str:
    return re.sub(r"data:image/[a-z+]+;base64,[A-Za-z0-9+/=]*", "", text)


def test_pictures_name_only_namespaces(report: Path) -> None:
    found = set()
    for image in seen(report / "index.html").of("img"):
        kind, data = image["src"].split(";base64,")
        if kind == "data:image/svg+xml":
            text = base64.b64decode(data).decode()
            found |= set(re.findall(r'(?:href|src)="([^"#]+)', text))
            assert "<script" not in text
    assert all(address.startswith("data:") for address in found)


def test_pages_are_written_for_every_reader(report: Path) -> None:
    for path in report.iterdir():
        content = seen(path)
        assert content.of("html") == [{"lang": "en"}]
        assert len(content.of("h1")) == len(content.of("main")) == len(content.of("nav")) == 1
        levels = [int(tag[1]) for tag, _ in content.tags if re.fullmatch("h[1-6]", tag)]
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
        ids = [attributes["id"] for _, attributes in content.tags if "id" in attributes]
        assert len(set(ids)) == len(ids)
        assert len(content.of("img")) == len(content.of("figcaption")) > 0
        for image in content.of("img"):
            assert len(image["alt"]) > 30
            assert int(image["width"]) > 0
            assert int(image["height"]) > 0
        assert len(content.of("caption")) == len(content.of("table")) > 0
        assert all(cell["scope"] in ("row", "col") for cell in content.of("th"))
        first = next(tag for tag in content.tags if tag[0] == "a")
        assert first == ("a", {"class": "skip", "href": "#content"})


def test_links_lead_somewhere(report: Path) -> None:
    for path in report.iterdir():
        content = seen(path)
        ids = {attributes.get("id") for _, attributes in content.tags}
        for link in content.of("a"):
            address = link["href"]
            assert address[1:] in ids if address.startswith("#") else (report / address).is_file()
    links = {link["href"] for link in seen(report / "index.html").of("a")}
    assert {f"sub-{i + 1:05d}.html" for i in range(PEOPLE)} <= links
    back = [link["href"] for link in seen(report / "sub-00002.html").of("a")]
    assert {"index.html", "sub-00001.html", "sub-00003.html"} <= set(back)


def test_every_page_says_what_it_is_not(report: Path) -> None:
    for path in report.iterdir():
        content = seen(path)
        assert content.words.count(NOTICE) == 2
        assert {"class": "notice", "role": "note"} in content.of("p")


def test_the_cohorts_page_answers_the_question(report: Path, results: Path) -> None:
    words = seen(report / "index.html").words
    run = read_intervention(results / "intervention")
    assert "Asked: what would move the response of the right amygdala" in words
    for method in run.methods:
        effect = run.effects[method].effect
        assert f"by {number(effect.mean())} SD of the people before on average" in words
        assert f"SD over people {number(effect.std(ddof=1))}" in words
    for line in controls(run):
        assert line.name in words
        assert line.meaning in words
        assert all(value in words for value in line.values)
    for section in ("Predictions against data", "Where:", "Doses,", "People", "Flags, settings"):
        assert section in words
    assert all(flag in words for flag in run.about.texts("flags"))
    assert run.about.fields("provenance").text("model_sha256") in words


def test_scores_stand_beside_their_floors(report: Path, results: Path) -> None:
    words = seen(report / "index.html").words
    rows = json.loads((results / "scores" / "scores.json").read_text())["rows"]
    assert rows
    for row in rows:
        cells = [row["metric"] + (f" ({row['unit']})" if row["unit"] not in ("", "r") else "")]
        score = number(np.nan if row["model"] is None else row["model"], 3)
        cells += [row["split"], row["task"], score]
        assert " ".join(cells) in words
    assert "The floor is the best trivial baseline" in words


def test_a_persons_page_is_theirs(report: Path, results: Path) -> None:
    run = read_intervention(results / "intervention")
    content = seen(report / "sub-00003.html")
    words = content.words
    for method in run.methods:
        effects = run.effects[method]
        rank = 1 + int((effects.effect > effects.effect[2]).sum())
        values = [effects.pre[2], effects.post[2], effects.predicted[2]]
        cells = [*map(significant, values), signed(effects.effect[2]), f"{rank} of {PEOPLE}"]
        assert " ".join(cells) in words
        assert "sub-00003 marked" in " ".join(image["alt"] for image in content.of("img"))
    change = run.person_map("connectome", "change", 2)
    best = int(np.abs(change).argmax())
    names = " ".join(run.regions[i] for i in run.ends[:, best])
    assert f"{names} " in words
    assert significant(float(change[best])) in words
    assert "Previous: sub-00002" in words
    assert run.effects["connectome"].flags[2].split(", ")[0] in words


def test_pages_of_people_differ_in_their_pictures(report: Path) -> None:
    first, second = (
        [image["src"] for image in seen(report / f"sub-0000{i}.html").of("img")] for i in (1, 2)
    )
    assert len(first) == len(second) >= 8
    assert all(a != b for a, b in zip(first, second, strict=True))


def test_the_same_results_give_the_same_report(small: Path) -> None:
    report = write_report(small, 1).index.parent
    before = {path.name: path.read_bytes() for path in report.iterdir()}
    write_report(small, 1)
    assert {path.name: path.read_bytes() for path in report.iterdir()} == before


@pytest.mark.parametrize("methods", [("connectome",), ("weights",), ("edit",)], ids=str)
def test_one_method_is_enough(tmp_path: Path, methods: tuple[str, ...]) -> None:
    write_folder(tmp_path / "here", n_people=2, methods=methods)
    written = write_report(tmp_path / "here")
    assert written.index == tmp_path / "here" / "report" / "index.html"
    words = seen(written.index).words
    is_edit = methods == ("edit",)
    assert ("Asked: what site:LH_first:0.2 would do to" in words) == is_edit
    assert ("What would an edit do to amygdala-right?" in words) == is_edit
    assert ("Asked: what would move" in words) != is_edit
    assert ("mean change (Fisher z)" in words) is False
    assert ("change (Fisher z)" in words) == (methods != ("weights",))


def test_scores_alone(results: Path, tmp_path: Path) -> None:
    shutil.copytree(results / "scores", tmp_path / "scores")
    written = write_report(tmp_path, ["sub-00002"])
    assert (written.people, written.index.with_name("sub-00002.html").is_file()) == (1, True)
    words = seen(written.index).words
    assert "Predictions against data" in words
    assert "The question and the answer" not in words


def test_people_without_scores_and_scores_without_figures(results: Path, tmp_path: Path) -> None:
    shutil.copytree(results / "scores", tmp_path / "scores")
    shutil.rmtree(tmp_path / "scores" / "figures")
    write_folder(tmp_path / "intervention", n_people=2, sources=("sub-00001", "somebody else"))
    written = write_report(tmp_path, 2)
    other = seen(written.index.with_name("sub-002.html")).words
    assert "This person was not in the evaluation." in other
    words = seen(written.index).words
    assert "Delta plot" not in words
    # Those who were scored only come after the people of the intervention.
    assert "2 of 9 people have a page." in words
    assert "sub-00008 sub-00008 not in it" in words


def test_what_was_not_done_is_said_so(folder: Path) -> None:
    path = folder / "intervention" / "intervention.json"
    about = json.loads(path.read_text())
    method = about["methods"]["connectome"]
    for name in ("predicted_r", "random", "stability", "range", "monotone_share"):
        method[name] = None
    method["mean_effect"] = None
    path.write_text(json.dumps(about))
    run = read_intervention(folder / "intervention")
    values = {line.name: line.values[0] for line in controls(run)}
    assert values["Matched random directions"] == values["Out of range"] == "not done"
    assert "The effect could not be computed." in seen(write_report(folder, 0).index).words


HOSTILE = "<script>alert(1)</script>&\"'"


def test_names_from_files_are_escaped(tmp_path: Path) -> None:
    out = tmp_path / "intervention"
    write_folder(out, n_people=3, first_region=HOSTILE, sources=(HOSTILE, "b", "$x$ 漢字"))
    path = out / "intervention.json"
    about = json.loads(path.read_text())
    about["target"]["name"] = HOSTILE
    about["flags"] = [HOSTILE, "{{ 7 * 7 }}"]
    about["settings"][HOSTILE] = "</style><img src=x onerror=alert(1)>"
    path.write_text(json.dumps(about))
    written = write_report(tmp_path)
    for path in written.index.parent.iterdir():
        content = seen(path)
        assert content.of("script") == []
        assert all("onerror" not in image for image in content.of("img"))
        assert HOSTILE in content.words
    index = seen(written.index).words
    assert "$x$ 漢字" in index
    assert "{{ 7 * 7 }}" in index


def test_large_connectomes_and_many_people_give_small_pages(tmp_path: Path) -> None:
    networks = tuple(f"Network{i}" for i in range(21))
    write_folder(tmp_path / "large", n_people=2, n_regions=446, networks=networks)
    assert write_report(tmp_path / "large", 1).largest_bytes < MEGABYTE
    write_folder(tmp_path / "many", n_people=600, n_regions=8, methods=("weights",))
    written = write_report(tmp_path / "many", 1)
    assert written.largest_bytes < MEGABYTE
    words = seen(written.index).words
    assert "100 more people are not listed" in words
    assert "200 of them drawn" in " ".join(seen(written.index).words.split())


def test_a_page_that_would_be_too_large_leaves_out_what_is_folded(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write_report(small, 0)
    assert "<details>" in whole.index.read_text()
    monkeypatch.setattr(page, "MOST_BYTES", whole.largest_bytes - 1)
    less = write_report(small, 0)
    assert less.largest_bytes < whole.largest_bytes
    text = less.index.read_text()
    assert "<details>" not in text
    assert "All 16 regions: in regions.tsv." in text


def test_people_left_out_and_flags_are_listed(folder: Path) -> None:
    index = write_report(folder, ["sub-002"]).index
    words = seen(index).words
    assert "somebody the matrix is not symmetric" in words
    assert "sub-002: the connectome is outside the training range" in words
    assert "beyond_range, few_edges" in words
    assert "beyond_range, few_edges" in seen(index.with_name("sub-002.html")).words


def test_controls_that_a_method_has_not_do_not_apply(folder: Path) -> None:
    values = {
        line.name: line.values for line in controls(read_intervention(folder / "intervention"))
    }
    assert values["Participation ratio"] == ["does not apply", "18.7; r 0.29 by chance"]
    assert values["Out of range"][1] == "does not apply"
    assert values["True effect"][0] == "not done"
    assert values["True effect"][1].startswith("cosine +0.30 [0.20, 0.40]")


def test_pages_of_an_earlier_report_go_and_other_files_stay(small: Path) -> None:
    report = write_report(small).index.parent
    (report / "sub-mine.html").write_text("<p>notes</p>")
    (report / "notes.txt").write_text("notes")
    write_report(small, ["sub-002"])
    names = {path.name for path in report.iterdir()}
    assert names == {"index.html", "sub-002.html", "sub-mine.html", "notes.txt"}


def test_the_index_goes_before_pages_change(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = write_report(small).index

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_report(small, progress=stop)
    assert not index.exists()


def test_progress_counts_pages(small: Path) -> None:
    told: list[tuple[int, int]] = []
    write_report(small, 2, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_the_command(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(small), "--people", "002,sub-001"]) == 0
    index = small / "report" / "index.html"
    assert capsys.readouterr().out == f"{index}\n"
    assert main(["report", str(small), "--people", "none", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["index"], told["people"]) == (str(index), 0)
    assert told["notice"] == NOTICE
    assert told["largest_bytes"] == index.stat().st_size


@pytest.mark.parametrize("people", ["", ","])
def test_people_that_name_nobody(people: str, small: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["report", str(small), "--people", people])
    assert stopped.value.code == 2


def test_unknown_people_are_named_beside_known_ones(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(small), "--people", "sub-001,nobody"]) == 2
    error = capsys.readouterr().err
    assert "[argument] --people: there are no such people" in error
    assert "wanted sub-001, sub-002, sub-003; got sub-nobody" in error
    assert not (small / "report").exists()


def _cut(name: str, column: str) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        path = folder / name
        rows = [line.split("\t") for line in path.read_text().splitlines()]
        at = rows[0].index(column)
        path.write_text("\n".join("\t".join(row[:at] + row[at + 1 :]) for row in rows))

    return damage


def _write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def _replace(name: str, old: str, new: str) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return damage


def _about(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        about = json.loads((folder / "intervention.json").read_text())
        change(about)
        (folder / "intervention.json").write_text(json.dumps(about))

    return damage


BAD = {
    "json": (_write("intervention.json", "{"), "report", "not valid JSON"),
    "json list": (_write("intervention.json", "[1]"), "report", "a JSON object"),
    "empty json": (_write("intervention.json", ""), "file_empty", "empty"),
    "no methods": (_about(lambda a: a.update(methods={})), "report", "a method"),
    "target": (_about(lambda a: a.pop("target")), "report", "text"),
    "goal": (_about(lambda a: a["target"].update(goal=3)), "report", "text"),
    "people": (_about(lambda a: a.update(people=-1)), "report", "whole number"),
    "flags": (_about(lambda a: a.update(flags="x")), "report", "list of texts"),
    "number": (
        _about(lambda a: a["methods"]["weights"].update(mean_effect="x")),
        "report",
        "a number or null",
    ),
    "no effects": (lambda f: (f / "effects.tsv").unlink(), "file_missing", "effects.tsv"),
    "columns": (_cut("effects.tsv", "post"), "report", "columns are missing"),
    "people twice": (
        _replace("effects.tsv", "sub-002\tperson_2", "sub-001\tperson_2"),
        "report",
        "each with one id",
    ),
    "other method": (_replace("effects.tsv", "weights", "edges"), "report", "3 people"),
    "words": (_replace("doses.tsv", "-3\t", "x\t"), "report", "not a number"),
    "doses of others": (_replace("doses.tsv", "sub-003", "sub-004"), "report", "effects.tsv"),
    "regions": (_cut("regions.tsv", "connectome_change"), "report", "connectome_change"),
    "edges": (_replace("edges.tsv", "region_015", "elsewhere"), "report", "regions.tsv"),
    "fewer edges": (
        lambda f: (f / "edges.tsv").write_text(
            "\n".join((f / "edges.tsv").read_text().splitlines()[:-1])
        ),
        "report",
        "120 edges of 16 regions",
    ),
    "no range": (_cut("range.tsv", "mahalanobis"), "report", "mahalanobis"),
    "maps": (
        lambda f: np.save(f / "maps" / "weights_gradient.npy", np.zeros((2, 120), np.float32)),
        "report",
        "(3, 120)",
    ),
    "no array": (_write("maps/weights_gradient.npy", "text"), "unreadable", "damaged"),
    "ragged": (_write("random.tsv", "method\tmean_effect\na"), "table_ragged", "random.tsv"),
}


@pytest.mark.parametrize("case", BAD)
def test_damaged_results_are_refused(case: str, folder: Path) -> None:
    damage, code, words = BAD[case]
    damage(folder / "intervention")
    with pytest.raises(DTwinInputError, match=re.escape(words)) as caught:
        write_report(folder)
    assert caught.value.code == code
    assert not (folder / "report" / "index.html").exists()


BAD_SCORES = {
    "rows": (_write("scores.json", '{"rows": 3}'), "report", "a list of objects"),
    "split": (
        _replace("scores.json", '"split": "B"', '"split": 7'),
        "report",
        "text",
    ),
    "trials": (
        _cut("predictions/B_faces_trials.tsv", "response_time"),
        "report",
        "columns are missing",
    ),
    "maps": (_cut("predictions/B_faces_contrasts.tsv", "map"), "report", "map"),
    "kind": (
        _replace("predictions/B_faces_contrasts.tsv", "\tmeasured\t", "\tdreamt\t"),
        "report",
        "no such map",
    ),
    "figure": (_write("figures/B_faces_delta.png", "no picture"), "unreadable", "damaged"),
}


@pytest.mark.parametrize("case", BAD_SCORES)
def test_damaged_scores_are_refused(case: str, results: Path, tmp_path: Path) -> None:
    damage, code, words = BAD_SCORES[case]
    shutil.copytree(results / "scores", tmp_path / "scores")
    damage(tmp_path / "scores")
    with pytest.raises(DTwinInputError, match=re.escape(words)) as caught:
        write_report(tmp_path, 0)
    assert caught.value.code == code


def test_names_in_scores_are_no_paths(results: Path, tmp_path: Path) -> None:
    shutil.copytree(results / "scores", tmp_path / "scores")
    path = tmp_path / "scores" / "scores.json"
    about = json.loads(path.read_text())
    for row in about["rows"]:
        row["task"] = "../../" + row["task"]
    path.write_text(json.dumps(about))
    assert all(run.trials is None for run in read_scores(tmp_path / "scores").runs)


def test_no_results_and_too_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DTwinInputError, match=r"intervention\.json or scores\.json"):
        write_report(tmp_path)
    assert main(["report", str(tmp_path / "nowhere")]) == 4
    assert "[report]" in capsys.readouterr().err
    for name in ("a", "b"):
        write_folder(tmp_path / name, n_people=2)
    with pytest.raises(DTwinInputError, match="more than one folder"):
        write_report(tmp_path)
    assert write_report(tmp_path / "b", 0).people == 0


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_is_named(
    package: str, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page._environment.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"dtwin_fast\[report\]"):
        write_report(small)


def test_importing_the_command_loads_no_plotting() -> None:
    code = "import dtwin_fast.commands.report, sys; print('matplotlib' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout == "False\n"


def test_regions_stand_by_network() -> None:
    arrangement = arrange(["b", "a", "b", "c", "a"])
    assert arrangement.order.tolist() == [0, 2, 1, 4, 3]
    assert arrangement.spans == [("b", 0, 2), ("a", 2, 4), ("c", 4, 5)]
    ends = np.array(np.triu_indices(5, k=1))
    matrix = as_matrix(np.arange(10.0), ends, arrangement.order)
    # Edge (0,2) is the second, (1,4) the seventh.
    assert (matrix[0, 1], matrix[2, 3]) == (1.0, 6.0)
    assert np.isnan(np.diag(matrix)).all()
    np.testing.assert_array_equal(matrix, matrix.T)
    assert strongest(np.array([0.1, -3.0, np.nan, 0.0, 2.0]), 4).tolist() == [1, 4, 0]


def test_blocks_of_a_person_are_means_over_their_edges(results: Path) -> None:
    run = read_intervention(results / "intervention")
    change = run.person_map("connectome", "change", 1)
    blocks = person_blocks(run, {"change": change})
    assert sum(block.n_edges for block in blocks) == len(change)
    network = np.array(run.networks)
    for block in blocks:
        pairs = {frozenset(pair) for pair in zip(*network[run.ends], strict=True)}
        assert frozenset(block.networks) in pairs
        inside = [set(pair) == set(block.networks) for pair in zip(*network[run.ends], strict=True)]
        assert block.n_edges == sum(inside)
        assert block.change == pytest.approx(change[inside].mean(), rel=1e-5)
        assert np.isnan(block.gradient)


def test_mean_times_are_of_the_tables_rows(results: Path) -> None:
    run = read_scores(results / "scores").runs[0]
    assert run.trials is not None
    people, predicted, observed = person_means(run.trials)
    for person, row in people.items():
        own = run.trials.of(person)
        assert predicted[row] == pytest.approx(np.nanmean(own.predicted_s))
        assert observed[row] == pytest.approx(np.nanmean(own.rt_s))
    assert len(people) == PEOPLE


def test_the_twenty_regions_have_mirrored_positions() -> None:
    drawn, positions = drawn_regions((*BOLD_REGIONS_20, "elsewhere", "LH_elsewhere"))
    assert drawn == list(range(20))
    place = dict(zip(BOLD_REGIONS_20, positions.tolist(), strict=True))
    for name, (x, y, z) in place.items():
        assert (x < 0) == name.startswith("LH")
        if name.startswith("LH"):
            assert place["RH" + name[2:]] == [-x, y, z]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (number(0.456), "0.46"),
        (number(-1.0), "−1.00"),
        (number(0.0), "0.00"),
        (number(0.0004), "0.0004"),
        (number(float("nan")), "n/a"),
        (signed(0.5), "+0.50"),
        (signed(-0.5), "−0.50"),
        (significant(-0.0012345), "−0.00123"),
        (p_value(0.0001), "p < 0.001"),
        (p_value(0.0123), "p 0.012"),
        (percent(0.996), "99.6 %"),
        (percent(0.004), "0.4 %"),
        (percent(1.0), "100 %"),
        (percent(0.5), "50 %"),
    ],
)
def test_numbers_in_words(text: str, wanted: str) -> None:
    assert text == wanted


def test_an_effect_against_the_wish_is_said_so() -> None:
    from dtwin_fast.report.reading import Fields

    values = {"mean_effect": -0.3, "sd_effect": 0.1, "share_improved": 0.1}
    text = answer(Fields(values, "here"), "down", "SD", 20)
    assert text == (
        "The target goes up, against the wish, by 0.30 SD of the people before on average, SD over "
        "people 0.10; 10 % of 20 people improve."
    )
