"""What a treatment may do: to the weight, to the loss, to the gradient, to the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

Acts = Literal["weight", "loss", "gradient", "step"]


@dataclass(frozen=True)
class Options:
    """What ``treat`` was told beyond the names.

    Args:
        ol_weight: factor of the orthogonal loss.
    """

    ol_weight: float = 1e-4


@dataclass
class Step:
    """What happens to the one parameter in one optimizer step.

    Args:
        W: the parameter before the step, as a matrix (out, in k k), or the effective weight.
        G: its gradient, as treatments of the gradient make it, or the weight's derivative along it.
        lr: of the parameter's group.
        eta: the learning rate that a rule found, without its guard.
        rate: the learning rate that the step is to have; None leaves the group's.
    """

    W: Tensor
    G: Tensor
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

    def check(self, layer: nn.Module) -> None:
        """Raise UserError if the layer can't be treated so; nothing is changed, nothing drawn."""

    def replace(self, layer: nn.Module) -> nn.Module:
        """The layer to put in place; it may be the same one, parametrized."""
        return layer

    def restore(self, layer: nn.Module) -> nn.Module:
        """The plain layer of the same weight."""
        return layer

    def penalty(self, W: Tensor) -> Tensor | None:
        """A term of the loss, from the effective weight (out, in k k), in float32 at least."""
        return None

    def on_gradient(self, G: Tensor) -> Tensor:
        """The gradient (out, in k k) that the optimizer gets; G is finite, in float32 at least."""
        return G

    def on_step(self, step: Step) -> None:
        """Choose the learning rate of the step."""
