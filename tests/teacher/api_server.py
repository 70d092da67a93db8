"""A server on 127.0.0.1 that speaks the teachers' APIs by their official protocols, with faults on demand.

In a test: `with serve() as server: server.url, server.world.log`. As a process: `python tests/teacher/api_server.py
[--settings JSON]` prints its port; GET /log returns every request, POST /control takes new settings (World.configure).
More addresses: a function like `api_openai.add_routes(app, world)` in ROUTES, or given to `serve(more=...)`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import api_anthropic
import api_gemini
import api_openai
from aiohttp import web
from api_world import World

AddRoutes = Callable[[web.Application, World], None]
ROUTES: list[AddRoutes] = [api_openai.add_routes, api_anthropic.add_routes, api_gemini.add_routes]


@dataclass(frozen=True)
class Server:
    """A server that runs in a thread of this process."""

    url: str
    world: World


def application(world: World, more: Sequence[AddRoutes] = ()) -> web.Application:
    """Return the whole server."""
    app = web.Application(client_max_size=1 << 30)

    async def log(_: web.Request) -> web.Response:
        return web.json_response(world.log_json())

    async def control(request: web.Request) -> web.Response:
        world.configure(await request.json())
        return web.json_response({})

    app.router.add_get("/log", log)
    app.router.add_post("/control", control)
    for add_routes in (*ROUTES, *more):
        add_routes(app, world)
    return app


async def run(world: World, started: Callable[[int], None], more: Sequence[AddRoutes] = (), port: int = 0) -> None:
    """Serve until `world.stop` is set."""
    world.stop = asyncio.Event()
    runner = web.AppRunner(application(world, more), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    started(runner.addresses[0][1])
    await world.stop.wait()
    await runner.cleanup()


@contextmanager
def serve(world: World | None = None, more: Sequence[AddRoutes] = ()) -> Generator[Server]:
    """Run a server in a thread."""
    world = world or World()
    ready = threading.Event()
    ports: list[int] = []
    loops: list[asyncio.AbstractEventLoop] = []

    def started(port: int) -> None:
        ports.append(port)
        loops.append(asyncio.get_running_loop())
        ready.set()

    thread = threading.Thread(target=lambda: asyncio.run(run(world, started, more)), daemon=True)
    thread.start()
    assert ready.wait(120), "the server did not start"
    try:
        yield Server(f"http://127.0.0.1:{ports[0]}", world)
    finally:
        assert world.stop is not None
        loops[0].call_soon_threadsafe(world.stop.set)
        thread.join(20)


def main() -> None:
    """Serve in this process until it is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--settings", default="{}", help="World.configure's changes, as JSON")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=0)
    args: Any = parser.parse_args()
    world = World(seed=args.seed, keep_bodies=False)
    world.configure(json.loads(args.settings))
    asyncio.run(run(world, lambda port: print(port, flush=True), port=args.port))


if __name__ == "__main__":
    main()
