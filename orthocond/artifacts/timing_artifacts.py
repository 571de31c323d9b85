"""Timing artifacts: one folder per case, with ``timing.json``, its environment and a manifest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orthocond.artifacts.atomic_files import (
    MAX_JSON,
    canonical_json,
    make_folder,
    safe_name,
    write_folder,
)
from orthocond.artifacts.manifests import (
    MANIFEST,
    CorruptRun,
    Damage,
    parse_object,
    read_sealed,
    seal,
)
from orthocond.errors import UserError

TIMING, ENVIRONMENT = "timing.json", "environment.json"
LIMITS = {TIMING: MAX_JSON, ENVIRONMENT: MAX_JSON}


@dataclass(frozen=True)
class Timing:
    """Measured times of one case.

    Args:
        name: name of the case and of its folder.
        data: measured values, by name.
        environment: environment of the measurement: versions, commit, device, threads.
    """

    name: str
    data: dict[str, Any]
    environment: dict[str, Any]


def write_timing(
    folder: str | Path, name: str, data: Mapping[str, Any], environment: Mapping[str, Any]
) -> Path:
    """Write the measured values of one case, completely or not at all.

    Args:
        folder: folder of the timing study.
        name: name of the case.
        data: measured values, by name.
        environment: environment of the measurement: versions, commit, device, threads.

    Returns:
        The folder of the case.

    Raises:
        UserError: the case exists already, or can't be written.
    """
    path = Path(folder) / safe_name("case", name)
    if os.path.lexists(path):
        raise UserError(f"timing {str(path)!r} exists already: remove it to measure again")
    make_folder(path.parent)
    files = {TIMING: canonical_json(data), ENVIRONMENT: canonical_json(environment)}
    write_folder(path, files | {MANIFEST: seal({"timing": name}, files)})
    return path


def find_timings(folder: str | Path) -> list[Timing]:
    """Return the timings in a folder, verified and sorted by name.

    The list is empty if there is no such folder.

    Raises:
        CorruptRun: one of the timings is damaged.
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
