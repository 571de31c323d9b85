"""The handle on the treatments of one layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from orthocond.treatments.effective import effective_weight, evaluation
from orthocond.treatments.last import Last
from orthocond.treatments.matrix import wide
from orthocond.treatments.optimizers import unwrapped
from orthocond.treatments.place import Place
from orthocond.treatments.protocol import Treatment
from orthocond.treatments.step_hooks import StepHooks, Target


class Treated:
    """The treatments of one layer, from ``oc.treat``.

    A layer that is frozen later (``requires_grad_(False)``) is left alone until it is thawed: its
    gradient and its step are not treated, and ``penalty()`` is 0.

    Attributes:
        layer: the module now in place.
        parameter: the tensor that gradient and step treatments act on.
        treatments: their names, in canonical order.
        last: what happened in the last step that had a gradient to treat, None before the first.

    Example:
        >>> treated = oc.treat(torch.nn.Sequential(torch.nn.Linear(8, 2)), "0", "ow-stiefel")
        >>> W = treated.weight()
        >>> torch.allclose(W @ W.mT, torch.eye(2), atol=1e-5), treated.last
        (True, None)
    """

    def __init__(self, place: Place, parts: list[Treatment], target: Target = "parameter") -> None:
        self.treatments = tuple(part.name for part in parts)
        self._place, self._parts = place, parts
        self._hooks = StepHooks(place, parts, target)

    @property
    def layer(self) -> nn.Module:
        """The module now in place."""
        return self._place.layer

    @property
    def parameter(self) -> nn.Parameter:
        """Underlying parameter: the filter of OW, the matrix of OW-Stiefel, W itself without."""
        return self._place.parameter

    @property
    def last(self) -> Last | None:
        """The record of the last step that had a gradient to treat."""
        return self._hooks.last

    @torch.no_grad()
    def weight(self) -> Tensor:
        """Return the effective weight in evaluation (out, in k k), detached."""
        with evaluation(self.layer):
            return effective_weight(self.layer).detach().clone()

    def penalty(self) -> Tensor:
        """Return the sum of the loss terms, 0-d and in float32 at least.

        It is 0 where no treatment has a term, and 0 without a graph where the layer is frozen.
        """
        total = self.parameter.new_zeros(())
        if not self.parameter.requires_grad:
            return total
        for part in self._parts:
            if part.acts_on == "loss":
                W = effective_weight(self.layer)
                with torch.autocast(W.device.type, enabled=False):
                    term = part.penalty(W.to(wide(W.dtype)))
                total = total if term is None else total + term
        return total

    def check(self, optimizer: Any) -> None:
        """Raise what ``bind`` would raise for an optimizer, and bind nothing."""
        self._hooks.check(unwrapped(optimizer))

    def bind(self, optimizer: Any) -> None:
        """Hook the gradient and step treatments on an optimizer's step, and off another's.

        The optimizer may be stepped with a closure that it calls once, as Lightning does. One that
        holds a frozen layer's parameter only later (``add_param_group``) is taken, too.

        Args:
            optimizer: of torch, or the wrapper of one by accelerate or Lightning.

        Raises:
            UserError: it is no optimizer of torch, does not hold the parameter or holds it sharded;
                it evaluates a closure several times in a step (LBFGS), or has no learning rate
                where a treatment scales the step. ``step`` raises it for an optimizer of which only
                the step shows that it calls its closure again, or never.
        """
        optimizer = unwrapped(optimizer)
        self._hooks.check(optimizer)
        self._hooks.bind(optimizer)

    def remove(self) -> nn.Module:
        """Undo everything: no hooks, and a plain layer of the present weight in place.

        Returns:
            That layer; its parameters may be new, so an optimizer that goes on is built anew.
        """
        self._hooks.unbind()
        trains, layer = self.parameter.requires_grad, self.layer
        for part in self._parts:
            layer = part.restore(layer)
        if any(part.acts_on == "weight" for part in self._parts):
            layer.get_parameter("weight").requires_grad_(True)
            self._place.put(layer)
            self.parameter.requires_grad_(trains)
        last, self._hooks = self.last, StepHooks(self._place, [])
        self._hooks.last = last
        self._parts, self.treatments = [], ()
        return layer
