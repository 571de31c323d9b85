"""Reader of one run directory, and the only module that knows the file names in a run.

::

    <task>-<data>-<model>-<method>-s<seed>/
        config.json        all settings, and their hash
        environment.json   versions, commit, device, threads
        metrics.csv  timings.csv  conditioning.csv
        summary.json       final results, without times
        manifest.json      written last: it exists if the run is complete
        checkpoint/<step>/ state to resume training from (orthocond.artifacts.checkpoints)
        .lock              exists while a process trains the run
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orthocond.artifacts import checkpoints
from orthocond.artifacts.atomic_files import MAX_JSON, canonical_json
from orthocond.artifacts.checkpoints import Checkpoint
from orthocond.artifacts.csv_tables import COLUMNS_OF, MAX_CSV, to_csv, to_frame
from orthocond.artifacts.manifests import (
    MANIFEST,
    CorruptRun,
    Damage,
    parse_hashed,
    parse_object,
    read_file,
    read_sealed,
)
from orthocond.config.stored_settings import FORMAT, completed, flat
from orthocond.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

CONFIG, ENVIRONMENT, SUMMARY = "config.json", "environment.json", "summary.json"
CHECKPOINTS, LOCK = "checkpoint", ".lock"
LIMITS = {
    CONFIG: MAX_JSON,
    ENVIRONMENT: MAX_JSON,
    **{f"{name}.csv": MAX_CSV for name in COLUMNS_OF},
    SUMMARY: MAX_JSON,
}


def differences(there: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Return the differences between two configurations, one line per key.

    Example:
        >>> differences({"data": {"size": 32}, "lr": 1.0}, {"data": {"size": 64}, "lr": 1})
        ['data.size is 32 there and 64 here']
    """
    old, new = flat(there), flat(asked)
    return [
        f"{key} is {_shown(old, key)} there and {_shown(new, key)} here"
        for key in sorted({*old, *new} - {"hash"})
        if _shown(old, key) != _shown(new, key)
    ]


def _shown(settings: Mapping[str, Any], key: str) -> str:
    if key not in settings:
        return "absent"
    return " ".join(canonical_json(settings[key]).decode().split())


def _verified(folder: Path, name: str) -> dict[str, bytes]:
    """Return the files of a complete run.

    Raises:
        Damage: a file differs from the manifest, or the manifest names another configuration.
        UserError: the run was written by a newer version.
    """
    manifest, files = read_sealed(folder, {"run": name}, LIMITS)
    version = manifest.get("format", 1)
    if version not in range(1, FORMAT + 1):
        raise UserError(
            f"run {name!r} has format {version}, written by a newer orthocond: this one reads "
            f"formats up to {FORMAT}"
        )
    try:
        stored = parse_hashed(files[CONFIG], "hash")["hash"]
    except ValueError as error:
        raise Damage(CONFIG, str(error)) from None
    if stored != manifest["config"]:
        raise Damage(CONFIG, f"is not the configuration that {MANIFEST} names")
    return files


@lru_cache(maxsize=4096)
def _checked(name: str, data: bytes) -> str:
    """Return the object in a JSON file as text, checked once: a report asks for many copies."""
    return json.dumps(parse_hashed(data, "hash") if name == CONFIG else parse_object(data))


