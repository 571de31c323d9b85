"""Timing artifacts: a folder a case, ``timing.json`` and its environment under a manifest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orthocond.errors import UserError
from orthocond.files import (
    MAX_JSON,
    canonical_json,
    make_folder,
    safe_name,
    write_folder,
)
from orthocond.manifests import MANIFEST, CorruptRun, Damage, parse_object, read_sealed, seal

TIMING, ENVIRONMENT = "timing.json", "environment.json"
LIMITS = {TIMING: MAX_JSON, ENVIRONMENT: MAX_JSON}


@dataclass(frozen=True)
class Timing:
    """What was measured of one case.

    Args:
        name: of the case, and of its folder.
        data: the figures.
        environment: where they were measured.
    """

    name: str
    data: dict[str, Any]
    environment: dict[str, Any]


def write_timing(
    folder: str | Path, name: str, data: Mapping[str, Any], environment: Mapping[str, Any]
) -> Path:
    """Write the figures of one case, completely or not at all.

    Args:
        folder: of the timing study.
        name: of the case.
        data: the figures.
        environment: where they were measured.

    Returns:
        The case's folder.

    Raises:
        UserError: the case is there already, or can't be written.
    """
    path = Path(folder) / safe_name("case", name)
    if os.path.lexists(path):
        raise UserError(f"there is a timing {str(path)!r} already: remove it to measure again")
    make_folder(path.parent)
    files = {TIMING: canonical_json(data), ENVIRONMENT: canonical_json(environment)}
    write_folder(path, files | {MANIFEST: seal({"timing": name}, files)})
    return path


def find_timings(folder: str | Path) -> list[Timing]:
    """The timings in a folder, verified, sorted by name; none where there is no folder.

    Raises:
        CorruptRun: one of them is damaged.
    """
    folder = Path(folder)
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [
        _read(path)
        for path in paths
        if os.path.lexists(path / TIMING) and not path.name.startswith(".")
    ]


def _read(path: Path) -> Timing:
    try:
        _, files = read_sealed(path, {"timing": path.name}, LIMITS)
        try:
            name = TIMING
            data = parse_object(files[name])
            name = ENVIRONMENT
            return Timing(path.name, data, parse_object(files[name]))
        except ValueError as error:
            raise Damage(name, str(error)) from None
    except Damage as damage:
        raise CorruptRun(path.name, damage, f"remove {str(path)!r} and measure it again") from None
