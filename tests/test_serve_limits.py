"""Who may ask dtwin serve, how much at once, and how it ends."""

from __future__ import annotations

import hashlib
import json
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
from serve_process import (
    MAIN,
    Server,
    everything,
    raw_request,
    request_body,
    some_edges,
)
from tritonclient.utils import InferenceServerException

from dtwin_fast.errors import DTwinInputError
from dtwin_fast.serve import Settings
from dtwin_fast.serve.server import NOTICE_S
from dtwin_fast.serve.tenants import Tenant, read_tenants
from dtwin_fast.twin import Twin

INFER = "/v2/models/tiny/infer"
E = 120
ONE = request_body(some_edges(1, E))
COMPANY = 1000
"""Milliseconds that requests wait for company here: they stay in the queue for so long."""


@pytest.fixture(scope="module")
def model(tiny_twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("limited") / "model"
    tiny_twin.save(folder)
    return folder


@pytest.fixture
def start() -> Any:
    """Ask in a thread; the answer is in what it returns."""
    threads: list[threading.Thread] = []

    def begin(ask: Callable[[], Any]) -> list[Any]:
        answers: list[Any] = []
        threads.append(threading.Thread(target=lambda: answers.append(ask())))
        threads[-1].start()
        return answers

    yield begin
    for thread in threads:
        thread.join(60)


def wait_for(found: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.02)


def tokens_file(folder: Path, **tenants: dict[str, Any]) -> Path:
    path = folder / "tokens.toml"
    lines = []
    for name, values in tenants.items():
        lines += [f"[tenants.{name}]", f'sha256 = "{sha256(name)}"']
        lines += [f"{key} = {value}" for key, value in values.items()]
    path.write_text("\n".join(lines))
    return path


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def tensor(edges: Any) -> list[Any]:
    found = tritonclient.grpc.InferInput("edges", list(edges.shape), "FP32")
    found.set_data_from_numpy(edges)
    return [found]


def code(answer: tuple[int, dict[str, str], bytes]) -> str:
    return str(json.loads(answer[2]).get("code", "ok"))


def test_nobody_without_a_token(model: Path, tmp_path: Path) -> None:
    file = tokens_file(tmp_path, one={}, other={})
    with Server(model, tokens=file, host="127.0.0.1") as server:
        for header in (
            "",
            "Bearer",
            "Bearer ",
            "Bearer none",
            "Basic one",
            f"Bearer {sha256('one')}",
        ):
            for path in ("/v2", "/metrics", "/v2/models/tiny", "/openapi.json"):
                answer = server.ask("GET", path, Authorization=header)
                assert (answer[0], code(answer)) == (401, "unauthorized")
                assert answer[1]["www-authenticate"] == "Bearer"
            assert server.ask("POST", INFER, ONE, Authorization=header)[0] == 401
        assert server.ask("GET", "/v2/health/ready")[0] == 200  # load balancers have none
        assert server.ask("POST", INFER, ONE, Authorization="Bearer one")[0] == 200
        # With tokens the server may be called by any name.
        named = server.ask("GET", "/v2", Host="example.org", Authorization="Bearer other")
        assert named[0] == 200
        with tritonclient.grpc.InferenceServerClient(server.grpc_address) as client:
            assert client.is_server_live()
            with pytest.raises(InferenceServerException) as caught:
                client.get_model_metadata("tiny")
            assert caught.value.status() == "StatusCode.UNAUTHENTICATED"
            with pytest.raises(InferenceServerException, match="unauthorized"):
                client.get_model_metadata("tiny", headers={"authorization": "Bearer x"})
            client.get_model_metadata("tiny", headers={"authorization": "Bearer one"})
        log = "".join(server.lines)
        assert '"tenant": "one"' in log
        assert "Bearer" not in log


def test_limits_of_a_tenant_are_its_own(model: Path, tmp_path: Path, start: Any) -> None:
    file = tokens_file(
        tmp_path, few={"people_in_flight": 2}, rare={"requests_per_s": 0.01}, free={}
    )
    with Server(model, tokens=file, batch_wait_ms=COMPANY) as server:

        def ask(name: str, body: bytes = ONE) -> Any:
            return server.ask("POST", INFER, body, Authorization=f"Bearer {name}")

        waiting = start(lambda: ask("few", request_body(some_edges(2, E))))
        wait_for(lambda: metric(server, "dtwin_queue_people") == 2)
        refused = ask("few")
        assert (refused[0], code(refused)) == (429, "tenant_people")
        assert refused[1]["retry-after"] == "1"
        free = start(lambda: ask("free"))
        rare = start(lambda: ask("rare"))
        wait_for(lambda: waiting and free and rare)
        assert [answer[0][0] for answer in (waiting, free, rare)] == [200] * 3
        again = ask("rare")
        assert (again[0], code(again)) == (429, "tenant_rate")
        assert ask("few")[0] == 200  # it holds nobody any more


def metric(server: Server, name: str) -> float:
    text = server.ask("GET", "/metrics", Authorization="Bearer free")[2].decode()
    rows = [line.rpartition(" ") for line in text.splitlines() if line[0] != "#"]
    return sum(float(value) for key, _, value in rows if key.partition("{")[0] == name)


def test_a_tenants_rate_is_refilled(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    tenant = Tenant("a", requests_per_s=2)

    for seconds, taken in ((0, 2), (0.5, 1), (100, 2)):
        now[0] += seconds
        for _ in range(taken):
            tenant.count_request()
        with pytest.raises(DTwinInputError) as caught:
            tenant.count_request()
        assert caught.value.code == "tenant_rate"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[tenants]",
        "tenants = 1",
        "[tenants.a]",
        "not TOML",
        '[tenants.a]\nsha256 = "token"',
        f'[tenants.a]\nsha256 = "{sha256("a")}"\nmore = 1',
        f'[tenants.a]\nsha256 = "{sha256("a")}"\npeople_in_flight = 0',
        f'[tenants.a]\nsha256 = "{sha256("a")}"\npeople_in_flight = true',
        f'[tenants.a]\nsha256 = "{sha256("a")}"\nrequests_per_s = -1',
        f'[tenants."a b"]\nsha256 = "{sha256("a")}"',
        f'[tenants.a]\nsha256 = "{sha256("a")}"\n[tenants.b]\nsha256 = "{sha256("a")}"',
    ],
)
def test_files_of_tokens_that_are_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(text)
    with pytest.raises(DTwinInputError) as caught:
        read_tenants(path)
    assert caught.value.code == ("tokens" if text else "file_empty")
    assert sha256("a") not in str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", "localhost", ""])
