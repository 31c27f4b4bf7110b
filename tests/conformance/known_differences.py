"""What differs from ipykernel by intention or by nature, by cell, each with its reason.

The list is strict in both directions: a cell that no longer differs fails, and so does a cell that
differs in a line that none of its patterns matches.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class KnownDifference:
    """Why a cell differs, and regular expressions for the lines of the diff that may."""

    reason: str
    lines: tuple[str, ...]
    always: bool = True
    """False if there may be no difference, with some versions of Python and ipykernel."""


#: Lines of a traceback. Name and value of the error are not among them.
TRACEBACK = (r"^ {4}\[\d+\]:", r"^ {6}\| ", r"^ {6}\|$")
#: A stream message that is there or not.
STREAM = (r"^\[stream\]$", r"^  name: std(out|err)$", r"^  text:", r"^    \| ")
#: Help texts in a payload or in a stream.
HELP = (r"^ {4,10}\| ", r"^ {4,10}\|$")

#: The value of the cell.
VALUE = (r"^ {4}text/plain:",)

FRAMES = KnownDifference(
    "The traceback shows the cell and not ipykernel's own frames below it: that code is not in the sandbox.",
    TRACEBACK,
)
DEPTH = KnownDifference(
    "How many calls fit under the recursion limit depends on what calls the cell. Under Python 3.11 and"
    " ipykernel 7.4 it is the same number, but for the first few cells.",
    TRACEBACK,
    always=False,
)
FOLLOWS_THE_CELL = KnownDifference(
    "When sys.stdout was replaced before a cell began, ipykernel sends what is written to its own stream to"
    " an earlier cell; here output goes to the cell that is running.",
    STREAM,
)
BREAKPOINT = KnownDifference(
    "Under ipykernel with debugpy, breakpoint() does nothing unless a debugger is attached; here it is pdb,"
    " as in Python itself.",
    (
        *STREAM,
        *TRACEBACK,
        r"^\[(input_request|error|execute_result|execute_reply|status)\]$",
        r"^  (prompt: ipdb> |password = False|ename: BdbQuit|evalue: ?|engine_info:|data:)$",
        r"^  traceback( = \[\]|:.*)$",
        r"^    (engine_id = -1|engine_uuid: <engine>|method: execute|text/plain: 'inside')$",
        r"^    status: (ok|error)$",
        r"^  (execution_count = \d+|metadata = \{\}|status: (ok|error))$",
    ),
)
OUR_MAGIC = KnownDifference("%daytona is there.", (r"daytona", r"^    text/plain: 'Available line magics:"))
MAGIC_HELP = KnownDifference(
    "%daytona is there, and the magics that ipykernel adds to IPython have our own help texts.", HELP
)
NOT_JSON = KnownDifference(
    "ipykernel's attempt to send the message and the warning or the frames of jupyter_client are not shown.",
    (*STREAM, *TRACEBACK),
)

KNOWN: dict[str, KnownDifference] = {
    "streams/write bytes to text": FRAMES,
    "streams/write a number": FRAMES,
    "rich/publish bad data": FRAMES,
    "rich/display of NaN in json": NOT_JSON,
    "rich/display of an object that is no JSON": NOT_JSON,
    "comms/data that is no JSON": NOT_JSON,
    "errors/str that fails": FRAMES,
    "errors/str that returns no string": FRAMES,
    "errors/RecursionError": DEPTH,
    "errors/mutual recursion": DEPTH,
    # Python 3.14 shows none of those frames here.
    "errors_groups/run_cell with a lone surrogate": replace(FRAMES, always=sys.version_info < (3, 14)),
    "stdin/input interrupted": FRAMES,
    "stdin/breakpoint": BREAKPOINT,
    "stdin/breakpoint quit": BREAKPOINT,
    "stdin/pdb where and list": BREAKPOINT,
    "streams_replaced/replace stdout and leave it": FOLLOWS_THE_CELL,
    "streams_replaced/put it back": FOLLOWS_THE_CELL,
    "streams_replaced/replace stderr with stdout": FOLLOWS_THE_CELL,
    "streams_replaced/put stderr back": FOLLOWS_THE_CELL,
    "streams_replaced/a tee": FOLLOWS_THE_CELL,
    "streams_replaced/the tee in the next cell": FOLLOWS_THE_CELL,
    "magics/lsmagic has": OUR_MAGIC,
    "magics/cell magics": OUR_MAGIC,
    "magics/lsmagic": OUR_MAGIC,
    "magics/quickref": MAGIC_HELP,
    "magics/magic help": MAGIC_HELP,
    "magics/subshell": KnownDifference(
        "The kernel declares that it has no subshells.", (r"^    \| ", r"^  text:")
    ),
    "magics/connect_info": KnownDifference(
        "The connection file is on the machine of the kernel, not in the sandbox.",
        (*STREAM, r"^  (ename|evalue|engine_info|traceback|status).*", r"^    (engine_|method|status).*"),
    ),
    "children/subprocess to sys.stdout": KnownDifference(
        "sys.stdout.fileno() is ipykernel's terminal, where nobody looks; here it is the cell's output.",
        STREAM,
    ),
    "world/environment of ipykernel": KnownDifference(
        "There is no pydevd to configure.", (r"PYDEVD_USE_FRAME_EVAL",)
    ),
    "world/environment has jupyter": KnownDifference(
        "The parent process of the kernel is not in the sandbox.", (r"JPY_PARENT_PID", r"text/plain: \[\]")
    ),
    "world/threads by name": KnownDifference(
        "ipykernel's threads serve its sockets, ours the sandbox's output.",
        (r"^ {4}text/plain:", r"^ {6}\| [\[ ]'"),
    ),
    "children/faulthandler dump": KnownDifference(
        "faulthandler is on, so that the kernel can say which signal the process died of.", VALUE
    ),
    "interrupts/getsignal of SIGINT in a cell": KnownDifference(
        "The agent has a handler of its own: an interrupt must not cut a line of its output in two.", VALUE
    ),
    "magics/cd without sys.path change": KnownDifference(
        "The working directory comes first in sys.path, as in Python itself.", VALUE
    ),
    "world/sys.path[0]": KnownDifference(
        "The working directory comes first in sys.path, as in Python itself.", VALUE
    ),
    "magics/edit": KnownDifference(
        "The payload opens a file of the user's machine in an editor; the sandbox may not ask for it.",
        (r"^  payload", r"^    \[0\]:$", r"^      (filename|line_number|source)"),
    ),
    "probes/kernel methods": KnownDifference("The kernel's methods are not in the sandbox.", VALUE),
    "probes/session attributes": KnownDifference(
        "The kernel's session, with the key of its connection, is not in the sandbox; only `send` is.", VALUE
    ),
    "world/modules loaded": KnownDifference("The kernel's sockets are not in the sandbox.", VALUE),
}

#: What no cell can show: messages, timing, files. Name, and how and why it differs.
PROTOCOL: dict[str, str] = {
    "Debugger": (
        "`debug_request` is refused with `success: false`, and the kernel's specification says"
        " `debugger: false`: no debug adapter runs in the sandbox. `%debug`, `breakpoint()` and `pdb`"
        " work through the input box."
    ),
    "Subshells": (
        "`kernel_info_reply` lists no `kernel subshells`, as the protocol has it for kernels without;"
        " requests for one are refused. The interpreter of a sandbox runs one execution at a time."
    ),
    "Comm messages beside a cell": (
        "While a cell awaits, comm messages are served at once, as by ipykernel 7.4. We publish"
        " `busy` and `idle` around each, as the specification asks; ipykernel publishes neither."
    ),
    "Interrupts": (
        "The specification says `interrupt_mode: message`. An interrupt before the sandbox is ready"
        " ends the cell with KeyboardInterrupt, and it has not run."
    ),
    "First cell": (
        "If the sandbox takes longer than 2 s, and a person may be there (`allow_stdin`), the first"
        " cell shows what it waits for; a `clear_output` removes that before its first output."
    ),
    "Output after the cell": (
        "What threads and tasks print when no cell runs is fetched from the sandbox every 0.2 s at"
        " first, and every 3 s at last if nothing comes. It belongs to the last cell that ran, or to"
        " the cell that the task is from; under ipykernel what a thread prints belongs to the last"
        " request of any kind, a completion for example."
    ),
    "Files": (
        "`%save`, `%history -f`, `%%writefile` and the like write into the sandbox, not to the"
        " machine of the kernel. `%daytona download` brings files over."
    ),
    "History": ("It is kept in the sandbox, and as long as that; it is empty until the sandbox is ready."),
    "Profile": (
        "IPython in the sandbox has its default configuration: the user's profile, its startup files and"
        " options for IPython on the kernel's command line stay on the machine of the kernel."
    ),
    "A process that ends itself": (
        "The error SandboxProcessDied, and the kernel lives on; under ipykernel the kernel is dead."
    ),
    "kernel_info": (
        "Versions of Python and IPython are those of the sandbox. The banner has one more line, and"
        " `help_links` has Daytona's documentation instead of those of libraries."
    ),
    "usage_reply": ("The sandbox's processes and limits, not those of the kernel's machine."),
    "Plain Python": (
        "Where the sandbox's Python is too old for this side's IPython, and pip can not install"
        " another there for want of a network, cells run without magics, and the first cell says so."
    ),
}

#: Tests of ipykernel and nbclient that do not pass here, and why. The rest of test_message_spec.py,
#: test_kernel.py and test_async.py of 7.4.0 does, with its `tests/utils.py` starting this kernel.
IPYKERNEL_TESTS: dict[str, str] = {
    "test_subshells.py, test_message_spec.py::test_subshell, ::test_kernel_info_request": (
        "They ask for subshells, or that the kernel has them."
    ),
    "test_kernel.py::test_save_history": (
        "It reads the file on the machine of the test; it is in the sandbox."
    ),
    "test_kernel.py::test_interrupt_during_pdb_set_trace": (
        "It passes if the sandbox is ready a second after the kernel was started; else the interrupt"
        " ends the cell before it begins, and the next one is aborted."
    ),
    "nbclient 0.11: Inline Image.ipynb, the parallel notebooks": (
        "They read files and a directory of the machine of the test."
    ),
    "nbclient 0.11: Check History in Memory.ipynb": "It asks for an option on the kernel's command line.",
    "nbclient 0.11: Autokill.ipynb": "The kernel survives the end of the Python process.",
    "test_embed_kernel.py, test_start_kernel.py, test_eventloop.py and others": (
        "They are about ipykernel's own classes, not about messages."
    ),
}
