"""What has changed between two runs: ``python -m tests.benchmarks.diff OLD.json NEW.json``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def flat(figures: dict[str, Any]) -> dict[str, float]:
    """The figures of one run by name; where there are two kernels, also their ratio."""
    found: dict[str, float] = {}
    for what, value in figures.items():
        if isinstance(value, dict):
            found |= {f"{what} ({kernel})": number for kernel, number in value.items()}
            if value.get("python3"):
                found[f"{what} (ratio)"] = value["daytona"] / value["python3"]
        else:
            found[what] = value
    return found


def table(old: dict[str, float], new: dict[str, float]) -> str:
    """Both runs side by side in Markdown; what only one of them has is named too."""
    lines = ["| what | old | new | change |", "|---|---|---|---|"]
    for what in [*old, *(name for name in new if name not in old)]:
        before, after = old.get(what), new.get(what)
        change = f"{100 * (after / before - 1):+.0f} %" if before and after is not None else "-"
        shown = ["-" if value is None else f"{value:.2f}" for value in (before, after)]
        lines.append(f"| {what} | {shown[0]} | {shown[1]} | {change} |")
    return "\n".join(lines)


def main() -> None:
    """Read both files, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    options = parser.parse_args()
    old, new = (flat(json.loads(path.read_text())) for path in (options.old, options.new))
    print(table(old, new))


if __name__ == "__main__":
    main()
