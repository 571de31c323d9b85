"""The protocol of a treatment, which acts on the weight, the loss, the gradient or the step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from orthocond.errors import require_nonnegative

Acts = Literal["weight", "loss", "gradient", "step"]


@dataclass(frozen=True)
class Options:
    """Options of ``treat`` for the treatments.

    Args:
        ol_weight: factor of the orthogonal loss.

    Raises:
        UserError: ``ol_weight`` is negative or not finite.
    """

    ol_weight: float = 1e-4

    def __post_init__(self) -> None:
        require_nonnegative(self.ol_weight, "ol_weight")


@dataclass
class Step:
    """One optimizer step of the treated parameter.

    Args:
        W: the parameter before the step, or the effective weight, as a matrix (out, in k k).
        G: the gradient after the gradient treatments, or the derivative of the effective weight
            along this gradient, as a matrix (out, in k k). It has the other sign if the optimizer
            maximizes, so a plain step is W - lr G in any case.
        lr: learning rate of the parameter's group.
        eta: learning rate that a rule found, before its check against 0 and lr.
        rate: learning rate to take the step with; None takes the learning rate of the group.
        move: function that gets the displacement (out, in k k) of the optimizer's step, and returns
            the displacement to take instead; None takes the optimizer's own.
    """

    W: Tensor
    G: Tensor
    lr: float
    eta: float | None = None
    rate: float | None = None
    move: Callable[[Tensor], Tensor] | None = None


class Treatment:
    """Base class of the treatments, which does nothing; each treatment overrides what it changes.

    One layer takes at most one treatment of the weight, one of the gradient and one of the step.

    Attributes:
        name: name in sums such as 'nog+ow'.
        acts_on: what the treatment changes.
        packs: whether the layer's parameter packs several matrices, so that no treatment of the
            gradient or the step can read it as one.
    """

    name: ClassVar[str]
    acts_on: ClassVar[Acts]
    packs: ClassVar[bool] = False

    def __init__(self, options: Options) -> None:
        self.options = options

    def check(self, layer: nn.Module) -> None:
        """Raise UserError if the layer can't be treated; change nothing, draw no random number."""

    def replace(self, layer: nn.Module) -> nn.Module:
        """Return the layer to put into the model; it may be the same layer, parametrized."""
        return layer

    def restore(self, layer: nn.Module) -> nn.Module:
        """Return the plain layer with the present weight."""
        return layer

    def penalty(self, W: Tensor) -> Tensor | None:
        """Return a term of the loss for the effective weight (out, in k k), or None without one.

        W is float32 or float64.
        """
        return None

    def on_gradient(self, G: Tensor) -> Tensor:
        """Return the gradient (out, in k k) for the optimizer.

        G is the finite gradient (out, in k k), in float32 or float64.
        """
        return G

    def on_step(self, step: Step) -> None:
        """Choose the learning rate of the step, or how its displacement is replaced."""
