"""The handle for the treatments of one layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from orthocond.host import full_precision
from orthocond.treatments.layer.effective import effective_weight, evaluation
from orthocond.treatments.layer.matrix import wide
from orthocond.treatments.layer.place import Place
from orthocond.treatments.protocol import Treatment
from orthocond.treatments.step.hooks import StepHooks, Target
from orthocond.treatments.step.optimizers import unwrapped
from orthocond.treatments.step.record import Last


class Treated:
    """The handle for one treated layer, from ``oc.treat``.

    While a layer is frozen (``requires_grad_(False)``), its gradient and its step are not treated,
    and ``penalty()`` is 0.

    Attributes:
        layer: the module that is now in the model.
        parameter: the tensor that gradient and step treatments act on. It is the same object as the
            weight of the plain layer, even if its shape has changed, so an optimizer that was built
            before ``treat`` trains it.
        treatments: names of the treatments, in canonical order.
        last: record of the last step that had a gradient to treat; None before the first.

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
        """The module that is now in the model."""
        return self._place.layer

    @property
    def parameter(self) -> nn.Parameter:
        """Trained parameter: OW's filter, OW-Stiefel's matrix, OW-Conv's blocks, or else W."""
        return self._place.parameter

    @property
    def last(self) -> Last | None:
        """Record of the last step that had a gradient to treat; None before the first."""
        return self._hooks.last

    @torch.no_grad()
    def weight(self) -> Tensor:
        """Return the effective weight in evaluation mode (out, in k k), detached."""
        with evaluation(self.layer):
            return effective_weight(self.layer).detach().clone()

    def penalty(self) -> Tensor:
        """Return the sum of the loss terms, 0-d, in float32 or float64.

        It is 0 if no treatment has a loss term, and 0 without a graph if the layer is frozen.
        """
        total = self.parameter.new_zeros(())
        if not self.parameter.requires_grad:
            return total
        for part in self._parts:
            if part.acts_on == "loss":
                W = effective_weight(self.layer)
                with full_precision(W):
                    term = part.penalty(W.to(wide(W.dtype)))
                total = total if term is None else total + term
        return total

    def check(self, optimizer: Any) -> None:
        """Raise the error that ``bind`` would raise for an optimizer, and bind nothing."""
        self._hooks.check(unwrapped(optimizer))

    def bind(self, optimizer: Any) -> None:
        """Hook the gradient and step treatments on an optimizer's step.

        Hooks on an optimizer that was bound before are removed. The step may take a closure, as in
        Lightning, if the optimizer calls it once. The parameter of a frozen layer may be added to
        the optimizer later (``add_param_group``).

        Copies (``copy.deepcopy((model, optimizer, treated))``) are not bound, since torch copies no
        hooks of an optimizer: bind the copied handle to the copied optimizer. If that is forgotten,
        a warning says that the layer is not treated.

        Args:
            optimizer: an optimizer of torch, or a wrapper of one by accelerate or Lightning.

        Raises:
            UserError: the optimizer is not one of torch, does not hold the parameter, holds it
                sharded, or has a momentum of the shape that it had before ``treat``; it evaluates
                a closure several times in a step (LBFGS); or it has no learning rate but a
                treatment scales the step. Some optimizers show only during the step that they
                call a closure again, or never; then ``step`` raises it.
        """
        optimizer = unwrapped(optimizer)
        self._hooks.check(optimizer)
        self._hooks.bind(optimizer)

    def remove(self) -> nn.Module:
        """Remove all treatments and hooks, and put a plain layer with the present weight in place.

        Returns:
            The plain layer. Its parameters may be new: build a new optimizer to continue training.

        Raises:
            UserError: the layer of ``ow`` has hooks, which the plain layer would lose, or the model
                does not have this layer any more. The layer is then still treated.
        """
        reshaped = any(part.acts_on == "weight" for part in self._parts)
        trains, layer = reshaped and self.parameter.requires_grad, self.layer
        for part in self._parts:
            layer = part.restore(layer)
        if reshaped:
            layer.get_parameter("weight").requires_grad_(True)
            self._place.put(layer)
            self.parameter.requires_grad_(trains)
        self._hooks.end()
        last, self._hooks = self.last, StepHooks(self._place, [])
        self._hooks.last = last
        self._parts, self.treatments = [], ()
        return layer
