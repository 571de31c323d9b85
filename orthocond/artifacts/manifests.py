"""Manifests: the SHA-256 of each file in a folder, and the identity of the folder.

A safetensors, JSON or CSV file with a flipped bit usually loads as other data without any error,
and a file of another run is valid on its own. So every byte is checked against the manifest before
it is parsed, and the manifest names its run, configuration and step. The manifest also contains its
own SHA-256, and its bytes must be the canonical JSON of its content.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orthocond.artifacts.atomic_files import (
    MAX_JSON,
    canonical_json,
    parse_json,
    read_bytes,
    sha256,
)
from orthocond.errors import UserError

MANIFEST = "manifest.json"


class Damage(Exception):
    """Error for a file that differs from its manifest or from the format that the program expects.

    Attributes:
        file: name of the file.
        reason: what is wrong, as the rest of a sentence that begins with the name.
    """

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file} {reason}")
        self.file, self.reason = file, reason


class CorruptRun(UserError):
    """Error for a damaged run: names the run, the file, the damage and the remedy."""

    def __init__(self, run: str, damage: Damage, remedy: str) -> None:
        super().__init__(f"run {run!r} is damaged: {damage}; {remedy}")
        self.run, self.file = run, damage.file


def seal(about: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """Return the manifest of a folder.

    Args:
        about: identity of the folder, such as its run, configuration and step.
        files: contents by file name.

    Example:
        >>> b'"run": "a"' in seal({"run": "a"}, {"x.csv": b"1"})
        True
    """
    sums = {name: {"bytes": len(data), "sha256": sha256(data)} for name, data in files.items()}
    return with_hash({**about, "files": sums}, "sha256")


def with_hash(value: Mapping[str, Any], key: str) -> bytes:
    """Return a JSON object with an added ``key``, which holds the SHA-256 of the other keys."""
    rest = {k: v for k, v in value.items() if k != key}
    return canonical_json(rest | {key: sha256(canonical_json(rest))})


def parse_hashed(data: bytes, key: str) -> dict[str, Any]:
    """Return the JSON object that ``with_hash`` wrote, with its hash.

    Raises:
        ValueError: a byte differs from what was written.
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
    """Return the JSON object in some bytes.

    Raises:
        ValueError: they contain something else.
    """
    value = parse_json(data)
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    return value


def read_file(folder: Path, name: str, limit: int | None = None) -> bytes:
    """Return the content of a file in a folder.

    Raises:
        Damage: the file is missing, larger than ``limit`` bytes, a link, or can't be read.
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
    """Return the manifest of a folder and the contents of its files, all verified.

    Args:
        folder: the folder.
        about: identity that the manifest must state: keys and values.
        limits: names of the files that the folder must have, and their largest size in bytes.

    Raises:
        Damage: a file differs from what was written; the first such file is named.
    """
    data = read_file(folder, MANIFEST, MAX_JSON)
    try:
        manifest = parse_hashed(data, "sha256")
    except ValueError as error:
        raise Damage(MANIFEST, str(error)) from None
    for key, expected in about.items():
        if manifest.get(key) != expected:
            raise Damage(MANIFEST, f"belongs to {key} {manifest.get(key)!r}, not {expected!r}")
    sums = manifest.get("files")
    if not isinstance(sums, dict) or set(sums) != set(limits):
        # Only the names in ``limits`` are opened, so a name such as '../x' or '/x' has no effect.
        raise Damage(MANIFEST, f"does not name exactly the files {', '.join(limits)}")
    return manifest, {name: _read_verified(folder, name, sums[name], limits[name]) for name in sums}


def _read_verified(folder: Path, name: str, sums: Any, limit: int | None) -> bytes:
    data = read_file(folder, name, limit)
    if sums != {"bytes": len(data), "sha256": sha256(data)}:
        raise Damage(name, f"does not match {MANIFEST} ({len(data)} bytes)")
    return data
