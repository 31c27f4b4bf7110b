"""Every operation of the control plane that the SDK calls, held against its client and the description."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from ..operations import CONTROL, check_answer, described, operations, other_sdk, used_by_sdk
from .conftest import Running


@dataclass(frozen=True)
class Call:
    """One request and the status of its answer."""

    method: str
    path: str
    body: Any = None
    status: int = 200
    values: dict[str, str] = field(default_factory=dict)
    """For placeholders of the path, from here on."""
    keep: dict[str, str] = field(default_factory=dict)
    """Placeholder of later paths -> key of the answer."""
    query: str = ""


ONE = "/sandbox/{sandboxIdOrName}"
BY_ID = "/sandbox/{sandboxId}"
SANDBOX = {"sandboxId": "id", "sandboxIdOrName": "id"}
PORT = f"{ONE}/ports/{{port}}"

CALLS = [
    Call("POST", "/sandbox", {"env": {"A": "b"}, "labels": {"x": "y"}, "autoStopInterval": 9}, keep=SANDBOX),
    Call("POST", "/sandbox", {"snapshot": "none"}, 400),
    Call("GET", "/sandbox"),
    Call("GET", ONE),
    Call("PUT", f"{ONE}/labels", {"labels": {"a": "b"}}),
    Call("POST", f"{ONE}/public/{{isPublic}}", values={"isPublic": "true"}),
    Call("POST", f"{ONE}/autostop/{{interval}}", values={"interval": "5"}),
    Call("POST", f"{ONE}/autopause/{{interval}}"),
    Call("POST", f"{ONE}/autoarchive/{{interval}}"),
    Call("POST", f"{ONE}/autodelete/{{interval}}"),
    Call("POST", f"{ONE}/ttl/{{ttlMinutes}}", values={"ttlMinutes": "100"}),
    Call("POST", f"{BY_ID}/last-activity", status=201),
    Call("POST", f"{ONE}/network-settings", {}),
    Call("PUT", f"{ONE}/secrets", {"secrets": []}),
    Call("GET", f"{PORT}/preview-url", values={"port": "80"}),
    Call("GET", f"{PORT}/signed-preview-url", keep={"token": "token"}),
    Call("POST", f"{PORT}/signed-preview-url/{{token}}/expire"),
    Call("POST", f"{ONE}/ssh-access", keep={"sshToken": "token"}),
    Call("GET", "/sandbox/ssh-access/validate", query="?token={sshToken}"),
    Call("DELETE", f"{ONE}/ssh-access"),
    Call("GET", f"{BY_ID}/toolbox-proxy-url"),
    Call("GET", f"{BY_ID}/signing-key"),
    Call("POST", f"{BY_ID}/signing-key/rotate"),
    Call("GET", f"{ONE}/build-logs-url"),
    Call("GET", f"{ONE}/build-logs"),
    Call("GET", f"{BY_ID}/telemetry/metrics", query="?from=2026-01-01T00:00:00Z&to=2999-01-01T00:00:00Z"),
    Call("POST", f"{ONE}/resize", {"cpu": 4}),
    Call("POST", f"{ONE}/snapshot", {"name": "contract"}),
    Call("POST", f"{ONE}/fork", {"name": "child"}),
    Call("GET", f"{ONE}/forks"),
    Call("GET", f"{ONE}/ancestors"),
    Call("POST", f"{ONE}/pause"),
    Call("POST", f"{ONE}/start"),
    Call("POST", f"{ONE}/recover", status=400),
    Call("POST", f"{ONE}/stop"),
    Call("POST", f"{ONE}/archive"),
    Call("GET", "/snapshots"),
    Call("GET", "/snapshots/{id}", values={"id": "contract"}, keep={"id": "id"}),
    Call("GET", "/snapshots/{id}/build-logs-url"),
    Call("GET", "/snapshots/{id}/build-logs"),
    Call("POST", "/snapshots/{id}/deactivate", status=204),
    Call("POST", "/snapshots/{id}/activate"),
    Call("POST", "/snapshots/{id}/activate", status=400),
    Call("DELETE", "/snapshots/{id}"),
    Call("GET", "/snapshots/{id}", status=404),
    Call("POST", "/snapshots", {"name": "contract-2", "imageName": "local-python"}),
    Call("POST", "/volumes", {"name": "contract"}, keep={"volumeId": "id"}),
    Call("GET", "/volumes"),
    Call("GET", "/volumes/{volumeId}"),
    Call("GET", "/volumes/by-name/{name}", values={"name": "contract"}),
    Call("DELETE", "/volumes/{volumeId}"),
    Call("POST", "/secret", {"name": "contract", "value": "v"}, 201, keep={"secretId": "id"}),
    Call("GET", "/secret"),
    Call("GET", "/secret/paginated"),
    Call("GET", "/secret/{secretId}"),
    Call("PATCH", "/secret/{secretId}", {"value": "w"}),
    Call("DELETE", "/secret/{secretId}", status=204),
    Call("POST", "/warm-pools", {"snapshot": "local-python", "pool": 1}, 201, keep={"id": "id"}),
    Call("GET", "/warm-pools"),
    Call("PATCH", "/warm-pools/{id}", {"pool": 0}),
    Call("DELETE", "/warm-pools/{id}", status=204),
    Call("GET", "/config"),
    Call("GET", "/health"),
    Call("DELETE", ONE),
]

REFUSED = {
    ("GET", "/object-storage/push-access"): "503: the SDK's storage client speaks https only, to a known CA",
}
"""What the SDK calls and the server always refuses, with the reason."""

ELSEWHERE = (
    "/admin", "/api-keys", "/audit", "/docker-registry", "/health/ready", "/jobs", "/organizations",
    "/preview", "/regions", "/runners", "/shared-regions", "/users", "/webhooks",
    "/sandbox/for-runner", "/sandbox/paginated", "/sandbox/{sandboxId}/secrets",
    "/sandbox/{sandboxIdOrName}/backup", "/sandbox/{sandboxId}/organization",
    "/sandbox/{sandboxId}/parent", "/sandbox/{sandboxId}/region-quota", "/sandbox/{sandboxId}/state",
    "/sandbox/{sandboxId}/telemetry/logs",
    "/sandbox/{sandboxId}/telemetry/traces", "/sandbox/{sandboxId}/fork-tree",
    "/sandbox/{sandboxIdOrName}/parent",
)  # fmt: skip
"""Beginnings of paths that no SDK calls: the service's own administration, accounts, runners, telemetry."""


