"""Feed one target for a while: ``python -m tests.fuzz.one TARGET SECONDS SEED RUNS``; 0 runs: no limit."""

from __future__ import annotations

import importlib.util
import random
import sys
import tempfile
import time
from pathlib import Path


def run_one(name: str, seconds: int, seed: int, runs: int) -> None:
    """Feed one target until the time or the number of runs is over. Raises what it raises."""
    if importlib.util.find_spec("atheris") is None:
        run_plainly(name, seconds, seed, runs)
        return
    import atheris

    with atheris.instrument_imports(include=["daytona_kernel"]):
        from .targets import GOOD, TARGETS
    with tempfile.TemporaryDirectory() as folder:
        for number, good in enumerate(GOOD[name]):
            Path(folder, str(number)).write_bytes(good)
        options = [f"-max_total_time={seconds}", f"-seed={seed}", "-max_len=4096", "-rss_limit_mb=1500"]
        options += [f"-runs={runs or -1}", f"-artifact_prefix={folder}/"]
        atheris.Setup([name, folder, *options], TARGETS[name])
        atheris.Fuzz()


def run_plainly(name: str, seconds: int, seed: int, runs: int) -> None:
    """Without atheris: good inputs, cut, joined and changed."""
    from .targets import GOOD, TARGETS

    rough, known, target = random.Random(seed), [*GOOD[name]], TARGETS[name]
    until, count = time.monotonic() + seconds, 0
    while time.monotonic() < until and (not runs or count < runs):
        data = bytearray(rough.choice(known))
        for _ in range(rough.randrange(8)):
            change(data, rough, known)
        try:
            target(bytes(data))
        except BaseException:
            print(f"input: {bytes(data)!r}")
            raise
        count += 1
        if count % 50 == 0 and len(known) < 500:
            known.append(bytes(data[:4096]))
    print(f"{count} inputs, without atheris")


def change(data: bytearray, rough: random.Random, known: list[bytes]) -> None:
    """One change: a byte, a piece of something else, or a piece less."""
    place = rough.randrange(len(data) + 1)
    other = rough.choice(known)
    start = rough.randrange(len(other) + 1)
    kind = rough.randrange(4)
    if kind == 0:
        data[place:place] = other[start : start + rough.randrange(40)]
    elif kind == 1:
        del data[place : place + rough.randrange(20)]
    elif kind == 2 and data:
        data[place % len(data)] = rough.randrange(256)
    else:
        data[place:place] = rough.choice(
            [b"\x00", b"\xff", b"\x1e", b"\n", b"[" * 500, b'"', b"\\", b"%", b"9" * 300]
        )


if __name__ == "__main__":
    run_one(sys.argv[1], *map(int, sys.argv[2:]))
