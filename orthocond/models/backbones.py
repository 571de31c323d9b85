"""Networks with a spectral meta-layer.

Decorrelated batch norm (figure 6 of the paper): a ResNet whose stem is a 3x3 convolution of stride
1. The whitening layer follows the stem, in place of its batch norm. Global covariance pooling
(figure 7): a ResNet whose global average pooling is replaced by the square root of the features'
covariance.

Note [Equal initial weights]
    Methods are compared over equal seeds, so a seed must fix every weight, whatever the method. The
    whitening layer draws no random numbers. Weights whose shape depends on the method are drawn
    last: those of the stem (3x3, or 11x11 in a control), and with covariance pooling those of the
    classifier.

Note [Full precision before the meta-layer]
    The covariance of bfloat16 features has a noise floor of 2e-7 of its largest eigenvalue. So the
    stem and its norm run outside autocast. The covariance pool leaves autocast by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from orthocond.config.tasks import DBN, GCP, find_task
from orthocond.errors import UserError, unknown
from orthocond.host import full_precision
from orthocond.layers.covariance_pool import GlobalCovariancePool2d, PoolSolver
from orthocond.layers.decorrelated import DecorrelatedBatchNorm2d
from orthocond.layers.running_statistics import Running
from orthocond.spectral.backward_rules import Backward
from orthocond.spectral.root_solvers import Solver

STEM = 64  # channels of the whitened stem, as in the paper


def _draw(*modules: nn.Module) -> None:
    """Draw initial convolution weights as torchvision's ResNets do."""
    for module in modules:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _stem_convolution(channels: int, kernel: int) -> nn.Conv2d:
    conv = nn.Conv2d(3, channels, kernel, padding=kernel // 2, bias=False)
    _draw(conv)
    return conv


class SmallResNet(nn.Module):
    """A ResNet for small images that trains on a CPU: a stem of stride 1, then a block per stage.

    Args:
        num_classes: number of classes.
        widths: number of channels of the stem, then of each stage. A max-pool after the stem
            leaves a quarter of the positions for the first stage. Each later stage has a quarter of
            the positions of the stage before it.
    """

    def __init__(self, num_classes: int, widths: list[int]) -> None:
        super().__init__()
        stem, *stages = widths
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(2)
        blocks = []
        for i, (channels, out) in enumerate(zip(widths, stages, strict=False)):
            stride = 1 if i == 0 else 2
            shortcut = None
            if (channels, stride) != (out, 1):
                shortcut = nn.Sequential(
                    nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
                )
            blocks.append(BasicBlock(channels, out, stride, shortcut))
        self.layers = nn.Sequential(*blocks)
        _draw(*self.layers.modules())
        self.avgpool: nn.Module = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(stages[-1], num_classes)
        self.conv1: nn.Module = _stem_convolution(stem, 3)
        self.bn1: nn.Module = nn.BatchNorm2d(stem)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_classes) of images (B, 3, H, W)."""
        # ReLU and max-pool commute, in value and gradient: pooling first leaves the ReLU less work.
        x = self.layers(self.relu(self.maxpool(_stem(self, x))))
        return self.fc(self.avgpool(x).flatten(1))


class StemResNet(ResNet):
    """ResNet of torchvision whose stem runs outside autocast."""

    def _forward_impl(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(_stem(self, x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def _stem(model: Any, x: Tensor) -> Tensor:
    """Apply the first convolution and its norm, see Note [Full precision before the meta-layer]."""
    with full_precision(x):
        return model.bn1(model.conv1(x))


def _resnet18(num_classes: int) -> nn.Module:
    return StemResNet(BasicBlock, [2, 2, 2, 2], num_classes=num_classes)


def _resnet50(num_classes: int) -> nn.Module:
    return StemResNet(Bottleneck, [3, 4, 6, 3], num_classes=num_classes)


def _resnet18_at_14(num_classes: int) -> nn.Module:
    """Return a ResNet-18 whose last stage keeps 14x14 positions (for 224 pixels), usual for GCP."""
    model: Any = _resnet18(num_classes)
    model.layer4[0].conv1.stride = model.layer4[0].downsample[0].stride = (1, 1)
    return model


Backbone = Callable[[int], Any]
WHITENED: dict[str, Backbone] = {
    "small": lambda classes: SmallResNet(classes, [STEM, 64, 128, 256]),
    "resnet18": _resnet18,
    "resnet50": _resnet50,
}
POOLED: dict[
    str, tuple[Backbone, int]
] = {  # and the number of channels that the features are reduced to
    "small": (lambda classes: SmallResNet(classes, [32, 32, 64, 128]), 96),
    "resnet18": (_resnet18_at_14, 256),
}
MODELS = {DBN.name: tuple(WHITENED), GCP.name: tuple(POOLED)}


def require_model(task: str, model: str) -> None:
    """Raise a UserError if a task has no such network."""
    if model not in MODELS[task]:
        raise unknown(f"model for {task}", model, MODELS[task])


def build_model(
    task: str,
    model: str,
    solver: str,
    num_classes: int,
    eps: float = 1e-2,
    backward: Backward = "exact",
    groups: int = 1,
    stem_kernel: int = 3,
    running: Running = "covariance",
) -> nn.Module:
    """Build a network with its meta-layer.

    ``orthocond.config.tasks.TASKS`` names the meta-layer and the layer before it. Equal torch seeds
    give equal initial weights for every solver (Note [Equal initial weights]).

    Args:
        task: ``dbn``, for images of about 32 pixels, or ``gcp``.
        model: one of ``MODELS[task]``. ``small`` trains on a CPU; for ``gcp`` it is made for 64
            pixels, where 96 channels have a covariance over 8x8 positions.
        solver: ``svd``, ``ns``, or the baseline without a spectral layer: ``bn`` for dbn, which has
            nn.BatchNorm2d instead, and ``gap`` for gcp, which averages the reduced features.
        num_classes: number of classes.
        eps, groups: arguments of the whitening layer (dbn).
        backward: rule for the gradient of the decomposition, for ``svd``. For gcp, every rule but
            ``exact`` decomposes the full covariance instead of computing its low-rank root.
        stem_kernel: width of the first convolution (dbn).
        running: what the whitening layer averages for evaluation, ``covariance`` or ``root`` (dbn).

    Returns:
        A module from images (B, 3, H, W) to logits (B, num_classes).

    Raises:
        UserError: an unknown task, model or solver, or a stem of another width for gcp.

    Example:
        >>> build_model("dbn", "small", "svd", 10)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    known = find_task(task)
    require_model(task, model)
    if solver not in known.solvers:
        raise unknown(f"solver for {task}", solver, known.solvers)
    if stem_kernel != 3 and not known.wide_stem:
        raise UserError(f"stem_kernel {stem_kernel} is for task 'dbn'; {task!r} keeps its stem")
    rule: Backward = backward if solver == "svd" else "exact"
    if known is DBN:
        network = WHITENED[model](num_classes)
        network.conv1 = _stem_convolution(STEM, stem_kernel)
        if solver != "bn":
            by: Solver = "eigh" if solver == "svd" else "newton-schulz"
            network.bn1 = DecorrelatedBatchNorm2d(
                STEM, eps=eps, groups=groups, solver=by, backward=rule, running=running
            )
        return network
    return _pooled(model, solver, num_classes, rule)


def _pooled(model: str, solver: str, num_classes: int, rule: Backward) -> nn.Module:
    build, d = POOLED[model]
    network = build(num_classes)
    solvers: dict[str, PoolSolver] = {
        "gap": "average",
        "ns": "newton-schulz",
        "svd": "low-rank" if rule == "exact" else "eigh",
    }
    network.avgpool = GlobalCovariancePool2d(
        network.fc.in_features, d, solver=solvers[solver], backward=rule
    )
    network.fc = nn.Linear(d if solver == "gap" else d * (d + 1) // 2, num_classes)
    return network