def test_no_tokens_no_other_machines(host: str) -> None:
    with pytest.raises(DTwinInputError) as caught:
        Settings(host=host)
    assert caught.value.code == "argument"
    assert Settings(host="::1").is_loopback


def speaks_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_a_start_that_cannot_be(model: Path) -> None:
    def exit_code(*words: str) -> int:
        return subprocess.run(
            [sys.executable, "-c", MAIN, "serve", str(model), *words],
            capture_output=True,
            timeout=60,
        ).returncode

    assert exit_code("--host=0.0.0.0") == 2
    assert exit_code("--port=8000", "--grpc-port=8000") == 2
    with Server(model, host="localhost") as server:
        assert exit_code(f"--port={server.port}") == 2
    if speaks_ipv6():
        with Server(model, host="::1") as server:
            assert f"http://[::1]:{server.port}" in server.lines[0]


def test_a_full_queue_refuses_and_forgets_nobody(model: Path, start: Any) -> None:
    with Server(model, batch_wait_ms=COMPANY, queue=2) as server:
        waiting = start(lambda: server.ask("POST", INFER, request_body(some_edges(2, E))))
        wait_for(lambda: server.metric("dtwin_queue_people") == 2)
        for _ in range(3):
            refused = server.ask("POST", INFER, ONE)
            assert (refused[0], code(refused)) == (503, "queue_full")
            assert refused[1]["retry-after"] == "1"
        with tritonclient.grpc.InferenceServerClient(server.grpc_address) as client:
            with pytest.raises(InferenceServerException) as caught:
                client.infer("tiny", tensor(some_edges(1, E)))
            assert caught.value.status() == "StatusCode.UNAVAILABLE"
        wait_for(lambda: waiting)
        assert waiting[0][0] == 200
        assert server.ask("POST", INFER, ONE)[0] == 200
        assert 'dtwin_requests_total{code="queue_full"' in server.ask("GET", "/metrics")[2].decode()


def test_turns_that_do_not_come_and_clients_that_go(model: Path, start: Any) -> None:
    with Server(model, batch_wait_ms=COMPANY) as server:
        impatient = request_body(some_edges(1, E), parameters={"timeout": 1000})
        late = start(lambda: server.ask("POST", INFER, impatient))
        with server.connect() as connection:
            connection.sendall(raw_request(INFER, ONE))
            wait_for(lambda: server.metric("dtwin_queue_people") == 2)
        wait_for(lambda: late)
        assert (late[0][0], code(late[0])) == (503, "timeout")
        wait_for(lambda: "client_gone" in {record["code"] for record in server.records()})
        with tritonclient.grpc.InferenceServerClient(server.grpc_address) as client:
            with pytest.raises(InferenceServerException) as caught:
                client.infer("tiny", tensor(some_edges(1, E)), client_timeout=0.2)
            assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        wait_for(lambda: server.metric("dtwin_queue_people") == 0)
        assert server.metric("dtwin_batch_people_count") == 0


