"""Bad requests to dtwin serve: a typed refusal for every one, by both protocols."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from serve_process import Server, everything, request_body, some_edges
from tritonclient.grpc import service_pb2

from dtwin_fast.twin import Twin

E = 120
INFER = "/v2/models/tiny/infer"
GOOD = some_edges(2, E)
FIELDS = {"error", "code", "field", "subject", "wanted", "got", "fix"}


@pytest.fixture(scope="module")
def server(tiny_twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("refusing") / "model"
    tiny_twin.save(folder)
    with Server(folder, body_mib=1, queue=8, batch_wait_ms=0) as running:
        yield running
        assert [record for record in running.records() if "failed" in record] == []


def changed(**changes: Any) -> bytes:
    """A good request with other values of its tensor."""
    body = json.loads(request_body(GOOD))
    body["inputs"][0] |= changes
    return json.dumps(body).encode()


def binary(
    size: Any, after: bytes, *, more: bytes = b"", n: int = 1
) -> tuple[bytes, dict[str, str]]:
    tensor = {
        "name": "edges",
        "datatype": "FP32",
        "shape": [2, E],
        "parameters": {"binary_data_size": size},
    }
    text = json.dumps({"inputs": [tensor] * n}).encode()
    return text + after + more, {"Inference_Header_Content_Length": str(len(text))}


def edges_with(value: float, *, row: int = 1, many: bool = False) -> bytes:
    edges = GOOD.astype(np.float64)
    edges[row, :] = value if many else edges[row, :]
    edges[row, 7] = value
    return request_body(edges)


NUMBERS = GOOD.tobytes()
BODIES: dict[str, tuple[bytes | tuple[bytes, dict[str, str]], int, str]] = {
    "empty": (b"", 400, "json"),
    "not JSON": (b"edges=1", 400, "json"),
    "cut off": (request_body(GOOD)[:-20], 400, "json"),
    "two values": (request_body(GOOD) + b"{}", 400, "json"),
    "a list": (b"[]", 400, "json"),
    "no inputs": (b"{}", 400, "json"),
    "no tensor": (b'{"inputs": []}', 400, "input"),
    "not UTF-8": (b'{"inputs": [{"name": "\xff"}]}', 400, "json"),
    "half a surrogate": (b'{"inputs": [], "id": "\\ud800"}', 400, "json"),
    "NUL": (request_body(GOOD, id="a\0b").replace(b"\\u0000", b"\0"), 400, "json"),
    "deep": (b'{"inputs": ' + b"[" * 100_000, 400, "json"),
    "deep, closed": (b'{"inputs": ' + b"[" * 9999 + b"]" * 9999 + b"}", 400, "json"),
    "deep data": (changed(data=0).replace(b'"data": 0', b'"data": ' + b"[" * 9999), 400, "json"),
    "deep parameter": (request_body(GOOD, parameters={"a": [[[]]]}), 400, "json"),
    "unknown field": (request_body(GOOD, more=1), 400, "json"),
    "NaN literal": (edges_with(float("nan")), 400, "json"),
    "Infinity literal": (edges_with(float("inf")), 400, "json"),
    "1e999": (
        changed(data=[0]).replace(b"[0]", b"[1e999" + b",0" * (2 * E - 1) + b"]"),
        400,
        "json",
    ),
    "huge integer": (
        changed(data=[0]).replace(b"[0]", b"[1" + b"0" * 400 + b",0" * (2 * E - 1) + b"]"),
        400,
        "json",
    ),
    "huge size": (changed(shape=[10**30, E]), 400, "json"),
    "negative size": (changed(shape=[-2, E]), 400, "json"),
    "fractional size": (changed(shape=[2.5, E]), 400, "json"),
    "many axes": (changed(shape=[1] * 100), 400, "json"),
    "one axis": (changed(shape=[2 * E]), 400, "shape"),
    "no axis": (changed(shape=[]), 400, "shape"),
    "nobody": (changed(shape=[0, E], data=[]), 400, "shape"),
    "other edges": (changed(shape=[2, E - 1]), 400, "shape"),
    "product overflows": (changed(shape=[2**31 - 1, 2**31 - 1]), 400, "shape"),
    "more than the queue": (changed(shape=[9, E]), 413, "too_large"),
    "too few numbers": (changed(data=[0.1]), 400, "data_size"),
    "no numbers": (changed(data=[]), 400, "data_size"),
    "no data": (changed(data=None), 400, "data_size"),
    "other rows": (changed(data=[[0.1] * (E + 1), [0.1] * (E - 1)]), 400, "data_size"),
    "numbers and rows": (changed(data=[0.1, [0.1] * (2 * E - 1)]), 400, "data_size"),
    "rows and numbers": (changed(data=[[0.1] * (2 * E - 1), 0.1]), 400, "data_size"),
    "texts": (changed(data=["0.1"] * (2 * E)), 400, "json"),
    "nulls": (changed(data=[None] * (2 * E)), 400, "json"),
    "booleans": (changed(data=[True] * (2 * E)), 400, "json"),
    "type": (changed(datatype="FP64"), 400, "datatype"),
    "no such type": (changed(datatype="FLOAT128"), 400, "datatype"),
    "name": (changed(name="bold"), 400, "input"),
    "tensor's parameter": (changed(parameters={"shared_memory_region": "a"}), 400, "parameter"),
    "twice": (
        json.dumps({"inputs": json.loads(request_body(GOOD))["inputs"] * 2}).encode(),
        400,
        "input",
    ),
    "no such output": (request_body(GOOD, outputs=[{"name": "x"}]), 400, "output"),
    "output's parameter": (
        request_body(GOOD, outputs=[{"name": "rt_s", "parameters": {"classification": 3}}]),
        400,
        "parameter",
    ),
    "many outputs": (request_body(GOOD, outputs=[{"name": "rt_s"}] * 33), 400, "json"),
    "no such parameter": (request_body(GOOD, parameters={"sequence_id": 1}), 400, "parameter"),
    "unit": (request_body(GOOD, parameters={"unit": "rho"}), 400, "parameter"),
    "missing": (request_body(GOOD, parameters={"missing": "zero"}), 400, "parameter"),
    "tasks": (request_body(GOOD, parameters={"tasks": "faces,rest"}), 400, "task"),
    "task twice": (request_body(GOOD, parameters={"tasks": "faces,faces"}), 400, "task"),
    "number for a text": (request_body(GOOD, parameters={"tasks": 1}), 400, "parameter"),
    "timeout": (request_body(GOOD, parameters={"timeout": -1}), 400, "parameter"),
    "huge timeout": (request_body(GOOD, parameters={"timeout": 10**40}), 400, "parameter"),
    "flag": (request_body(GOOD, parameters={"binary_data_output": 1}), 400, "parameter"),
    "long id": (request_body(GOOD, id="a" * 257), 400, "json"),
    "r beyond 1": (edges_with(7.25), 400, "r_out_of_range"),
    "z as r": (edges_with(2.0), 400, "fisher_z_as_r"),
    "r too large for float32": (edges_with(1e300), 400, "infinite"),
    "all zero": (edges_with(0.0, many=True), 400, "all_zero"),
    "length negative": ((b"{}", {"Inference_Header_Content_Length": "-1"}), 400, "header"),
    "length beyond": ((b"{}", {"Inference_Header_Content_Length": "3"}), 400, "header"),
    "length no number": ((b"{}", {"Inference_Header_Content_Length": "0x2"}), 400, "header"),
    "length with blanks": ((b"{}", {"Inference_Header_Content_Length": "1_0"}), 400, "header"),
    "length huge": ((b"{}", {"Inference_Header_Content_Length": "9" * 99}), 400, "header"),
    "length 0": ((b"{}", {"Inference_Header_Content_Length": "0"}), 400, "json"),
    "bytes negative": (binary(-1, NUMBERS), 400, "header"),
    "bytes beyond": (binary(len(NUMBERS) + 1, NUMBERS), 400, "header"),
    "bytes too few": (binary(4, NUMBERS[:4]), 400, "data_size"),
    "bytes left": (binary(len(NUMBERS), NUMBERS, more=b"1234"), 400, "header"),
    "bytes overlap": (binary(len(NUMBERS), NUMBERS, n=2), 400, "input"),
    "bytes as text": (binary("960", NUMBERS), 400, "header"),
    "bytes NaN": (
        binary(len(NUMBERS), np.full_like(GOOD, np.nan).tobytes()),
        400,
        "all_missing",
    ),
    "bytes infinite": (
        binary(len(NUMBERS), np.full_like(GOOD, np.inf).tobytes()),
        400,
        "infinite",
    ),
    "gzip": ((b"\x1f\x8b", {"Content_Encoding": "gzip"}), 415, "encoding"),
    "too long": (b" " * (2**20 + 1), 413, "too_large"),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies(server: Server, name: str) -> None:
    given, status, code = BODIES[name]
    body, headers = given if isinstance(given, tuple) else (given, {})
    got, _, text = server.ask("POST", INFER, body, **headers)
    said = json.loads(text)
    assert (got, said["code"]) == (status, code), said
    assert set(said) == FIELDS
    assert all(isinstance(value, str) for value in said.values())
    assert server.process.poll() is None


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/v2/models/none/infer", 404, "model"),
        ("POST", "/v2/models/tiny/versions/2/infer", 404, "model"),
        ("GET", "/v2/models/none", 404, "model"),
        ("GET", "/v2/models/..%2f..%2fetc", 404, "path"),
        ("GET", "/v2/models/%00", 404, "model"),
        ("GET", "/v2/models/none/ready", 404, "model"),
        ("GET", "/v2/models/none/stats", 404, "model"),
        ("GET", "/v2/models/none/config", 404, "model"),
        ("GET", "/none", 404, "path"),
        ("GET", INFER, 405, "method"),
        ("DELETE", "/v2", 405, "method"),
        ("POST", "/v2/models/tiny_gradient/infer", 400, "target"),
    ],
)
def test_addresses(server: Server, method: str, path: str, status: int, code: str) -> None:
    got, _, text = server.ask(method, path, request_body(GOOD) if method == "POST" else b"")
    assert (got, json.loads(text)["code"]) == (status, code)


def test_pages_of_the_web_do_not_reach_a_server_of_this_machine(server: Server) -> None:
    status, _, text = server.ask("GET", "/v2", Host="example.org:8000")
    assert (status, json.loads(text)["code"]) == (403, "host")
    assert server.ask("GET", "/v2", Host="localhost:1")[0] == 200
    for origin in ("https://example.org", "http://localhost.example.org", "null"):
        status, _, text = server.ask("POST", INFER, request_body(GOOD), Origin=origin)
        assert (status, json.loads(text)["code"]) == (403, "host")
    own = f"http://127.0.0.1:{server.port}"
    assert server.ask("POST", INFER, request_body(GOOD), Origin=own)[0] == 200


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 3", b"Content-Length: 4"],
        [b"Content-Length: +3"],
        [b"Content-Length: 3", b"Transfer-Encoding: identity"],
        [b"Transfer-Encoding: chunked, identity"],
        [b"Content-Length : 3"],
        [b"Folded: a", b" b: c"],
        [b"X: " + b"a" * 140_000],
    ],
)
def test_heads_of_two_meanings(server: Server, lines: list[bytes]) -> None:
    """Nothing that a proxy may read in another way is taken for a request."""
    with server.connect() as connection:
        connection.sendall(
            b"\r\n".join([b"POST /v2/models/tiny/infer HTTP/1.1", b"Host: localhost", *lines])
            + b"\r\n\r\nabcd"
        )
        assert everything(connection).split(b" ")[1] in (b"400", b"431", b"501")


def test_a_refusal_is_seen_by_clients_that_are_still_sending(server: Server) -> None:
    status, headers, text = server.ask("POST", INFER, b" " * (3 * 2**19))
    assert (status, json.loads(text)["code"]) == (413, "too_large")
    assert headers["connection"] == "close"
    for path, code in (("/none", "path"), ("/v2/models/none/infer", "model")):
        status, headers, text = server.ask("POST", path, b" " * 2**20)
        assert json.loads(text)["code"] == code
        assert "connection" not in headers  # the body was read: another request may follow


def test_chunks_are_counted(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: localhost\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(16):
            connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
        connection.sendall(b"1\r\n \r\n")  # the byte that is too many
        assert b" 413 " in everything(connection)


def message(**changes: Any) -> Any:
    request = service_pb2.ModelInferRequest(model_name="tiny")
    tensor = request.inputs.add(name="edges", datatype="FP32", shape=[2, E])
    request.raw_input_contents.append(NUMBERS)
    for name, value in changes.items():
        if name in ("name", "datatype"):
            setattr(tensor, name, value)
        elif name == "shape":
            del tensor.shape[:]
            tensor.shape.extend(value)
        elif name == "raw":
            del request.raw_input_contents[:]
            request.raw_input_contents.extend(value)
        elif name == "contents":
            del request.raw_input_contents[:]
            tensor.contents.fp32_contents.extend(value)
        elif name == "output":
            request.outputs.add(name=value)
        elif name == "parameter":
            request.parameters[value[0]].string_param = value[1]
        elif name == "timeout":
            request.parameters["timeout"].int64_param = value
        else:
            setattr(request, name, value)
    return request


MESSAGES: dict[str, tuple[Callable[[], Any], str, str]] = {
    "model": (lambda: message(model_name="none"), "NOT_FOUND", "model"),
    "version": (lambda: message(model_version="2"), "NOT_FOUND", "model"),
    "nothing": (lambda: service_pb2.ModelInferRequest(), "NOT_FOUND", "model"),
    "no tensor": (
        lambda: service_pb2.ModelInferRequest(model_name="tiny"),
        "INVALID_ARGUMENT",
        "input",
    ),
    "name": (lambda: message(name="x"), "INVALID_ARGUMENT", "input"),
    "type": (lambda: message(datatype="INT8"), "INVALID_ARGUMENT", "datatype"),
    "shape": (lambda: message(shape=[2, E, 1]), "INVALID_ARGUMENT", "shape"),
    "negative": (lambda: message(shape=[-1, E]), "INVALID_ARGUMENT", "shape"),
    "huge": (lambda: message(shape=[2**62, E]), "INVALID_ARGUMENT", "too_large"),
    "too few bytes": (lambda: message(raw=[NUMBERS[:-1]]), "INVALID_ARGUMENT", "data_size"),
    "too many raws": (lambda: message(raw=[NUMBERS] * 2), "INVALID_ARGUMENT", "data_size"),
    "no data": (lambda: message(raw=[]), "INVALID_ARGUMENT", "data_size"),
    "contents": (lambda: message(contents=[0.5] * 3), "INVALID_ARGUMENT", "data_size"),
    "output": (lambda: message(output="x"), "INVALID_ARGUMENT", "output"),
    "parameter": (lambda: message(parameter=("x", "y")), "INVALID_ARGUMENT", "parameter"),
    "unit": (lambda: message(parameter=("unit", "y")), "INVALID_ARGUMENT", "parameter"),
    "timeout": (lambda: message(timeout=-1), "INVALID_ARGUMENT", "parameter"),
    "values": (
        lambda: message(raw=[np.full((2, E), 8, np.float32).tobytes()]),
        "INVALID_ARGUMENT",
        "r_out_of_range",
    ),
}


def call(server: Server, data: bytes, method: str = "ModelInfer") -> grpc.RpcError:
    with grpc.insecure_channel(server.grpc_address) as channel:
        ask = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        with pytest.raises(grpc.RpcError) as caught:
            ask(data, timeout=20)
    return caught.value


@pytest.mark.parametrize("name", MESSAGES)
def test_messages(server: Server, name: str) -> None:
    make, status, code = MESSAGES[name]
    error = call(server, make().SerializeToString())
    assert error.code().name == status
    metadata = dict(error.trailing_metadata())
    assert metadata["dtwin-code"] == code
    assert set(json.loads(metadata["dtwin-error-bin"])) == FIELDS


def test_calls_that_are_no_messages(server: Server) -> None:
    assert call(server, b"\xff" * 100).code().name == "INVALID_ARGUMENT"
    assert call(server, b" " * 2**21).code().name == "RESOURCE_EXHAUSTED"
    assert call(server, b"", "RepositoryModelLoad").code().name == "UNIMPLEMENTED"
    with grpc.insecure_channel(server.grpc_address) as channel:
        ask = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")
        assert ask(b"", timeout=20) == b"\x08\x01"


def test_contents_of_numbers_are_read_too(server: Server, tiny_twin: Twin) -> None:
    data = message(contents=GOOD.ravel().tolist(), output="rt_s").SerializeToString()
    with grpc.insecure_channel(server.grpc_address) as channel:
        ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        answer = service_pb2.ModelInferResponse.FromString(ask(data, timeout=20))
    assert answer.raw_output_contents[0] == tiny_twin.predict(GOOD).rt_s.tobytes()
