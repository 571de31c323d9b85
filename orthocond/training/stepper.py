"""Optimizer steps of one run, on one process or many, and the sums over the steps of an epoch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from orthocond.artifacts.checkpoints import Checkpoint
from orthocond.artifacts.csv_tables import Rows
from orthocond.config.schema import Config
from orthocond.config.tasks import TASKS
from orthocond.errors import DecompositionError, UserError
from orthocond.host import double, wide_device
from orthocond.spectral.spectra import singular_values
from orthocond.training.signals import StopSignal
from orthocond.training.treated_network import build_network


class Diverged(Exception):
    """Training can't continue: a non-finite loss or gradient, or features without decomposition.

    No step was taken.
    """


def learning_rate(config: Config, epoch: float) -> float:
    """Return the learning rate at a time in epochs: a linear warm-up, then a drop per milestone.

    Example:
        >>> learning_rate(Config(lr=1.0, lr_milestones=(2, 3)), 2.5)
        0.1
    """
    warmup = min(1.0, epoch / config.warmup_epochs) if config.warmup_epochs else 1.0
    return config.lr * warmup * config.lr_decay ** sum(epoch >= m for m in config.lr_milestones)


@contextmanager
def _batch_accepted(shape: Iterable[int]) -> Iterator[None]:
    """Replace the error of a batch norm that gets one value per channel by a UserError."""
    try:
        yield
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"the network does not take batches of shape {tuple(shape)}: {error}; raise batch_size "
            "or data.size, or lower accumulate (--set)"
        ) from error


def require_divisible(config: Config, processes: int) -> None:
    """Raise a UserError if the processes and their micro-batches can't share a batch equally."""
    if config.batch_size % (processes * config.accumulate):
        raise UserError(
            f"batch_size {config.batch_size} is not divisible by {processes} "
            f"processes x {config.accumulate} micro-batches"
        )


def _require_fitting(config: Config, accelerator: Accelerator) -> None:
    """Raise a UserError if the processes or the device do not suit the settings."""
    require_divisible(config, accelerator.num_processes)
    if config.sync_batch_norm and accelerator.device.type != "cuda":
        raise UserError("sync_batch_norm needs GPUs: torch has no such batch norm on a CPU")


@contextmanager
def _buffers_restored_if_diverged(model: nn.Module) -> Iterator[None]:
    """Undo what a failed step changed: its forward pass has updated the running statistics."""
    before = [buffer.clone() for buffer in model.buffers()]
    try:
        yield
    except (Diverged, DecompositionError) as error:
        for buffer, value in zip(model.buffers(), before, strict=True):
            buffer.copy_(value)
        raise Diverged from error


