"""`%daytona` and the life of sandboxes, through both doors. Each test uses sandboxes of its own."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from daytona_kernel.local import launcher
from tests.security.canary.marks import MARK, PLANTED

from .doors import Door


@pytest.fixture
def home(door: Door) -> str:
    """The sandbox that the door uses at the moment, running."""
    python(door, "pass")
    return name_of(door)


def name_of(door: Door) -> str:
    """The sandbox that the door uses."""
    door("facts = %daytona status").ok()
    return door.here("print(facts['name'])").stdout.strip()


def python(door: Door, code: str) -> str:
    """What code prints that runs in the sandbox."""
    return door(code if door.name == "kernel" else f"%%daytona\n{code}").ok().stdout.strip()


def unique(door: Door, word: str) -> str:
    return f"{word}-{door.name}"


def test_status_shows_the_sandbox(door: Door, home: str) -> None:
    outcome = door("%daytona status").ok()
    assert home in outcome.text
    assert "started" in outcome.text
    assert "auto-stop" in outcome.text
    assert "local sandbox on this machine" in outcome.text
    assert home in door("%daytona list").ok().text
    assert home in door("%daytona list --json").ok().stdout


def test_stop_keeps_files_and_the_next_cell_starts_again(door: Door, home: str) -> None:
    python(door, "v = 1; print(v); open('kept.txt', 'w').write('kept')")
    door("%daytona stop").ok()
    door.complete("%daytona cat kep")
    assert "stopped" in door("%daytona status").ok().text  # Tab starts nothing
    code = "print(open('kept.txt').read(), 'v' in globals())"
    assert python(door, code).endswith("kept False")
    door("%daytona stop").ok()
    assert "python" in door("%daytona status").ok().text
    assert "kept" in door("%daytona cat kept.txt").ok().text
    cell = "print('again')"
    outcome = door(cell if door.name == "kernel" else f"%%daytona\n{cell}").ok()
    assert outcome.stderr.count("variables are lost") == 1


def test_stop_says_that_an_ephemeral_sandbox_goes_with_its_files(door: Door, home: str) -> None:
    door("%daytona create --ephemeral").ok()
    python(door, "open('kept.txt', 'w').close()")
    door("%daytona set auto_delete=1h").ok()
    assert "files stay" in door("%daytona stop").ok().text
    assert python(door, "import os; print(os.path.exists('kept.txt'))") == "True"
    door("%daytona set auto_delete=0").ok()
    assert "deleted, with its files" in door("%daytona stop").ok().text
    assert python(door, "import os; print(os.path.exists('kept.txt'))") == "False"


def test_restart_loses_variables_only(door: Door, home: str) -> None:
    python(door, "v = 1")
    door("%daytona restart").ok()
    assert python(door, "print('v' in globals())") == "False"


def test_create_attach_and_delete(door: Door, home: str) -> None:
    name = unique(door, "second")
    outcome = door(f"%daytona create --name {name} --env MODE=test --label team=ml --auto-stop 2h")
    assert f"Created {name}" in outcome.ok().text
    # The sandbox before was this notebook's own: it was treated as at the end of a kernel.
    assert "was deleted" in outcome.text
    assert python(door, "import os; print(os.environ['MODE'])") == "test"
    assert "after 2h" in door("%daytona status").text
    assert name in door("%daytona list --label team=ml").text
    third = unique(door, "third")
    door(f"%daytona fork {third}").ok()
    assert "Cells run in" in door(f"%daytona attach {third}").ok().text
    assert "never deleted with the kernel" in door("%daytona status").text
    door(f"%daytona delete {third} --yes").ok()
    assert third not in door("%daytona list").text
    assert "none yet" in door("%daytona status").text
    assert python(door, "print(1)") == "1"


@pytest.fixture
def scratch(door: Door) -> str:
    """A sandbox that the test may change; the door uses it from now on."""
    door("%daytona create").ok()
    return name_of(door)


def test_a_sandbox_without_a_name_is_told_by_its_id_once(door: Door, home: str) -> None:
    said = door("%daytona create").ok().text
    assert said.startswith(f"Created {name_of(door)}; cells run there now"), said
    door("%daytona delete --yes").ok()


def test_labels_are_merged(door: Door, scratch: str) -> None:
    door("%daytona label a=1 b=2").ok()
    door("%daytona label b= c=3").ok()
    text = door("%daytona label").ok().text
    assert "a=1" in text
    assert "c=3" in text
    assert "b=2" not in text


def test_settings_take_human_times(door: Door, scratch: str) -> None:
    door("%daytona set auto_stop=2h auto_delete=7d").ok()
    text = door("%daytona status").ok().text
    assert "after 2h without activity" in text
    assert "after 7d stopped" in text
    door("%daytona set auto_stop=never auto_delete=never").ok()
    assert "never: it runs" in door("%daytona status").ok().text


def test_resize_obeys_the_rules(door: Door, scratch: str) -> None:
    assert "stopped sandbox" in door("%daytona resize --memory 1").failed("UsageError")
    assert "can not shrink" in door("%daytona resize --disk 1 --restart").failed("UsageError")
    door("%daytona resize --cpu 4").ok()
    assert "4 vCPU" in door("%daytona status").text


def test_deleting_asks_for_the_name(door: Door, scratch: str) -> None:
    assert "Nothing was deleted" in door("%daytona delete", answers=("no",)).failed("UsageError")
    assert "nobody to ask" in door("%daytona delete").failed("UsageError")
    door("%daytona delete", answers=(scratch,)).ok()
    assert scratch not in door("%daytona list").text


def test_environment_is_set_and_never_shown(door: Door, scratch: str, tmp_path: Path) -> None:
    secret, value = f"s3cr3t-'\"\\-{MARK}{PLANTED}value", f"file-{MARK}{PLANTED}value"
    (tmp_path / ".env.sandbox").write_text(f"FROM_FILE={value}\nOTHER={'x' * 20}\n")
    outcome = door(f"%daytona env from {tmp_path}/.env.sandbox").ok()
    assert value not in outcome.text + outcome.stderr + outcome.html
    outcome = door("%daytona env set ASKED_FOR", answers=(secret,)).ok()
    assert secret not in outcome.text
    assert python(door, f"import os; print(os.environ['FROM_FILE'] == {value!r})") == "True"
    assert python(door, "print(os.environ['FROM_FILE'])") == "[redacted]"
    assert python(door, f"print(os.environ['ASKED_FOR'] == {secret!r})") == "True"
    listed = door("%daytona env list").ok().text
    assert "••••" in listed
    assert secret not in listed


def test_contexts_are_listed_and_renewed(door: Door, scratch: str) -> None:
    python(door, "v = 1")
    assert "→" in door("%daytona context list").ok().text
    assert "no context" in door("%daytona context rm nothing").failed("UsageError")
    door("%daytona context new").ok()
    assert python(door, "print('v' in globals())") == "False"


def test_volumes_come_and_go(door: Door) -> None:
    volume = unique(door, "vol")
    door(f"%daytona volume create {volume}").ok()
    assert volume in door("%daytona volume list").ok().text
    assert "Nothing was deleted" in door(f"%daytona volume delete {volume}", answers=("no",)).evalue
    assert f"Did you mean {volume}?" in door(f"%daytona volume delete {volume}x --yes").failed("UsageError")
    door(f"%daytona volume delete {volume} --yes").ok()
    assert volume not in door("%daytona volume list").ok().text


def deactivate(snapshot: str) -> None:
    """Make a snapshot inactive, as the service does with one that nobody uses; the SDK has no call for it."""
    server = launcher.find_running()
    assert server is not None
    facts = launcher.environment(server)
    request = urllib.request.Request(
        f"{facts['DAYTONA_API_URL']}/snapshots/{snapshot}/deactivate",
        method="POST",
        headers={"Authorization": f"Bearer {facts['DAYTONA_API_KEY']}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 204


def test_a_snapshot_is_made_used_and_made_usable_again(door: Door, scratch: str) -> None:
    snapshot = unique(door, "snap")
    door(f"%daytona snapshot create {snapshot}").ok()
    assert snapshot in door("%daytona snapshot list").ok().text
    assert "active already" in door(f"%daytona snapshot activate {snapshot}").ok().text
    deactivate(snapshot)
    assert "inactive" in door("%daytona snapshot list").text
    refusal = door(f"%daytona create --snapshot {snapshot}").failed("CommandFailed")
    assert f"snapshot activate {snapshot}" in refusal
    assert name_of(door) == scratch
    assert "is active" in door(f"%daytona snapshot activate {snapshot}").ok().text
    door(f"%daytona create --snapshot {snapshot}").ok()
    door(f"%daytona snapshot delete {snapshot} --yes").ok()
    assert snapshot not in door("%daytona snapshot list").ok().text


def test_network_settings_are_changed(door: Door, scratch: str) -> None:
    outcome = door("%daytona net block")
    if outcome.ename:
        pytest.skip(f"this local server can not: {outcome.evalue}")
    assert "blocked" in door("%daytona status").text
    door("%daytona net open").ok()
    assert "open" in door("%daytona status").text


def test_keepalive_begins_and_ends(door: Door, scratch: str) -> None:
    assert "2h" in door("%daytona keepalive 2h").ok().text
    door("%daytona keepalive off").ok()


def test_tokens_are_shown_only_on_request(door: Door, scratch: str) -> None:
    assert "--show-token" in door("%daytona ssh").failed("UsageError")
    assert "--show-token" in door("%daytona terminal").failed("UsageError")
    assert "works until" in door("%daytona ssh --show-token --expires 5m").ok().text
    door("%daytona ssh --revoke").ok()


def test_the_settings_show_no_secrets(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    text = door("%daytona config").ok().text
    assert "on_shutdown" in text
    assert "not set" in text


def test_the_settings_are_shown_as_one_writes_them_with_their_origin(
    ipython: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAYTONA_TARGET", "eu")
    lines = {line.split()[0]: line.split()[1:] for line in ipython("%daytona config").ok().text.splitlines()}
    assert lines["target"] == ["eu", "environment"]
    assert lines["auto_delete"] == ["7d", "default"]
    assert ipython("facts = %daytona config").ok().text == ""
    assert ipython.here("print(facts['auto_delete']['value'])").stdout == "604800.0\n"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("create --image x --snapshot y", "one of --snapshot"),
        ("create --cpu 2", "need --image"),
        ("create --image x --cpu 9", "from 1 to 4"),
        ("create --ephemeral --auto-delete 1d", "only one of them"),
        ("create --auto-stop 90s", "whole minutes"),
        ("create --volume data", "data:/home/daytona/data"),
        ("create --volume data:/etc/x", "can not be mounted"),
        ("create --allow 10.0.0.0", "10.0.0.0/8"),
        ("create --block-network --allow 10.0.0.0/8", "exclude"),
        ("create --size huge", "invalid choice"),
        ("attach", "Give its name"),
        ("attach no-such-sandbox", "no sandbox 'no-such-sandbox'"),
        ("attach --label nobody=has", "labels nobody=has"),
        ("set auto_stopp=1h", "auto_stop"),
        ("set auto_archive=never", "can not be never"),
        ("set public=maybe", "yes or no"),
        ("resize", "to what"),
        ("recover", "nothing to recover"),
        ("net allow here", "no IPv4 network"),
        ("ssh --expires 0m", "from 1m"),
        ("env set 1A=x", "no name for a variable"),
        ("env from /no/such/file", "no file"),
        ("snapshot activate nothing", "no snapshot 'nothing'"),
        ("snapshot delete daytona-smal --yes", "Did you mean daytona-small?"),
        ("snapshot create x --image python", "no lasting tag"),
        ("snapshot create x --image python:latest", "no lasting tag"),
        ("snapshot create x --cpu 2", "need --image"),
        ("snapshot create x --image python:3.12 --cpu 0", "from 1 to 4"),
        ("volume delete nothing --yes", "no volume 'nothing'"),
        ("volume", "wants one more word"),
        ("volume lst", "Did you mean list?"),
        ("fork", "required"),
        ("git clone https://user:secret@example.org/x.git", "password in it"),
    ],
)
def test_wrong_words_are_refused(door: Door, line: str, words: str) -> None:
    message = door(f"%daytona {line}").failed("UsageError")
    assert words in message
    assert "user:secret" not in message
