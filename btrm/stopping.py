"""Stopping at a safe point: a signal asks, the stage's own loop answers where nothing in flight would be lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType

_asked: list[str] = []


class Stopped(Exception):  # noqa: N818 (it is not an error: a rerun goes on from here)
    """A stage has stopped where it was asked to, with its work on disk."""


def ask_to_stop(reason: str) -> None:
    """Ask the stage of this process to stop at its next safe point; the first reason stays."""
    if not _asked:
        _asked.append(reason)


def stop_asked() -> str | None:
    """Return why this process was asked to stop, or None."""
    return _asked[0] if _asked else None


def forget() -> None:
    """Take back what was asked: a new attempt in the same process starts afresh."""
    _asked.clear()


def safe_point() -> None:
    """Call where all that is done is on disk: raises Stopped when asked to stop."""
    if _asked:
        raise Stopped(_asked[0])


@contextmanager
def listening(signals: dict[signal.Signals, str]) -> Generator[None]:
    """Take the first of each signal as a request to stop; the next one ends the process as ever."""
    try:
        with _hearing(signals):
            yield
    finally:
        forget()


def listening_to_interrupts() -> AbstractContextManager[None]:
    """Take the first ^C as a request to stop, where it would raise KeyboardInterrupt; the request outlives this.

    For event loops: asyncio cancels its main task instead, which `wait_for` forgets where what it waited for came in
    that moment (Python 3.11), and raises in the midst of another task where the main one has just ended.
    """
    raises = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if raises and threading.current_thread() is threading.main_thread():
        return _hearing({signal.SIGINT: "interrupted"})
    return nullcontext()


@contextmanager
def _hearing(signals: dict[signal.Signals, str]) -> Generator[None]:
    before = {number: signal.getsignal(number) for number in signals}

    def asked(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, before[signal.Signals(number)])
        ask_to_stop(signals[signal.Signals(number)])

    for number in signals:
        signal.signal(number, asked)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def listen(signals: dict[signal.Signals, str]) -> None:
    """Take each signal as a request to stop, for the reason given."""

    def asked(number: int, _frame: FrameType | None) -> None:
        ask_to_stop(signals[signal.Signals(number)])

    for number in signals:
        signal.signal(number, asked)
