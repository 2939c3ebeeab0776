"""The API's description: ``openapi.toml``, and what the code knows better, as OpenAPI 3.1."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from importlib.metadata import version
from typing import Any, Final

import msgspec

from dualstream_lab.event import ID_PATTERN, Event
from dualstream_lab.gateway.clients import EventFrame
from dualstream_lab.gateway.past import Refusal
from dualstream_lab.gateway.session import Command

_Schema = dict[str, Any]

_PLACE: Final = "#/components/schemas/"
_TYPES: Final[_Schema] = {
    "@string": {"type": "string"},
    "@boolean": {"type": "boolean"},
    "@count": {"type": "integer", "minimum": 0},
}
_STRUCTS: Final = {"Event": Event, "Command": Command, "EventMessage": EventFrame}
_RETRY: Final = {"headers": {"Retry-After": {"description": "s", "schema": {"type": "integer"}}}}
_RETRIED: Final = {"404", "429", "503", "504"}


@cache
def openapi_document() -> bytes:
    """The OpenAPI document, as JSON."""
    text = resources.files(__package__).joinpath("openapi.toml").read_text("utf-8")
    document = _expand(tomllib.loads(text))
    status, shared = document.pop("status"), document.pop("shared")
    for methods in document["paths"].values():
        for operation in methods.values():
            _complete(operation, status, shared)
    document["info"]["version"] = version("dualstream-lab")
    _add_schemas(document["components"]["schemas"])
    return msgspec.json.encode(document)


def _expand(value: Any) -> Any:
    """The value with our shorthands for schemas written out."""
    if isinstance(value, list):
        return [_expand(element) for element in value]
    if isinstance(value, str) and value.startswith("@"):
        return _TYPES.get(value) or {"$ref": _PLACE + value[1:]}
    if not isinstance(value, dict):
        return value
    expanded = {key: _expand(inner) for key, inner in value.items() if key != "fields"}
    if (fields := value.get("fields")) is None:
        return expanded
    required = [name for name in fields if not name.endswith("?")]
    properties = {name.removesuffix("?"): _expand(schema) for name, schema in fields.items()}
    return {"type": "object", "required": required, "properties": properties} | expanded


def _complete(operation: _Schema, status: dict[str, str], shared: _Schema) -> None:
    """Put in what several operations have in common, and the answers to what is refused."""
    if parameters := operation.get("parameters"):
        parameters = [shared[one] if isinstance(one, str) else one for one in parameters]
        operation["parameters"] = [{"required": False} | parameter for parameter in parameters]
    contents = operation.get("requestBody", {}).get("content", {})
    contents.update({kind: shared[body] for kind, body in contents.items() if isinstance(body, str)})
    for error in [*map(str, operation.pop("errors", ())), "default"]:
        body = {"application/json": {"schema": {"$ref": _PLACE + "Error"}}}
        answer = {"description": status[error], "content": body}
        operation["responses"][error] = answer | (_RETRY if error in _RETRIED else {})


def _add_schemas(schemas: _Schema) -> None:
    """What the code knows: the structs, the rules of ids, the reasons, and that a message is one of many."""
    schemas["Id"]["pattern"] = f"^(?:{ID_PATTERN.pattern})$"
    schemas["NotRecovered"]["enum"] = [reason.value for reason in Refusal]
    _, structs = msgspec.json.schema_components(_STRUCTS.values(), ref_template=_PLACE + "{name}")
    for name, struct in _STRUCTS.items():
        known, described = structs[struct.__name__], schemas[name]
        schemas[name] = known | described
        schemas[name]["properties"] = known["properties"] | described.get("properties", {})
    names = [name for name in schemas if name.endswith("Message")]
    mapping = {name.removesuffix("Message").lower(): _PLACE + name for name in names}
    schemas["Message"] = {
        "description": "What the server says.",
        "oneOf": [{"$ref": place} for place in mapping.values()],
        "discriminator": {"propertyName": "kind", "mapping": mapping},
    }
