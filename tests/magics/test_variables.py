"""`%daytona push` and `pull`: values between IPython and the sandbox."""

from __future__ import annotations

import numpy as np

from .doors import IPythonDoor, KernelDoor


def test_values_go_there_and_back_unchanged(ipython: IPythonDoor) -> None:
    value = {"text": "é'\"\\\n", "numbers": [1, 2.5, None, True], "nested": {"a": []}}
    ipython.shell.user_ns.update(value_a=value, value_b=3)
    assert "json" in ipython("%daytona push value_a value_b").ok().text
    assert ipython("%%daytona\nprint(value_a['text'] == 'é\\'\"\\\\\\n', value_b + 1)").stdout == "True 4\n"
    ipython("%%daytona\nvalue_c = [value_a, value_b]").ok()
    ipython("%daytona pull value_c").ok()
    assert ipython.shell.user_ns["value_c"] == [value, 3]


def test_arrays_keep_their_type(ipython: IPythonDoor) -> None:
    ipython.shell.user_ns["array"] = np.arange(6, dtype="int16").reshape(2, 3)
    outcome = ipython("%daytona push array")
    if outcome.ename == "CommandFailed":
        assert "numpy" in outcome.evalue  # the sandbox has none
        return
    ipython("%%daytona\ndoubled = array * 2").ok()
    ipython("%daytona pull doubled").ok()
    doubled = ipython.shell.user_ns["doubled"]
    assert doubled.dtype == "int16"
    assert doubled.tolist() == [[0, 2, 4], [6, 8, 10]]


def test_what_has_no_safe_form_is_not_pickled_unasked(ipython: IPythonDoor) -> None:
    ipython.shell.user_ns["thing"] = {1, 2}
    assert "builtins.set" in ipython("%daytona push thing").failed("UsageError")
    ipython("%daytona push thing --pickle").ok()
    assert ipython("%%daytona\nprint(sorted(thing))").stdout == "[1, 2]\n"
    assert "builtins.set" in ipython("%daytona pull thing").failed("UsageError")
    assert "runs its code" in ipython("%daytona pull thing --pickle").failed("UsageError")
    ipython.shell.user_ns.pop("thing")
    ipython("%daytona pull thing --pickle --trust").ok()
    assert ipython.shell.user_ns["thing"] == {1, 2}


def test_a_value_that_claims_to_be_plain_is_not_unpickled(ipython: IPythonDoor) -> None:
    """A sandbox that sends a pickle unasked gets nowhere, whatever its Python has been made to do."""
    ipython("%%daytona\nimport builtins\nkept = builtins.exec").ok()
    ipython(
        "%%daytona\nimport pickle\ndef fake(code, *scopes):\n"
        "    if 'pickled' not in (scopes or [{}])[0]: return kept(code, *scopes)\n"
        "    open(scopes[0]['path'], 'wb').write(b'pickle\\n' + pickle.dumps(print))\n"
        "builtins.exec = fake\nplain = 1"
    ).ok()
    try:
        assert "unknown form" in ipython("%daytona pull plain").failed("CommandFailed")
    finally:
        ipython("%daytona restart").ok()


def test_missing_variables_are_named(ipython: IPythonDoor) -> None:
    ipython.shell.user_ns["threshold"] = 1
    assert "Did you mean threshold?" in ipython("%daytona push treshold").failed("UsageError")
    assert "NameError" in ipython("%daytona pull nowhere").failed("CommandFailed")
    assert "no name of a variable" in ipython("%daytona pull a.b").failed("UsageError")
    assert "no name of a variable" in ipython("%daytona push 'x=1;y'").failed("UsageError")


def test_the_kernel_has_no_variables_to_push(kernel: KernelDoor) -> None:
    assert "no command 'push'" in kernel("%daytona push x").failed("UsageError")
