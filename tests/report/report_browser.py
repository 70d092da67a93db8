"""A headless Chromium that is asked through a pipe (DevTools protocol): no port, no driver, no package."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from components import missing

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--remote-debugging-pipe",
    "--window-size=1400,1000",
)
_PIPES = (
    "import os, sys; r, w = map(int, sys.argv[1:3]); os.dup2(r, 3); os.dup2(w, 4); os.execv(sys.argv[3], sys.argv[3:])"
)


class Tab:
    """One page: `events` collects what the browser tells of it."""

    def __init__(self, read: int, write: int, seconds: float) -> None:
        self._read, self._write = read, write
        self._end = time.monotonic() + seconds
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, method: str) -> dict[str, Any]:
        """Return the next event of this kind."""
        while True:
            event = self._next()
            self.events.append(event)
            if event.get("method") == method:
                return event

    def open(self, address: str) -> None:
        """Load a page, listening to its console, its log and its requests from the first byte."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.ask(f"{domain}.enable")
        before = len(self.events)
        self.ask("Page.navigate", url=address)
        if not any(event.get("method") == "Page.loadEventFired" for event in self.events[before:]):
            self.wait_for("Page.loadEventFired")

    def value(self, script: str) -> Any:
        """Return what an expression is worth in the page."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def complaints(self) -> list[str]:
        """Return errors, warnings and broken policies that the console or the log told."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(event["params"])[:500] for event in self.events if event.get("method") in kinds]

    def requests(self) -> list[str]:
        """Return the addresses that were asked for."""
        asked = [e for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in asked]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            left = self._end - time.monotonic()
            ready, _, _ = select.select([self._read], [], [], max(0.0, left))
            assert ready, "the browser took too long"
            chunk = os.read(self._read, 1 << 16)
            assert chunk, "the browser ended"
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)


@contextmanager
def browser(folder: Path, *flags: str, seconds: float = 240) -> Iterator[Tab]:
    """Start a Chromium with an empty profile and end it, and it alone; skip, or fail where required, without one."""
    program = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if program is None:
        missing("chromium", "there is no Chromium")
    assert program is not None
    (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
    passed = [fcntl.fcntl(fd, fcntl.F_DUPFD, 50) for fd in (theirs_in, theirs_out)]  # clear of 3 and 4
    start = [sys.executable, "-c", _PIPES, *map(str, passed), program]
    words = [*start, *_FLAGS, *flags, f"--user-data-dir={folder / 'profile'}", "about:blank"]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(words, stdin=quiet, stdout=quiet, stderr=quiet, pass_fds=passed, start_new_session=True)
    for fd in (theirs_in, theirs_out, *passed):
        os.close(fd)
    tab = Tab(ours_in, ours_out, seconds)
    try:
        yield tab
    finally:
        _end(process, ours_out, ours_in)


def _end(process: subprocess.Popen[bytes], ours_out: int, ours_in: int) -> None:
    """Ask politely, then end the process group that was started here."""
    with suppress(OSError):
        os.write(ours_out, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait(60)
    finally:
        os.close(ours_out)
        os.close(ours_in)
