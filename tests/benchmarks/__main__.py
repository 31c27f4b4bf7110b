"""All benchmarks, one after the other: ``python -m tests.benchmarks [--json FILE]``. About seven minutes."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

from . import compare, many, remote, transfers


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    beside = compare.run()
    print(compare.table(beside), end="\n\n", flush=True)
    round_trips, bulk = asyncio.run(remote.run())
    print(remote.table(round_trips, bulk), end="\n\n", flush=True)
    moved = transfers.run()
    print(transfers.table(moved), end="\n\n", flush=True)
    together = asyncio.run(many.run())
    print(many.table(together), flush=True)
    if options.json:
        figures = {**beside, **round_trips, **bulk, **moved, **together}
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
