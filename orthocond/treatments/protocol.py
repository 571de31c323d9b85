"""What a treatment may do: to the weight, to the loss, to the gradient, to the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

Acts = Literal["weight", "loss", "gradient", "step"]
Target = Literal["parameter", "weight"]


@dataclass(frozen=True)
class Options:
    """What ``treat`` was told beyond the names.

    Args:
        ol_weight: factor of the orthogonal loss.
        target: what OLR looks at under a weight treatment: the underlying ``parameter``, as the
            released code does, or the effective ``weight``.
    """

    ol_weight: float = 1e-4
    target: Target = "parameter"


@dataclass
class Step:
    """What happens to the one parameter in one optimizer step.

    Args:
        parameter: before the step; a matrix where it is (out, in, k, k) flattened.
        gradient: likewise; what treatments of the gradient make of it.
        lr: of the parameter's group.
        eta: the learning rate that a rule found, without its guard.
        rate: the learning rate that the step is to have; None leaves the group's.
    """

    parameter: Tensor
    gradient: Tensor
    lr: float
    eta: float | None = None
    rate: float | None = None


class Treatment:
    """Does nothing; each treatment overrides what it acts on.

    Of those that act on the weight, the gradient or the step, one of a kind makes sense.
    """

    name: ClassVar[str]
    acts_on: ClassVar[Acts]

    def __init__(self, options: Options) -> None:
        self.options = options

    def replace(self, layer: nn.Module) -> nn.Module:
        """The layer to put in place; it may be the same one, parametrized."""
        return layer

    def restore(self, layer: nn.Module) -> nn.Module:
        """The plain layer of the same weight."""
        return layer

    def penalty(self, W: Tensor) -> Tensor | None:
        """A term of the loss, from the effective weight (out, in k k)."""
        return None

    def on_gradient(self, G: Tensor) -> Tensor:
        """The gradient (out, in k k) that the optimizer gets; G is finite."""
        return G

    def on_step(self, step: Step) -> None:
        """Choose the learning rate of the step."""
