"""Stopping between two steps: signals are remembered, so that a run can save its state first."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(Exception):
    """A signal asked the run to stop; its state is saved."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; the state is saved")
        self.signum = signum


class StopSignal:
    """Remembers SIGTERM or SIGINT until somebody looks; a Ctrl-C after it acts at once.

    Another SIGTERM does nothing: a scheduler and a launcher may both pass the same one on.
    """

    def __init__(self) -> None:
        self.signum = 0

    def _note(self, signum: int, _frame: object) -> None:
        if self.signum and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = self.signum or signum

    @contextmanager
    def installed(self) -> Iterator[StopSignal]:
        """Take the signals over, and give them back at the end."""
        old = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for signum, handler in old.items():
                signal.signal(signum, handler)
