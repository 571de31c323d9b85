"""A promise, and how often it was tried and held."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from orthocond.errors import UserError

DONE, REFUSED, SURPRISED, KILLED = 0, 1, 3, 9


@dataclass
class Count:
    """What was promised, how often it was tried, how often it held, and what broke it."""

    promise: str
    tried: int = 0
    held: int = 0
    broken: list[str] = field(default_factory=list)
    notes: dict[str, int | float | str] = field(default_factory=dict)

    def add(self, what: str, broken: str | None) -> None:
        """One more try; ``broken`` says how the promise failed, None that it held."""
        self.tried += 1
        self.held += broken is None
        if broken is not None:
            self.broken.append(f"{what}: {broken}")

    def note(self, name: str) -> None:
        """One more of something that is worth telling."""
        self.notes[name] = int(self.notes.get(name, 0)) + 1

    def require(self, at_least: int = 1) -> None:
        """For tests: it was tried, and held every time."""
        assert self.tried >= at_least, f"{self.promise}: tried {self.tried} times only"
        assert not self.broken, f"{self.promise}: {self.held} of {self.tried}; {self.broken[:3]}"


def in_child(function: Callable[[], object]) -> tuple[int, str]:
    """Call in a forked process, which may die; returns its exit code and what it said."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = SURPRISED
        try:
            os.close(reading)
            os.dup2(writing, 2)
            sys.stderr = os.fdopen(2, "w", buffering=1)  # not the one that a test runner captures
            function()
            code = DONE
        except UserError as error:
            print(error, file=sys.stderr)
            code = REFUSED
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    with open(reading) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return KILLED, signal.Signals(os.WTERMSIG(status)).name
    return os.WEXITSTATUS(status), said
