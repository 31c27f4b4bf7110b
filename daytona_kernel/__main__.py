"""``python -m daytona_kernel -f CONNECTION_FILE``: the kernel's process."""

from __future__ import annotations

import json
import sys


def _connection_file(argv: list[str]) -> str | None:
    for position, argument in enumerate(argv):
        if argument == "-f" and position + 1 < len(argv):
            return argv[position + 1]
        if argument.startswith(("-f=", "--IPKernelApp.connection_file=")):
            return argument.split("=", 1)[1]
    return None


def _complaint(path: str) -> str | None:
    """What is wrong with a connection file, or ``None``."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except FileNotFoundError:
        return "does not exist"
    except OSError as exc:
        return f"can not be read: {exc.strerror}"
    except ValueError:
        return "is not JSON"
    if (
        not isinstance(content, dict)
        or not {"shell_port", "iopub_port", "key", "transport"} <= content.keys()
    ):
        return "is not a connection file of Jupyter"
    return None


def main(argv: list[str] | None = None) -> int:
    """Run the kernel until it is shut down. 1 if the connection file is missing or wrong."""
    arguments = sys.argv[1:] if argv is None else argv
    path = _connection_file(arguments)
    if path is not None and (complaint := _complaint(path)) is not None:
        print(f"daytona-kernel: the connection file {path!r} {complaint}.", file=sys.stderr)
        return 1
    from .kernel import DaytonaKernelApp

    DaytonaKernelApp.launch_instance(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
