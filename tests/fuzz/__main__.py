"""Run the targets, each in a process of its own."""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys

from .targets import TARGETS


def main() -> int:
    """Run all targets, or those that are named."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=10, help="for each target")
    parser.add_argument("--runs", type=int, default=0, help="at most, for each target; 0: no limit")
    parser.add_argument("--seed", type=int, default=random.randrange(1, 2**31))
    args = parser.parse_args()
    failed = []
    for name in args.targets or TARGETS:
        print(f"--- {name}, seed {args.seed}, {args.seconds} s", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.one", name, *map(str, (args.seconds, args.seed, args.runs))],
            env={**os.environ, "PYTHONHASHSEED": "0"},  # one seed, one run of it
            stderr=subprocess.STDOUT,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=args.seconds + 120,
        )
        lines = done.stdout.strip().splitlines()
        print("\n".join(lines[-60:] if done.returncode else lines[-1:]), flush=True)
        if done.returncode:
            failed.append(name)
    if failed:
        print(f"FAILED: {', '.join(failed)}; repeat with --seed {args.seed}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
