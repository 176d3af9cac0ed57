"""gRPC: the Open Inference Protocol's service."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import numpy as np
from google.protobuf.message import DecodeError

from ..errors import DTwinInputError
from ..provenance import package_version
from .messages import CLASSES, DATA_TYPES, SERVICE, as_parameters, scalars
from .models import VERSION, Answer, Model, Work, configuration
from .refusals import GRPC_STATUS, RETRY_S, as_json, http_status, may_retry
from .rest import EXTENSIONS
from .service import Account, Service
from .settings import CONNECTIONS, METADATA_BYTES, STREAM_IDLE_S
from .tenants import Tenant
from .tensors import Array, Asked, find_spec, from_bytes, to_bytes, wrong_size

Answerer = Callable[[Any, Account, Tenant, Any], Awaitable[Any]]

OPEN = ("ServerLive", "ServerReady")
MESSAGE_BYTES = 64 * 1024
"""What a message holds beyond its tensors."""
STREAMS = 256
"""Calls of one connection at once."""


def grpc_server(service: Service) -> grpc.aio.Server:
    """A server of a service, which is not bound to any port yet."""
    rpc = Rpc(service)
    unary: dict[str, Answerer] = {
        "ServerLive": rpc.live,
        "ServerReady": rpc.ready,
        "ModelReady": rpc.model_ready,
        "ServerMetadata": rpc.server,
        "ModelMetadata": rpc.model,
        "ModelConfig": rpc.config,
        "ModelStatistics": rpc.statistics,
        "RepositoryIndex": rpc.index,
        "ModelInfer": rpc.infer,
    }
    handlers = {
        # A unary call is a stream of one message on the wire; taken as a stream, it can be
        # refused before its message has come, and given up when it does not come.
        name: grpc.stream_unary_rpc_method_handler(
            rpc.guard(name, answer),
            None,  # taken as bytes, so that what is no message is refused in our words
            CLASSES[f"{name}Response"].SerializeToString,
        )
        for name, answer in unary.items()
    }
    handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
        rpc.stream,
        None,
        CLASSES["ModelStreamInferResponse"].SerializeToString,
    )
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", service.settings.body_bytes + MESSAGE_BYTES),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", METADATA_BYTES),
            ("grpc.absolute_max_metadata_size", METADATA_BYTES),
            ("grpc.max_concurrent_streams", STREAMS),
            ("grpc.server_handshake_timeout_ms", 1000 * service.settings.header_s),
            ("grpc.so_reuseport", 0),
        ],
        maximum_concurrent_rpcs=CONNECTIONS,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    return server


class Rpc:
    """The handlers."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def guard(self, name: str, answer: Answerer) -> Callable[[Any, Any], Awaitable[Any]]:
        """The handler with what every one needs: who asks, a message in time, typed refusals."""

        async def guarded(_: Any, context: Any) -> Any:
            try:
                return await self._answer(name, answer, context)
            except DTwinInputError as error:
                await _abort(context, error)

        return guarded

    async def _answer(self, name: str, answer: Answerer, context: Any) -> Any:
        service = self._service
        account = Account()
        with service.request("grpc", name, account):
            tenant = self._enter(name, context, account)
            if name in OPEN:  # nobody without a token is waited for
                return await answer(None, account, tenant, context)
            if name == "ModelInfer":
                await service.admit(tenant)
            async with service.receiving(account, service.settings.body_s) as count:
                data = await context.read()
                if data is grpc.aio.EOF:
                    raise _bad_message()
                count(len(data))
            message = await service.parse(_decode, name, data)
            account.model = getattr(message, "model_name", "")
            return await answer(message, account, tenant, context)

    def _enter(self, name: str, context: Any, account: Account) -> Tenant:
        if name in OPEN:
            return Tenant("")
        metadata = dict(context.invocation_metadata() or ())
        return self._service.enter(account, str(metadata.get("authorization", "")))

    async def live(self, message: Any, account: Account, tenant: Tenant, context: Any) -> Any:
        """The process runs."""
        return CLASSES["ServerLiveResponse"](live=True)

    async def ready(self, message: Any, account: Account, tenant: Tenant, context: Any) -> Any:
        """Requests are welcome."""
        return CLASSES["ServerReadyResponse"](ready=self._service.ready)

    async def model_ready(
        self, message: Any, account: Account, tenant: Tenant, context: Any
    ) -> Any:
        """A model can be asked."""
        self._service.model(message.name, message.version)
        return CLASSES["ModelReadyResponse"](ready=self._service.ready)

    async def server(self, message: Any, account: Account, tenant: Tenant, context: Any) -> Any:
        """What serves."""
        response = CLASSES["ServerMetadataResponse"]
        return response(name="dtwin_fast", version=package_version(), extensions=EXTENSIONS)

    async def model(self, message: Any, account: Account, tenant: Tenant, context: Any) -> Any:
        """What a model takes and gives."""
        model, tensor = (
            self._service.model(message.name, message.version),
            CLASSES["TensorMetadata"],
        )
        inputs, outputs = (
            [tensor(name=s.name, datatype=s.datatype, shape=s.shape) for s in specs]
            for specs in (model.inputs, model.outputs)
        )
        return CLASSES["ModelMetadataResponse"](
            name=model.name,
            versions=[VERSION],
            platform="dtwin_fast",
            inputs=inputs,
            outputs=outputs,
        )

    async def config(self, message: Any, account: Account, tenant: Tenant, context: Any) -> Any:
        """A model's configuration, as Triton has it; the names of its axes are parameters."""
        config = configuration(self._service.model(message.name, message.version))
        for tensor in (*config["input"], *config["output"]):
            tensor["data_type"] = DATA_TYPES[tensor["data_type"]]
        config["parameters"] = [{"key": k, "value": v} for k, v in config["parameters"].items()]
        return CLASSES["ModelConfigResponse"](config=config)

    async def statistics(self, message: Any, account: Account, tenant: Tenant, context: Any) -> Any:
        """What models have done, as Triton has it."""
        wanted = [self._service.model(message.name, message.version)] if message.name else [
            *self._service.models.values()
        ]  # fmt: skip
        stats = [self._service.metrics.triton(model.name) for model in wanted]
        return CLASSES["ModelStatisticsResponse"](model_stats=stats)

    async def index(self, message: Any, account: Account, tenant: Tenant, context: Any) -> Any:
        """All models."""
        models = [
            {"name": name, "version": VERSION, "state": "READY"} for name in self._service.models
        ]
        return CLASSES["RepositoryIndexResponse"](models=models)

    async def infer(self, message: Any, account: Account, tenant: Tenant, context: Any) -> Any:
        """Run a model."""
        service = self._service
        model = service.model(message.model_name, message.model_version)
        work, wait_s = await service.parse(_parse, message, model, service.settings.queue)
        left_s = context.time_remaining()
        waits = [seconds for seconds in (wait_s, left_s) if seconds is not None]
        answer = await service.answer(work, tenant, min(waits, default=None))
        return await service.parse(_write, model, message.id, answer)

    async def stream(self, _: Any, context: Any) -> AsyncIterator[Any]:
        """Run models, an answer or an error message for each request, in their order."""
        service, response = self._service, CLASSES["ModelStreamInferResponse"]
        while True:
            account = Account()
            try:
                with service.request("grpc", "ModelStreamInfer", account):
                    tenant = self._enter("ModelStreamInfer", context, account)
                    async with service.receiving(account, STREAM_IDLE_S) as count:
                        data = await context.read()
                        if data is grpc.aio.EOF:
                            account.nothing = True
                            return
                        count(len(data))
                    account.received = True
                    account.start = time.perf_counter()  # a stream may be idle for long
                    await service.admit(tenant)
                    message = await service.parse(_decode, "ModelInfer", data)
                    account.model = message.model_name
                    done = await self.infer(message, account, tenant, context)
            except DTwinInputError as error:
                if not account.received:
                    await _abort(context, error)
                yield response(error_message=str(error))
            else:
                yield response(infer_response=done)


