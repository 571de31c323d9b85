"""The run directory: write, read, verify, list. The only module that knows its file names.

::

    <task>-<data>-<model>-<method>-s<seed>/
        config.json        all settings, and their hash
        environment.json   versions, commit, device, threads
        metrics.csv  timings.csv  conditioning.csv
        summary.json       final figures, without times
        manifest.json      written last: it is there when the run is complete
        checkpoint/<step>/ what training goes on from (orthocond.checkpoints)
        .lock              while a process trains it

Note [What a kill leaves]
    A checkpoint holds the tables up to its step, and is written before the tables beside it are.
    So a run without a manifest is its newest verified checkpoint and nothing else: the CSV files of
    such a run are for people to look at, and training writes them anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orthocond import checkpoints
from orthocond.checkpoints import Checkpoint
from orthocond.errors import UserError
from orthocond.files import MAX_JSON, canonical_json, make_folder, remove_parts, write_bytes
from orthocond.locks import Lock
from orthocond.manifests import (
    MANIFEST,
    CorruptRun,
    Damage,
    parse_hashed,
    parse_object,
    read_file,
    read_sealed,
    seal,
    with_hash,
)
from orthocond.tables import (
    CONDITIONING,
    MAX_CSV,
    METRICS,
    TABLES,
    TIMINGS,
    Table,
    to_csv,
    to_frame,
)

if TYPE_CHECKING:
    import pandas as pd
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

CONFIG, ENVIRONMENT, SUMMARY = "config.json", "environment.json", "summary.json"
CHECKPOINTS, LOCK = "checkpoint", ".lock"
LIMITS = {
    CONFIG: MAX_JSON,
    ENVIRONMENT: MAX_JSON,
    **{f"{name}.csv": MAX_CSV for name in TABLES},
    SUMMARY: MAX_JSON,
}


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
    parts = {"task": task, "data": data, "model": model, "method": method, "seed": str(seed)}
    for kind, part in parts.items():
        if not re.fullmatch(r"[A-Za-z0-9_+][A-Za-z0-9._+-]{0,99}", part):
            raise UserError(
                f"{kind} {part[:60]!r} can't be part of a folder's name: "
                "allowed are up to 100 letters, digits and . _ + -, no . or - first"
            )
    return f"{task}-{data}-{model}-{method}-s{seed}"


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {key: value}
    pairs = [_flat(v, f"{key}.{k}" if key else str(k)) for k, v in value.items()]
    return {k: v for pair in pairs for k, v in pair.items()}


def differences(there: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Where two configurations differ, key by key.

    Example:
        >>> differences({"data": {"size": 32}, "lr": 1.0}, {"data": {"size": 64}, "lr": 1})
        ['data.size is 32 there and 64 here']
    """
    old, new = _flat(there), _flat(asked)
    return [
        f"{key} is {_shown(old, key)} there and {_shown(new, key)} here"
        for key in sorted({*old, *new} - {"hash"})
        if _shown(old, key) != _shown(new, key)
    ]


def _shown(flat: Mapping[str, Any], key: str) -> str:
    return " ".join(canonical_json(flat[key]).decode().split()) if key in flat else "absent"


