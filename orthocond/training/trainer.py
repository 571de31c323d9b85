"""Training loop of one run: its epochs, what is recorded in them, and when a checkpoint is saved.

Note [Resume to the same bytes]
    All random numbers of a step are drawn from the seed, the epoch and the step (orthocond.data),
    and the learning rate is a function of the step. A checkpoint holds the sums behind the next row
    of metrics.csv, and all earlier rows, rounded as in the file. So a run that was killed at any
    moment and then resumed writes the same bytes as an uninterrupted run, if the numbers of threads
    and of processes are equal.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import islice

from accelerate import Accelerator

from orthocond.artifacts.checkpoints import Checkpoint
from orthocond.artifacts.csv_tables import COLUMNS_OF, Rows, rounded
from orthocond.config.schema import Config
from orthocond.config.tasks import TASKS
from orthocond.data import ImageData
from orthocond.errors import UserError
from orthocond.layers.recalibration import recalibrate
from orthocond.probes import ConditioningProbe
from orthocond.training.evaluation import buffers_restored, evaluate
from orthocond.training.peak_memory import forget_peak, peak_memory_mb
from orthocond.training.signals import Interrupted, StopSignal
from orthocond.training.stepper import Diverged, Stepper
from orthocond.training.treated_network import plain_layer

Save = Callable[[Checkpoint], None]


def epoch_steps(config: Config, data: ImageData) -> int:
    """Return the number of optimizer steps in an epoch.

    Raises:
        UserError: the batch is larger than the training set.
    """
    steps = data.steps_per_epoch(config.batch_size)
    if steps == 0:
        raise UserError(
            f"batch_size {config.batch_size} is larger than the {data.train_count} training "
            f"images of {data.name}"
        )
    return steps


def _require_finite_loss(metrics: Rows) -> None:
    """Raise Diverged if the mean training loss of the last finished epoch is not finite."""
    if metrics and not math.isfinite(metrics[-1]["train_loss"]):
        raise Diverged


class Trainer:
    """One run: built from a configuration, trained to its end, and resumed if it was interrupted.

    Args:
        config: settings of the run.
        data: images of the run.
        accelerator: device and processes.
        stop: checked after each step.
        report: called after each step, with the step and a line of text about it.

    Raises:
        UserError: the batch is larger than the training set, or can't be divided among the
            processes, or synchronized batch norm is asked for without a GPU.
    """

    def __init__(
        self,
        config: Config,
        data: ImageData,
        accelerator: Accelerator,
        stop: StopSignal,
        report: Callable[[int, str], None] = lambda step, text: None,
    ) -> None:
        self.epoch_steps = epoch_steps(config, data)
        self.config, self.data, self.accelerator = config, data, accelerator
        self.task = TASKS[config.task]
        self.plain_layer = plain_layer(config)
        self.stop, self.report = stop, report
        self.share = (accelerator.process_index, accelerator.num_processes)
        self.stepper = Stepper(config, len(data.classes), self.epoch_steps, accelerator, stop)
        self.model = self.stepper.model
        self.tables: dict[str, Rows] = {name: [] for name in COLUMNS_OF}

    @property
    def step(self) -> int:
        """Number of optimizer steps taken."""
        return self.stepper.step

    @property
    def total_steps(self) -> int:
        """Number of optimizer steps in the whole run."""
        return self.epoch_steps * self.config.epochs

    @property
    def parameters(self) -> int:
        """Number of trained values in the network."""
        return sum(p.numel() for p in self.model.parameters())

    def run(self, save: Save, steps: int | None = None) -> None:
        """Train to the last epoch, or to an earlier step.

        Args:
            save: called with the whole state every ``checkpoint_every`` steps, at the end of each
                epoch, before Interrupted is raised, and at the step to stop at.
            steps: number of optimizer steps of the run after which to stop; None for all. The
                schedule is that of the whole run, so the first steps do not depend on it.

        Raises:
            Diverged: the loss or the gradient is not finite.
            Interrupted: a signal asked the run to stop; the state is saved.
        """
        _require_finite_loss(self.tables["metrics"])  # it was killed before its end
        # Sums are left where all steps of an epoch were taken, but its evaluation was not finished.
        first = (self.step - 1 if self.stepper.sums else self.step) // self.epoch_steps
        last_step = self.total_steps if steps is None else min(steps, self.total_steps)
        for epoch in range(first, math.ceil(last_step / self.epoch_steps)):
            forget_peak(self.accelerator.device)
            seconds, images = time.perf_counter(), -self.stepper.sums.get("images", 0.0)
            self._train_epoch(epoch, save, last_step)
            if self.step < (epoch + 1) * self.epoch_steps:  # to stop within this epoch
                return save(self.checkpoint())
            seconds, images = time.perf_counter() - seconds, images + self.stepper.sums["images"]
            self._finish_epoch(epoch, seconds, images)
            save(self.checkpoint())
            self._stop_if_asked()

    def _train_epoch(self, epoch: int, save: Save, last_step: int) -> None:
        """Take the steps of an epoch that are not taken yet, up to ``last_step`` of the run."""
        config, done = self.config, self.step - epoch * self.epoch_steps
        batches = self.data.train_batches(
            epoch, config.seed, config.batch_size, *self.share, first_step=done
        )
        self.model.train()
        with self._probe() as probe:
            for images, labels in islice(batches, max(0, last_step - self.step)):
                probe.step = self.step
                self.stepper.take_step(images, labels)
                self._record(probe, epoch)
                sums = self.stepper.sums
                loss = sums["loss"] / sums["images"]
                self.report(self.step, f"epoch {epoch + 1}/{config.epochs}  loss {loss:.3f}")
                if self.stop.signum or self.step % config.checkpoint_every == 0:
                    save(self.checkpoint())
                    self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self.stop.signum:
            raise Interrupted(self.stop.signum)

    def _probe(self) -> ConditioningProbe:
        return ConditioningProbe(
            self.model,
            self.task.meta_layer,
            every=self.config.probe_every,
            per_sample=self.task.per_sample,
            eps=self.config.eps if self.task.has_eps else 0.0,
            structural_rank=self.stepper.treated.layer,
            common_rank=self.plain_layer,
        )

    def _record(self, probe: ConditioningProbe, epoch: int) -> None:
        """Move the probe's new records into the conditioning table."""
        for record in probe.take():
            row = {"phase": record.phase, "epoch": epoch + 1, **record.row()}
            self.tables["conditioning"].append(rounded(row))

    def _finish_epoch(self, epoch: int, seconds: float, images: float) -> None:
        """Evaluate the network if it is due, and add the epoch's rows to the tables.

        Args:
            epoch: the epoch that ends, counted from 0.
            seconds: duration of its steps.
            images: how many images were trained on in that time.

        Raises:
            Diverged: the mean training loss is not finite.
        """
        start = time.perf_counter()
        last = epoch + 1 == self.config.epochs
        due = last or (epoch + 1) % self.config.eval_every == 0
        evaluated = self._evaluations(epoch, last) if due else {}
        row = {"epoch": epoch + 1, **self.stepper.finish_epoch(), **evaluated}
        timing = {
            "epoch": epoch + 1,
            "seconds": seconds,
            "images_per_second": images / seconds,
            "eval_seconds": time.perf_counter() - start,
            "peak_memory_mb": peak_memory_mb(self.accelerator.device),
        }
        self.tables["metrics"].append(rounded(row))
        self.tables["timings"].append(rounded(timing))
        _require_finite_loss(self.tables["metrics"])

    def _evaluations(self, epoch: int, last: bool) -> dict[str, float]:
        """Return the columns of metrics.csv that an evaluation fills.

        After the last epoch the training images are evaluated as well, in the same mode as the
        others: with population statistics where the task has running statistics.
        """
        self.model.eval()
        with self._probe() as probe:
            probe.step = self.step
            row = self._evaluate("eval")
            self._record(probe, epoch)
        with buffers_restored(self.model):
            if self.task.running_statistics:
                self._recalibrate()
                row |= self._evaluate("recalibrated")
            if last:
                row |= self._evaluate("train_eval", training=True)
        return row

    def _evaluate(self, prefix: str, training: bool = False) -> dict[str, float]:
        """Return loss and accuracies, each with the prefix of its column."""
        batches = self.data.eval_batches(self.config.batch_size, *self.share, training=training)
        on_device = (part for batch in batches for part in self.stepper.micro_batches(*batch))
        found = evaluate(self.model, on_device, self.accelerator.reduce)
        return {f"{prefix}_{name}": value for name, value in found.items()}

    def _recalibrate(self) -> None:
        """Replace the meta-layer's moving averages by population statistics."""
        config = self.config
        batches = self.data.calibration_batches(
            config.seed,
            config.batch_size,
            config.recalibration_batches,
            *self.share,
            shared_stream=config.calibration_stream == "shared",
        )
        on_device = (x for batch in batches for x, _ in self.stepper.micro_batches(*batch))
        recalibrate(self.model, on_device, layers=[self.task.meta_layer])

    def checkpoint(self) -> Checkpoint:
        """Return the whole state of the run between two steps."""
        return self.stepper.checkpoint(self.tables)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Continue from the state of a checkpoint."""
        self.stepper.resume(checkpoint)
        self.tables = checkpoint.tables

    def unfinished(self) -> dict[str, int]:
        """Return the failures that no row of metrics.csv has, because their epoch diverged."""
        self.stepper.count_outcomes()
        return {name: int(self.stepper.sums[name]) for name in ("failures", "unrecovered")}
