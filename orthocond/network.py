"""The network that a configuration asks for, its layer treated, and its optimizer."""

from __future__ import annotations

import torch
from torch import nn

from orthocond.config import Config
from orthocond.methods import Method
from orthocond.models import build_model, pre_svd
from orthocond.treatments import Treated, treat


def build_network(config: Config, classes: int) -> tuple[nn.Module, Treated, torch.optim.SGD]:
    """Build what a run trains, on the CPU.

    Args:
        config: settings of the network, the treatments and the optimizer; its seed fixes all
            weights.
        classes: of the classifier.

    Returns:
        The network, from images (B, 3, H, W) to logits (B, classes); the handle on its treated
        layer; the optimizer, which the caller binds the handle to once both are where they train.

    Raises:
        UserError: the task does not have that model or method, or the treatments exclude each
            other.

    Example:
        >>> model, treated, optimizer = build_network(Config(method="nog"), 10)
        >>> treated.bind(optimizer)
        >>> treated.treatments
        ('nog',)
    """
    method = Method.parse(config.method)
    torch.manual_seed(config.seed)
    model = build_model(
        config.task,
        config.model,
        method.solver,
        classes,
        eps=config.eps,
        backward=config.backward,
        groups=config.groups,
        stem_kernel=config.stem_kernel,
    ).to(torch.float64 if config.precision == "float64" else torch.float32)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    treated = treat(
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
    return model, treated, optimizer
