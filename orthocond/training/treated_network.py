"""Network of a configuration, with its treated layer and its optimizer."""

from __future__ import annotations

import torch
from torch import nn

from orthocond.config.methods import Method
from orthocond.config.schema import Config
from orthocond.config.tasks import TASKS
from orthocond.models.backbones import build_model
from orthocond.treatments import Treated, treat


def build_network(config: Config, classes: int) -> tuple[nn.Module, Treated, torch.optim.SGD]:
    """Build the network and the optimizer of a run, on the CPU.

    Args:
        config: settings of the network, the treatments and the optimizer; its seed fixes all
            weights.
        classes: number of classes.

    Returns:
        The network, from images (B, 3, H, W) to logits (B, classes); the handle on its treated
        layer; the optimizer. The caller moves the network to its device, and then binds the handle
        to the optimizer.

    Raises:
        UserError: the task does not have this model or method, or the treatments exclude each
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
        running=config.running,
    ).to(torch.float64 if config.precision == "float64" else torch.float32)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    treated = treat(
        model,
        TASKS[config.task].pre_svd,
        method.treatments,
        ol_weight=config.ol_weight,
        target=config.olr_target,
    )
    if config.gamma_start == "uniform":  # drawn last: every other weight is as with "one"
        nn.init.uniform_(model.get_submodule(TASKS[config.task].meta_layer).get_parameter("weight"))
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    return model, treated, optimizer


def plain_layer(config: Config) -> nn.Module:
    """Return the layer before the meta-layer, untreated and with the stem's default kernel.

    It has no storage. Its structural rank is the number of directions that the features of every
    method have in common.

    Example:
        >>> plain_layer(Config(method="ow", stem_kernel=11))
        Conv2d(3, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)
    """
    task = TASKS[config.task]
    with torch.device("meta"):
        model = build_model(task.name, config.model, task.solvers[0], 2, eps=config.eps)
    return model.get_submodule(task.pre_svd)
