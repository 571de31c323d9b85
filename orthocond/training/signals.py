"""Stop signals: they are remembered, so that a run can save its state before it stops."""

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
    """Record of a received SIGTERM or SIGINT, which training checks after each step.

    A Ctrl-C after the first signal raises KeyboardInterrupt at once. A second SIGTERM does nothing,
    because a scheduler and a launcher may both forward the same signal.

    Attributes:
        signum: number of the first signal, 0 before there is one.
    """

    def __init__(self) -> None:
        self.signum = 0

    def _note(self, signum: int, _frame: object) -> None:
        if self.signum and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = self.signum or signum

    @contextmanager
    def installed(self) -> Iterator[StopSignal]:
        """Handle both signals inside the context, and restore the earlier handlers at the end."""
        old = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for signum, handler in old.items():
                signal.signal(signum, handler)
