"""The reference kernel and the kernel under test, side by side, sent the same requests."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from . import spec
from .driver import REFERENCE, UNDER_TEST, Exchange, KernelUnderTest, Message, running_kernel
from .normalise import Normaliser, merge_streams
from .recording import without_repetition

Both = tuple[Exchange, Exchange]


class Pair:
    """Two kernels. Methods return the exchange of the reference and that of the kernel under test."""

    def __init__(self, kernels: tuple[KernelUnderTest, KernelUnderTest]) -> None:
        self.reference, self.tested = kernels
        self.normalisers: list[Normaliser] = []

    async def prepare(self) -> None:
        """Asks both kernels for their paths."""
        self.normalisers = list(
            await asyncio.gather(Normaliser.for_kernel(self.reference), Normaliser.for_kernel(self.tested))
        )

    async def request(self, msg_type: str, content: Message | None = None, **options: Any) -> Both:
        """Sends a request to both and waits. The tested kernel must follow the specification."""
        one, two = await asyncio.gather(
            *(k.request(msg_type, content, **options) for k in (self.reference, self.tested))
        )
        self.check(one, two)
        return one, two

    async def execute(self, code: str, **options: Any) -> Both:
        """Runs a cell in both."""
        one, two = await asyncio.gather(
            *(k.execute(code, **options) for k in (self.reference, self.tested)),
        )
        self.check(one, two)
        return one, two

    def check(self, one: Exchange, two: Exchange) -> None:
        """AssertionError for what is against the specification, unless ipykernel does the same."""
        accepted = spec.faults_of_exchange(one)
        assert [fault for fault in spec.faults_of_exchange(two) if fault not in accepted] == []

    def lines(self, exchange: Exchange, side: int) -> list[str]:
        """The recording of an exchange."""
        normaliser = self.normalisers[side]
        normaliser.new_cell()
        messages = [*merge_streams(exchange.iopub), *exchange.stdin]
        messages += [without_repetition(reply, exchange) for reply in exchange.replies]
        return [line for message in messages for line in normaliser.lines(message)]

    def difference(self, both: Both) -> str:
        """A unified diff of two exchanges, empty when they are equal."""
        one, two = self.lines(both[0], 0), self.lines(both[1], 1)
        return "\n".join(difflib.unified_diff(one, two, REFERENCE, UNDER_TEST, n=4, lineterm=""))

    async def same(self, msg_type: str, content: Message | None = None, **options: Any) -> Both:
        """Sends a request to both; everything that they say must be equal."""
        both = await self.request(msg_type, content, **options)
        assert not self.difference(both), self.difference(both)
        return both

    async def same_comm(self, msg_type: str, content: Message, buffers: list[bytes] | None = None) -> Both:
        """Sends a comm message to both; all that follows from it must be equal."""
        sent = []
        for kernel in (self.reference, self.tested):
            exchange = kernel.send(msg_type, content, buffers=buffers, wants_reply=False)
            await kernel.until(exchange, Exchange.finished)
            sent.append(exchange)
        both = (sent[0], sent[1])
        self.check(*both)
        assert not self.difference(both), self.difference(both)
        return both

    async def same_cell(self, code: str, **options: Any) -> Both:
        """Runs a cell in both; everything that they say must be equal."""
        both = await self.execute(code, **options)
        assert not self.difference(both), self.difference(both)
        return both


@contextlib.asynccontextmanager
async def running_pair(directory: Path) -> AsyncIterator[Pair]:
    """Two fresh kernels."""
    homes = [directory / "reference", directory / "tested"]
    for home in homes:
        home.mkdir()
    async with contextlib.AsyncExitStack() as stack:
        starting = zip((REFERENCE, UNDER_TEST), homes, strict=True)
        contexts = [stack.enter_async_context(running_kernel(name, home)) for name, home in starting]
        one, two = await asyncio.gather(*contexts)
        pair = Pair((one, two))
        await pair.prepare()
        yield pair
