"""Checkpoints of a run: folders ``<step>/`` with tensors, state, tables so far, and a manifest.

The files are safetensors, JSON and CSV; nothing is unpickled. A second checkpoint of the same step
(the end of an epoch) is ``<step>-2``, so that the first one remains until the second is verified.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orthocond.artifacts.atomic_files import (
    MAX_JSON,
    DiskError,
    canonical_json,
    make_folder,
    remove_folder,
    write_folder,
)
from orthocond.artifacts.csv_tables import COLUMNS_OF, MAX_CSV, Rows, from_csv, to_csv
from orthocond.artifacts.manifests import MANIFEST, Damage, parse_object, read_sealed, seal

if TYPE_CHECKING:
    from torch import Tensor

TENSORS, STATE = "state.safetensors", "state.json"
LIMITS = {TENSORS: None, STATE: MAX_JSON, **{f"{name}.csv": MAX_CSV for name in COLUMNS_OF}}


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to continue from a step.

    Args:
        step: number of optimizer steps done.
        tensors: weights, buffers and the optimizer's state, by name.
        state: everything else, as values for JSON.
        tables: rows of each table so far, by its name.
    """

    step: int
    tensors: dict[str, Tensor] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, Rows] = field(default_factory=dict)


def folders(parent: Path) -> list[Path]:
    """Return the checkpoint folders in a folder, newest first, without verifying them."""
    found = []
    for path in parent.iterdir() if parent.is_dir() else ():
        match = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", path.name, re.ASCII)
        if match:
            found.append((int(match[1]), int(match[2] or 1), path))
    return [path for _, _, path in sorted(found, reverse=True)]


def save(parent: Path, checkpoint: Checkpoint, run: str, config: str) -> None:
    """Write a checkpoint, read it back to verify it, and only then remove all others.

    Args:
        parent: folder of the run's checkpoints.
        checkpoint: the checkpoint.
        run: name of the run.
        config: hash of the run's configuration.

    Raises:
        UserError: the checkpoint can't be written; a DiskError if the disk is full or failing.
    """
    from safetensors.torch import save as to_safetensors

    make_folder(parent)
    # Copy the tensors, since safetensors refuses tensors that share memory.
    tensors = {
        n: t.detach().to("cpu", copy=True).contiguous() for n, t in checkpoint.tensors.items()
    }
    files = {
        TENSORS: to_safetensors(tensors),
        STATE: canonical_json(checkpoint.state),
        **{f"{n}.csv": to_csv(c, checkpoint.tables.get(n, [])) for n, c in COLUMNS_OF.items()},
    }
    path = _free(parent, checkpoint.step)
    about = _about(path, run) | {"config": config}
    write_folder(path, files | {MANIFEST: seal(about, files)})
    try:
        read_sealed(path, about, LIMITS)
    except Damage as damage:
        raise DiskError(
            f"checkpoint {str(path)!r} does not read back as it was written: {damage}"
        ) from None
    _keep_only(path)


def keep_newest(parent: Path, run: str, config: str) -> None:
    """Remove all checkpoints except the newest that verifies.

    ``save`` does this too, but a process may have been killed before it.

    Raises:
        UserError: a checkpoint can't be removed.
    """
    for path in folders(parent):
        try:
            load(path, run, config)
        except Damage:
            continue
        return _keep_only(path)


def _keep_only(path: Path) -> None:
    for folder in folders(path.parent):
        if folder != path:
            remove_folder(folder)


def _free(parent: Path, step: int) -> Path:
    path, copy = parent / str(step), 1
    while path.exists() or path.is_symlink():
        copy += 1
        path = parent / f"{step}-{copy}"
    return path


def _about(path: Path, run: str) -> dict[str, Any]:
    return {"run": run, "checkpoint": path.name, "step": int(path.name.partition("-")[0])}


def load(path: Path, run: str, config: str | None = None) -> Checkpoint:
    """Read and verify a checkpoint of a run.

    Args:
        path: folder of the checkpoint.
        run: name of the run.
        config: hash of the run's configuration; None accepts any configuration.

    Raises:
        Damage: a file differs from what was written, or the checkpoint belongs to another run,
            configuration or step.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as from_safetensors

    about = _about(path, run)
    try:
        if path.is_symlink():
            raise Damage(MANIFEST, "is in a folder that is a link")
        _, files = read_sealed(path, about | ({"config": config} if config else {}), LIMITS)
        name = TENSORS
        try:
            tensors = from_safetensors(files[TENSORS])
            name = STATE
            state = parse_object(files[STATE])
            tables = {}
            for table, columns in COLUMNS_OF.items():
                name = f"{table}.csv"
                tables[table] = from_csv(columns, files[name])
        except (SafetensorError, ValueError, KeyError) as error:
            raise Damage(name, str(error)) from None
    except Damage as damage:
        file = f"{path.parent.name}/{path.name}/{damage.file}"
        raise Damage(file, damage.reason) from None
    return Checkpoint(about["step"], tensors, state, tables)


def newest(parent: Path, run: str, config: str | None = None) -> Checkpoint | None:
    """Return the newest checkpoint that verifies, or None if there is no checkpoint.

    A warning names each newer checkpoint that is damaged and skipped.

    Raises:
        Damage: all checkpoints are damaged; it names the file of the newest one.
    """
    damages: list[Damage] = []
    for path in folders(parent):
        try:
            checkpoint = load(path, run, config)
        except Damage as damage:
            damages.append(damage)
            continue
        for passed in damages:
            warnings.warn(f"run {run!r}: skipped a checkpoint: {passed}", stacklevel=2)
        return checkpoint
    if damages:
        raise damages[0]
    return None
