"""A lock on a file that belongs to a living process and to no other."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from orthocond.errors import UserError
from orthocond.files import naming

_held: set[int] = set()


def _close_in_child() -> None:
    """A forked data worker must not go on holding the lock of a parent that was killed."""
    for fd in _held:
        os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


class Lock:
    """An exclusive lock (flock); the file is there only while somebody holds it or was killed.

    Args:
        path: the lock's file, in a folder that exists.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._fd = path, -1

    def acquire(self) -> bool:
        """Take the lock if it is free, without waiting.

        Raises:
            UserError: the file can't be made, or this file system has no locks.
        """
        while True:
            with naming("write", self.path):
                fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return False
            except OSError as error:
                os.close(fd)
                raise UserError(
                    f"cannot lock {str(self.path)!r}: {error.strerror}; "
                    "write to a file system that has locks (flock)"
                ) from error
            if self._is_at_path(fd):
                self._fd = fd
                _held.add(fd)
                return True
            os.close(fd)  # its holder removed it between our open and our lock

    def _is_at_path(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self.path, follow_symlinks=False))
        except FileNotFoundError:
            return False

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._fd >= 0

    def release(self) -> None:
        """Give the lock back, if it is held.

        Raises:
            UserError: its file can't be removed; it does not hold all the same.
        """
        if not self.held:
            return
        try:
            with naming("remove", self.path):
                self.path.unlink(missing_ok=True)
        finally:
            _held.discard(self._fd)
            os.close(self._fd)
            self._fd = -1
