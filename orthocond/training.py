"""The training loop of one run, on one process or many, from a configuration to its artifacts.

Note [Resume to the same bytes]
    Everything random in a step is drawn from the seed, the epoch and the step (orthocond.data), the
    learning rate is a function of the step, and the sums behind a row of metrics.csv are saved with
    the checkpoint, as are the rows so far, rounded as the file has them. So a run that was killed
    at any moment and resumed writes the bytes that an uninterrupted one would have written, at
    equal thread and process count.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from orthocond.checkpoints import Checkpoint
from orthocond.config import Config
from orthocond.data import ImageData
from orthocond.errors import UserError
from orthocond.evaluation import buffers_restored, evaluate
from orthocond.interruption import Interrupted, StopSignal
from orthocond.layers.recalibration import recalibrate
from orthocond.models import meta_layer
from orthocond.peak_memory import forget_peak, peak_memory_mb
from orthocond.probes import ConditioningProbe
from orthocond.stepper import Diverged, Stepper
from orthocond.tables import Table

Save = Callable[[int, dict[str, Tensor], dict[str, Any], dict[str, Table]], None]
SIGNIFICANT_DIGITS = 9


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    """A row as its file will have it."""
    return {
        key: float(f"{value:.{SIGNIFICANT_DIGITS}g}") if isinstance(value, float) else value
        for key, value in row.items()
    }


class Trainer:
    """One run: built from a configuration, resumed from a checkpoint, trained to its end.

    Args:
        config: the run's settings.
        data: its images.
        accelerator: the device and the processes.
        stop: looked at after each step.
        report: called after each step with the step and a line about it.

    Raises:
        UserError: the batch can't be shared out, or is larger than the data.
    """

    def __init__(
        self,
        config: Config,
        data: ImageData,
        accelerator: Accelerator,
        stop: StopSignal,
        report: Callable[[int, str], None] = lambda step, text: None,
    ) -> None:
        shares = accelerator.num_processes * config.accumulate
        if config.batch_size % shares:
            raise UserError(
                f"batch_size {config.batch_size} is not divisible by {accelerator.num_processes} "
                f"processes x {config.accumulate} micro-batches"
            )
        if config.sync_batch_norm and accelerator.device.type != "cuda":
            raise UserError("sync_batch_norm needs GPUs: torch has no such batch norm on a CPU")
        self.epoch_steps = data.steps_per_epoch(config.batch_size)
        if self.epoch_steps == 0:
            raise UserError(
                f"batch_size {config.batch_size} is larger than the {data.train_count} training "
                f"images of {data.name}"
            )
        self.config, self.data, self.accelerator = config, data, accelerator
        self.stop, self.report = stop, report
        self.share = (accelerator.process_index, accelerator.num_processes)
        self.stepper = Stepper(config, len(data.classes), self.epoch_steps, accelerator, stop)
        self.model = self.stepper.model
        self.tables: dict[str, Table] = {"metrics": [], "timings": [], "conditioning": []}

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.stepper.step

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.epoch_steps * self.config.epochs

    @property
    def parameters(self) -> int:
        """Trained numbers in the network."""
        return sum(p.numel() for p in self.model.parameters())

    # Saving and resuming

    def save(self, save: Save) -> None:
        """Hand the whole state to ``save`` (step, tensors, state, tables)."""
        save(self.step, self.stepper.tensors(), self.stepper.state(), self.tables)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Take over the state that ``save`` handed out."""
        self.stepper.resume(checkpoint)
        self.tables = checkpoint.tables

    # The loop

    def run(self, save: Save) -> None:
        """Train to the last epoch.

        Raises:
            Diverged: the loss or the gradient became non-finite.
            Interrupted: a signal came; the state is saved.
        """
        # With sums, all steps of an epoch may be done and its evaluation not.
        first = (self.step - 1 if self.stepper.sums else self.step) // self.epoch_steps
        for epoch in range(first, self.config.epochs):
            forget_peak(self.accelerator.device)
            seconds, images = time.perf_counter(), -self.stepper.sums.get("images", 0.0)
            self._train_epoch(epoch, save)
            seconds, images = time.perf_counter() - seconds, images + self.stepper.sums["images"]
            self._finish_epoch(epoch, seconds, images)
            self.save(save)
            self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self.stop.signum:
            raise Interrupted(self.stop.signum)

    def _train_epoch(self, epoch: int, save: Save) -> None:
        config, done = self.config, self.step - epoch * self.epoch_steps
        self.model.train()
        with self._probe() as probe:
            for images, labels in self.data.train_batches(
                epoch, config.seed, config.batch_size, *self.share, first_step=done
            ):
                probe.step = self.step
                self.stepper.take_step(images, labels)
                self._record(probe, epoch)
                sums = self.stepper.sums
                loss = sums["loss"] / sums["images"]
                self.report(self.step, f"epoch {epoch + 1}/{config.epochs}  loss {loss:.3f}")
                if self.stop.signum or self.step % config.checkpoint_every == 0:
                    self.save(save)
                    self._stop_if_asked()

    def unfinished(self) -> dict[str, int]:
        """Failures that no row of metrics.csv has: of an epoch that ended in a divergence."""
        self.stepper.count_outcomes()
        return {name: int(self.stepper.sums[name]) for name in ("failures", "unrecovered")}

    # The end of an epoch

    def _probe(self) -> ConditioningProbe:
        gcp = self.config.task == "gcp"
        return ConditioningProbe(
            self.model,
            meta_layer(self.config.task),
            every=self.config.probe_every,
            per_sample=gcp,
            eps=0.0 if gcp else self.config.eps,
            structural_rank=self.stepper.treated.layer,
        )

    def _record(self, probe: ConditioningProbe, epoch: int) -> None:
        for record in probe.take():
            row = {"phase": record.phase, "epoch": epoch + 1, **record.row()}
            self.tables["conditioning"].append(_rounded(row))

    def _evaluate(self) -> dict[str, float]:
        batches = self.data.eval_batches(self.config.batch_size, *self.share)
        on_device = (part for batch in batches for part in self.stepper.micro_batches(*batch))
        return evaluate(self.model, on_device, self.accelerator.reduce)

    def _evaluate_recalibrated(self) -> dict[str, float]:
        """The same with population statistics in place of moving averages."""
        config = self.config
        batches = self.data.calibration_batches(
            config.seed,
            config.batch_size,
            config.recalibration_batches,
            *self.share,
            shared_stream=config.calibration_stream == "shared",
        )
        on_device = (x for batch in batches for x, _ in self.stepper.micro_batches(*batch))
        with buffers_restored(self.model):
            recalibrate(self.model, on_device, layers=[meta_layer(config.task)])
            return self._evaluate()

    def _finish_epoch(self, epoch: int, seconds: float, images: float) -> None:
        start = time.perf_counter()
        self.model.eval()
        with self._probe() as probe:
            probe.step = self.step
            evaluated = self._evaluate()
            self._record(probe, epoch)
        recalibrated = self._evaluate_recalibrated() if self.config.task == "dbn" else {}
        row = {
            "epoch": epoch + 1,
            **self.stepper.finish_epoch(),
            **{f"eval_{name}": value for name, value in evaluated.items()},
            **{f"recalibrated_{name}": value for name, value in recalibrated.items()},
        }
        timing = {
            "epoch": epoch + 1,
            "seconds": seconds,
            "images_per_second": images / seconds,
            "eval_seconds": time.perf_counter() - start,
            "peak_memory_mb": peak_memory_mb(self.accelerator.device),
        }
        self.tables["metrics"].append(_rounded(row))
        self.tables["timings"].append(_rounded(timing))
        if not math.isfinite(row["train_loss"]):
            raise Diverged
