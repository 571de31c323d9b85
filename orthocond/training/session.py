"""Training of a grid of runs: complete runs are skipped, interrupted ones are resumed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from accelerate.utils import broadcast_object_list, gather_object

from orthocond.artifacts.checkpoints import Checkpoint
from orthocond.artifacts.manifests import CorruptRun
from orthocond.artifacts.run_reader import Run
from orthocond.artifacts.run_search import run_name
from orthocond.artifacts.run_writer import RunLocked, RunWriter
from orthocond.config.schema import Config, Grid
from orthocond.data import ImageData, load_data
from orthocond.distributed import lost_processes_named
from orthocond.errors import UserError, memory_short
from orthocond.models.backbones import require_model
from orthocond.training.accelerator import make_accelerator
from orthocond.training.allocator import keep_memory
from orthocond.training.environment import describe
from orthocond.training.signals import Interrupted, StopSignal
from orthocond.training.stepper import Diverged, require_divisible
from orthocond.training.summary import summarize
from orthocond.training.tracking import Log, epoch_log
from orthocond.training.trainer import Save, Trainer, epoch_steps
from orthocond.training.treated_network import build_network

T = TypeVar("T")


@dataclass(frozen=True)
class Planned:
    """One run of a grid, and what training will do with it."""

    config: Config
    settings: dict[str, Any]  # as stored in the run's config.json
    folder: Path
    action: str  # train, resume or skip


@dataclass(frozen=True)
class Result:
    """Outcome of one run of a grid."""

    name: str
    status: str  # complete, diverged, interrupted, or locked: another process trains it
    summary: dict[str, Any] | None = None


def resolved(config: Config, data: ImageData) -> dict[str, Any]:
    """Return the settings that a run stores: the data by name and fingerprint, without paths."""
    settings = config.model_dump(mode="json")
    settings["data"] |= {"name": data.name, "size": data.size, "fingerprint": data.fingerprint}
    return settings


def run_folder(study: Path, config: Config, data: ImageData) -> Path:
    """Return the folder in a study for the run of a configuration."""
    model = config.model if config.stem_kernel == 3 else f"{config.model}-stem{config.stem_kernel}"
    return study / run_name(config.task, data.name, model, config.method, config.seed)


def plan(grid: Grid, study: Path, data: ImageData, processes: int) -> list[Planned]:
    """Return what training with a number of processes will do with each run of a grid.

    A complete run with a damaged checkpoint is skipped with a warning: its tables are intact.

    Raises:
        UserError: the study has such a run with another configuration, or the run is damaged; or
            the network, the treatments or the batches of a run can't be made; or there can't be
            such a folder as ``study``.
    """
    planned = []
    _require_place(study)
    for config in grid:
        require_model(config.task, config.model)  # before it is a part of the folder's name
        folder = run_folder(study, config, data)
        settings = resolved(config, data)
        run = Run(folder)
        run.require_config(settings)
        if run.is_complete:
            action = "skip"
            _warn_of_damaged_state(run)
        else:
            action = "resume" if run.has_checkpoint else "train"
        planned.append(Planned(config, settings, folder, action))
    _require_possible([p.config for p in planned if p.action != "skip"], data, processes)
    return planned


def _require_place(study: Path) -> None:
    """Raise a UserError if a file is in the place of the folder or of one of its parents."""
    place = next(path for path in (study, *study.absolute().parents) if os.path.lexists(path))
    if not place.is_dir():
        raise UserError(f"cannot write {str(study)!r}: {str(place)!r} is no folder; change --out")


def _require_possible(configs: Iterable[Config], data: ImageData, processes: int) -> None:
    """Raise the UserError of any run of a grid now, and not after hours of the runs before it."""
    for config in dict.fromkeys(config.model_copy(update={"seed": 0}) for config in configs):
        epoch_steps(config, data)
        require_divisible(config, processes)
        build_network(config, len(data.classes))


def _warn_of_damaged_state(run: Run) -> None:
    try:
        run.checkpoint()
    except CorruptRun as error:
        warnings.warn(f"{error}; its tables and figures are intact: it is skipped", stacklevel=2)


class Session:
    """Training of the runs of a grid, one after the other; every process has its own Session.

    Args:
        grid: the runs to train.
        study: folder of the runs.
        timeout: seconds that a process waits for another one that does not answer.
        tracker: ``tensorboard``, checked with ``require_tracker`` before, or None.

    Raises:
        UserError: the data can't be loaded, or the device does not have the precision.
        OutOfMemory: the data do not fit into memory.
    """

    def __init__(
        self, grid: Grid, study: Path, timeout: float = 600, tracker: str | None = None
    ) -> None:
        config = grid.config
        self.grid, self.study, self.tracker, self.timeout = grid, study, tracker, timeout
        self.stop = StopSignal()
        keep_memory()
        self.accelerator = make_accelerator(config.precision, timeout)
        self.is_main = self.accelerator.is_main_process
        self.data = self._everywhere(self._load)

    def _load(self) -> ImageData:
        with memory_short("lower data.train_images, data.test_images or data.size (--set)"):
            data = load_data(**self.grid.config.data.model_dump())
            return data.to(self.accelerator.device)

    def planned(self) -> list[Planned]:
        """Return what training will do with each run, see ``plan``."""
        return plan(self.grid, self.study, self.data, self.accelerator.num_processes)

    def train(self, report: Callable[[Planned, int, int, str], None]) -> Iterator[Result]:
        """Train the runs that are not complete, and yield a result as each run ends.

        Args:
            report: called after each step, with the run, the step, the number of steps in the run
                and a line of text about the step.

        Raises:
            ProcessLost: another process no longer answers.
            OutOfMemory: the run does not fit into the memory of this process.
        """
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        who = f"process {rank} of {world}: " if world > 1 else ""
        remedy = (
            f"{who}lower batch_size or raise accumulate (--set), with another --out: a run keeps "
            "its settings"
        )
        with self.stop.installed():
            for planned in self._on_main(self.planned):
                try:
                    with lost_processes_named(self.timeout), memory_short(remedy):
                        result = self._train_one(planned, report)
                    yield result
                except RunLocked:
                    yield Result(planned.folder.name, "locked")
                except Interrupted:
                    yield Result(planned.folder.name, "interrupted")
                    return

    def _on_main(self, function: Callable[[], T]) -> T:
        """Call a function on the main process; all processes get its result or its UserError."""
        box = [self._everywhere(lambda: function() if self.is_main else None)]
        with lost_processes_named(self.timeout):
            broadcast_object_list(box)
        return cast(T, box[0])  # broadcast_object_list has replaced the None of the other processes

    def _everywhere(self, function: Callable[[], T]) -> T:
        """Call a function on every process; if any raises a UserError, raise the first one on all.

        Only the process where it was raised prints it.
        """
        result: T | None = None
        error: UserError | None = None
        try:
            result = function()
        except UserError as raised:
            error = raised
        with lost_processes_named(self.timeout):
            errors: list[UserError | None] = gather_object([error])
        for rank, first in enumerate(errors):
            if first is not None:
                first.told = rank != self.accelerator.process_index
                raise first
        return cast(T, result)

    def _train_one(
        self, planned: Planned, report: Callable[[Planned, int, int, str], None]
    ) -> Result:
        """Train a run from its start, or from its newest checkpoint, to its end."""
        if planned.action == "skip":
            return self._on_main(lambda: _finished(Run(planned.folder)))

        def progress(step: int, text: str) -> None:
            report(planned, step, trainer.total_steps, text)

        writer = RunWriter(planned.folder)
        with ExitStack() as stack:
            stack.callback(self.accelerator.free_memory)  # also of a run that is locked or complete
            # The trainer may refuse the configuration: it is built before anything is written.
            trainer = self._everywhere(
                lambda: Trainer(planned.config, self.data, self.accelerator, self.stop, progress)
            )
            found = self._on_main(lambda: self._begin(planned, stack.enter_context(writer)))
            if isinstance(found, Result):
                return found
            if found is not None:
                trainer.resume(found)
            log: Log | None = None
            if self.is_main and self.tracker:
                log = stack.enter_context(epoch_log(self.study / self.tracker, planned.folder.name))
                log(trainer.tables["metrics"])

            def save(checkpoint: Checkpoint) -> None:
                if self.is_main:
                    writer.save(checkpoint)
                if log:
                    log(checkpoint.tables["metrics"])

            summary = train_and_summarize(trainer, planned.settings, save)
            if self.is_main:
                writer.finish(summary, trainer.tables)
            self.accelerator.wait_for_everyone()
        return Result(planned.folder.name, summary["status"], summary)

    def _begin(self, planned: Planned, writer: RunWriter) -> Result | Checkpoint | None:
        """Open the run; return its result if it is complete by now, else its newest checkpoint."""
        run = Run(planned.folder)
        if run.is_complete:
            return _finished(run)
        device, processes = self.accelerator.device, self.accelerator.num_processes
        environment = describe(device, planned.config.precision, processes)
        return writer.begin(planned.settings, environment)


def _finished(run: Run) -> Result:
    summary = run.summary
    return Result(run.name, summary["status"], summary)


def train_and_summarize(
    trainer: Trainer, settings: dict[str, Any], save: Save, steps: int | None = None
) -> dict[str, Any]:
    """Train to the last epoch, or until the run diverges, and return its summary.

    Args:
        trainer: the run.
        settings: as stored in the run's config.json.
        save: called with each checkpoint.
        steps: number of steps of the run after which to stop, as in ``Trainer.run``.

    Raises:
        Interrupted: a signal asked the run to stop; the state is saved.
    """
    status = "complete"
    try:
        trainer.run(save, steps)
    except Diverged:
        status = "diverged"
        save(trainer.checkpoint())
    return summarize(
        settings,
        trainer.tables,
        status,
        trainer.step,
        trainer.parameters,
        trainer.data.train_count,
        trainer.unfinished(),
    )
