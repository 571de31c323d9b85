"""A grid of runs: plan it, skip what is complete, resume what is not, go on where one fails."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, gather_object

from orthocond.allocator import keep_memory
from orthocond.checkpoints import Checkpoint
from orthocond.config import Config, Grid
from orthocond.data import ImageData, load_data
from orthocond.environment import describe
from orthocond.errors import UserError, memory_short
from orthocond.interruption import Interrupted, StopSignal
from orthocond.lost import lost_processes_named
from orthocond.runs import CorruptRun, Run, RunLocked, RunWriter, run_name
from orthocond.stepper import Diverged
from orthocond.summary import summarize
from orthocond.tracking import Log, epoch_log
from orthocond.training import Trainer

T = TypeVar("T")
AUTOCAST = {"bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class Planned:
    """One run of the grid, and what training would do with it."""

    config: Config
    settings: dict[str, Any]  # as the run stores them
    folder: Path
    action: str  # train, resume or skip


@dataclass(frozen=True)
class Result:
    """How one run of the grid stands in the end."""

    name: str
    status: str  # complete, diverged, interrupted, or locked: another process trains it
    summary: dict[str, Any] | None = None


def make_accelerator(precision: str, timeout: float) -> Accelerator:
    """The device and the processes that are there, with autocast where the precision asks for it.

    Args:
        precision: of a Config.
        timeout: seconds that a process waits for one that is lost.

    Raises:
        UserError: float16 without a GPU.
    """
    gpu = torch.cuda.is_available()
    if precision == "float16" and not gpu:
        raise UserError("precision float16 needs a GPU: use bfloat16 or float32 here")
    # accelerate keeps one state a process: a second session may have another precision.
    AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision=AUTOCAST.get(precision, "no"),
        cpu=not gpu,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=timeout))],
    )


def resolved(config: Config, data: ImageData) -> dict[str, Any]:
    """The settings that a run stores: the data by name and fingerprint, no paths."""
    settings = config.model_dump(mode="json")
    settings["data"] |= {"name": data.name, "size": data.size, "fingerprint": data.fingerprint}
    return settings


def run_folder(study: Path, config: Config, data: ImageData) -> Path:
    """Where the run of a configuration lies in a study."""
    model = config.model if config.stem_kernel == 3 else f"{config.model}-stem{config.stem_kernel}"
    return study / run_name(config.task, data.name, model, config.method, config.seed)


def plan(grid: Grid, study: Path, data: ImageData) -> list[Planned]:
    """What training would do with each run.

    A complete run whose state is damaged is skipped with a warning: its figures stand.

    Raises:
        UserError: a run there has another configuration, or is damaged.
    """
    planned = []
    for config in grid:
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
    return planned


def _warn_of_damaged_state(run: Run) -> None:
    try:
        run.checkpoint()
    except CorruptRun as error:
        warnings.warn(f"{error}; its tables and figures are intact: it is skipped", stacklevel=2)


class Session:
    """Trains the runs of a grid one after the other, on every process the same.

    Args:
        grid: what to train.
        study: the folder of the runs.
        timeout: seconds that a process waits for one that is lost.
        tracker: ``tensorboard``, which is there (``require_tracker``), or None.

    Raises:
        UserError: the data can't be had, or the precision does not exist here.
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
        """What training would do with each run (``plan``)."""
        return plan(self.grid, self.study, self.data)

    def train(self, report: Callable[[Planned, int, int, str], None]) -> Iterator[Result]:
        """Train what is not complete; yields a result as each run ends.

        Args:
            report: called with the run, the step, the number of steps and a line about it.

        Raises:
            ProcessLost: another process does not answer any more.
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
        """Call on the main process only; every process gets its result, or its UserError."""
        box = [self._everywhere(lambda: function() if self.is_main else None)]
        with lost_processes_named(self.timeout):
            broadcast_object_list(box)
        return cast(T, box[0])  # the others had None in it

    def _everywhere(self, function: Callable[[], T]) -> T:
        """Call on every process; all get the first UserError of any, told by its process."""
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
        config, settings, name = planned.config, planned.settings, planned.folder.name
        accelerator = self.accelerator
        environment = describe(accelerator.device, config.precision, accelerator.num_processes)
        writer = RunWriter(planned.folder)
        if planned.action == "skip":
            finished = self._on_main(lambda: Run(planned.folder).summary)
            return Result(name, finished["status"], finished)

        def progress(step: int, text: str) -> None:
            report(planned, step, trainer.total_steps, text)

        # before anything is written, for it may refuse the configuration
        trainer = self._everywhere(
            lambda: Trainer(config, self.data, accelerator, self.stop, progress)
        )
        with ExitStack() as stack:

            def begin() -> tuple[dict[str, Any] | None, Checkpoint | None]:
                stack.enter_context(writer)
                run = Run(planned.folder)
                if run.is_complete:
                    return run.summary, None
                return None, writer.begin(settings, environment)

            summary, checkpoint = self._on_main(begin)
            if summary is not None:
                return Result(name, summary["status"], summary)
            if checkpoint is not None:
                trainer.resume(checkpoint)
            log: Log | None = None
            if self.is_main and self.tracker:
                log = stack.enter_context(epoch_log(self.study / self.tracker, name))
                log(trainer.tables["metrics"])

            def save(*state: Any) -> None:
                if self.is_main:
                    writer.save(*state)
                if log:
                    log(trainer.tables["metrics"])

            status = "complete"
            try:
                trainer.run(save)
            except Diverged:
                status = "diverged"
                trainer.save(save)
            summary = summarize(
                settings,
                trainer.tables,
                status,
                trainer.step,
                trainer.parameters,
                trainer.unfinished(),
            )
            if self.is_main:
                writer.finish(summary, trainer.tables)
            accelerator.wait_for_everyone()
            accelerator.free_memory()
        return Result(name, status, summary)
