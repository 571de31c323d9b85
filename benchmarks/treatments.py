"""Cost of treatments and the probe relative to a training step of the small whitened network.

NOG with OLR and the probe are timed alone, because their cost is smaller than the noise of a
whole step. OW and the literal series of its exponential are timed in whole steps.

python benchmarks/treatments.py [--rounds 20] [--threads 2]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from common import begin, options, show, training_step, write
from torch import nn

import orthocond as oc
from orthocond.measure.timer import median_seconds
from orthocond.models.backbones import build_model

PROBE_EVERY = 10
BATCH = (128, 3, 32, 32)


def step(stem: nn.Module | None, device: str) -> Callable[[], None]:
    """Return a function that takes a training step of the small network.

    ``stem`` replaces the network's own stem unless it is None.
    """
    torch.manual_seed(0)
    model = build_model("dbn", "small", "svd", 10)
    if stem is not None:
        model.conv1 = stem
    return training_step(model, device)


def stem_step(treatments: str, device: str) -> Callable[[], None]:
    """Return a function that takes the optimizer's step of a stem with a given gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 64, 3, bias=False)).to(device)
    treated = oc.treat(model, "0", treatments)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    treated.bind(optimizer)
    treated.parameter.grad = torch.randn_like(treated.parameter)
    gradient = treated.parameter.grad.clone()

    def run() -> None:
        treated.parameter.grad.copy_(gradient)
        optimizer.step()

    return run


def probed(device: str) -> Callable[[], None]:
    """Return a function that records the input of the small network's meta-layer by the probe."""
    model = nn.Sequential(nn.Identity())
    probe = oc.ConditioningProbe(model, "0", every=1, channel_dim=1)
    features = nn.Conv2d(3, 64, 3, padding=1).to(device)(torch.randn(BATCH, device=device)).detach()

    def run() -> None:
        model(features)
        probe.take()

    return run


def main() -> None:
    arguments = options(__doc__, 20)
    device = begin(arguments.threads)
    stems = {
        "plain": None,
        "ow": oc.SkewOrthogonalConv2d(3, 64, 3, bias=False),
        "literal series": oc.SkewOrthogonalConv2d(3, 64, 3, bias=False, mode="series"),
    }
    whole = {name: step(stem, device) for name, stem in stems.items()}
    steps = median_seconds(whole, arguments.rounds)
    alone = {"sgd": stem_step("", device), "sgd with nog+olr": stem_step("nog+olr", device)}
    hooks = median_seconds(alone, 10 * arguments.rounds)
    record = median_seconds({"record": probed(device)}, arguments.rounds)
    show("training step of the small network", steps, "plain")
    show("optimizer's step of the stem alone", hooks, "sgd")
    show("record of the probe", record, "record")
    shares = {
        "nog+olr": (hooks["sgd with nog+olr"] - hooks["sgd"]) / steps["plain"],
        "ow": steps["ow"] / steps["plain"] - 1,
        "literal series": steps["literal series"] / steps["plain"] - 1,
        f"probe at every {PROBE_EVERY}th step": record["record"] / PROBE_EVERY / steps["plain"],
    }
    for name, share in shares.items():
        print(f"  {name:32s} {share:10.2%} of a step")
    medians = {"step": steps, "stem_step": hooks, "probe": record}
    write(arguments.out, "treatments", median_seconds=medians, shares_of_a_step=shares)


if __name__ == "__main__":
    main()
