from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from orthocond.artifacts.locks import Lock
from orthocond.errors import UserError

HOLD = """
import os, sys
from pathlib import Path
from orthocond.artifacts.locks import Lock
lock = Lock(Path(sys.argv[1]))
assert lock.acquire()
{}
os.write(1, b"held\\n")
sys.stdin.read()  # until the test ends it, or has ended itself
"""
# Each line is one write: print would write the end of the line separately if unbuffered.
FORK = "if os.fork() == 0:\n    os.write(1, b'forked\\n')\n    sys.stdin.read()"


def holder(path, then=""):
    """Start another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(then), path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    lines = {process.stdout.readline().strip() for _ in range(2 if then else 1)}
    assert lines == ({"held", "forked"} if then else {"held"})
    return process


def test_one_process_holds_the_lock_and_releasing_it_removes_the_file(tmp_path):
    first, second = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    assert first.acquire() and first.held
    assert not second.acquire() and not second.held
    first.release()
    first.release()
    assert os.listdir(tmp_path) == []
    assert second.acquire()
    second.release()


def test_a_killed_process_releases_the_lock(tmp_path):
    path = tmp_path / "lock"
    process = holder(path)
    assert not Lock(path).acquire()
    process.kill()
    process.communicate()
    assert path.exists()  # the file that it left does not lock
    lock = Lock(path)
    assert lock.acquire()
    lock.release()


def test_a_child_of_a_killed_process_does_not_hold_the_lock(tmp_path):
    path = tmp_path / "lock"
    process = holder(path, FORK)
    children = f"/proc/{process.pid}/task/{process.pid}/children"
    if not os.path.exists(children):
        process.kill()
        pytest.skip("this kernel does not list a process's children")
    with open(children) as file:
        child = int(file.read().split()[0])
    process.kill()
    process.wait()
    os.kill(child, 0)  # the child is alive
    lock = Lock(path)
    assert lock.acquire()
    lock.release()
    os.kill(child, signal.SIGKILL)
    process.communicate()


def test_a_lock_taken_on_a_file_that_was_just_removed_is_taken_again(tmp_path, monkeypatch):
    path, flock = tmp_path / "lock", fcntl.flock
    calls = []

    def flock_after_the_holder_left(fd, operation):
        calls.append(fd)
        if len(calls) == 1:
            path.unlink()
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock_after_the_holder_left)
    lock = Lock(path)
    assert lock.acquire() and len(calls) == 2
    assert not Lock(path).acquire()
    lock.release()


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(fd, operation):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match=r"^cannot lock '.*lock': .*; write to a file system that"):
        Lock(tmp_path / "lock").acquire()


def test_a_link_instead_of_the_lock_file_is_not_followed(tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match=r"^cannot write '.*lock'"):
        Lock(tmp_path / "lock").acquire()
    assert not (tmp_path / "outside").exists()


def test_a_forked_child_can_neither_use_the_lock_nor_end_it(tmp_path):
    lock = Lock(tmp_path / "lock")
    assert lock.acquire()
    child = os.fork()
    if child == 0:
        held = lock.held
        lock.release()
        os._exit(held)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0  # not held in the child
    assert not Lock(lock.path).acquire()
    lock.release()


def test_a_lock_that_is_held_is_not_taken_again(tmp_path):
    lock = Lock(tmp_path / "lock")
    assert lock.acquire() and not lock.acquire()
    lock.release()
    assert not lock.held and Lock(lock.path).acquire()