def _parse(message: Any, model: Model, max_rows: int) -> tuple[Work, float | None]:
    inputs: dict[str, Array] = {}
    raw = list(message.raw_input_contents)
    if raw and len(raw) != len(message.inputs):
        raise wrong_size("raw_input_contents", f"{len(message.inputs)} of them", str(len(raw)))
    for row, tensor in enumerate(message.inputs):
        spec = find_spec(model.inputs, tensor.name, tensor.datatype, tensor.shape, max_rows)
        if spec.name in inputs or tensor.parameters:
            raise DTwinInputError(
                "input",
                "this input is here twice, or has parameters",
                field=spec.name,
                wanted="each input once, without parameters",
                fix="Send its type, its shape and its data",
            )
        data = raw[row] if raw else np.array(tensor.contents.fp32_contents, "<f4").tobytes()
        inputs[spec.name] = from_bytes(spec, tensor.shape, data)
    parameters = scalars(message.parameters)
    wait_us = parameters.pop("timeout", None)
    if wait_us is not None and (type(wait_us) is not int or wait_us <= 0):
        raise DTwinInputError(
            "parameter",
            "this is no time to wait",
            field="timeout",
            wanted="microseconds",
            fix="Give a positive integer",
        )
    if odd := [key for output in message.outputs for key in scalars(output.parameters)]:
        raise DTwinInputError(
            "parameter",
            "outputs have no parameters here",
            field="outputs",
            got=repr(odd[0][:80]),
            fix="Leave it out",
        )
    names = tuple(output.name for output in message.outputs)
    work = model.accept(Asked(inputs, names or None, parameters))
    return work, None if wait_us is None else float(wait_us) / 1e6


def _write(model: Model, id_: str, answer: Answer) -> Any:
    specs = [spec for spec in model.outputs if spec.name in answer.arrays]
    tensor = CLASSES["InferOutputTensor"]
    return CLASSES["ModelInferResponse"](
        model_name=model.name,
        model_version=VERSION,
        id=id_,
        parameters=as_parameters(answer.parameters),
        outputs=[
            tensor(name=s.name, datatype=s.datatype, shape=answer.arrays[s.name].shape)
            for s in specs
        ],
        raw_output_contents=[to_bytes(answer.arrays[s.name]) for s in specs],
    )


async def _abort(context: Any, error: DTwinInputError) -> None:
    metadata = [
        ("dtwin-code", error.code),
        ("dtwin-error-bin", json.dumps(as_json(error)).encode()),
    ]
    if may_retry(error):
        metadata.append(("retry-after", str(RETRY_S)))
    status = grpc.StatusCode[GRPC_STATUS[http_status(error)]]
    await context.abort(status, str(error), tuple(metadata))


def _decode(name: str, data: bytes) -> Any:
    try:
        return CLASSES[f"{name}Request"].FromString(data)
    except DecodeError as error:
        raise _bad_message() from error


def _bad_message() -> DTwinInputError:
    return DTwinInputError(
        "message",
        "this call has no message of its kind",
        field="call",
        fix="Send one message of the Open Inference Protocol",
    )
