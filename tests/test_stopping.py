from __future__ import annotations

import os
import signal
from collections.abc import Generator

import pytest

from btrm.stopping import (
    Stopped,
    ask_to_stop,
    forget,
    listen,
    listening,
    listening_to_interrupts,
    safe_point,
    stop_asked,
)


@pytest.fixture(autouse=True)
def handlers() -> Generator[None]:
    before = signal.getsignal(signal.SIGURG)
    yield
    signal.signal(signal.SIGURG, before)
    forget()


def test_the_first_reason_stays_until_it_is_forgotten() -> None:
    safe_point()
    ask_to_stop("timeout")
    ask_to_stop("preempted")
    assert stop_asked() == "timeout"
    with pytest.raises(Stopped, match="timeout"):
        safe_point()
    forget()
    safe_point()
    assert stop_asked() is None


def test_a_signal_asks_and_interrupts_nothing() -> None:
    listen({signal.SIGURG: "timeout"})
    os.kill(os.getpid(), signal.SIGURG)
    work = sum(range(1000))
    assert work == 499500 and stop_asked() == "timeout"
    with pytest.raises(Stopped):
        safe_point()


def test_the_first_signal_asks_and_the_next_is_as_ever() -> None:
    seen: list[int] = []
    signal.signal(signal.SIGURG, lambda number, _: seen.append(number))
    with listening({signal.SIGURG: "terminated"}):
        os.kill(os.getpid(), signal.SIGURG)
        assert sum(range(1000)) == 499500 and stop_asked() == "terminated" and not seen
        os.kill(os.getpid(), signal.SIGURG)
        assert sum(range(1000)) == 499500 and seen == [signal.SIGURG]
    assert stop_asked() is None


def test_an_interrupt_asks_only_where_it_would_raise() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
        with listening_to_interrupts():
            signal.raise_signal(signal.SIGINT)
        assert stop_asked() is None
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with listening_to_interrupts():
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert stop_asked() == "interrupted" and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