class Stepper:
    """Network of a run, its optimizer, and the steps that are taken with them.

    Args:
        config: settings of the run.
        classes: number of classes of the images.
        epoch_steps: number of steps in an epoch, for the learning rate.
        accelerator: device and processes.
        stop: a signal received by one process reaches all processes after the step.
        mark: called at the end of each part of a step, with the part's name (``forward``,
            ``gradient`` or ``update``), so that the parts can be timed.

    Attributes:
        model: the network without accelerate's wrapper.
        treated: handle on the treated layer of the network.
        step: number of optimizer steps taken.
        sums: sums over the steps since the last call of ``finish_epoch``.

    Raises:
        UserError: the batch can't be divided among the processes and their micro-batches, or
            synchronized batch norm is asked for without a GPU.
    """

    def __init__(
        self,
        config: Config,
        classes: int,
        epoch_steps: int,
        accelerator: Accelerator,
        stop: StopSignal,
        mark: Callable[[str], None] = lambda part: None,
    ) -> None:
        _require_fitting(config, accelerator)
        self.config, self.epoch_steps = config, epoch_steps
        self.accelerator, self.stop, self.mark = accelerator, stop, mark
        self.step = 0
        self.sums: dict[str, float] = defaultdict(float)
        model, self.treated, optimizer = build_network(config, classes)
        if config.sync_batch_norm and accelerator.num_processes > 1:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        if accelerator.scaler is not None:  # it still has the loss scale of the run before
            accelerator.scaler.load_state_dict(torch.amp.GradScaler("cpu").state_dict())
        self.network, self.optimizer = accelerator.prepare(model, optimizer)
        self.model: nn.Module = accelerator.unwrap_model(self.network)
        self.dtype = next(self.model.parameters()).dtype
        self.treated.bind(self.optimizer)
        found = [m.outcomes for m in self.model.modules() if hasattr(m, "outcomes")]
        self.outcomes = list({id(o): o for o in found}.values())

    def take_step(self, images: Tensor, labels: Tensor) -> None:
        """Take an optimizer step on this process's part of a batch.

        Args:
            images: (b, 3, H, W).
            labels: (b,).

        Raises:
            UserError: a batch norm gets one value per channel.
            Diverged: the gradient is not finite, or no solver decomposes the features; weights and
                buffers are as before the call.
        """
        accelerator, treated = self.accelerator, self.treated
        with _buffers_restored_if_diverged(self.model):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.config, self.step / self.epoch_steps)

            self.optimizer.zero_grad()
            sums = torch.zeros(4, dtype=torch.float64, device=wide_device(accelerator.device))
            micro_batches = list(self.micro_batches(images, labels, self.config.accumulate))
            for i, (x, y) in enumerate(micro_batches):
                last = i + 1 == len(micro_batches)
                with nullcontext() if last else accelerator.no_sync(self.network):
                    with _batch_accepted(x.shape):
                        logits = self.network(x)
                    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
                    loss = cross_entropy(logits, y)
                    penalty = treated.penalty() if last else loss.new_zeros(())
                    self.mark("forward")
                    accelerator.backward(loss / len(micro_batches) + penalty)
                self.mark("gradient")
                sums[0] += double(loss.detach() * len(y))
                sums[1] += double((logits.argmax(1) == y).sum())
                sums[2] += len(y)

            self._require_finite_gradient()
            self.mark("gradient")
            self.optimizer.step()  # the treatments act here, through hooks
            self.mark("update")
            self.step += 1

            sums[3] = self.stop.signum
            loss_sum, correct, count, signum = accelerator.reduce(sums).tolist()
            if signum:  # one process was asked to stop: all processes stop after the same step
                self.stop.signum = self.stop.signum or int(signum)
            self._add(loss=loss_sum, correct=correct, images=count, penalty=penalty.item(), steps=1)
            found = None if self.optimizer.step_was_skipped else treated.last
            if found is not None and found.eta is not None:
                self._add(eta=found.eta, eta_used=bool(found.eta_used), eta_steps=1)
            self.count_outcomes()

    def micro_batches(
        self, images: Tensor, labels: Tensor, count: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a batch in ``count`` equal parts, in the device, dtype and layout of the network.

        Args:
            images: (b, 3, H, W).
            labels: (b,).
            count: number of parts, which divides b.
        """
        images = images.to(self.accelerator.device, self.dtype)
        if self.config.channels_last:
            images = images.to(memory_format=torch.channels_last)
        labels = labels.to(self.accelerator.device)
        yield from zip(images.chunk(count), labels.chunk(count), strict=True)

    def _require_finite_gradient(self) -> None:
        if self.accelerator.scaler is not None:
            return  # the scaler skips a step whose gradient is not finite, and lowers the scale
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if not torch.nn.utils.get_total_norm(gradients).isfinite():
            raise Diverged

    def _add(self, **values: float) -> None:
        for name, value in values.items():
            self.sums[name] += value

    def count_outcomes(self) -> None:
        """Add to the sums what the meta-layers have counted since the last call."""
        counts = torch.tensor(
            [[o.failures, o.unrecovered] for o in self.outcomes] or [[0, 0]],
            dtype=torch.float64,
            device=wide_device(self.accelerator.device),
        ).sum(0)
        for outcomes in self.outcomes:
            outcomes.reset()
        if TASKS[self.config.task].per_sample:  # each process decomposes only its own samples
            counts = self.accelerator.reduce(counts)
        self._add(failures=counts[0].item(), unrecovered=counts[1].item())

    def finish_epoch(self) -> dict[str, Any]:
        """Return the training part of an epoch's row in metrics.csv, and reset the sums."""
        self.count_outcomes()
        sums, eta_steps = self.sums, self.sums["eta_steps"]
        self.sums = defaultdict(float)
        sv = singular_values(double(self.treated.weight()))
        return {
            "step": self.step,
            "lr": learning_rate(self.config, (self.step - 1) / self.epoch_steps),
            "train_loss": sums["loss"] / sums["images"],
            "train_penalty": sums["penalty"] / sums["steps"],
            "train_top1": 100 * sums["correct"] / sums["images"],
            "failures": int(sums["failures"]),
            "unrecovered": int(sums["unrecovered"]),
            "eta": sums["eta"] / eta_steps if eta_steps else None,
            "eta_used": sums["eta_used"] / eta_steps if eta_steps else None,
            "sv_min": sv.min().item(),
            "sv_max": sv.max().item(),
        }

    def checkpoint(self, tables: dict[str, Rows]) -> Checkpoint:
        """Return the state between two steps.

        Args:
            tables: rows of each table so far, which become part of the checkpoint.

        Returns:
            Step, tensors on the CPU (weights, buffers and momentum, by name), sums, the state of
            the loss scaler, and the tables.
        """
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            momentum = self.optimizer.state[parameter].get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum.{name}"] = momentum
        tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        scaler = self.accelerator.scaler
        state = {"sums": dict(self.sums), "scaler": scaler.state_dict() if scaler else None}
        return Checkpoint(self.step, tensors, state, tables)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Continue from the state of a checkpoint, but for its tables."""
        tensors = checkpoint.tensors
        names = [name for name in tensors if name.startswith("model.")]
        self.model.load_state_dict({name.removeprefix("model."): tensors[name] for name in names})
        for name, parameter in self.model.named_parameters():
            if f"momentum.{name}" in tensors:
                # Keep the parameter's strides: they decide the order in which sums are taken.
                momentum = torch.empty_like(parameter).copy_(tensors[f"momentum.{name}"])
                self.optimizer.state[parameter]["momentum_buffer"] = momentum
        if checkpoint.state["scaler"]:
            self.accelerator.scaler.load_state_dict(checkpoint.state["scaler"])
        self.step = checkpoint.step
        self.sums = defaultdict(float, checkpoint.state["sums"])
