"""The optimizer steps of one run, on one process or many, and the sums over an epoch's steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from orthocond.checkpoints import Checkpoint
from orthocond.config import Config
from orthocond.errors import DecompositionError
from orthocond.interruption import StopSignal
from orthocond.network import build_network


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


class Stepper:
    """The network of a run and the steps that it takes.

    Args:
        config: the run's settings.
        classes: of its images.
        epoch_steps: steps of an epoch, for the learning rate.
        accelerator: the device and the processes.
        stop: what one process is told here, all know after the step.

    Attributes:
        model: the network without accelerate's wrapper.
        treated: the handle on its treated layer.
        step: optimizer steps done.
        sums: over the steps since ``finish_epoch``.
    """

    def __init__(
        self,
        config: Config,
        classes: int,
        epoch_steps: int,
        accelerator: Accelerator,
        stop: StopSignal,
    ) -> None:
        self.config, self.epoch_steps = config, epoch_steps
        self.accelerator, self.stop = accelerator, stop
        self.step = 0
        self.sums: dict[str, float] = defaultdict(float)
        model, self.treated, optimizer = build_network(config, classes)
        if config.sync_batch_norm and accelerator.num_processes > 1:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        if accelerator.scaler is not None:  # as the run before has left it
            accelerator.scaler.load_state_dict(torch.amp.GradScaler("cpu").state_dict())
        self.network, self.optimizer = accelerator.prepare(model, optimizer)
        self.model: nn.Module = accelerator.unwrap_model(self.network)
        self.dtype = next(self.model.parameters()).dtype
        self.treated.bind(self.optimizer)
        found = [m.outcomes for m in self.model.modules() if hasattr(m, "outcomes")]
        self.outcomes = list({id(o): o for o in found}.values())

    # Saving and resuming

    def tensors(self) -> dict[str, Tensor]:
        """Weights, buffers and momentum, by name."""
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            momentum = self.optimizer.state[parameter].get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum.{name}"] = momentum
        return {name: t.detach().cpu().contiguous() for name, t in tensors.items()}

    def state(self) -> dict[str, Any]:
        """Everything else but the step, as JSON has it."""
        scaler = self.accelerator.scaler
        return {"sums": dict(self.sums), "scaler": scaler.state_dict() if scaler else None}

    def resume(self, checkpoint: Checkpoint) -> None:
        """Take over what ``tensors`` and ``state`` gave."""
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
        self.step = checkpoint.step
        self.sums = defaultdict(float, checkpoint.state["sums"])

    # A step

    def micro_batches(
        self, images: Tensor, labels: Tensor, count: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """A batch as the network takes it, on its device and in ``count`` equal parts."""
        images = images.to(self.accelerator.device, self.dtype)
        if self.config.channels_last:
            images = images.to(memory_format=torch.channels_last)
        labels = labels.to(self.accelerator.device)
        yield from zip(images.chunk(count), labels.chunk(count), strict=True)

    def take_step(self, images: Tensor, labels: Tensor) -> None:
        """Take a step on this process's part of a batch (b, 3, H, W), (b,).

        Raises:
            Diverged: the gradient is not finite, or nothing decomposes the features; weights and
                buffers are as they were.
        """
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
        micro_batches = list(self.micro_batches(images, labels, config.accumulate))
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

    def _require_finite_gradient(self) -> None:
        if self.accelerator.scaler is not None:
            return  # the scaler skips a step whose gradient is not finite, and scales down
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if not torch.nn.utils.get_total_norm(gradients).isfinite():
            raise Diverged

    # What happened in the steps

    def _add(self, **values: float) -> None:
        for name, value in values.items():
            self.sums[name] += value

    def _count(self, sums: Tensor, penalty: float) -> None:
        sums[3] = self.stop.signum
        loss, correct, images, signum = self.accelerator.reduce(sums).tolist()
        if signum:  # one process was asked to stop: all do, after the same step
            self.stop.signum = self.stop.signum or int(signum)
        self._add(loss=loss, correct=correct, images=images, penalty=penalty, steps=1)
        last = None if self.optimizer.step_was_skipped else self.treated.last
        if last is not None and last.eta is not None:
            self._add(eta=last.eta, eta_used=bool(last.eta_used), eta_steps=1)
        self.count_outcomes()

    def count_outcomes(self) -> None:
        """Move what the meta-layers counted since the last time into the sums."""
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

    def finish_epoch(self) -> dict[str, Any]:
        """The training part of an epoch's row in metrics.csv; the next epoch's sums start at 0."""
        self.count_outcomes()
        sums, eta_steps = self.sums, self.sums["eta_steps"]
        self.sums = defaultdict(float)
        sv = torch.linalg.svdvals(self.treated.weight().double())
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
