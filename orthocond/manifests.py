"""A folder's manifest: the SHA-256 of each of its files, and what the folder is.

A flipped bit in a safetensors, JSON or CSV file mostly loads as other data without any error, and a
file of another run is valid in itself. So every byte is checked against the manifest before it is
parsed, the manifest says which run, configuration and step it belongs to, and it is checked against
itself: its bytes are the canonical form of what they say, its own SHA-256 included.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orthocond.errors import UserError
from orthocond.files import MAX_JSON, canonical_json, parse_json, read_bytes, sha256

MANIFEST = "manifest.json"


class Damage(Exception):
    """A file is not what its manifest, or the program, says that it is."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file} {reason}")
        self.file, self.reason = file, reason


class CorruptRun(UserError):
    """A run is damaged: which run, which file, and what training would have to do again."""

    def __init__(self, run: str, damage: Damage, remedy: str) -> None:
        super().__init__(f"run {run!r} is damaged: {damage}; {remedy}")
        self.run, self.file = run, damage.file


def seal(about: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """The manifest of some files.

    Args:
        about: what the folder is: its run, configuration, step.
        files: names and contents.

    Example:
        >>> b'"run": "a"' in seal({"run": "a"}, {"x.csv": b"1"})
        True
    """
    sums = {name: {"bytes": len(data), "sha256": sha256(data)} for name, data in files.items()}
    return with_hash({**about, "files": sums}, "sha256")


def with_hash(value: Mapping[str, Any], key: str) -> bytes:
    """A JSON object that holds, under ``key``, the SHA-256 of the rest."""
    rest = {k: v for k, v in value.items() if k != key}
    return canonical_json(rest | {key: sha256(canonical_json(rest))})


def parse_hashed(data: bytes, key: str) -> dict[str, Any]:
    """What ``with_hash`` wrote.

    Raises:
        ValueError: a byte of it is another.
    """
    value = parse_object(data)
    try:
        intact = with_hash(value, key) == data
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if not intact:
        raise ValueError(f"does not match the {key} in it")
    return value


def parse_object(data: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: it is something else.
    """
    value = parse_json(data)
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    return value


def read_file(folder: Path, name: str, limit: int | None = None) -> bytes:
    """The content of a file in a folder.

    Raises:
        Damage: it is missing, too large, a link, or can't be read.
    """
    try:
        return read_bytes(folder / name, limit)
    except FileNotFoundError:
        raise Damage(name, "is missing") from None
    except OSError as error:
        raise Damage(name, f"can't be read: {error.strerror or error}") from None


def read_sealed(
    folder: Path, about: Mapping[str, Any], limits: Mapping[str, int | None]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest of a folder and the contents of its files, all verified.

    Args:
        folder: where the files lie.
        about: what the manifest must say about the folder.
        limits: the files that the folder must have, and the largest size of each in bytes.

    Raises:
        Damage: the first file that is not as it was written.
    """
    data = read_file(folder, MANIFEST, MAX_JSON)
    try:
        manifest = parse_hashed(data, "sha256")
    except ValueError as error:
        raise Damage(MANIFEST, str(error)) from None
    for key, expected in about.items():
        if manifest.get(key) != expected:
            raise Damage(MANIFEST, f"is of {key} {manifest.get(key)!r}, not of {expected!r}")
    sums = manifest.get("files")
    if not isinstance(sums, dict) or set(sums) != set(limits):
        # No name that it gives is ever opened: not '../x', and not '/x'.
        raise Damage(MANIFEST, f"does not name exactly the files {', '.join(limits)}")
    return manifest, {name: _read_verified(folder, name, sums[name], limits[name]) for name in sums}


def _read_verified(folder: Path, name: str, sums: Any, limit: int | None) -> bytes:
    data = read_file(folder, name, limit)
    if sums != {"bytes": len(data), "sha256": sha256(data)}:
        raise Damage(name, f"does not match {MANIFEST} ({len(data)} bytes)")
    return data
