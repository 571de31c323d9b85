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
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from orthocond.checkpoints import Checkpoint
from orthocond.conditioning import ConditioningProbe
from orthocond.config import Config
from orthocond.data import ImageData
from orthocond.errors import UserError
from orthocond.evaluation import buffers_restored, evaluate
from orthocond.interruption import Interrupted, StopSignal
from orthocond.layers.recalibrate import recalibrate
from orthocond.methods import Method
from orthocond.models import build_model, meta_layer, pre_svd
from orthocond.spectral.eigh import DecompositionError
from orthocond.treatments import treat

Table = list[dict[str, Any]]
Save = Callable[[int, dict[str, Tensor], dict[str, Any], dict[str, Table]], None]
SIGNIFICANT_DIGITS = 9


class Diverged(Exception):
    """The loss or the gradient is not finite, or no solver decomposes it; no step was taken."""


def learning_rate(config: Config, epoch: float) -> float:
    """The learning rate at a time in epochs: linear warm-up, then down at each milestone.

    Example:
        >>> learning_rate(Config(lr=1.0, lr_milestones=(2, 3)), 2.5)
        0.1
    """
    warmup = min(1.0, epoch / config.warmup_epochs) if config.warmup_epochs else 1.0
    return config.lr * warmup * config.lr_decay ** sum(epoch >= m for m in config.lr_milestones)


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    """A row as its file will have it."""
    return {
        key: float(f"{value:.{SIGNIFICANT_DIGITS}g}") if isinstance(value, float) else value
        for key, value in row.items()
    }


