"""Several gloo processes on one machine, and what tests run in them.

They are forked from a server that has imported torch, and has no threads, which ``backward`` would
have started and no fork would survive. They import their worker by name, so the workers live here
and not in a test file.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint


def _main(rank: int, worker: Callable[..., Any], folder: str, world: int, args: tuple) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=world)
    torch.save(worker(rank, world, *args), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def in_processes(folder: Path, worker: Callable[..., Any], *args: Any, world: int = 2) -> list[Any]:
    """What worker(rank, world, *args) returns in each process of a group; folder must be empty."""
    multiprocessing.set_forkserver_preload(["torch._dynamo", "orthocond"])  # seconds, once
    mp.start_processes(
        _main, (worker, str(folder), world, args), nprocs=world, start_method="forkserver"
    )
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world)]


def whitened_network() -> nn.Sequential:
    from orthocond.layers.decorrelated import DecorrelatedBatchNorm2d

    torch.manual_seed(0)
    norm = DecorrelatedBatchNorm2d(8, groups=2)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),  # a bias before the norm has no gradient but rounding
        norm,
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 4),
    )


def train_step(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Loss, gradients and buffers of one step."""
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    loss = nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    gradients = {f"gradient of {n}": p.grad for n, p in inner.named_parameters()}
    return {"loss": loss.detach(), **gradients, **inner.state_dict()}


def whitening_step(
    rank: int, world: int, images: Tensor, labels: Tensor
) -> tuple[dict, dict, list[dict], dict[str, dict]]:
    """A DDP step on an equal share, then population statistics from an unequal one.

    Then such a step of another network for each kind of checkpoint, and of each other shape.
    """
    from orthocond.layers.recalibration import recalibrate

    model = DistributedDataParallel(whitened_network())
    share = slice(rank * len(images) // world, (rank + 1) * len(images) // world)
    stepped = train_step(model, images[share], labels[share])
    stepped = {name: value.clone() for name, value in stepped.items()}
    recalibrate(model, [images[:30]] if rank == 0 else images[30:].split(49))
    checkpointed = [
        train_step(DistributedDataParallel(Checkpointed(True, kind)), images[share], labels[share])
        for kind in (False, True)
    ]
    shaped = {
        form: train_step(DistributedDataParallel(network), data[share], labels[share])
        for form, (network, data) in shaped_networks(images).items()
    }
    return stepped, model.module.state_dict(), checkpointed, shaped


def shaped_networks(images: Tensor) -> dict[str, tuple[nn.Sequential, Tensor]]:
    """Networks with a whitening layer for vectors, sequences and volumes, each with its inputs.

    The inputs are parts of the images (B, 3, 8, 8).
    """
    from orthocond.layers.decorrelated import DecorrelatedBatchNorm1d, DecorrelatedBatchNorm3d

    x = images[:, :, :4, :2]
    networks = {}
    for form, convolution, norm, data in (
        ("vectors", nn.Linear(24, 6, bias=False), DecorrelatedBatchNorm1d, x.flatten(1)),
        ("sequences", nn.Conv1d(3, 6, 2, bias=False), DecorrelatedBatchNorm1d, x.flatten(2)),
        ("volumes", nn.Conv3d(3, 6, 1, bias=False), DecorrelatedBatchNorm3d, x[:, :, :, None]),
    ):
        layers = [convolution, norm(6, groups=2), nn.ReLU(), nn.Flatten()]
        width = nn.Sequential(*layers[::3])(data).shape[1]
        networks[form] = (nn.Sequential(*layers, nn.Linear(width, 4)), data)
        torch.manual_seed(0)
        for p in networks[form][0].parameters():
            nn.init.normal_(p, std=0.3)
    return networks


class Checkpointed(nn.Module):
    """Three whitening layers in one block that is recomputed in the backward, or not."""

    def __init__(self, is_recomputed: bool, use_reentrant: bool = False) -> None:
        from orthocond.layers.decorrelated import DecorrelatedBatchNorm2d

        super().__init__()
        torch.manual_seed(0)
        self.is_recomputed, self.use_reentrant = is_recomputed, use_reentrant
        self.stem = nn.Conv2d(3, 6, 3, bias=False)
        self.block = nn.Sequential()
        for _ in range(3):
            self.block += nn.Sequential(
                nn.Conv2d(6, 6, 3, padding=1, bias=False),
                DecorrelatedBatchNorm2d(6, groups=2),
                nn.ReLU(),
            )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.is_recomputed:
            return self.head(checkpoint(self.block, x, use_reentrant=self.use_reentrant))
        return self.head(self.block(x))


def treated_steps(rank: int, world: int, sums: list[str]) -> dict[str, dict[str, Tensor]]:
    """The state after three DDP steps on an equal share, for each sum of treatments."""
    from toys import Toy

    states = {}
    for treatments in sums:
        toy = Toy(treatments, seed=rank)
        network = DistributedDataParallel(toy.model)
        share = slice(rank * 16 // world, (rank + 1) * 16 // world)
        for _ in range(3):
            toy.optimizer.zero_grad()
            logits = network(toy.images[share])
            loss = nn.functional.cross_entropy(logits, toy.labels[share])
            (loss + toy.treated.penalty()).backward()
            toy.optimizer.step()
        states[treatments] = toy.state()
    return states
