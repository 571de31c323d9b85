"""Atomic writes of files and folders, and reads that follow no link and block on no pipe.

Note [Crash-safe order]
    New bytes go to a hidden sibling (``.NAME.PID.part``). It is fsynced and then renamed over the
    old file. Then the folder is fsynced, so that the rename itself survives a crash. A folder is
    written in the same way, with its files in the given order; the caller puts the manifest last.
    A process that is killed at any step leaves the old state or the new one, and perhaps a hidden
    sibling.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from orthocond.errors import UserError

PART = ".part"
MAX_JSON = 16 << 20  # bytes: far more than any real JSON file has
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class DiskError(UserError):
    """Error for a disk that is full or failing, while the user's input is right (exit code 1)."""

    exit_code = 1


def sha256(data: bytes) -> str:
    """Return the SHA-256 of some bytes, in hexadecimal.

    Example:
        >>> sha256(b"")[:8]
        'e3b0c442'
    """
    return hashlib.sha256(data).hexdigest()


def safe_name(kind: str, name: str) -> str:
    """Return a name, checked to be usable as a folder name or as a part of one.

    Args:
        kind: kind of the name, for the error.
        name: up to 100 ASCII letters, digits and ``. _ + -``, which begins with no ``.`` or ``-``.

    Raises:
        UserError: the name is empty, too long, or contains other characters, such as a slash.

    Example:
        >>> safe_name("model", "small")
        'small'
    """
    if not re.fullmatch(r"[A-Za-z0-9_+][A-Za-z0-9._+-]{0,99}", name):
        raise UserError(
            f"{kind} {name[:60]!r} can't be part of a folder's name: "
            "allowed are up to 100 letters, digits and . _ + -, but no . or - at the start"
        )
    return name


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def canonical_json(value: Any) -> bytes:
    """Return the canonical JSON of a value: equal values give equal bytes, also 1 and 1.0.

    Keys are sorted and tuples become lists. Numbers that are not finite are written as NaN and
    Infinity, which Python can read.

    Example:
        >>> canonical_json({"b": 1.0, "a": (0.5,)}) == canonical_json({"a": [0.5], "b": 1})
        True
    """
    return (json.dumps(_plain(value), sort_keys=True, indent=2) + "\n").encode()


def parse_json(data: bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: the text is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError:  # wrong syntax or encoding, or a number with too many digits
        raise ValueError("is not valid JSON") from None


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """Return the content of a regular file; follow no link.

    Args:
        path: the file.
        limit: largest allowed size in bytes; None allows any size.

    Raises:
        OSError: the file can't be read, is a link, not a regular file, or larger than ``limit``;
            ``strerror`` gives the reason.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer, perhaps forever.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "is a link where a file is expected", str(path)) from None
        raise
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        if limit is not None and status.st_size > limit:
            raise OSError(errno.EFBIG, f"is larger than {limit} bytes", str(path))
        return file.read()


@contextmanager
def naming(verb: str, path: Path) -> Iterator[None]:
    """Turn an OSError in the block into a UserError such as ``cannot write PATH: reason``.

    Raises:
        UserError: the block raised an OSError; a DiskError if the disk is full or failing.
    """
    try:
        yield
    except OSError as error:
        kind = DiskError if error.errno in DISK_ERRORS else UserError
        raise kind(f"cannot {verb} {str(path)!r}: {error.strerror or error}") from error


def _part(path: Path) -> Path:
    # with_name would refuse a path without a name, such as "." or "/"; writing to it says why.
    return path.parent / f".{path.name}.{os.getpid()}{PART}"


def _write_synced(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(path: Path) -> None:
    """Fsync a folder, so that new names in it survive a crash."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the content of a file, completely or not at all.

    Raises:
        UserError: the file can't be written; a DiskError if the disk is full or failing.
    """
    part = _part(path)
    with naming("write", path):
        try:
            _write_synced(part, data)
            os.replace(part, path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
        sync_folder(path.parent)


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a new folder with these files, completely or not at all.

    Args:
        path: the folder, which must not exist.
        files: contents by file name, written in this order.

    Raises:
        UserError: the folder can't be written; a DiskError if the disk is full or failing.
    """
    part = _part(path)
    with naming("write", path):
        try:
            part.mkdir()
            for name, data in files.items():
                _write_synced(part / name, data)
            sync_folder(part)
            os.rename(part, path)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        sync_folder(path.parent)


def _delete(path: Path) -> None:
    """Remove a file, a folder or a link; a link's target is kept."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def remove_folder(path: Path) -> None:
    """Remove a folder, file or link.

    It is renamed first, so its name never shows a folder that is removed in part.

    Raises:
        UserError: it can't be removed.
    """
    part = _part(path)
    with naming("remove", path):
        os.rename(path, part)
        _delete(part)


def make_folder(path: Path) -> None:
    """Make a folder and its missing parents, so that they survive a crash.

    Raises:
        UserError: one of them can't be made, or is a file.
    """
    with naming("write", path):  # is_dir can fail as well, for a name that is too long
        if path.is_dir():
            return
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def require_writable(path: Path) -> None:
    """Make the folder of a file, and check that the file can be written, without writing it.

    Raises:
        UserError: the folder can't be made or written, or there is a folder, a link, a pipe or a
            device at the path: ``write_bytes`` would put a file in its place.
    """
    make_folder(path.parent)
    part = _part(path)
    with naming("write", path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
            raise OSError(errno.EINVAL, "is there already, and is not a regular file")
        _write_synced(part, b"")
        part.unlink()


def remove_parts(folder: Path) -> None:
    """Remove the hidden siblings (Note [Crash-safe order]) that killed processes left in a folder.

    Raises:
        UserError: one of them can't be removed.
    """
    for part in folder.glob(f".*{PART}"):
        with naming("remove", part):
            _delete(part)
