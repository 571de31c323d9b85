"""An exclusive lock on a file, which only a living process can hold.

filelock gives these guarantees: the kernel frees the lock of a killed process, a forked data worker
does not inherit it, and a link in place of the file is refused. This module adds two things: the
file is removed when the lock is released, and an error is one line that names the file.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from filelock import FileLock, Timeout

from orthocond.artifacts.atomic_files import naming
from orthocond.errors import UserError

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)  # from flock on file systems without locks


class Lock:
    """An exclusive lock, whose file exists only while a process holds it or after a kill.

    Args:
        path: file of the lock; a missing folder is made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # No soft lock: it locks by the mere existence of a file, which outlives a killed process.
        self._lock = FileLock(path, blocking=False, thread_local=False, fallback_to_soft=False)

    def acquire(self) -> bool:
        """Take the lock if it is free, without waiting, and return whether it was taken.

        The result is False if another process holds the lock, or this object holds it already.

        Raises:
            UserError: the file can't be made, or the file system has no locks.
        """
        while not self.held:
            try:
                self._lock.acquire()
                return True
            except Timeout:
                if os.path.lexists(self.path):
                    return False
                # The holder removed the file after we had opened it: try again.
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
        """True if this object holds the lock."""
        return self._lock.is_locked

    def release(self) -> None:
        """Release the lock if this object holds it.

        Raises:
            UserError: the file can't be removed; the lock is released all the same.
        """
        if not self.held:
            return
        try:
            with naming("remove", self.path):
                self.path.unlink(missing_ok=True)
        finally:
            self._lock.release()
