"""Files that are on disk completely or not at all, and reads that can't be led astray.

Note [Crash-safe order]
    New bytes go to a hidden sibling (``.NAME.PID.part``), which is fsynced and then renamed over
    the old file, and the folder is fsynced, so that the rename itself lasts. A folder is built the
    same way, its files in the order given: what vouches for the others comes last. A process that
    is killed at any step leaves the old state or the new one, and perhaps a hidden part.
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
MAX_JSON = 16 << 20  # bytes: far above any real one
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class DiskError(UserError):
    """The disk is full or failing: nothing is wrong with what was asked for (exit code 1)."""

    exit_code = 1


def sha256(data: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal.

    Example:
        >>> sha256(b"")[:8]
        'e3b0c442'
    """
    return hashlib.sha256(data).hexdigest()


def safe_name(kind: str, name: str) -> str:
    """A name that can be a folder's, or a part of it: plain letters, digits and ``. _ + -``.

    Raises:
        UserError: it is empty, too long, or would lead out of the folder.

    Example:
        >>> safe_name("model", "small")
        'small'
    """
    if not re.fullmatch(r"[A-Za-z0-9_+][A-Za-z0-9._+-]{0,99}", name):
        raise UserError(
            f"{kind} {name[:60]!r} can't be part of a folder's name: "
            "allowed are up to 100 letters, digits and . _ + -, no . or - first"
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
    """The one way to write a value as JSON: equal values are equal bytes, 1 and 1.0 among them.

    Keys are sorted, tuples are lists, and numbers that are not finite are NaN and Infinity, as
    Python reads them.

    Example:
        >>> canonical_json({"b": 1.0, "a": (0.5,)}) == canonical_json({"a": [0.5], "b": 1})
        True
    """
    return (json.dumps(_plain(value), sort_keys=True, indent=2) + "\n").encode()


def parse_json(data: bytes) -> Any:
    """The value behind some JSON text.

    Raises:
        ValueError: it is not JSON, or nested absurdly deep.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError:  # of the syntax, of the encoding, or of a number with too many digits
        raise ValueError("is not valid JSON") from None


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """The content of a regular file that is no link and not larger than ``limit`` bytes.

    Raises:
        OSError: it can't be read, or is none of that; ``strerror`` says why.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for ever.
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


def read_json(path: Path, limit: int = MAX_JSON) -> Any:
    """The value in a JSON file.

    Raises:
        UserError: the file can't be read, is larger than ``limit`` bytes, or is not JSON.
    """
    with naming("read", path):
        data = read_bytes(path, limit)
    try:
        return parse_json(data)
    except ValueError as error:
        raise UserError(f"{str(path)!r} {error}") from None


@contextmanager
def naming(verb: str, path: Path) -> Iterator[None]:
    """Turn an OSError into one line that names the path: ``cannot write PATH: reason``."""
    try:
        yield
    except OSError as error:
        kind = DiskError if error.errno in DISK_ERRORS else UserError
        raise kind(f"cannot {verb} {str(path)!r}: {error.strerror or error}") from error


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}{PART}")


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
    """Make the names in a folder last."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file by new content, or leave it as it was.

    Raises:
        UserError: it can't be written; a DiskError where the disk is full or failing.
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
    """Make a new folder with these files, complete or not at all.

    Args:
        path: the folder, which must not exist.
        files: names and contents, written in this order.

    Raises:
        UserError: it can't be written; a DiskError where the disk is full or failing.
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
    """Remove a file, a folder, or a link and not what it points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def remove_folder(path: Path) -> None:
    """Remove a folder, or a file or link of that name; no half of it is ever seen under its name.

    Raises:
        UserError: it can't be removed.
    """
    part = _part(path)
    with naming("remove", path):
        os.rename(path, part)
        _delete(part)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, and make their names last.

    Raises:
        UserError: one can't be made, or is a file.
    """
    with naming("write", path):  # to look at it can fail as well: its name may be too long
        if path.is_dir():
            return
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def remove_parts(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder.

    Raises:
        UserError: one of them can't be removed.
    """
    for part in folder.glob(f".*{PART}"):
        with naming("remove", part):
            _delete(part)
