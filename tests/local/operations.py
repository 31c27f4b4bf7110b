"""What the API consists of: from the SDK's generated clients and, where at hand, its published description.

The clients are always there, since the SDK is. They know every operation and the type of each answer. The
description (OpenAPI) is not part of the repository; what looks into it is left out without it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

CONTROL, TOOLBOX = "daytona_api_client", "daytona_toolbox_api_client"
DESCRIPTIONS = Path(__file__).resolve().parents[3] / "shared" / "reference" / "openapi"
DESCRIPTION = {CONTROL: DESCRIPTIONS / "api.json", TOOLBOX: DESCRIPTIONS / "toolbox.json"}
SDK_VERSION = "0.226.1"
"""The one whose operations are listed in the tests and in ``docs/local-server.md``."""
other_sdk = pytest.mark.skipif(
    importlib.metadata.version("daytona") != SDK_VERSION, reason=f"lists the operations of SDK {SDK_VERSION}"
)
METHODS = ("get", "post", "put", "patch", "delete")

_PUBLIC = re.compile(
    r"^    def ([a-z]\w*)\((.*?)_response_types_map: Dict\[str, Optional\[str\]\] = \{(.*?)\}", re.M | re.S
)
_SERIALIZE = re.compile(r"def _(\w+)_serialize\(.*?method='(\w+)',\s*resource_path='([^']+)'", re.S)
_ANSWER = re.compile(r"'(\d{3})': (?:\"([^\"]+)\"|None)")


@dataclass(frozen=True)
class Operation:
    """One operation of a generated client."""

    name: str
    method: str
    path: str
    answers: tuple[tuple[int, str], ...]
    """Status and the name of the answer's type, empty for none."""

    def type_of(self, status: int) -> str | None:
        """The type of an answer; ``None`` if the client does not know the status."""
        return dict(self.answers).get(status)


def shape(path: str) -> str:
    """A path with its placeholders made equal, for comparison."""
    return re.sub(r"\{[^}]*\}", "{}", path)


@cache
def operations(package: str) -> dict[tuple[str, str], Operation]:
    """All operations of a generated client, by method and path."""
    root = Path(importlib.import_module(package).__file__ or "").parent
    found = {}
    for file in sorted((root / "api").glob("*_api.py")):
        text = file.read_text()
        answers = {
            name: tuple((int(status), kind) for status, kind in _ANSWER.findall(table))
            for name, _, table in _PUBLIC.findall(text)
        }
        for name, method, path in _SERIALIZE.findall(text):
            found[method, path] = Operation(name, method, path, answers[name])
    return found


def used_by_sdk() -> dict[tuple[str, str], Operation]:
    """The control plane's operations that the SDK itself calls."""
    root = Path(importlib.import_module("daytona").__file__ or "").parent
    text = "\n".join(file.read_text() for file in (root / "_sync").glob("*.py"))
    names = set(re.findall(r"_api\.(\w+?)(?:_with_http_info|_without_preload_content)?[(,)\s]", text))
    return {key: one for key, one in operations(CONTROL).items() if one.name in names}


@cache
def description(package: str) -> dict[str, Any] | None:
    """The published description; ``None`` where it is not at hand."""
    path = DESCRIPTION[package]
    if not path.exists():
        return None
    found: dict[str, Any] = _prepared(json.loads(path.read_text()))
    return found


def described(package: str) -> set[tuple[str, str]]:
    """Method and path of all operations of the description."""
    paths = (description(package) or {}).get("paths", {})
    return {(verb.upper(), path) for path, verbs in paths.items() for verb in verbs if verb in METHODS}


def _prepared(node: Any) -> Any:
    """OpenAPI as JSON Schema knows it; what may be left out may be null as well, as the service has it."""
    if isinstance(node, list):
        return [_prepared(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: _prepared(value) for key, value in node.items()}
    properties = made.get("properties")
    if made.get("type") == "object" and isinstance(properties, dict):
        required = made.get("required", [])
        made["properties"] = {
            name: value if name in required else {"anyOf": [value, {"type": "null"}]}
            for name, value in properties.items()
        }
    if made.pop("nullable", False):
        return {"anyOf": [made, {"type": "null"}]}
    return made


def check_answer(package: str, method: str, path: str, status: int, text: str, content_type: str) -> None:
    """Hold one answer against the generated client, and against the description if there is one.

    ``AssertionError``: an undocumented status, or a body that does not fit.
    """
    operation = operations(package)[method, path]
    kind = operation.type_of(status)
    assert kind is not None, f"the client knows no {status} for {method} {path}"
    if kind and kind not in ("bytearray", "bytes") and content_type.startswith(("application/json", "text/")):
        client = importlib.import_module(package).ApiClient()
        assert client.deserialize(text, kind, content_type) is not None or kind == "object"
    schema = _schema(package, method, path, status)
    if schema is not None and content_type.startswith("application/json"):
        # Not jsonschema.validate(): that looks for mistakes in the whole description, at each call.
        wrong = next(jsonschema.Draft202012Validator(schema).iter_errors(json.loads(text)), None)
        assert wrong is None, f"{method} {path}: {status} {str(wrong)[:500]}"


def _schema(package: str, method: str, path: str, status: int) -> dict[str, Any] | None:
    """The JSON Schema of an answer, with everything that it refers to."""
    document = description(package)
    if document is None or (method, path) not in described(package):
        return None
    answer = document["paths"][path][method.lower()]["responses"].get(str(status))
    assert answer is not None, f"the description knows no {status} for {method} {path}"
    schema = answer.get("schema") or answer.get("content", {}).get("application/json", {}).get("schema")
    if schema is None or schema.get("type") in ("file", "string"):
        return None
    names = {name: document[name] for name in ("components", "definitions") if name in document}
    return {**names, **schema}
