"""Runs: their names, the complete ones in a folder, and how one is written.

Note [What a kill leaves]
    A checkpoint holds the tables up to its step, and is written before the tables beside it are.
    So a run without a manifest is its newest verified checkpoint and nothing else: the CSV files of
    such a run are for people to look at, and training writes them anew.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orthocond import checkpoints
from orthocond.checkpoints import Checkpoint
from orthocond.errors import UserError
from orthocond.files import (
    MAX_JSON,
    canonical_json,
    make_folder,
    remove_parts,
    safe_name,
    write_bytes,
)
from orthocond.history import FORMAT
from orthocond.locks import Lock
from orthocond.manifests import (
    MANIFEST,
    CorruptRun,
    Damage,
    parse_hashed,
    parse_object,
    read_file,
    seal,
    with_hash,
)
from orthocond.run import CHECKPOINTS, CONFIG, ENVIRONMENT, LOCK, SUMMARY, Run, differences
from orthocond.tables import CONDITIONING, METRICS, TABLES, TIMINGS, Table, to_csv

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "CONDITIONING",
    "METRICS",
    "TIMINGS",
    "CorruptRun",
    "Run",
    "RunLocked",
    "RunWriter",
    "find_runs",
    "run_name",
]


class RunLocked(UserError):
    """Another process trains this run."""


def run_name(task: str, data: str, model: str, method: str, seed: int) -> str:
    """The name of a run's folder.

    Raises:
        UserError: a part is not a plain word of letters, digits, '.', '_', '+' and '-'.

    Example:
        >>> run_name("dbn", "leaves", "small", "svd+nog", 0)
        'dbn-leaves-small-svd+nog-s0'
    """
    parts = {"task": task, "data": data, "model": model, "method": method, "seed": f"s{seed}"}
    return "-".join(safe_name(kind, part) for kind, part in parts.items())


def find_runs(folder: str | Path) -> list[Run]:
    """The complete runs in a folder, verified, sorted by name; none where there is no folder.

    Raises:
        CorruptRun: one of them is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return []
    found = [Run(path) for path in sorted(folder.iterdir()) if _is_run(path)]
    return [run for run in found if run.is_complete]


def _is_run(path: Path) -> bool:
    """Whether a folder was a run before whatever happened to it."""
    return not path.name.startswith(".") and any(
        os.path.lexists(path / name) for name in (CONFIG, SUMMARY)
    )


class RunWriter:
    """A run directory, for writing: a context manager that holds the run's lock while it is open.

    Args:
        path: the run's folder; it and those above it are made.

    Raises:
        RunLocked: on entering, where a living process has the lock.
        UserError: on entering, where the folder can't be made or is a link.
    """

    def __init__(self, path: str | Path) -> None:
        self.run = Run(path)
        self.path = self.run.path
        self._lock = Lock(self.path / LOCK)
        self._config_hash = ""
        self._written: dict[str, bytes] = {}

    def __enter__(self) -> RunWriter:
        if self.path.is_symlink():
            raise UserError(f"{str(self.path)!r} is a link: a run is written into its study only")
        make_folder(self.path)
        if not self._lock.acquire():
            raise RunLocked(f"run {str(self.path)!r} is being trained by another process")
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def begin(self, config: Mapping[str, Any], environment: Mapping[str, Any]) -> Checkpoint | None:
        """Create the run, or take it up again.

        Args:
            config: all settings; their hash is added.
            environment: where the run is trained now.

        Returns:
            The newest verified checkpoint, None where there is none.

        Raises:
            UserError: the run has other settings (named key by key) or is complete.
            CorruptRun: its settings or all its checkpoints are damaged.
        """
        if not self._lock.held:
            raise RuntimeError("a RunWriter is used inside its with statement")
        self.run.require_config(config)
        if self.run.is_complete:
            raise UserError(f"run {str(self.path)!r} is complete")
        parent = self.path / CHECKPOINTS
        if parent.is_symlink():
            raise UserError(f"{str(parent)!r} is a link: a run is written into its study only")
        # A run that is taken up again keeps its stored settings, and with them its checkpoints.
        data = with_hash(self.run.config if self.run.exists else config, "hash")
        self._config_hash = parse_hashed(data, "hash")["hash"]
        try:
            checkpoint = checkpoints.newest(parent, self.run.name, self._config_hash)
        except Damage as damage:
            raise self.run.corrupt(damage) from None
        for folder in (self.path, parent):
            remove_parts(folder)
        if checkpoint is not None:
            environment = self._continued(environment)
        self._write(CONFIG, data)
        self._write(ENVIRONMENT, canonical_json(environment))
        return checkpoint

    def _continued(self, environment: Mapping[str, Any]) -> Mapping[str, Any]:
        """The environment of a resumed run: with those ``earlier`` ones that were different."""
        try:
            before = parse_object(read_file(self.path, ENVIRONMENT, MAX_JSON))
        except (Damage, ValueError):
            return environment  # it vouches for nothing while the run is incomplete
        earlier = before.pop("earlier", [])
        changed = differences(before, environment)
        if changed:
            warnings.warn(
                f"run {self.run.name!r} was begun in another environment, its numbers may differ "
                f"in their last digits: {'; '.join(changed)}",
                stacklevel=3,
            )
            earlier = [*earlier, before]
        return {**environment, "earlier": earlier} if earlier else environment

    def save(
        self,
        step: int,
        tensors: Mapping[str, Tensor],
        state: Mapping[str, Any],
        tables: Mapping[str, Table],
    ) -> None:
        """Write a checkpoint, then the tables beside it; older checkpoints go when it verifies.

        Args:
            step: optimizer steps done.
            tensors: weights, buffers, the optimizer's state, by name.
            state: everything else, as JSON has it.
            tables: rows of ``metrics``, ``timings`` and ``conditioning``.

        Raises:
            UserError: the disk refuses; what was saved before is intact.
        """
        checkpoint = Checkpoint(step, dict(tensors), dict(state), dict(tables))
        checkpoints.save(self.path / CHECKPOINTS, checkpoint, self.run.name, self._config_hash)
        self._write_tables(tables)

    def finish(self, summary: Mapping[str, Any], tables: Mapping[str, Table]) -> None:
        """Write the tables, the summary, and last the manifest that makes the run complete.

        Raises:
            UserError: the disk refuses; the run is still incomplete and can be resumed.
        """
        self._write_tables(tables)
        self._write(SUMMARY, canonical_json(summary))
        checkpoints.keep_newest(self.path / CHECKPOINTS, self.run.name, self._config_hash)
        about = {"run": self.run.name, "config": self._config_hash, "format": FORMAT}
        write_bytes(self.path / MANIFEST, seal(about, self._written))

    def _write_tables(self, tables: Mapping[str, Table]) -> None:
        for name, columns in TABLES.items():
            self._write(f"{name}.csv", to_csv(columns, tables.get(name, [])))

    def _write(self, name: str, data: bytes) -> None:
        write_bytes(self.path / name, data)
        self._written[name] = data
