"""Training steps against a plain loop of torch."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from orthocond.config.schema import Config
from orthocond.training.accelerator import make_accelerator
from orthocond.training.signals import StopSignal
from orthocond.training.stepper import Stepper

CLASSES, BATCH, EPOCH_STEPS = 4, 8, 2


@pytest.mark.parametrize("count", [1, 2, 4])
def test_steps_are_those_of_a_plain_loop(count: int) -> None:
    """Compare weights and sums over two epochs; the rate drops at the first step of the second."""
    config = Config(
        method="ol",
        ol_weight=0.1,
        batch_size=BATCH,
        accumulate=count,
        precision="float64",
        lr=0.05,
        lr_milestones=(1,),
        momentum=0.8,
        weight_decay=1e-2,
    )
    stepper = Stepper(config, CLASSES, EPOCH_STEPS, make_accelerator("float64"), StopSignal())
    model = copy.deepcopy(stepper.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.8, weight_decay=1e-2)
    random = torch.Generator().manual_seed(1)
    total = 0.0
    for step in range(2 * EPOCH_STEPS):
        x = torch.randn(BATCH, 3, 16, 16, dtype=torch.float64, generator=random)
        y = torch.randint(CLASSES, (BATCH,), generator=random)
        stepper.take_step(x, y)
        optimizer.param_groups[0]["lr"] = 0.05 if step < EPOCH_STEPS else 0.005
        optimizer.zero_grad()
        parts = zip(x.chunk(count), y.chunk(count), strict=True)
        loss = torch.stack([cross_entropy(model(a), b) for a, b in parts]).mean()
        W = model.conv1.weight.flatten(1)  # (64, 3 * 3 * 3)
        penalty = 0.1 * (W @ W.mT - torch.eye(64, dtype=torch.float64)).norm()
        (loss + penalty).backward()
        optimizer.step()
        total += BATCH * loss.item()
    for ours, expected in zip(stepper.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)
    assert stepper.sums["loss"] == pytest.approx(total)
    assert stepper.sums["images"] == 2 * EPOCH_STEPS * BATCH
