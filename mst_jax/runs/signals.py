"""The signals that ask a program to end in order."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def on_stop_signal(react: Callable[[signal.Signals], object]) -> Iterator[None]:
    """Calls `react` on SIGTERM, SIGINT and SIGHUP while the block runs; in the main thread only.

    A closed terminal sends SIGHUP, and writing to it is an error from then on: what is printed goes
    nowhere instead. A program that was told to ignore SIGHUP (by `nohup`) goes on ignoring it.
    """
    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def handle(number: int, _: Any) -> None:
        if number == signal.SIGHUP and terminals:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for descriptor in terminals:
                os.dup2(nowhere, descriptor)
            os.close(nowhere)
        react(signal.Signals(number))

    asked = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        asked.append(signal.SIGHUP)
    previous = {number: signal.signal(number, handle) for number in asked}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
