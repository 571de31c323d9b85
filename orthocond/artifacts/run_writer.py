"""Writer of one run directory.

Note [What a kill leaves]
    A checkpoint contains the tables up to its step, and it is written before the CSV files in the
    run's folder. So the state of a run without a manifest is its newest verified checkpoint and
    nothing else. The CSV files of such a run are only for people to look at, and training writes
    them again.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orthocond.artifacts import checkpoints
from orthocond.artifacts.atomic_files import (
    MAX_JSON,
    canonical_json,
    make_folder,
    remove_parts,
    write_bytes,
)
from orthocond.artifacts.checkpoints import Checkpoint
from orthocond.artifacts.csv_tables import COLUMNS_OF, Rows, to_csv
from orthocond.artifacts.locks import Lock
from orthocond.artifacts.manifests import (
    MANIFEST,
    Damage,
    parse_hashed,
    parse_object,
    read_file,
    seal,
    with_hash,
)
from orthocond.artifacts.run_reader import (
    CHECKPOINTS,
    CONFIG,
    ENVIRONMENT,
    LOCK,
    SUMMARY,
    Run,
    differences,
)
from orthocond.config.stored_settings import FORMAT
from orthocond.errors import UserError


class RunLocked(UserError):
    """Error for a run that another process is training."""


class RunWriter:
    """A run directory, for writing: a context manager that holds the run's lock.

    Args:
        path: folder of the run; it and its missing parents are made.

    Raises:
        RunLocked: on entering, if another process holds the lock.
        UserError: on entering, if the folder can't be made or is a link.
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

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not None:
                self._forget_if_empty()
        finally:
            self._lock.release()

    def _forget_if_empty(self) -> None:
        """Remove what a run that failed before its first checkpoint has written.

        Otherwise a command with other settings would meet the settings that failed.
        """
        if checkpoints.folders(self.path / CHECKPOINTS) or os.path.lexists(self.path / MANIFEST):
            return
        for name in self._written:
            (self.path / name).unlink(missing_ok=True)

    def begin(self, config: Mapping[str, Any], environment: Mapping[str, Any]) -> Checkpoint | None:
        """Create the run, or resume it.

        Args:
            config: all settings; their hash is added.
            environment: present environment: versions, commit, device, threads.

        Returns:
            The newest checkpoint that verifies, or None if there is no checkpoint.

        Raises:
            UserError: the run is complete, or has other settings; the message names each key that
                differs.
            CorruptRun: the settings or all checkpoints of the run are damaged.
        """
        if not self._lock.held:
            raise RuntimeError("use a RunWriter inside a with statement")
        self.run.require_config(config)
        if self.run.is_complete:
            raise UserError(f"run {str(self.path)!r} is complete")
        parent = self.path / CHECKPOINTS
        if parent.is_symlink():
            raise UserError(f"{str(parent)!r} is a link: a run is written into its study only")
        # A resumed run keeps its stored settings: its checkpoints carry their hash.
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
        """Return the environment of a resumed run, which lists ``earlier`` ones that differed."""
        try:
            before = parse_object(read_file(self.path, ENVIRONMENT, MAX_JSON))
        except (Damage, ValueError):
            return environment  # nothing depends on this file while the run is incomplete
        earlier = before.pop("earlier", [])
        changed = differences(before, environment)
        if changed:
            warnings.warn(
                f"run {self.run.name!r} was started in another environment, so its numbers may "
                f"differ in their last digits: {'; '.join(changed)}",
                stacklevel=3,
            )
            earlier = [*earlier, before]
        return {**environment, "earlier": earlier} if earlier else environment

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint and then the CSV files; remove older checkpoints once it verifies.

        Raises:
            UserError: a file can't be written; the checkpoint saved before is intact.
        """
        checkpoints.save(self.path / CHECKPOINTS, checkpoint, self.run.name, self._config_hash)
        self._write_tables(checkpoint.tables)

    def finish(self, summary: Mapping[str, Any], tables: Mapping[str, Rows]) -> None:
        """Write the tables, the summary, and last the manifest, which makes the run complete.

        Raises:
            UserError: a file can't be written; the run stays incomplete and can be resumed.
        """
        self._write_tables(tables)
        self._write(SUMMARY, canonical_json(summary))
        checkpoints.keep_newest(self.path / CHECKPOINTS, self.run.name, self._config_hash)
        about = {"run": self.run.name, "config": self._config_hash, "format": FORMAT}
        write_bytes(self.path / MANIFEST, seal(about, self._written))

    def _write_tables(self, tables: Mapping[str, Rows]) -> None:
        for name, columns in COLUMNS_OF.items():
            self._write(f"{name}.csv", to_csv(columns, tables.get(name, [])))

    def _write(self, name: str, data: bytes) -> None:
        write_bytes(self.path / name, data)
        self._written[name] = data
