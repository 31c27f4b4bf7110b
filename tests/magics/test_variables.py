"""`%daytona push` and `pull`: values between IPython and the sandbox, and between notebooks."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from .doors import Door, IPythonDoor, KernelDoor

pd = pytest.importorskip("pandas")


# -- between a plain IPython and its sandbox -----------------------------------------------------


def test_values_go_there_and_back_unchanged(ipython: IPythonDoor) -> None:
    value = {"text": "é'\"\\\n", "numbers": [1, 2.5, None, True], 3: (b"\0", {4})}
    ipython.shell.user_ns.update(value_a=value, value_b=3)
    assert "value_a → sandbox (dict of 3)" in ipython("%daytona push value_a value_b").ok().text
    assert ipython("%%daytona\nprint(value_a['text'] == 'é\\'\"\\\\\\n', value_b + 1)").stdout == "True 4\n"
    ipython("%%daytona\nvalue_c = [value_a, value_b]").ok()
    assert "← sandbox (list of 2)" in ipython("%daytona pull value_c").ok().text
    assert ipython.shell.user_ns["value_c"] == [value, 3]
    ipython("%daytona pull value_c --as other").ok()
    assert ipython.shell.user_ns["other"] == [value, 3]


def test_arrays_and_data_frames_keep_their_types(ipython: IPythonDoor) -> None:
    frame = pd.DataFrame({"n": [1, 2], "t": ["x", None]}, index=pd.date_range("2026", periods=2, freq="D"))
    ipython.shell.user_ns.update(array=np.arange(6, dtype="int16").reshape(2, 3), frame=frame)
    ipython("%daytona push array frame").ok()
    ipython("%%daytona\nframe['n'] *= 2\nboth = {'array': array * 2, 'frame': frame}").ok()
    ipython("%daytona pull both").ok()
    both = ipython.shell.user_ns["both"]
    assert both["array"].dtype == "int16"
    assert both["array"].tolist() == [[0, 2, 4], [6, 8, 10]]
    pd.testing.assert_frame_equal(both["frame"], frame.assign(n=[2, 4]))


def test_what_has_no_safe_form_is_not_pickled_unasked(ipython: IPythonDoor) -> None:
    ipython.shell.user_ns["thing"] = [len]
    assert "thing has no safe form: [0] is a builtins." in ipython("%daytona push thing").failed("UsageError")
    ipython("%daytona push thing --pickle").ok()
    assert ipython("%%daytona\nprint(thing[0]('abc'))").stdout == "3\n"
    assert "safe form of thing: [0] is a builtins." in ipython("%daytona pull thing").failed("UsageError")
    assert "runs its code" in ipython("%daytona pull thing --pickle").failed("UsageError")
    ipython.shell.user_ns.pop("thing")
    ipython("%daytona pull thing --pickle --trust").ok()
    assert ipython.shell.user_ns["thing"] == [len]


def test_a_value_that_claims_to_be_plain_is_not_unpickled(ipython: IPythonDoor) -> None:
    """A sandbox that sends a pickle unasked gets nowhere, whatever its Python has been made to do."""
    ipython(
        "%%daytona\nimport builtins, pickle\nkept = builtins.exec\ndef fake(code, scope=None, *more):\n"
        "    if 'pickled' in (scope or {}): scope = {**scope, 'pickled': True}\n"
        "    return kept(code, scope, *more)\n"
        "builtins.exec = fake\nplain = [print]"
    ).ok()
    try:
        said = ipython("%daytona pull plain").failed("UsageError")
        assert "plain can not be read here: it is pickled" in said
        assert "plain" not in ipython.shell.user_ns
    finally:
        ipython("%daytona restart").ok()


def test_a_sandbox_that_sends_no_value_is_told_so(ipython: IPythonDoor) -> None:
    ipython(
        "%%daytona\nimport builtins, os\nkept = builtins.exec\ndef fake(code, scope=None, *more):\n"
        "    if 'folder' not in (scope or {}): return kept(code, scope, *more)\n"
        "    os.mkdir(scope['folder'])\n"
        "    open(scope['folder'] + '/0', 'wb').write(b'no value')\n"
        "builtins.exec = fake\nplain = 1"
    ).ok()
    try:
        assert "these are no values" in ipython("%daytona pull plain").failed("CommandFailed")
        assert "did not write" in ipython("%daytona pull plain kept").failed("SandboxProtocolError")
    finally:
        ipython("%daytona restart").ok()


def test_missing_variables_are_named(ipython: IPythonDoor) -> None:
    ipython.shell.user_ns["threshold"] = 1
    assert "Did you mean threshold?" in ipython("%daytona push treshold").failed("UsageError")
    ipython("%%daytona\nthreshold = 1").ok()
    said = ipython("%daytona pull treshold").failed("UsageError")
    assert "no variable 'treshold' in the sandbox. Did you mean threshold?" in said
    assert "no name of a variable" in ipython("%daytona pull a.b").failed("UsageError")
    assert "no name of a variable" in ipython("%daytona push 'x=1;y'").failed("UsageError")
    assert "is for one variable" in ipython("%daytona pull a b --as c").failed("UsageError")


# -- between notebooks: each door has a sandbox of its own -----------------------------------------


def test_a_notebook_pulls_what_another_has_pushed(kernel: KernelDoor, ipython: IPythonDoor) -> None:
    kernel("import numpy, pandas\nprices = pandas.Series([1.5, 2], name='eur')\nlimit = {'high': 3}").ok()
    outcome = kernel("%daytona push prices limit --as team/").ok()
    assert "prices → shelf: team/prices (Series 2)" in outcome.text
    assert "%daytona pull team/prices team/limit" in outcome.text
    kernel("%daytona restart").ok()
    kernel("%daytona pull team/prices\n%daytona pull team/limit --as bounds\ntotal = prices.sum()").ok()
    assert kernel("print(total, bounds)").stdout == "3.5 {'high': 3}\n"
    assert "from sandbox " in ipython("%daytona pull team/prices").ok().text
    pd.testing.assert_series_equal(ipython.shell.user_ns["prices"], pd.Series([1.5, 2], name="eur"))


def test_a_plain_ipython_pushes_to_notebooks(kernel: KernelDoor, ipython: IPythonDoor) -> None:
    ipython.shell.user_ns["settings"] = {"seed": 7}
    assert "settings → shelf: settings (dict of 1)" in ipython("%daytona push settings --shelf").ok().text
    kernel("settings = None").ok()
    assert "from plain IPython" in kernel("%daytona pull settings").ok().text
    assert kernel("print(settings)").stdout == "{'seed': 7}\n"


def test_a_pickle_on_the_shelf_needs_trust_everywhere(kernel: KernelDoor, ipython: IPythonDoor) -> None:
    kernel("class Own: pass\nown = [Own, len]").ok()
    assert "safe form of own: [0] is a " in kernel("%daytona push own").failed("UsageError")
    kernel("own = [len]\n%daytona push own --pickle").ok()
    for door in (kernel, ipython):
        said = door("%daytona pull own --shelf").failed("UsageError")
        assert "own is pickled, and reading it runs code of its maker (sandbox " in said
        assert "--trust" in said
    kernel("own = None\n%daytona pull own --trust").ok()
    assert kernel("print(own[0]('ab'))").stdout == "2\n"
    ipython("%daytona pull own --shelf --trust").ok()
    assert ipython.shell.user_ns["own"] == [len]


def test_a_pickle_in_disguise_is_read_by_no_notebook(kernel: KernelDoor, ipython: IPythonDoor) -> None:
    """The head of the file says that nothing is pickled; the sandbox that pulls it looks itself."""
    from daytona_kernel import values
    from daytona_kernel.shelf import Shelf

    pieces = values.dump([len], pickled=True)
    head = json.dumps({**json.loads(pieces[2]), "pickled": False}).encode()
    with Shelf(ipython.shell._daytona_kernel_magics[0].settings.shelf).put("sly", "a test") as file:
        file.writelines([pieces[0], len(head).to_bytes(8, "big"), head, *pieces[3:]])
    assert "it is pickled" in kernel("%daytona pull sly").failed("UsageError")
    assert "it is pickled" in ipython("%daytona pull sly --shelf").failed("UsageError")


def test_several_are_pulled_all_or_none(kernel: KernelDoor) -> None:
    kernel("one, two = 1, 2\n%daytona push one two").ok()
    kernel("one = two = None").ok()
    assert "Did you mean two?" in kernel("%daytona pull one twoo").failed("UsageError")
    assert kernel("print(one)").stdout == "None\n"
    assert "no variable 'three'" in kernel("%daytona push one three").failed("UsageError")


def test_the_shelf_is_listed_and_cleared(door: Door) -> None:
    if door.name == "kernel":
        door("listed = [1, 2, 3]").ok()
    else:
        door.shell.user_ns["listed"] = [1, 2, 3]  # type: ignore[union-attr]
    key = f"list/{door.name}"
    door(f"%daytona push listed --as {key}").ok()
    assert f"{key} " in door("%daytona shelf list").ok().text
    found: list[dict[str, Any]] = json.loads(door("%daytona shelf list --json").ok().stdout)
    (entry,) = (one for one in found if one["key"] == key)
    assert entry["about"] == "list of 3"
    assert entry["pickled"] is False
    assert f"%daytona pull {key}" in door.complete("%daytona pull list/")
    door(f"%daytona shelf rm {key}").ok()
    assert key not in door("%daytona shelf list").ok().text
    assert "no 'list/" in door(f"%daytona shelf rm {key}").failed("UsageError")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("push x y --as z", "--as KEY is for one variable"),
        ("push x --as ../z", "no name for a value on the shelf"),
        ("push x --as /etc/z", "no name for a value on the shelf"),
        ("pull ../../etc/passwd", "no name"),
        ("pull team/class", "no name of a variable"),
        ("shelf rm ../x", "no name for a value on the shelf"),
        ("shelf", "wants one more word"),
    ],
)
def test_wrong_words_touch_no_sandbox_and_no_file(door: Door, line: str, said: str) -> None:
    import re

    assert re.search(said, door(f"%daytona {line}").failed("UsageError"))


def test_variables_are_completed_where_they_are(kernel: KernelDoor, ipython: IPythonDoor) -> None:
    kernel("completed_there = 1").ok()
    ipython.shell.user_ns["completed_here"] = 1
    assert kernel.complete("%daytona push completed_") == ["%daytona push completed_there"]
    assert ipython.complete("%daytona push completed_") == ["%daytona push completed_here"]
