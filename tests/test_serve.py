"""dtwin serve, asked by an unmodified tritonclient: what it says is what the twin predicts."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from serve_process import Server, request_body, some_edges
from tritonclient.utils import InferenceServerException

from dtwin_fast.connectome import Connectomes
from dtwin_fast.interventions import target_gradients
from dtwin_fast.twin import Twin

ARRAYS = ("choice_prob", "rt_s", "contrasts", "bold", "diverged")
LIBRARIES = {"http": tritonclient.http, "grpc": tritonclient.grpc}


@pytest.fixture(scope="module")
def model(tiny_twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "model"
    tiny_twin.save(folder)
    return folder


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Server]:
    with Server(model, batch_wait_ms=100) as running:
        yield running


@pytest.fixture(params=["http", "grpc"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(server: Server, protocol: str) -> Iterator[Any]:
    address = server.address if protocol == "http" else server.grpc_address
    options = {"concurrency": 8} if protocol == "http" else {}
    with LIBRARIES[protocol].InferenceServerClient(address, **options) as found:
        yield found


def tensors(protocol: str, edges: np.ndarray[Any, Any], **options: Any) -> list[Any]:
    tensor = LIBRARIES[protocol].InferInput("edges", list(edges.shape), "FP32")
    tensor.set_data_from_numpy(edges, **options)
    return [tensor]


def outputs(protocol: str, *names: str, **options: Any) -> list[Any]:
    return [LIBRARIES[protocol].InferRequestedOutput(name, **options) for name in names]


def test_metadata(client: Any, protocol: str, tiny_twin: Twin, model: Path) -> None:
    asked = {"as_json": True} if protocol == "grpc" else {}
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert client.get_server_metadata(**asked)["name"] == "dtwin_fast"
    metadata = client.get_model_metadata("tiny", **asked)
    edges = metadata["inputs"][0]
    assert (edges["name"], edges["datatype"]) == ("edges", "FP32")
    assert [int(n) for n in edges["shape"]] == [-1, tiny_twin.spec.n_edges]
    assert [o["name"] for o in metadata["outputs"]] == [*ARRAYS, "flags"]
    config = client.get_model_config("tiny", **asked)
    config = config.get("config", config)
    regions = json.loads(config["parameters"]["regions"]["string_value"])
    assert regions == list(tiny_twin.regions)
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    index = client.get_model_repository_index(**asked)
    names = [m["name"] for m in (index["models"] if protocol == "grpc" else index)]
    assert names == ["tiny", "tiny_gradient"]
    if protocol == "http":
        assert metadata["regions"] == list(tiny_twin.regions)
        assert metadata["contrasts"] == {k: list(v) for k, v in tiny_twin.contrasts.items()}


@pytest.mark.parametrize("n_people", [1, 3, 70])
def test_predictions_are_the_twins_to_the_bit(
    client: Any, protocol: str, tiny_twin: Twin, n_people: int
) -> None:
    edges = some_edges(n_people, tiny_twin.spec.n_edges)
    answer = client.infer("tiny", tensors(protocol, edges), request_id="a name")
    expected = tiny_twin.predict(edges)
    for name in ARRAYS:
        np.testing.assert_array_equal(answer.as_numpy(name), getattr(expected, name))
    assert answer.as_numpy("flags").tolist() == [b""] * n_people
    if protocol == "http":
        said = answer.get_response()
        assert said["id"] == "a name"
        assert said["parameters"]["backend"] == "cpu"


def test_json_and_bytes_say_the_same(server: Server, tiny_twin: Twin) -> None:
    edges = some_edges(2, tiny_twin.spec.n_edges)
    expected = tiny_twin.predict(edges)
    with tritonclient.http.InferenceServerClient(server.address) as client:
        answer = client.infer(
            "tiny",
            tensors("http", edges, binary_data=False),
            outputs=[
                *outputs("http", "bold", binary_data=False),
                *outputs("http", "rt_s", binary_data=True),
            ],
        )
    np.testing.assert_array_equal(answer.as_numpy("bold"), expected.bold)
    np.testing.assert_array_equal(answer.as_numpy("rt_s"), expected.rt_s)
    assert answer.as_numpy("contrasts") is None
    body = json.loads(request_body(edges))
    body["inputs"][0]["data"] = edges.tolist()  # in rows
    status, _, text = server.ask("POST", "/v2/models/tiny/infer", json.dumps(body).encode())
    assert status == 200
    said = {o["name"]: o for o in json.loads(text)["outputs"]}
    np.testing.assert_array_equal(np.float32(said["bold"]["data"]), expected.bold.ravel())
    assert said["flags"]["data"] == ["", ""]


def test_parameters(client: Any, protocol: str, tiny_twin: Twin) -> None:
    edges = some_edges(2, tiny_twin.spec.n_edges)
    pairs = np.triu_indices(tiny_twin.spec.n_regions, 1)
    edges[1, (pairs[0] == 3) | (pairs[1] == 3)] = np.nan
    z = np.arctanh(edges)
    answer = client.infer(
        "tiny",
        tensors(protocol, z),
        outputs=outputs(protocol, "choice_prob", "flags"),
        parameters={"unit": "z", "missing": "mask", "tasks": "stroop"},
    )
    people = Connectomes.from_arrays(z, regions=tiny_twin.regions, is_fisher_z=True)
    expected = tiny_twin.predict(people, ["stroop"], missing="mask")
    np.testing.assert_array_equal(answer.as_numpy("choice_prob"), expected.choice_prob)
    assert answer.as_numpy("flags").tolist() == [
        b"",
        b"missing_regions:1,masked_regions:1",
    ]


@pytest.mark.parametrize("unit", ["r", "z"])
def test_gradients(client: Any, protocol: str, tiny_twin: Twin, unit: str) -> None:
    edges = some_edges(2, tiny_twin.spec.n_edges)
    answer = client.infer(
        "tiny_gradient", tensors(protocol, edges), parameters={"target": "speed", "unit": unit}
    )
    people = Connectomes.from_arrays(edges, regions=tiny_twin.regions, is_fisher_z=unit == "z")
    expected = target_gradients(tiny_twin, people, "speed")
    np.testing.assert_array_equal(answer.as_numpy("value"), expected.value)
    np.testing.assert_array_equal(answer.as_numpy("d_edges"), expected.edges)


def test_requests_run_together_say_what_they_say_alone(
    client: Any, protocol: str, server: Server, tiny_twin: Twin
) -> None:
    before = server.metric("dtwin_batch_people_count")
    sizes = (1, 2, 5, 1, 3, 1)
    parts = [some_edges(n, tiny_twin.spec.n_edges, seed) for seed, n in enumerate(sizes)]
    wanted = [("tiny", {}), ("tiny", {}), ("tiny_gradient", {"target": "accuracy"})] * 2
    done: queue.Queue[tuple[int, Any, Any]] = queue.Queue()
    futures = []
    for i, (edges, (name, parameters)) in enumerate(zip(parts, wanted, strict=True)):
        given = tensors(protocol, edges)
        if protocol == "http":
            futures.append(client.async_infer(name, given, parameters=parameters))
        else:
            client.async_infer(
                name,
                given,
                lambda result, error, i=i: done.put((i, result, error)),
                parameters=parameters,
            )
    if protocol == "http":
        answers = {i: future.get_result() for i, future in enumerate(futures)}
    else:
        found = [done.get(timeout=30) for _ in sizes]
        assert [error for _, _, error in found] == [None] * len(sizes)
        answers = {i: result for i, result, _ in found}
    for i, edges in enumerate(parts):
        if wanted[i][0] == "tiny":
            alone = tiny_twin.predict(edges)
            for name in ARRAYS:
                np.testing.assert_array_equal(answers[i].as_numpy(name), getattr(alone, name))
        else:
            gradient = target_gradients(tiny_twin, edges, "accuracy")
            np.testing.assert_array_equal(answers[i].as_numpy("d_edges"), gradient.edges)
    assert server.metric("dtwin_batch_people_count") - before < len(sizes)


def test_a_bad_person_spoils_their_own_request_alone(
    client: Any, protocol: str, tiny_twin: Twin
) -> None:
    good = some_edges(2, tiny_twin.spec.n_edges)
    bad = good.copy()
    bad[1, 5] = 1.5
    done: queue.Queue[tuple[str, Any, Any]] = queue.Queue()
    if protocol == "http":
        futures = {
            "good": client.async_infer("tiny", tensors(protocol, good)),
            "bad": client.async_infer("tiny", tensors(protocol, bad)),
        }
        answer = futures["good"].get_result()
        with pytest.raises(InferenceServerException, match=r"\[fisher_z_as_r\]") as caught:
            futures["bad"].get_result()
        assert caught.value.status() == "400"
    else:
        for name, edges in (("good", good), ("bad", bad)):
            client.async_infer(
                "tiny",
                tensors(protocol, edges),
                lambda result, error, name=name: done.put((name, result, error)),
            )
        found = {name: (result, error) for name, result, error in (done.get(), done.get())}
        answer, error = found["good"]
        assert error is None
        assert found["bad"][1].status() == "StatusCode.INVALID_ARGUMENT"
        assert "[fisher_z_as_r]" in found["bad"][1].message()
        assert "1.5" not in found["bad"][1].message()
    np.testing.assert_array_equal(answer.as_numpy("rt_s"), tiny_twin.predict(good).rt_s)


def test_a_stream_answers_in_order_and_lives_through_refusals(
    server: Server, tiny_twin: Twin
) -> None:
    parts = [some_edges(1, tiny_twin.spec.n_edges, seed) for seed in range(3)]
    done: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(server.grpc_address) as client:
        client.start_stream(lambda result, error: done.put((result, error)))
        for edges, name in zip(parts, ("tiny", "none", "tiny"), strict=True):
            client.async_stream_infer(name, tensors("grpc", edges))
        found = [done.get(timeout=30) for _ in parts]
        client.stop_stream()
    assert "[model]" in str(found[1][1])
    for i in (0, 2):
        expected = tiny_twin.predict(parts[i]).rt_s
        np.testing.assert_array_equal(found[i][0].as_numpy("rt_s"), expected)


def test_statistics_and_metrics(client: Any, protocol: str, server: Server) -> None:
    asked = {"as_json": True} if protocol == "grpc" else {}
    before = int(client.get_inference_statistics("tiny", **asked)["model_stats"][0].get(
        "inference_count", 0))  # fmt: skip
    people = server.metric("dtwin_batch_people_sum")
    client.infer("tiny", tensors(protocol, some_edges(4, 120)))
    after = client.get_inference_statistics("tiny", **asked)["model_stats"][0]
    assert int(after["inference_count"]) == before + 4
    assert server.metric("dtwin_batch_people_sum") == people + 4
    assert server.metric("dtwin_queue_people") == 0
    assert server.metric("dtwin_bodies_bytes") == 0


def test_the_description_names_what_is_served(server: Server) -> None:
    status, _, text = server.ask("GET", "/openapi.json")
    assert status == 200
    paths = json.loads(text)["paths"]
    assert "/v2/models/tiny_gradient/versions/1/infer" in paths
    for path, operations in paths.items():
        if "get" in operations:
            assert server.ask("GET", path)[0] == 200, path
        else:
            # Something is there, and does not take an empty body for a request.
            assert server.ask("POST", path)[0] in (200, 400), path


def test_logs_hold_nothing_of_people(server: Server, tiny_twin: Twin) -> None:
    edges = some_edges(1, tiny_twin.spec.n_edges, 77)
    server.ask("POST", "/v2/models/tiny/infer", request_body(edges, id="canary"))
    edges[0, 0] = 4321.5
    status, _, text = server.ask("POST", "/v2/models/tiny/infer", request_body(edges, id="canary"))
    assert status == 400
    assert b"4321" not in text
    keys = {"time", "protocol", "route", "model", "tenant", "code", "ms"}
    assert all(set(record) == keys for record in server.records())
    log = "".join(server.lines)
    assert "canary" not in log
    assert "4321" not in log
    assert str(edges[0, 1]) not in log
