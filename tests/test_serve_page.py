"""The page of dtwin serve in a real browser, headless, and what it asks the server."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from headless import CONTRASTS, READABLE, chromium, media, needs_chromium, press
from serve_process import Server, some_edges

from dtwin_fast.connectome import Connectomes
from dtwin_fast.interventions import Constraint, range_scores
from dtwin_fast.prediction_files import NOTICE, condition_means
from dtwin_fast.serve.person import Wanted, look_at
from dtwin_fast.twin import Twin

TOKEN = "a token of nobody"
R = 16
PERSON = "/page/person?format=.npy"


def a_matrix(seed: int = 0) -> np.ndarray[Any, Any]:
    """(R,R) correlations of one person."""
    series = np.random.default_rng(seed).normal(size=(60, R))
    return np.corrcoef(series.T)


def as_npy(array: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def as_table(matrix: np.ndarray[Any, Any], regions: tuple[str, ...], separator: str) -> bytes:
    """With names of rows and columns, as BIDS has them."""
    rows = [["", *regions], *([r, *map(repr, row.tolist())] for r, row in zip(regions, matrix))]  # noqa: B905
    return "\n".join(separator.join(row) for row in rows).encode()


@pytest.fixture(scope="module")
def model(tiny_twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paged") / "model"
    tiny_twin.save(folder)
    return folder


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Of everybody on this machine; temporary files have a folder of their own."""
    with Server(model, body_mib=1) as running:
        yield running


