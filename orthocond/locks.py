"""A lock on a file that belongs to a living process and to no other.

filelock gives the guarantees: the kernel frees the lock of a killed process, a forked data worker
does not inherit it, and a link in the file's place is refused. Added here: the file goes with the
lock, and what fails is one line that names it.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from filelock import FileLock, Timeout

from orthocond.errors import UserError
from orthocond.files import naming

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)  # from flock, on such a file system


class Lock:
    """An exclusive lock; its file is there only while a process holds it, or if one was killed.

    Args:
        path: the lock's file; a missing folder is made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # The fallback, a file that locks by being there, would outlive a holder that is killed.
        self._lock = FileLock(path, blocking=False, thread_local=False, fallback_to_soft=False)

    def acquire(self) -> bool:
        """Take the lock if it is free, without waiting; a lock that is held is not taken again.

        Raises:
            UserError: the file can't be made, or this file system has no locks.
        """
        while not self.held:
            try:
                self._lock.acquire()
                return True
            except Timeout:
                if os.path.lexists(self.path):
                    return False  # else its holder removed it after we had opened it: try again
            except OSError as error:
                if error.errno in NO_LOCKS:
                    raise UserError(
                        f"cannot lock {str(self.path)!r}: {error.strerror}; "
                        "write to a file system that has locks (flock)"
                    ) from error
                with naming("write", self.path):
                    raise
        return False

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._lock.is_locked

    def release(self) -> None:
        """Give the lock back, if it is held.

        Raises:
            UserError: its file can't be removed; the lock is given back all the same.
        """
        if not self.held:
            return
        try:
            with naming("remove", self.path):
                self.path.unlink(missing_ok=True)
        finally:
            self._lock.release()
