"""The `jupyter_kernel_test` suite, in full."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import jupyter_kernel_test  # type: ignore[import-untyped]  # the package has no types
from jupyter_client.manager import start_new_kernel

from .driver import UNDER_TEST, kernel_environment


class KernelSuite(jupyter_kernel_test.KernelTests):  # type: ignore[misc]  # for the same reason
    """Each sample that the suite knows, for a Python kernel that behaves like ipykernel."""

    kernel_name = UNDER_TEST
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    code_page_something = "zip?"
    code_generate_error = "raise ValueError('expected')"
    code_clear_output = "from IPython.display import clear_output; clear_output()"
    code_inspect_sample = "zip"
    code_history_pattern = "1?2*"
    # Not "range": the suite wants the number of the current session in the entries, IPython answers 0 for it.
    # test_messages.py compares range requests with `python3`.
    supported_history_operations = ("tail", "search")
    completion_samples: ClassVar[list[dict[str, Any]]] = [
        {"text": "zi", "matches": {"zip"}},
        {"text": "import calend", "matches": {"calendar"}},
        {"text": "no_such_name_here_at_all", "matches": set()},
        {"text": "%prec", "matches": {"%precision"}},
    ]
    complete_code_samples: ClassVar[list[str]] = [
        "1",
        "print('hello')",
        "def f(x):\n  return x*2\n\n\n",
        "%matplotlib",
    ]
    incomplete_code_samples: ClassVar[list[str]] = [
        "print('''hello",
        "def f(x):\n  x*2",
        "for i in range(3):",
        "(1,",
    ]
    invalid_code_samples = ("import = 7q", "x = = 1")
    code_execute_result: ClassVar[list[dict[str, str]]] = [
        {"code": "1+2+3", "result": "6"},
        {"code": "[n*n for n in range(1, 4)]", "result": "[1, 4, 9]"},
        {"code": "'text'", "result": "'text'"},
    ]
    code_display_data: ClassVar[list[dict[str, str]]] = [
        {"code": "from IPython.display import *; display(HTML('<b>test</b>'))", "mime": "text/html"},
        {"code": "from IPython.display import *; display(Math('\\\\frac{1}{2}'))", "mime": "text/latex"},
        {"code": "from IPython.display import *; display(JSON({'a': 1}))", "mime": "application/json"},
    ]

    @classmethod
    def setUpClass(cls) -> None:
        """Starts the kernel with the environment of the other tests, and waits for the sandbox."""
        home = Path(os.environ["CONFORMANCE_HOME"])
        cls.km, cls.kc = start_new_kernel(
            kernel_name=cls.kernel_name, cwd=str(home), env=kernel_environment(home), startup_timeout=60
        )
        # The first cell waits for the sandbox to be made; the suite's limits are for a kernel that is ready.
        cls.kc.execute_interactive("pass", timeout=60)

    @classmethod
    def tearDownClass(cls) -> None:
        """Ends the kernel, and what it has open."""
        super().tearDownClass()
        cls.km.context.destroy(linger=0)


# pytest would collect the suite's own base classes with this module otherwise.
del jupyter_kernel_test