def _peak_memory_mb() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


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
        self.dtype = torch.float64 if config.precision == "float64" else torch.float32
        self.step = 0  # optimizer steps done
        self.sums: dict[str, float] = defaultdict(float)  # over this epoch's steps so far
        self.tables: dict[str, Table] = {"metrics": [], "timings": [], "conditioning": []}
        self._build()

    def _build(self) -> None:
        config, method = self.config, Method.parse(self.config.method)
        torch.manual_seed(config.seed)
        model = build_model(
            config.task,
            config.model,
            method.solver,
            len(self.data.classes),
            eps=config.eps,
            backward=config.backward,
            groups=config.groups,
            stem_kernel=config.stem_kernel,
        ).to(self.dtype)
        if config.sync_batch_norm and self.accelerator.num_processes > 1:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        if config.channels_last:
            model = model.to(memory_format=torch.channels_last)
        self.treated = treat(
            model,
            pre_svd(config.task),
            method.treatments,
            ol_weight=config.ol_weight,
            target=config.olr_target,
        )
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        self.network, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.model: nn.Module = self.accelerator.unwrap_model(self.network)
        self.treated.bind(self.optimizer)
        found = [m.outcomes for m in self.model.modules() if hasattr(m, "outcomes")]
        self.outcomes = list({id(o): o for o in found}.values())

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
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            momentum = self.optimizer.state[parameter].get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum.{name}"] = momentum
        tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        scaler = self.accelerator.scaler
        state = {"sums": dict(self.sums), "scaler": scaler.state_dict() if scaler else None}
        save(self.step, tensors, state, self.tables)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Take over the state that ``save`` handed out."""
        tensors = checkpoint.tensors
        names = [name for name in tensors if name.startswith("model.")]
        self.model.load_state_dict({name.removeprefix("model."): tensors[name] for name in names})
        for name, parameter in self.model.named_parameters():
            if f"momentum.{name}" in tensors:
                # In the parameter's own strides, which decide the order of sums.
                momentum = torch.empty_like(parameter).copy_(tensors[f"momentum.{name}"])
                self.optimizer.state[parameter]["momentum_buffer"] = momentum
        if checkpoint.state["scaler"]:
            self.accelerator.scaler.load_state_dict(checkpoint.state["scaler"])
        self.step, self.tables = checkpoint.step, checkpoint.tables
        self.sums = defaultdict(float, checkpoint.state["sums"])

    # The run

    def run(self, save: Save) -> None:
        """Train to the last epoch.

        Raises:
            Diverged: the loss or the gradient became non-finite.
            Interrupted: a signal came; the state is saved.
        """
        # With sums, all steps of an epoch may be done and its evaluation not.
        first = (self.step - 1 if self.sums else self.step) // self.epoch_steps
        for epoch in range(first, self.config.epochs):
            seconds, images = time.perf_counter(), -self.sums.get("images", 0.0)
            self._train_epoch(epoch, save)
            seconds, images = time.perf_counter() - seconds, images + self.sums["images"]
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
                self._train_step(images, labels)
                self._record(probe, epoch)
                loss = self.sums["loss"] / self.sums["images"]
                self.report(self.step, f"epoch {epoch + 1}/{config.epochs}  loss {loss:.3f}")
                if self.stop.signum or self.step % config.checkpoint_every == 0:
                    self.save(save)
                    self._stop_if_asked()

    def _train_step(self, images: Tensor, labels: Tensor) -> None:
        before = [buffer.clone() for buffer in self.model.buffers()]
        try:
            self._take_step(images, labels)
        except (Diverged, DecompositionError) as error:
            # The forward pass has drawn its features into the running statistics.
            for buffer, value in zip(self.model.buffers(), before, strict=True):
                buffer.copy_(value)
            raise Diverged from error

    def _take_step(self, images: Tensor, labels: Tensor) -> None:
        config, accelerator = self.config, self.accelerator
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, self.step / self.epoch_steps)
        self.optimizer.zero_grad()
        sums = torch.zeros(4, dtype=torch.float64, device=accelerator.device)
        micro_batches = list(self._micro_batches(images, labels, config.accumulate))
        for i, (x, y) in enumerate(micro_batches):
            last = i + 1 == len(micro_batches)
            with nullcontext() if last else accelerator.no_sync(self.network):
                logits = self.network(x)
                logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
                loss = cross_entropy(logits, y)
                penalty = self.treated.penalty() if last else loss.new_zeros(())
                accelerator.backward(loss / len(micro_batches) + penalty)
            sums[0] += loss.detach() * len(y)
            sums[1] += (logits.argmax(1) == y).sum()
            sums[2] += len(y)
        self._require_finite_gradient()
        self.optimizer.step()
        self.step += 1
        self._count(sums, penalty.item())

    def _micro_batches(
        self, images: Tensor, labels: Tensor, count: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        images = images.to(self.accelerator.device, self.dtype)
        if self.config.channels_last:
            images = images.to(memory_format=torch.channels_last)
        labels = labels.to(self.accelerator.device)
        yield from zip(images.chunk(count), labels.chunk(count), strict=True)

    def _require_finite_gradient(self) -> None:
        if self.accelerator.scaler is not None:
            return  # the scaler skips a step whose gradient is not finite, and scales down
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if not torch.nn.utils.get_total_norm(gradients).isfinite():
            raise Diverged

    def _add(self, **values: float) -> None:
        for name, value in values.items():
            self.sums[name] += value

    def _count(self, sums: Tensor, penalty: float) -> None:
        sums[3] = self.stop.signum
        loss, correct, images, signum = self.accelerator.reduce(sums).tolist()
        if signum:  # one process was asked to stop: all do, after the same step
            self.stop.signum = self.stop.signum or int(signum)
        self._add(loss=loss, correct=correct, images=images, penalty=penalty, steps=1)
        last = self.treated.last
        if last is not None and last.eta is not None:
            self._add(eta=last.eta, eta_used=bool(last.eta_used), eta_steps=1)
        self._count_outcomes()

    def _count_outcomes(self) -> None:
        counts = torch.tensor(
            [[o.failures, o.unrecovered] for o in self.outcomes] or [[0, 0]],
            dtype=torch.float64,
            device=self.accelerator.device,
        ).sum(0)
        for outcomes in self.outcomes:
            outcomes.reset()
        if self.config.task == "gcp":  # where each process decomposes samples of its own
            counts = self.accelerator.reduce(counts)
        self._add(failures=counts[0].item(), unrecovered=counts[1].item())

    def unfinished(self) -> dict[str, int]:
        """Failures that no row of metrics.csv has: of an epoch that ended in a divergence."""
        self._count_outcomes()
        return {name: int(self.sums[name]) for name in ("failures", "unrecovered")}

    # The end of an epoch

    def _probe(self) -> ConditioningProbe:
        gcp = self.config.task == "gcp"
        return ConditioningProbe(
            self.model,
            meta_layer(self.config.task),
            every=self.config.probe_every,
            per_sample=gcp,
            eps=0.0 if gcp else self.config.eps,
            structural_rank=self.treated.layer,
        )

    def _record(self, probe: ConditioningProbe, epoch: int) -> None:
        for record in probe.take():
            row = {"phase": record.phase, "epoch": epoch + 1, **record.row()}
            self.tables["conditioning"].append(_rounded(row))

    def _evaluate(self) -> dict[str, float]:
        batches = self.data.eval_batches(self.config.batch_size, *self.share)
        on_device = (part for batch in batches for part in self._micro_batches(*batch))
        return evaluate(self.model, on_device, self.accelerator.reduce)

    def _evaluate_recalibrated(self) -> dict[str, float]:
        """The same with population statistics in place of moving averages."""
        config = self.config
        batches = self.data.calibration_batches(
            config.seed, config.batch_size, config.recalibration_batches, *self.share
        )
        on_device = (images for batch in batches for images, _ in self._micro_batches(*batch))
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
        self._count_outcomes()
        sums, eta_steps = self.sums, self.sums["eta_steps"]
        sv = torch.linalg.svdvals(self.treated.weight().double())
        row = {
            "epoch": epoch + 1,
            "step": self.step,
            "lr": learning_rate(self.config, (self.step - 1) / self.epoch_steps),
            "train_loss": sums["loss"] / sums["images"],
            "train_penalty": sums["penalty"] / sums["steps"],
            "train_top1": 100 * sums["correct"] / sums["images"],
            **{f"eval_{name}": value for name, value in evaluated.items()},
            **{f"recalibrated_{name}": value for name, value in recalibrated.items()},
            "failures": int(sums["failures"]),
            "unrecovered": int(sums["unrecovered"]),
            "eta": sums["eta"] / eta_steps if eta_steps else None,
            "eta_used": sums["eta_used"] / eta_steps if eta_steps else None,
            "sv_min": sv.min().item(),
            "sv_max": sv.max().item(),
        }
        timing = {
            "epoch": epoch + 1,
            "seconds": seconds,
            "images_per_second": images / seconds,
            "eval_seconds": time.perf_counter() - start,
            "peak_memory_mb": _peak_memory_mb(),
        }
        self.tables["metrics"].append(_rounded(row))
        self.tables["timings"].append(_rounded(timing))
        self.sums = defaultdict(float)
        if not math.isfinite(row["train_loss"]):
            raise Diverged