def placed(text: str, known: dict[str, str]) -> str:
    """A path with its placeholders filled in."""
    for name, value in known.items():
        text = text.replace(f"{{{name}}}", value)
    return text


@pytest.mark.asyncio(loop_scope="module")
async def test_answers_fit_the_client_and_the_description(running: Running) -> None:
    """Every operation of the list, in the order of a sandbox's life: status, body, shape of errors."""
    known: dict[str, str] = {}
    for call in CALLS:
        known |= call.values
        url = f"{running.base}/api{placed(call.path + call.query, known)}"
        async with running.http.request(call.method, url, json=call.body) as answer:
            text, kind = await answer.text(), answer.headers.get("Content-Type", "")
            assert answer.status == call.status, f"{call.method} {url}: {answer.status} {text}"
        if call.status >= 400:
            body = json.loads(text)
            assert body["statusCode"] == call.status
            assert body["message"]
            assert body["path"] == placed(f"/api{call.path}", known)
            assert {"timestamp", "error"} <= set(body)
            continue
        check_answer(CONTROL, call.method, call.path, call.status, text, kind)
        known |= {name: json.loads(text)[key] for name, key in call.keep.items()}
    await running.call("DELETE", "/sandbox/child")


@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_refused_is_refused_with_a_reason(running: Running) -> None:
    """503 and a sentence."""
    for method, path in REFUSED:
        status, body = await running.call(method, path)
        assert (status, body["statusCode"]) == (503, 503)
        assert len(body["message"]) > 40


@other_sdk
def test_every_operation_that_the_sdk_uses_is_called_or_has_a_reason() -> None:
    """All that the SDK calls; what remains of client and description is nobody's business here."""
    called = {(call.method, call.path) for call in CALLS}
    assert set(used_by_sdk()) - called == set(REFUSED)
    rest = (set(operations(CONTROL)) | described(CONTROL)) - called - set(REFUSED)
    assert {one for one in rest if not one[1].startswith(ELSEWHERE)} == set()
    assert not {one for one in used_by_sdk() if one[1].startswith(ELSEWHERE)}
