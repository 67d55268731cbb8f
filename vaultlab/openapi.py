"""The protocol as an OpenAPI document, for whoever writes another client."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import models_json_schema

from vaultlab.protocol import ENDPOINTS, HEADERS, PARAMS, PROTOCOL, Endpoint, OpenApi, Problem

_SIGNED = """Every request and every answer is signed: HMAC-SHA256, in hex, in `X-Vaultlab-Mac`, over these lines, with
a line feed between them and none at the end.

A request: `vaultlab 1 request`, method, path with its query as sent, device, time, nonce, SHA-256 of the body in hex.
An answer: `vaultlab 1 answer STATUS`, then the request's method, path, device, time and nonce, SHA-256 of its own body.

Time is in milliseconds since the epoch, a nonce is 16 random bytes in hex, used once. The key is 32 bytes:
HKDF-SHA256(the code's 16 bytes, salt: the nonce of the request to `/v1/pair` and the nonce that it was answered with,
info: `vaultlab 1 key DEVICE`). The request to `/v1/pair` itself is signed with HKDF-SHA256(code, salt: its nonce,
info: `vaultlab 1 pair`), its device is 32 zeros; its answer is signed with the new key.

An answer that is not signed is a stranger's, or a refusal of someone who could not sign: 401, 403, 408, 413, 426."""
_HEADER_FORMS = {
    "protocol": "^[0-9]{1,4}$",
    "device": "^[0-9a-f]{32}$",
    "time": "^[1-9][0-9]{12}$",
    "nonce": "^[0-9a-f]{32}$",
    "mac": "^[0-9a-f]{64}$",
}
_REFUSALS = {
    400: "Not as this document says.",
    401: "Not signed as it must be; or signed, with a time that is too far from the daemon's.",
    403: "Another host or another origin.",
    404: "There is no such thing.",
    405: "Not with this method.",
    408: "The body did not come to its end.",
    409: "The note on the disk is another one.",
    413: "More than 1 MiB.",
    415: "Not JSON.",
    422: "The author has to change something first.",
    426: "Another version of the protocol: which side to update.",
    500: "A fault of the daemon's.",
    503: "The machine cannot do it now.",
}


def document() -> OpenApi:
    """The OpenAPI document of these declarations; `vaultlab/openapi.json` is this."""
    asks: list[Any] = [(one, "validation") for end in ENDPOINTS for one in (end.body, end.query) if one]
    answers: list[Any] = [(end.answer, "serialization") for end in ENDPOINTS] + [(Problem, "serialization")]
    refs, defined = models_json_schema([*asks, *answers], ref_template="#/components/schemas/{model}")
    paths: dict[str, dict[str, Any]] = {}
    for end in ENDPOINTS:
        paths.setdefault(end.path, {})[end.method.lower()] = _operation(end, refs)
    return OpenApi.model_validate(
        {
            "openapi": "3.1.0",
            "info": {"title": "The vaultlab daemon", "version": str(PROTOCOL), "description": _SIGNED},
            "paths": paths,
            "components": {
                "schemas": defined["$defs"],
                "parameters": {name: _parameter("header", HEADERS[name], _HEADER_FORMS[name]) for name in HEADERS},
            },
        }
    )


def _operation(end: Endpoint, refs: Mapping[Any, Any]) -> dict[str, Any]:
    parameters: list[Any] = [{"$ref": f"#/components/parameters/{name}"} for name in HEADERS]
    parameters += [_parameter("path", name, f"^{PARAMS[name].pattern}$") for name in re.findall(r"{(\w+)}", end.path)]
    if end.query:
        fields = end.query.model_json_schema()["properties"]
        parameters += [{"in": "query", "name": name, "schema": schema} for name, schema in fields.items()]
    responses: dict[str, Any] = {"200": _content("Signed.", refs[end.answer, "serialization"])}
    responses |= {str(code): _content(why, refs[Problem, "serialization"]) for code, why in _REFUSALS.items()}
    operation: dict[str, Any] = {
        "operationId": end.verb,
        "summary": end.help,
        "parameters": parameters,
        "responses": responses,
    }
    if end.body:
        operation["requestBody"] = {"required": True, **_content("Closed.", refs[end.body, "validation"])}
    return operation


def _parameter(where: str, name: str, pattern: str) -> dict[str, Any]:
    return {"in": where, "name": name, "required": True, "schema": {"type": "string", "pattern": pattern}}


def _content(description: str, schema: Any) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