def test_slow_clients_are_not_waited_for(model: Path) -> None:
    with Server(model, header_s=1, body_s=2) as server:
        with server.connect() as head, server.connect() as body, server.connect() as chunks:
            begin = time.monotonic()
            head.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: lo")
            body.sendall(raw_request(INFER, b"{", length=1000))
            chunks.sendall(
                b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: localhost\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"
            )
            assert server.ask("POST", INFER, ONE)[0] == 200
            assert everything(head) == b""
            for connection in (body, chunks):
                answer = everything(connection)
                assert b" 408 " in answer
                assert b'"slow"' in answer
            assert time.monotonic() - begin < 10
        with grpc.insecure_channel(server.grpc_address) as channel:
            ask = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
            held = threading.Event()
            with pytest.raises(grpc.RpcError) as caught:
                ask(iter(lambda: held.wait(20) and b"", None), timeout=20)
            held.set()
            assert caught.value.code().name == "DEADLINE_EXCEEDED"
            assert dict(caught.value.trailing_metadata())["dtwin-code"] == "slow"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_an_end_answers_what_has_come(model: Path, tiny_twin: Twin, start: Any, how: int) -> None:
    edges = some_edges(3, E)
    with Server(model, batch_wait_ms=4000, drain_s=12, header_s=2) as server:
        waiting = [start(lambda: server.ask("POST", INFER, request_body(edges))) for _ in range(4)]
        with tritonclient.grpc.InferenceServerClient(server.grpc_address) as client:
            call = start(lambda: client.infer("tiny", tensor(edges)))
            half, head, idle = server.connect(), server.connect(), server.connect()
            half.sendall(raw_request(INFER, b"{", length=1000))
            head.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: lo")
            wait_for(lambda: server.metric("dtwin_queue_people") == 15)
            begin = time.monotonic()
            server.process.send_signal(how)
            wait_for(lambda: server.ask("GET", "/v2/health/ready")[0] == 503, 1)
            time.sleep(NOTICE_S)
            refused = server.ask("POST", INFER, ONE)
            assert (refused[0], code(refused)) == (503, "draining")
            assert refused[1]["connection"] == "close"
            assert b'"draining"' in everything(half)
            assert server.process.wait(20) == 0
            assert time.monotonic() - begin < 14
            wait_for(lambda: all(waiting) and call)
        for answers in waiting:
            assert answers[0][0] == 200
        expected = tiny_twin.predict(edges)
        np.testing.assert_array_equal(call[0].as_numpy("rt_s"), expected.rt_s)
        assert not any("failed" in record for record in server.records())
        for connection in (half, head, idle):
            connection.close()


def test_an_end_refuses_those_whose_turn_does_not_come(model: Path, start: Any) -> None:
    with Server(model, batch_wait_ms=10_000, drain_s=4) as server:
        waiting = start(lambda: server.ask("POST", INFER, ONE))
        wait_for(lambda: server.metric("dtwin_queue_people") == 1)
        assert server.terminate() == 0
        wait_for(lambda: waiting)
        assert (waiting[0][0], code(waiting[0])) == (503, "draining")


def test_an_end_says_that_an_answer_is_lost(model: Path) -> None:
    stuck = """
import sys, time
from dtwin_fast.serve.models import Predictions

def run(*_):
    print("begun", file=sys.stderr, flush=True)
    time.sleep(60)

Predictions.run = run
"""
    with Server(model, main=stuck + MAIN, drain_s=4) as server, server.connect() as connection:
        connection.sendall(raw_request(INFER, ONE))
        wait_for(lambda: "begun\n" in server.lines)
        assert server.terminate() == 1
        wait_for(lambda: {"failed": "drain", "unanswered": 1} in server.records())


def test_a_stream_that_asks_nothing_is_no_request(model: Path) -> None:
    with Server(model) as server:
        with grpc.insecure_channel(server.grpc_address) as channel:
            ask = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
            assert list(ask(iter([]), timeout=20)) == []
        assert server.metric("dtwin_requests_total") == 0


def test_no_core_is_dumped(model: Path) -> None:
    with Server(model) as server:
        assert resource.prlimit(server.process.pid, resource.RLIMIT_CORE)[0] == 0