class Run:
    """A run directory, for reading. Nothing of a complete run is parsed before it is verified.

    Of a run that is not complete, the tables are those of its newest checkpoint.

    Args:
        path: the run's folder, which need not exist yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.name = self.path.name
        self._files: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    # What is there

    @property
    def is_complete(self) -> bool:
        """Whether the run has been finished.

        Raises:
            CorruptRun: it has been, and is damaged now.
        """
        if not self._has(MANIFEST):
            return False
        self.verify()
        return True

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a state to resume from.

        Raises:
            CorruptRun: there is, and it is damaged.
        """
        return self.checkpoint() is not None

    @property
    def status(self) -> str:
        """``complete``, ``diverged`` or ``incomplete``."""
        return self.summary["status"] if self.is_complete else "incomplete"

    def verify(self) -> None:
        """Check every file of a complete run against its manifest.

        Raises:
            CorruptRun: one is not as it was written.
            UserError: the run is not complete.
        """
        self._read(SUMMARY)

    def checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint that verifies; None where there is none at all.

        Raises:
            CorruptRun: every checkpoint is damaged.
        """
        try:
            return checkpoints.newest(self.path / CHECKPOINTS, self.name)
        except Damage as damage:
            raise self._corrupt(damage) from None

    # What it says

    @property
    def config(self) -> dict[str, Any]:
        """All settings, and their ``hash``."""
        return self._parsed(CONFIG, self._read_config())

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, commit, device, threads."""
        return self._parsed(ENVIRONMENT, self._read(ENVIRONMENT))

    @property
    def summary(self) -> dict[str, Any]:
        """Final figures."""
        return self._parsed(SUMMARY, self._read(SUMMARY))

    @property
    def metrics(self) -> pd.DataFrame:
        """A row an epoch: losses, accuracies, failures; columns ``METRICS``."""
        return self._table("metrics")

    @property
    def timings(self) -> pd.DataFrame:
        """A row an epoch: seconds, images per second, memory; columns ``TIMINGS``."""
        return self._table("timings")

    @property
    def conditioning(self) -> pd.DataFrame:
        """A row a probed step; columns ``CONDITIONING``."""
        return self._table("conditioning")

    def require_config(self, config: Mapping[str, Any]) -> None:
        """Check that the run, if it is there at all, has these settings.

        Raises:
            UserError: it has others; the line names them key by key.
            CorruptRun: its settings can't be read.
        """
        if not (self._has(CONFIG) or self._has(MANIFEST)):
            return
        differing = differences(self.config, config)
        if differing:
            raise UserError(
                f"run {str(self.path)!r} has another configuration: {'; '.join(differing)}"
            )

    # How it is read

    def _has(self, name: str) -> bool:
        return os.path.lexists(self.path / name)

    def _read(self, name: str) -> bytes:
        """A file of a complete run, verified with all others the first time."""
        if not self._files:
            if not self._has(MANIFEST):
                raise UserError(
                    f"run {str(self.path)!r} is not complete: orthocond train finishes it"
                    if self.path.is_dir()
                    else f"there is no run {str(self.path)!r}"
                )
            try:
                manifest, files = read_sealed(self.path, {"run": self.name}, LIMITS)
                if self._parsed(CONFIG, files[CONFIG])["hash"] != manifest["config"]:
                    raise Damage(CONFIG, f"is not the configuration that {MANIFEST} is of")
            except Damage as damage:
                raise self._corrupt(damage) from None
            self._files = files
        return self._files[name]

    def _read_config(self) -> bytes:
        if self._has(MANIFEST) or not self.path.is_dir():
            return self._read(CONFIG)
        try:
            return read_file(self.path, CONFIG, MAX_JSON)
        except Damage as damage:
            raise self._corrupt(damage) from None

    def _parsed(self, name: str, data: bytes) -> dict[str, Any]:
        try:
            return parse_hashed(data, "hash") if name == CONFIG else parse_object(data)
        except ValueError as error:
            raise self._corrupt(Damage(name, str(error))) from None

    def _table(self, table: str) -> pd.DataFrame:
        name, columns = f"{table}.csv", TABLES[table]
        if self._has(MANIFEST) or (checkpoint := self.checkpoint()) is None:
            data = self._read(name)
        else:
            data = to_csv(columns, checkpoint.tables[table])
        try:
            return to_frame(columns, data)
        except ValueError as error:
            raise self._corrupt(Damage(name, str(error))) from None

    def _corrupt(self, damage: Damage) -> CorruptRun:
        """The error for people: what is damaged, and what training would have to do again."""
        try:
            checkpoint = checkpoints.newest(self.path / CHECKPOINTS, self.name)
        except Damage:
            checkpoint = None
        if checkpoint is None:
            remedy = f"remove {str(self.path)!r} and orthocond train redoes it from the start"
        else:
            wrong = [n for n in dict.fromkeys((MANIFEST, damage.file)) if self._has(n)]
            remedy = (
                f"remove {' and '.join(wrong)} there and orthocond train redoes it "
                f"from step {checkpoint.step}"
            )
        return CorruptRun(self.name, damage, remedy)


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
    return not path.name.startswith(".") and any((path / name).exists() for name in LIMITS)


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
        for folder in (self.path, self.path / CHECKPOINTS):
            remove_parts(folder)
        data = with_hash(config, "hash")
        self._config_hash = parse_hashed(data, "hash")["hash"]
        self._write(CONFIG, data)
        self._write(ENVIRONMENT, canonical_json(environment))
        try:
            return checkpoints.newest(self.path / CHECKPOINTS, self.run.name, self._config_hash)
        except Damage as damage:
            raise self.run._corrupt(damage) from None

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
        about = {"run": self.run.name, "config": self._config_hash}
        write_bytes(self.path / MANIFEST, seal(about, self._written))

    def _write_tables(self, tables: Mapping[str, Table]) -> None:
        for name, columns in TABLES.items():
            self._write(f"{name}.csv", to_csv(columns, tables.get(name, [])))

    def _write(self, name: str, data: bytes) -> None:
        write_bytes(self.path / name, data)
        self._written[name] = data
