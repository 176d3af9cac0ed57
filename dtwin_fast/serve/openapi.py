"""The OpenAPI description of the REST interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..provenance import package_version
from .models import VERSION, Model
from .person import KNOWN

ERROR = {
    "type": "object",
    "required": ["error", "code", "field", "subject", "wanted", "got", "fix"],
    "properties": {
        name: {"type": "string"}
        for name in ("error", "code", "field", "subject", "wanted", "got", "fix")
    },
}
PARAMETERS = {
    "type": "object",
    "maxProperties": 32,
    "additionalProperties": {
        "anyOf": [{"type": "boolean"}, {"type": "number"}, {"type": "string"}]
    },
}
REFUSED = {
    "4XX": {"$ref": "#/components/responses/Refused"},
    "503": {"$ref": "#/components/responses/Refused"},
}


def openapi(models: Mapping[str, Model]) -> dict[str, Any]:
    """OpenAPI 3.1 of the models of a server."""
    paths: dict[str, Any] = {
        "/v2/health/live": _get("The process runs", _object(live="boolean"), open_=True),
        "/v2/health/ready": _get(
            "Requests are welcome (503: not now)", _object(ready="boolean"), open_=True
        ),
        "/v2": _get("What serves", _object(name="string", version="string", extensions="array")),
        "/v2/repository/index": {
            "post": _operation("All models", {"type": "array", "items": {"type": "object"}})
        },
        "/metrics": {"get": _operation("Counters for Prometheus", None)},
        "/openapi.json": _get("This description", {"type": "object"}),
    }
    page = _get("A page for people", {}, open_=True)
    page["get"]["responses"]["200"]["content"] = {"text/html": {}}
    paths |= {"/": page, "/page/person": {"post": _person()}}
    paths["/v2/health/ready"]["get"]["responses"]["503"] = _json(
        "Not ready", _object(ready="boolean")
    )
    for model in models.values():
        for path in (f"/v2/models/{model.name}", f"/v2/models/{model.name}/versions/{VERSION}"):
            ready = _object(name="string", ready="boolean")
            paths |= {
                path: _get("Tensors, parameters and names of axes", {"type": "object"}),
                f"{path}/ready": _get("The model can be asked (503: not now)", ready),
                f"{path}/config": _get("Triton's model configuration", {"type": "object"}),
                f"{path}/stats": _get("Triton's statistics", {"type": "object"}),
                f"{path}/infer": {"post": _infer(model)},
            }
            paths[f"{path}/ready"]["get"]["responses"]["503"] = _json("Not ready", ready)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dtwin_fast",
            "version": package_version(),
            "description": "A digital twin brain behind the Open Inference Protocol. "
            "In silico, not clinical.",
        },
        "paths": paths,
        "security": [{}, {"token": []}],
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {"Refused": _json("A refusal; `code` is stable", ERROR)},
        },
    }


def _infer(model: Model) -> dict[str, Any]:
    (edges,) = model.inputs
    names = [spec.name for spec in model.outputs]
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"const": edges.name},
            "shape": {
                "type": "array",
                "prefixItems": [
                    {"type": "integer", "minimum": 1},
                    {"const": edges.shape[1]},
                ],
                "minItems": 2,
                "maxItems": 2,
            },
            "datatype": {"const": edges.datatype},
            "parameters": _object(binary_data_size="integer"),
            "data": {"type": "array", "description": f"flat, or in rows: {edges.what}"},
        },
    }
    request = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string", "maxLength": 256},
            "parameters": {
                **PARAMETERS,
                "description": "; ".join(f"{k}: {what}" for k, what in model.parameters.items())
                + "; binary_data_output: whether outputs come as bytes; timeout: microseconds",
            },
            "inputs": {"type": "array", "items": tensor, "minItems": 1, "maxItems": 1},
            "outputs": {
                "type": "array",
                "maxItems": 32,
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {
                        "name": {"enum": names},
                        "parameters": _object(binary_data="boolean"),
                    },
                },
            },
        },
    }
    answer = {
        "type": "object",
        "required": ["model_name", "model_version", "id", "parameters", "outputs"],
        "properties": {
            "model_name": {"const": model.name},
            "model_version": {"const": VERSION},
            "id": {"type": "string"},
            "parameters": PARAMETERS,
            "outputs": {"type": "array", "items": {"type": "object"}},
        },
    }
    operation = _operation("Run the model", answer)
    operation["responses"]["200"]["content"]["application/octet-stream"] = {}
    operation["requestBody"] = {
        "required": True,
        "description": "JSON, or JSON and the bytes of tensors, with the header "
        "Inference-Header-Content-Length (the binary tensor data extension).",
        "content": {"application/json": {"schema": request}},
    }
    return operation


def _person() -> dict[str, Any]:
    """What the page asks."""
    done = {
        "type": "object",
        "required": ["results", "sections", "report"],
        "properties": {
            "results": {"type": "object"},
            "sections": {"type": "array", "items": {"type": "object"}},
            "report": {"type": "string"},
        },
    }
    operation = _operation("What the twin says of the person of a file", done)
    operation["parameters"] = [
        {
            "name": name,
            "in": "query",
            "required": name == "format",
            "schema": {"enum": list(values)},
        }
        for name, values in KNOWN.items()
    ]
    operation["requestBody"] = {
        "required": True,
        "description": "The file of one connectome, as it is.",
        "content": {"application/octet-stream": {}},
    }
    return operation


def _get(summary: str, schema: dict[str, Any], *, open_: bool = False) -> dict[str, Any]:
    operation = _operation(summary, schema)
    if open_:
        operation["security"] = []
    return {"get": operation}


def _operation(summary: str, schema: dict[str, Any] | None) -> dict[str, Any]:
    done = {"description": "Done", "content": {"text/plain": {}}} if schema is None else _json(
        "Done", schema
    )  # fmt: skip
    return {"summary": summary, "responses": {"200": done, **REFUSED}}


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _object(**types: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"type": type_} for name, type_ in types.items()},
    }
