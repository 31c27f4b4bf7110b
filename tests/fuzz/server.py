"""Requests at random, from the API's description, against a local server: ``python -m tests.fuzz.server``.

The description is Daytona's where it is at hand, else one that is made of the SDK's operations. No answer may
be a failure of the server (the toolbox says 500 of what it can not do, too, and then says what), none may
hold the key, and in the end the server still does what it should.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings

from daytona_kernel.local.launcher import LocalServer, ensure_running, stop
from daytona_kernel.local.paths import local_paths
from tests.local.operations import CONTROL, DESCRIPTION, TOOLBOX, operations, used_by_sdk

WAIT_S = 15
SLOW = ("/process/session/", "/computeruse", "/lsp", "follow", "/build-logs", "/pty")
"""Paths that wait, or start programs that take their time: fuzzing them would be waiting only."""


def description(package: str, sandbox_id: str) -> dict[str, Any]:
    """An OpenAPI document of a package's operations, with a real sandbox in its paths."""
    if DESCRIPTION[package].exists():
        document = json.loads(DESCRIPTION[package].read_text())
        known: dict[str, Any] = document["paths"]
        wanted = set(used_by_sdk() if package == CONTROL else operations(TOOLBOX))
        document["paths"] = {
            path: {verb: one for verb, one in verbs.items() if (verb.upper(), path) in wanted}
            for path, verbs in known.items()
        }
    else:
        document = {"openapi": "3.0.0", "info": {"title": package, "version": "1"}, "paths": made(package)}
    document.pop("servers", None)
    document.pop("security", None)
    paths = {path: verbs for path, verbs in document["paths"].items() if not any(s in path for s in SLOW)}
    document["paths"] = {
        re.sub(r"\{sandboxId\w*\}", sandbox_id, path): without(verbs) for path, verbs in paths.items()
    }
    return document


def without(verbs: dict[str, Any]) -> dict[str, Any]:
    """The operations without the parameter that is written out."""
    for one in verbs.values():
        parameters = [
            p for p in one.get("parameters", []) if not str(p.get("name", "")).startswith("sandboxId")
        ]
        one["parameters"] = [p for p in parameters if p.get("in") != "header"]
        one.pop("security", None)
    return verbs


def made(package: str) -> dict[str, Any]:
    """Paths of the SDK's operations, each with any JSON object for a body."""
    found: dict[str, Any] = {}
    table = used_by_sdk() if package == CONTROL else operations(TOOLBOX)
    for method, path in table:
        text = {"type": "string", "minLength": 1}
        parameters = [
            {"name": name, "in": "path", "required": True, "schema": text}
            for name in re.findall(r"\{(\w+)\}", path)
        ]
        one: dict[str, Any] = {"parameters": parameters, "responses": {"200": {"description": "."}}}
        if method in ("POST", "PUT", "PATCH"):
            one["requestBody"] = {"content": {"application/json": {"schema": {"type": "object"}}}}
        found.setdefault(path, {})[method.lower()] = one
    return found


def fuzz(server: LocalServer, package: str, base: str, sandbox_id: str, seconds: float, number: int) -> int:
    """Try all operations in turn until the time is over; how many requests were made."""
    document = description(package, sandbox_id)
    found = [result.ok() for result in schemathesis.openapi.from_dict(document).get_all_operations()]
    random.Random(number).shuffle(found)
    headers = {"Authorization": f"Bearer {server.api_key}"}
    until, count = time.monotonic() + seconds, 0
    for operation in found:
        left = until - time.monotonic()
        if left <= 0:
            break

        @seed(number)
        @settings(
            max_examples=max(3, int(300 / len(found)) * 3),
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy())
        def attack(case: Any) -> None:
            nonlocal count
            if time.monotonic() > until or ("stop" in case.path and case.method == "POST"):
                return
            count += 1
            try:
                answer = case.call(base_url=base, headers=headers, timeout=WAIT_S)
            except (
                requests.Timeout,
                requests.ConnectionError,
                requests.exceptions.InvalidHeader,
                ValueError,
            ):
                return
            text = answer.content.decode("utf-8", "backslashreplace")
            what = f"{case.method} {case.path} {case.query} {str(case.body)[:300]}"
            failed = answer.status_code >= 500 and (package == CONTROL or "internal error" in text)
            assert not failed or answer.status_code == 503, f"{what}: {answer.status_code} {text[:300]}"
            assert server.api_key not in text, what

        attack()
    return count


def main() -> int:
    """Fuzz the control plane, then a toolbox."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.server", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(1, 2**31))
    args = parser.parse_args()
    print(f"--- local server, seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="fz") as folder:
        os.environ["DAYTONA_LOCAL_DIR"] = folder
        paths = local_paths()
        server = ensure_running(paths)
        try:
            attack(server, args.seconds, args.seed)
        finally:
            log = Path(paths.log_file).read_text(errors="replace")
            stop(paths)
        failures = [line for line in log.splitlines() if "Traceback" in line or " failed" in line]
        print("\n".join(failures[:5]) or "nothing in the log")
        return bool(failures)


def attack(server: LocalServer, seconds: float, number: int) -> None:
    """Both parts, a sandbox each; at the end the server must still make one."""
    root = server.api_url.removesuffix("/api")
    http = requests.Session()
    http.headers["Authorization"] = f"Bearer {server.api_key}"
    for package, place in ((CONTROL, "/api"), (TOOLBOX, "/toolbox/{id}")):
        made_one = http.post(f"{server.api_url}/sandbox", json={}, timeout=60)
        sandbox_id = made_one.json()["id"]
        base = (
            root + place.format(id=sandbox_id)
            if package == TOOLBOX
            else server.api_url.removesuffix("/api") + "/api"
        )
        count = fuzz(server, package, base, sandbox_id, seconds / 2, number)
        print(f"{package}: {count} requests", flush=True)
    assert http.post(f"{server.api_url}/sandbox", json={}, timeout=60).json()["state"] == "started"


if __name__ == "__main__":
    sys.exit(main())