class Run:
    """A run directory, for reading.

    All files of a complete run are verified before any of them is parsed. The tables of an
    incomplete run come from its newest checkpoint.

    Args:
        path: folder of the run, which need not exist yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = os.path.basename(os.path.abspath(path))
        self._files: dict[str, bytes] = {}
        self._frames: dict[str, pd.DataFrame] = {}  # parsed once: a report asks for many copies

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    # State of the run

    @property
    def exists(self) -> bool:
        """True if a run was started in this folder."""
        return self._has(CONFIG) or self._has(MANIFEST)

    @property
    def is_complete(self) -> bool:
        """True if the run is finished and its files verify.

        Raises:
            CorruptRun: the run is finished, but damaged.
        """
        if not self._has(MANIFEST):
            return False
        self.verify()
        return True

    @property
    def has_checkpoint(self) -> bool:
        """True if there is a checkpoint to resume from.

        Raises:
            CorruptRun: there are checkpoints, but all of them are damaged.
        """
        return self.checkpoint() is not None

    @property
    def status(self) -> str:
        """Status of the run: ``complete``, ``diverged`` or ``incomplete``."""
        return self.summary["status"] if self.is_complete else "incomplete"

    def verify(self) -> None:
        """Check every file of a complete run against its manifest.

        Raises:
            CorruptRun: a file differs from what was written.
            UserError: the run is not complete.
        """
        self._read(SUMMARY)

    def checkpoint(self) -> Checkpoint | None:
        """Return the newest checkpoint that verifies, or None if there is no checkpoint.

        Raises:
            CorruptRun: every checkpoint is damaged.
        """
        try:
            return checkpoints.newest(self.path / CHECKPOINTS, self.name, self._config_hash())
        except Damage as damage:
            raise self.corrupt(damage) from None

    # Content of the run

    @property
    def config(self) -> dict[str, Any]:
        """All settings as they were stored, and their ``hash``."""
        return self._parsed(CONFIG, self._read_config())

    @property
    def settings(self) -> dict[str, Any]:
        """All settings, without their hash; one that was not stored has its historical value."""
        return completed({key: value for key, value in self.config.items() if key != "hash"})

    @property
    def environment(self) -> dict[str, Any]:
        """Environment of the training: versions, commit, device, threads."""
        return self._parsed(ENVIRONMENT, self._read(ENVIRONMENT))

    @property
    def summary(self) -> dict[str, Any]:
        """Final results, by name."""
        return self._parsed(SUMMARY, self._read(SUMMARY))

    @property
    def metrics(self) -> pd.DataFrame:
        """Losses, accuracies and failures, one row per epoch; columns ``METRICS``."""
        return self._table("metrics")

    @property
    def timings(self) -> pd.DataFrame:
        """Seconds, images per second and peak memory, one row per epoch; columns ``TIMINGS``.

        The peak memory is taken over the epoch on a GPU, and over the process so far on a CPU.
        """
        return self._table("timings")

    @property
    def conditioning(self) -> pd.DataFrame:
        """Condition numbers and ranks, one row per probed step; columns ``CONDITIONING``."""
        return self._table("conditioning")

    def require_config(self, config: Mapping[str, Any]) -> None:
        """Check that the run has these settings; a run that does not exist passes.

        Raises:
            UserError: the settings differ; the message names each key that differs.
            CorruptRun: the settings of the run can't be read.
        """
        if not self.exists:
            return
        differing = differences(self.settings, completed(config))
        if differing:
            raise UserError(
                f"run {str(self.path)!r} has another configuration: {'; '.join(differing)}"
            )

    # Reading

    def _has(self, name: str) -> bool:
        return os.path.lexists(self.path / name)

    def _read(self, name: str) -> bytes:
        """Return a file of a complete run; the first call verifies all files."""
        if not self._files:
            if not self._has(MANIFEST):
                raise UserError(
                    f"run {str(self.path)!r} is not complete: orthocond train finishes it"
                    if self.path.is_dir()
                    else f"there is no run {str(self.path)!r}"
                )
            try:
                files = _verified(self.path, self.name)
            except Damage as damage:
                raise self.corrupt(damage) from None
            self._files = files
        return self._files[name]

    def _read_config(self) -> bytes:
        if self._has(MANIFEST) or not self.path.is_dir():
            return self._read(CONFIG)
        try:
            return read_file(self.path, CONFIG, MAX_JSON)
        except Damage as damage:
            raise self.corrupt(damage) from None

    def _parsed(self, name: str, data: bytes) -> dict[str, Any]:
        try:
            return dict(json.loads(_checked(name, data)))
        except ValueError as error:
            raise self.corrupt(Damage(name, str(error))) from None

    def _table(self, table: str) -> pd.DataFrame:
        if self._has(MANIFEST) or (checkpoint := self.checkpoint()) is None:
            if table not in self._frames:
                self._frames[table] = self._frame(table, self._read(f"{table}.csv"))
            return self._frames[table].copy()
        return self._frame(table, to_csv(COLUMNS_OF[table], checkpoint.tables[table]))

    def _frame(self, table: str, data: bytes) -> pd.DataFrame:
        try:
            return to_frame(COLUMNS_OF[table], data)
        except ValueError as error:
            raise self.corrupt(Damage(f"{table}.csv", str(error))) from None

    def _config_hash(self) -> str | None:
        try:
            return parse_hashed(read_file(self.path, CONFIG, MAX_JSON), "hash")["hash"]
        except (Damage, ValueError):
            return None

    def corrupt(self, damage: Damage) -> CorruptRun:
        """Return the error for a damaged file, with the remedy and the training that it costs."""
        try:
            config = None if damage.file == CONFIG else self._config_hash()
            checkpoint = checkpoints.newest(self.path / CHECKPOINTS, self.name, config)
        except Damage:
            checkpoint = None
        if checkpoint is None:
            remedy = f"remove {str(self.path)!r} and orthocond train redoes it from the start"
        else:
            wrong = [name for name in dict.fromkeys((MANIFEST, damage.file)) if self._has(name)]
            remedy = (
                f"remove {' and '.join(wrong)} from {str(self.path)!r} and orthocond train "
                f"redoes it from step {checkpoint.step}"
            )
        return CorruptRun(self.name, damage, remedy)
