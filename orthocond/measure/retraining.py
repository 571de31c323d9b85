"""Retraining of a recorded run, or of its first epochs, into another folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from orthocond.artifacts.atomic_files import MAX_JSON
from orthocond.artifacts.manifests import Damage, parse_object, read_file
from orthocond.artifacts.run_reader import ENVIRONMENT, Run
from orthocond.artifacts.run_writer import RunWriter
from orthocond.config.schema import Config, checked
from orthocond.data import ImageData, load_data
from orthocond.data.load import DATA_SETS
from orthocond.errors import UserError, memory_short
from orthocond.training.accelerator import make_accelerator
from orthocond.training.environment import describe
from orthocond.training.session import train_and_summarize
from orthocond.training.signals import StopSignal
from orthocond.training.trainer import Trainer

Report = Callable[[int, int], None]  # the number of steps done, and of all steps to take


@dataclass(frozen=True)
class Retrained:
    """A run that was trained again.

    Args:
        run: its files; without a manifest if only its first epochs were trained.
        environment: environment in which it was trained.
        steps: number of optimizer steps that can be compared, from the first.
        epoch_steps: number of optimizer steps in an epoch.
        diverged: True if it diverged within these steps.
    """

    run: Run
    environment: dict[str, Any]
    steps: int
    epoch_steps: int
    diverged: bool


def retrain(
    run: Run,
    folder: Path,
    data: str | None = None,
    epochs: float | None = None,
    stop: StopSignal | None = None,
    report: Report = lambda done, total: None,
) -> Retrained:
    """Train a recorded run again, with its settings, into another folder.

    The settings that the run did not store have the values that it was trained with
    (``orthocond.config.stored_settings``). The schedule is that of the whole run, whatever
    ``epochs`` is. On a CPU, the training uses the recorded number of threads, because the last
    digits depend on it. A retraining that was interrupted in the same folder is resumed.

    Args:
        run: a complete run. Its files are verified, and never written.
        folder: study folder in which the retrained run is written, under the name of the run.
        data: name of the data, as for ``orthocond train``; None for the recorded name, if it needs
            no path.
        epochs: epochs to train, from the first, up to those of the run; a fraction stops within an
            epoch. None trains all.
        stop: checked after each step.
        report: called after each step.

    Raises:
        UserError: the run is not complete; the data are not those of the run; ``epochs`` is out of
            range; ``folder`` holds the run itself or a run with other settings.
        CorruptRun: the files of the run are damaged.
        Interrupted: a signal asked to stop; the state is saved in the folder.
    """
    run.verify()
    settings, target = run.settings, Run(folder / run.name)
    if target.path.resolve() == run.path.resolve():
        raise UserError(f"{str(folder)!r} holds the run itself: name another folder with --out")
    target.require_config(settings)
    config = _config(run, data)
    if epochs is not None and not 0 < epochs <= config.epochs:
        raise UserError(
            f"--epochs {epochs:g}: allowed are numbers above 0, up to the {config.epochs} epochs "
            "of the run"
        )
    accelerator = make_accelerator(config.precision)
    if accelerator.num_processes > 1:
        raise UserError("a run is trained again in one process: start the command without launcher")
    with _recorded_threads(run), memory_short("train the run again on a machine with more memory"):
        images = _same_data(run, config).to(accelerator.device)
        epoch_steps = images.steps_per_epoch(config.batch_size)
        total = config.epochs * epoch_steps
        steps = total if epochs is None else max(1, round(epochs * epoch_steps))
        if not _has_steps(target, steps):
            trainer = Trainer(
                config, images, accelerator, stop or StopSignal(), lambda n, _: report(n, steps)
            )
            _train(trainer, target, settings, steps)
    diverged = target.is_complete and target.status == "diverged"
    diverged = diverged and target.summary["steps"] <= steps
    return Retrained(target, _environment(target), steps, epoch_steps, diverged)


def _config(run: Run, data: str | None) -> Config:
    """Return the configuration of a run, with the data by a name that can be loaded."""
    settings = run.settings
    recorded = settings["data"]
    name = data or recorded["name"]
    if data is None and name not in DATA_SETS:
        raise UserError(
            f"run {run.name!r} was trained on {name!r}: name its folder, as --data folder:PATH"
        )
    sets = {key: value for key, value in recorded.items() if key != "fingerprint"}
    return checked(Config, settings | {"data": sets | {"name": name}})


def _same_data(run: Run, config: Config) -> ImageData:
    """Load the data of a run.

    Raises:
        UserError: they are not those that the run was trained on.
    """
    images, recorded = load_data(**config.data.model_dump()), run.settings["data"]
    if images.fingerprint != recorded["fingerprint"]:
        raise UserError(
            f"{config.data.name!r} has other images than those that {run.name!r} was trained on: "
            f"its fingerprint is {images.fingerprint[:12]}, the recorded one of "
            f"{recorded['name']!r} is {recorded['fingerprint'][:12]}; name the same data with "
            "--data"
        )
    return images


@contextmanager
def _recorded_threads(run: Run) -> Iterator[None]:
    """Compute with as many threads as a run on a CPU was trained with."""
    environment, threads = run.environment, torch.get_num_threads()
    recorded = environment.get("threads") if environment.get("device") == "cpu" else None
    if not recorded or recorded == threads:
        yield
        return
    torch.set_num_threads(recorded)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _has_steps(target: Run, steps: int) -> bool:
    """Return whether a retrained run needs no more training.

    A checkpoint of the last step itself is not enough: its epoch may lack the evaluation.
    """
    if target.is_complete:
        return True
    checkpoint = target.checkpoint()
    return checkpoint is not None and checkpoint.step > steps


def _train(trainer: Trainer, target: Run, settings: dict[str, Any], steps: int) -> None:
    """Train or resume a run up to a step, and finish it if that is its end."""
    environment = describe(trainer.accelerator.device, trainer.config.precision, 1)
    with RunWriter(target.path) as writer:
        found = writer.begin(settings, environment)
        if found is not None:
            trainer.resume(found)
        summary = train_and_summarize(trainer, settings, writer.save, steps)
        if summary["status"] == "diverged" or trainer.step == trainer.total_steps:
            writer.finish(summary, trainer.tables)


def _environment(target: Run) -> dict[str, Any]:
    """Return the environment of a retrained run, which need not be complete."""
    try:
        return parse_object(read_file(target.path, ENVIRONMENT, MAX_JSON))
    except Damage as damage:
        raise target.corrupt(damage) from None
    except ValueError as error:
        raise target.corrupt(Damage(ENVIRONMENT, str(error))) from None
