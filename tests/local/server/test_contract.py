"""Answers of the control plane against the published description of the API, where that is at hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from .conftest import Running

DESCRIPTION = Path(__file__).resolve().parents[4] / "shared" / "reference" / "openapi" / "api.json"

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        not DESCRIPTION.exists(), reason="the API's description is not part of the repository"
    ),
]


def prepared(node: Any) -> Any:
    """OpenAPI's ``nullable`` as JSON Schema knows it."""
    if isinstance(node, list):
        return [prepared(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: prepared(value) for key, value in node.items()}
    if made.pop("nullable", False):
        return {"anyOf": [made, {"type": "null"}]}
    return made


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    return prepared(json.loads(DESCRIPTION.read_text()))


def check(description: dict[str, Any], method: str, path: str, status: int, body: Any) -> None:
    """Validate one answer against what the description says for its operation and status."""
    operation = description["paths"][path][method.lower()]
    assert str(status) in operation["responses"], (method, path, status)
    content = operation["responses"][str(status)].get("content", {}).get("application/json")
    if content is None:
        return
    schema = {"components": description["components"], **content["schema"]}
    jsonschema.validate(body, schema)


ONE = "/sandbox/{sandboxIdOrName}"
BY_ID = "/sandbox/{sandboxId}"
CALLS: list[tuple[str, str, dict[str, str], Any]] = [
    ("POST", "/sandbox", {}, {"env": {"A": "b"}, "labels": {"x": "y"}, "autoStopInterval": 9}),
    ("GET", "/sandbox", {}, None),
    ("GET", ONE, {}, None),
    ("PUT", f"{ONE}/labels", {}, {"labels": {"a": "b"}}),
    ("POST", f"{ONE}/public/{{isPublic}}", {"isPublic": "true"}, None),
    ("POST", f"{ONE}/autostop/{{interval}}", {"interval": "5"}, None),
    ("POST", f"{ONE}/autopause/{{interval}}", {"interval": "5"}, None),
    ("POST", f"{ONE}/autoarchive/{{interval}}", {"interval": "5"}, None),
    ("POST", f"{ONE}/autodelete/{{interval}}", {"interval": "-1"}, None),
    ("POST", f"{ONE}/ttl/{{ttlMinutes}}", {"ttlMinutes": "100"}, None),
    ("POST", f"{BY_ID}/last-activity", {}, None),
    ("POST", f"{ONE}/network-settings", {}, {}),
    ("PUT", f"{ONE}/secrets", {}, {"secrets": []}),
    ("GET", f"{ONE}/ports/{{port}}/preview-url", {"port": "80"}, None),
    ("GET", f"{ONE}/ports/{{port}}/signed-preview-url", {"port": "80"}, None),
    ("POST", f"{ONE}/ssh-access", {}, None),
    ("DELETE", f"{ONE}/ssh-access", {}, None),
    ("GET", f"{BY_ID}/toolbox-proxy-url", {}, None),
    ("GET", f"{BY_ID}/signing-key", {}, None),
    ("POST", f"{BY_ID}/signing-key/rotate", {}, None),
    ("GET", f"{ONE}/build-logs-url", {}, None),
    ("POST", f"{ONE}/resize", {}, {"cpu": 4}),
    ("POST", f"{ONE}/snapshot", {}, {"name": "contract"}),
    ("GET", f"{ONE}/forks", {}, None),
    ("GET", f"{ONE}/ancestors", {}, None),
    ("POST", f"{ONE}/pause", {}, None),
    ("POST", f"{ONE}/start", {}, None),
    ("POST", f"{ONE}/stop", {}, None),
    ("POST", f"{ONE}/archive", {}, None),
    ("GET", "/snapshots", {}, None),
    ("GET", "/snapshots/{id}", {"id": "contract"}, None),
    ("POST", "/snapshots", {}, {"name": "contract-2", "imageName": "local-python"}),
    ("DELETE", "/snapshots/{id}", {"id": "contract"}, None),
    ("POST", "/volumes", {}, {"name": "contract"}),
    ("GET", "/volumes", {}, None),
    ("GET", "/volumes/by-name/{name}", {"name": "contract"}, None),
    ("POST", "/secret", {}, {"name": "contract", "value": "v"}),
    ("GET", "/secret", {}, None),
    ("GET", "/secret/paginated", {}, None),
    ("GET", "/config", {}, None),
    ("GET", "/warm-pools", {}, None),
    ("DELETE", ONE, {}, None),
]


async def test_answers_fit_the_description(running: Running, description: dict[str, Any]) -> None:
    """Every operation of the list, in the order of a sandbox's life: documented status, valid body."""
    sandbox_id = ""
    for method, path, extra, body in CALLS:
        values = {"sandboxIdOrName": sandbox_id, "sandboxId": sandbox_id, **extra}
        status, answer = await running.call(method, path.format(**values), body)
        try:
            check(description, method, path, status, answer)
        except (AssertionError, jsonschema.ValidationError) as exc:
            pytest.fail(f"{method} {path}: {status} {str(exc)[:500]}")
        sandbox_id = answer["id"] if (method, path) == ("POST", "/sandbox") else sandbox_id
