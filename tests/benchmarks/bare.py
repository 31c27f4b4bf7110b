"""The plainest file server with aiohttp: transfers are measured against it.

``python -m tests.benchmarks.bare DIR`` prints its port. ``PUT /name`` writes the body to DIR, ``GET /name``
sends it.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from aiohttp import web


async def main(directory: Path) -> None:
    """Serve on loopback until standard input ends."""

    async def put(request: web.Request) -> web.Response:
        with open(directory / request.match_info["name"], "wb") as file:
            async for block in request.content.iter_any():
                file.write(block)
        return web.Response()

    async def get(request: web.Request) -> web.FileResponse:
        return web.FileResponse(directory / request.match_info["name"])

    app = web.Application()
    app.add_routes([web.put("/{name}", put), web.get("/{name}", get)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