@pytest.fixture(scope="module")
def closed_server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Of those who have a token."""
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    file.write_text(f'[tenants.one]\nsha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"\n')
    with Server(model, tokens=file) as running:
        yield running


def said(server: Server, body: bytes, path: str = PERSON, **headers: str) -> dict[str, Any]:
    status, _, data = server.ask("POST", path, body, **headers)
    assert status == 200, data
    found: dict[str, Any] = json.loads(data)
    return found


def test_a_file_becomes_what_the_twin_predicts(server: Server, tiny_twin: Twin) -> None:
    matrix = a_matrix()
    found = said(server, as_npy(matrix))["results"]
    expected = tiny_twin.predict(matrix[None])
    for name, means in condition_means(expected).items():
        assert found["conditions"][name] == pytest.approx(float(means[0]), abs=0)
    for k, contrast in enumerate(expected.contrast_names):
        assert list(found["contrasts"][contrast]) == list(expected.bold_regions)
        assert list(found["contrasts"][contrast].values()) == expected.contrasts[0, k].tolist()
    z = np.arctanh(matrix[np.triu_indices(R, 1)])[None]
    scores = range_scores(z, tiny_twin.edge_mean, tiny_twin.edge_sd)
    assert found["range"]["deviation"] == pytest.approx(scores.deviation[0], rel=1e-5)
    assert found["flags"] == list(scores.flags()[0])
    assert found["intervention"] is None
    assert found["notice"] == NOTICE


@pytest.mark.parametrize(("ending", "separator"), [(".tsv", "\t"), (".csv", ",")])
def test_tables_and_arrays_say_the_same(
    server: Server, tiny_twin: Twin, ending: str, separator: str
) -> None:
    matrix, order = a_matrix(1), np.arange(R)[::-1]
    regions = tuple(tiny_twin.regions[i] for i in order)  # they are matched by name
    table = as_table(matrix[np.ix_(order, order)], regions, separator)
    of_table = said(server, table, f"/page/person?format={ending}")["results"]
    of_array = said(server, as_npy(matrix))["results"]
    of_edges = said(server, as_npy(matrix[np.triu_indices(R, 1)]))["results"]
    of_z = said(server, as_npy(np.arctanh(matrix[np.triu_indices(R, 1)])), f"{PERSON}&unit=z")
    assert of_table["conditions"] == of_array["conditions"] == of_edges["conditions"]
    for name, mean in of_array["conditions"].items():
        assert of_z["results"]["conditions"][name] == pytest.approx(mean, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("target", ["speed", "amygdala"])
def test_an_intervention_is_the_twins_own(server: Server, tiny_twin: Twin, target: str) -> None:
    matrix = a_matrix(2)
    answer = said(server, as_npy(matrix), f"{PERSON}&target={target}")
    found = answer["results"]["intervention"]
    constraint = Constraint(budget=found["budget_fisher_z"], valid=True)
    done = tiny_twin.intervene(matrix[None], target, constraint=constraint, n_random=0)
    effect = done.effects["connectome"]
    assert (found["before"], found["after"]) == (effect.pre[0], effect.post[0])
    assert (found["after"] > found["before"]) == (done.goal == "up")
    assert 0 < found["used_fisher_z"] <= found["budget_fisher_z"] * (1 + 1e-6)
    assert effect.change is not None
    change = effect.change[0]
    first, second = np.triu_indices(R, 1)
    top = int(np.abs(change).argmax())
    assert found["edges"][0]["change"] == change[top]
    assert found["edges"][0]["regions"] == [
        tiny_twin.regions[first[top]],
        tiny_twin.regions[second[top]],
    ]
    assert sum(block["squares"] for block in found["networks"]) == pytest.approx(1)
    assert NOTICE in answer["report"]
    assert found["edges"][0]["regions"][0] in answer["report"]


def test_the_dose_is_two_sds_along_the_gradient(tiny_twin: Twin) -> None:
    from dtwin_fast.interventions import target_gradients

    edges = np.arctanh(some_edges(1, R * (R - 1) // 2))
    z = Connectomes.from_arrays(edges, regions=tiny_twin.regions, is_fisher_z=True)
    gradient = target_gradients(tiny_twin, z, "speed").edges[0].astype(float)
    along = gradient / np.linalg.norm(gradient)
    person = look_at(tiny_twin, as_npy(edges), Wanted(".npy", "z", target="speed"))
    assert person.budget == pytest.approx(2 * np.linalg.norm(along * tiny_twin.edge_sd), rel=1e-4)


@pytest.mark.parametrize(
    ("body", "path", "code"),
    [
        (b"", PERSON, "file_empty"),
        (b"no array", PERSON, "unreadable"),
        (as_npy(np.zeros((R, R)) + np.nan), PERSON, "all_missing"),
        (as_npy(a_matrix() * 3), PERSON, "diagonal"),
        (as_npy(a_matrix()[:-1, :-1]), PERSON, "region_count"),
        (as_npy(np.stack([a_matrix(), a_matrix(1)])), PERSON, "one_person"),
        (as_npy(a_matrix() + np.triu(np.full((R, R), 0.1), 1)), PERSON, "asymmetric"),
        (b"a\tb\n1\t.5\n.5\t1", "/page/person?format=.tsv", "regions_missing"),
        (b"1\t2\n3", "/page/person?format=.tsv", "table_ragged"),
        (as_npy(a_matrix()), "/page/person", "parameter"),
        (as_npy(a_matrix()), "/page/person?format=.npz", "parameter"),
        (as_npy(a_matrix()), f"{PERSON}&target=iq", "parameter"),
        (as_npy(a_matrix()), f"{PERSON}&file=/etc/passwd", "parameter"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_files_are_refused_by_their_code(
    server: Server, body: bytes, path: str, code: str
) -> None:
    status, _, data = server.ask("POST", path, body)
    refusal = json.loads(data)
    assert refusal["code"] == code
    assert status == 400
    assert refusal["fix"]


def test_nobody_is_kept_on_a_disk_or_in_the_log(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    planted = a_matrix(3)
    planted[0, 1] = planted[1, 0] = 0.123456
    with Server(model) as one:
        said(one, as_npy(planted), f"{PERSON}&target=speed")
        bad = as_table(planted + 1, tuple(f"r{i}" for i in range(R)), "\t")
        assert one.ask("POST", "/page/person?format=.tsv", bad)[0] == 400
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
        assert "0.12345" not in "".join(one.lines)
        assert {record["route"] for record in one.records()} == {"/page/person"}


def test_the_page_asks_for_a_token_and_the_server_too(closed_server: Server) -> None:
    status, headers, page = closed_server.ask("GET", "/")
    assert status == 200
    assert b'id="token"' in page
    assert "'unsafe" not in headers["content-security-policy"]
    assert closed_server.ask("POST", PERSON, as_npy(a_matrix()))[0] == 401
    said(closed_server, as_npy(a_matrix()), Authorization=f"Bearer {TOKEN}")


def test_targets_that_a_twin_lacks_are_not_offered(server: Server, tiny_twin: Twin) -> None:
    from dataclasses import replace

    from dtwin_fast.serve import Settings
    from dtwin_fast.serve.page import Page

    page = server.ask("GET", "/")[2].decode()
    assert '"speed"' in page
    assert '"amygdala"' in page
    renamed = replace(tiny_twin.spec, bold_regions=("a", "b", "c", "d"))
    without = Page(replace(tiny_twin, spec=renamed), Settings()).html
    assert '"speed"' in without
    assert '"amygdala"' not in without


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("profile")
    with chromium(folder) as driver:
        driver.execute_cdp_cmd(
            "Browser.setDownloadBehavior",
            {"behavior": "allow", "downloadPath": str(folder / "downloads")},
        )
        driver.downloads = folder / "downloads"
        yield driver


def wait_until(found: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.05)


def wait_for(browser: Any, script: str) -> Any:
    """What a script returns, once it is true."""
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser, 30, 0.05).until(lambda b: b.execute_script(f"return {script}"))


def run_file(browser: Any, path: Path, target: str = "") -> None:
    """Choose a file and an intervention, press the button and wait for the end."""
    browser.find_element("id", "file").send_keys(str(path))
    browser.find_element("css selector", f"#target option[value='{target}']").click()
    browser.find_element("css selector", "button[type=submit]").click()
    wait_for(browser, "!document.querySelector('button[type=submit]').disabled")


def texts(browser: Any, what: str) -> list[str]:
    return [element.text for element in browser.find_elements("css selector", what)]


def faults(browser: Any) -> list[Any]:
    """What the console holds, but that an answer was a refusal."""
    return [entry for entry in browser.get_log("browser") if entry["source"] != "network"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sub-secret_relmat.npy"
    path.write_bytes(as_npy(a_matrix()))
    return path


@needs_chromium
class TestInABrowser:
    def test_a_person_is_seen(self, browser: Any, server: Server, file: Path) -> None:
        media(browser)
        browser.get(f"http://{server.address}/")
        assert NOTICE in browser.find_element("css selector", "[role=note]").text
        run_file(browser, file)
        assert texts(browser, "[role=alert]") == [""]
        assert browser.switch_to.active_element.get_attribute("id") == "results"
        captions = texts(browser, "caption")
        assert any("reaction times" in caption for caption in captions)
        expected = said(server, file.read_bytes())["sections"]
        shown = browser.execute_script(
            "return [...document.querySelectorAll('tbody tr')]"
            ".map(row => [...row.children].map(cell => cell.textContent))"
        )
        tables = [part for s in expected for part in s["parts"] if not isinstance(part, str)]
        assert shown == [row for table in tables for row in table["rows"]]
        assert browser.get_log("browser") == []

    def test_an_intervention_is_seen_and_kept(
        self, browser: Any, server: Server, file: Path
    ) -> None:
        browser.get(f"http://{server.address}/")
        run_file(browser, file, "amygdala")
        section = browser.find_element("id", "intervention")
        assert NOTICE in section.text
        assert "The 20 edges that change most" in section.text
        for button in ("save-report", "save-results"):
            browser.find_element("id", button).click()
        report = browser.downloads / "dtwin-report.html"
        results = browser.downloads / "dtwin-results.json"
        wait_until(lambda: report.exists() and results.exists())
        assert json.loads(results.read_text())["intervention"]["target"] == "amygdala"
        assert faults(browser) == []
        browser.get(report.as_uri())
        assert "In silico: amygdala" in texts(browser, "h2")
        assert "secret" not in report.read_text() + "".join(server.lines)
        assert browser.get_log("browser") == []

    def test_a_dropped_file_runs(self, browser: Any, server: Server, file: Path) -> None:
        browser.get(f"http://{server.address}/")
        numbers = list(file.read_bytes())
        browser.execute_script(
            "const files = new DataTransfer();"
            "files.items.add(new File([new Uint8Array(arguments[0])], 'a.npy'));"
            "document.getElementById('drop').dispatchEvent("
            "new DragEvent('drop', { dataTransfer: files, bubbles: true }))",
            numbers,
        )
        wait_for(browser, "document.querySelector('#sections table')")
        assert faults(browser) == []

    @pytest.mark.parametrize(
        ("name", "body", "words"),
        [
            ("bad.npy", b"no array", "[unreadable]"),
            ("<b>.npz", b"PK", "[parameter]"),
            ("many.npy", as_npy(np.stack([a_matrix(), a_matrix(1)])), "[one_person]"),
            ("large.npy", bytes(2**20 + 1), "larger than 1 MiB"),
        ],
    )
    def test_a_bad_file_is_told(
        self, browser: Any, server: Server, tmp_path: Path, name: str, body: bytes, words: str
    ) -> None:
        path = tmp_path / name
        path.write_bytes(body)
        browser.get(f"http://{server.address}/")
        run_file(browser, path)
        assert words in browser.find_element("id", "refusal").text
        assert not browser.find_element("id", "results").is_displayed()
        assert faults(browser) == []

    def test_a_token_is_asked_for(self, browser: Any, closed_server: Server, file: Path) -> None:
        browser.get(f"http://{closed_server.address}/")
        browser.find_element("id", "token").send_keys("wrong")
        run_file(browser, file)
        assert "[unauthorized]" in browser.find_element("id", "refusal").text
        browser.find_element("id", "token").clear()
        browser.find_element("id", "token").send_keys(TOKEN)
        run_file(browser, file)
        assert browser.find_element("id", "predictions").is_displayed()
        assert faults(browser) == []

    def test_a_server_that_is_gone_is_told(self, browser: Any, model: Path, file: Path) -> None:
        with Server(model) as gone:
            browser.get(f"http://{gone.address}/")
        run_file(browser, file)
        assert browser.find_element("id", "refusal").text == "The server cannot be reached."

    def test_the_keyboard_reaches_everything(
        self, browser: Any, closed_server: Server, file: Path
    ) -> None:
        from selenium.webdriver.common.keys import Keys

        browser.get(f"http://{closed_server.address}/")
        assert press(browser, Keys.TAB).get_attribute("class") == "skip"
        for wanted in ("file", "unit", "missing", "target", "token"):
            reached = press(browser, Keys.TAB)
            assert reached.get_attribute("id") == wanted
            assert "solid" in reached.value_of_css_property("outline-style")
            assert reached.accessible_name
        assert press(browser, Keys.TAB).text == "Predict"

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_text_is_readable(self, browser: Any, server: Server, file: Path, scheme: str) -> None:
        media(browser, scheme=scheme)
        browser.get(f"http://{server.address}/")
        run_file(browser, file, "speed")
        ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        red, green, blue = (int(part) for part in ground[4:-1].split(","))
        assert max(red, green, blue) < 50 if scheme == "dark" else min(red, green, blue) > 200
        for what in ("h1", "p", "label", "select", "button", "td", "th", "caption", ".notice"):
            contrasts = browser.execute_script(CONTRASTS, what)
            assert contrasts, what
            assert min(contrasts) > READABLE, what

    def test_narrow_screens_scroll_down_only(
        self, browser: Any, server: Server, file: Path
    ) -> None:
        size = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": True}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        try:
            browser.get(f"http://{server.address}/")
            run_file(browser, file, "speed")
            wide = browser.execute_script("return document.documentElement.scrollWidth")
        finally:
            browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        assert wide <= 360
