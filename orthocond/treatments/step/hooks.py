"""Hooks on an optimizer's step: gradient treatments run before it, step treatments after it.

Note [Hooks on the step]
    Gradients are treated in a pre-hook of the optimizer's step. By then they are accumulated,
    averaged over processes, unscaled and clipped, and equal on every process. OLR does not change
    the group's learning rate, which belongs to the scheduler. Instead it moves its one parameter to
    lerp(old, new, eta / lr) after the step. For AdamW, and for SGD with momentum and weight decay,
    the step is proportional to lr, so the result is a step with eta. ``muon`` replaces the
    displacement itself. A step that the optimizer skips has the displacement 0, which both keep. A
    displacement that is not finite is left as it is, like such a gradient.

Note [Nested steps]
    The ``step`` of an optimizer may call the ``step`` of its base class, and a loop may step twice
    with one gradient. Then the hooks find the gradient that they have written. It is not treated
    again: the result of ``polargrad`` has the nuclear norm r |G|_*, and would grow by the rank r.

Note [Two readings of OLR]
    Eq. 18 asks for the eta that brings W - eta G nearest to an orthogonal matrix. Under a weight
    treatment the released code reads W as the underlying parameter. This is not the orthogonal
    matrix of the paper's Proposition 1. ``target="weight"`` reads W as the effective weight, and G
    as the derivative of this weight along the treated gradient. It does not use the secant
    (W(p) - W(p - lr g)) / lr: if W stays orthogonal, both eta = 0 and eta = lr are minima of eq. 18
    for the secant, and rounding would choose between them. With the derivative, ``olr-exact`` finds
    eta = 0 there. The other two rules are unreliable there: the paper's eta* is 0 up to rounding,
    whose sign decides whether eta* is used, and Newton's rule divides by a curvature of 0. So if W
    is exactly orthogonal (1x1 OW, ow-stiefel), use ``olr-exact``.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from orthocond.errors import UserError
from orthocond.treatments.layer.claims import Claim
from orthocond.treatments.layer.effective import weight_and_derivative
from orthocond.treatments.layer.matrix import from_matrix, to_matrix, wide
from orthocond.treatments.layer.place import Place
from orthocond.treatments.protocol import Step, Treatment
from orthocond.treatments.step.closures import (
    Call,
    TreatedClosure,
    closure_of,
    treated_closure,
    with_closure,
)
from orthocond.treatments.step.optimizers import (
    CLOSURE_AGAIN,
    group_of,
    learning_rate,
    stale_momentum,
)
from orthocond.treatments.step.record import Last
from orthocond.treatments.step.watch import Watch

Target = Literal["parameter", "weight"]


class StepHooks:
    """The gradient and step treatments of one layer, hooked on an optimizer's step.

    Args:
        place: the layer and its place in the model.
        parts: treatments of the layer.
        target: tensor that OLR reads (Note [Two readings of OLR]).

    Attributes:
        last: record of the last step that had a gradient to treat; None before the first.
    """

    last: Last | None

    def __init__(self, place: Place, parts: list[Treatment], target: Target = "parameter") -> None:
        self.last = None
        self._place, self._parts, self._target = place, parts, target
        self._rule = next((part.name for part in parts if part.acts_on == "step"), None)
        self._needed = any(part.acts_on in ("gradient", "step") for part in parts)
        self._handles: list[Any] = []
        self._claim = Claim(place, parts)
        self._claim.make()
        self._watch = Watch(place.name)
        if self._needed:
            self._watch.follow(place.parameter)
        self._step: Step | None = None
        self._old: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy, which is not bound: torch copies no hooks of an optimizer."""
        return {**vars(self), "_handles": [], "_step": None, "_old": None}

    def check(self, optimizer: Optimizer) -> None:
        """Raise UserError if the treatments can't act on this optimizer's steps."""
        self._claim.check()
        parameter = self._place.parameter
        group = group_of(optimizer, parameter)
        if group is None and parameter.requires_grad:
            raise UserError(
                f"the optimizer does not hold the parameter of layer {self._place.name!r}: "
                "add it with add_param_group, or build a new optimizer"
            )
        stale = stale_momentum(optimizer, parameter)
        if stale is not None:
            raise UserError(
                f"the optimizer has a momentum of shape {tuple(stale)} for layer "
                f"{self._place.name!r}, whose parameter treat has changed to the shape "
                f"{tuple(parameter.shape)}: build a new optimizer"
            )
        if self._needed and isinstance(optimizer, CLOSURE_AGAIN):
            raise UserError(
                f"{type(optimizer).__name__} evaluates its closure several times in a step, but a "
                "treated gradient is not the gradient of the loss: use an optimizer that evaluates "
                "the closure once"
            )
        if self._rule is not None and group is not None:
            learning_rate(group, self._rule)

    def bind(self, optimizer: Optimizer) -> None:
        """Hook the treatments on an optimizer's step, and remove the hooks on any other."""
        self.unbind()
        self._claim.make()
        if self._needed:
            self._watch.follow(self._place.parameter)
            self._watch.bound_to = type(optimizer).__name__
            self._handles = [
                optimizer.register_step_pre_hook(self._before_step),
                optimizer.register_step_post_hook(self._after_step),
            ]

    def unbind(self) -> None:
        """Remove the hooks, and stop watching for missed steps."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._watch.stop()
        self._watch.stepped()

    def end(self) -> None:
        """Remove the hooks, and let another handle treat the layer."""
        self.unbind()
        self._claim.end()

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Call | None:
        self._step = self._old = None
        call, parameter = (args, kwargs), self._place.parameter
        self._watch.follow(parameter)
        self._watch.stepped()
        closure = closure_of(call)
        if closure is None:
            self._treat_gradient(optimizer)
            return None
        if treated_closure(call, self) is not None:  # step of a base class: wrapped already
            return None
        # Save the parameter before the step: inside the closure, SAM has perturbed it.
        old = parameter.detach().clone() if self._rule is not None else None
        treat = partial(self._treat_gradient, optimizer, old)
        name = type(optimizer).__name__
        return with_closure(call, TreatedClosure(closure, self, treat, name))

    @torch.no_grad()
    def _treat_gradient(self, optimizer: Optimizer, old: Tensor | None = None) -> None:
        place = self._place
        parameter = place.parameter
        if parameter.grad is None or not parameter.requires_grad:
            return
        group = group_of(optimizer, parameter)
        if group is None:
            raise UserError(
                f"layer {place.name!r} has a gradient, but no group of the bound "
                f"{type(optimizer).__name__} holds its parameter: add it with add_param_group, or "
                "bind the optimizer that holds it"
            )
        # The loss scale: a fused optimizer divides by it later, inside the step.
        scale = getattr(optimizer, "grad_scale", None)
        narrow = parameter.grad.dtype
        before = to_matrix(parameter.grad, place.kind).to(wide(narrow), copy=True)
        before = before if scale is None else before / scale
        if not before.isfinite().all():
            self.last = Last(None, None, False, before, before)
            return
        untreated, after = before, before
        if self._is_treated(before):
            assert self.last is not None
            untreated = self.last._before
        else:
            for part in self._parts:
                after = part.on_gradient(after)
        if after is not before:
            scaled = after if scale is None else after * scale
            parameter.grad.copy_(from_matrix(scaled, parameter.grad, place.kind))
            after = after.to(narrow).to(after.dtype)  # as rounded for the optimizer
        eta = used = None
        if self._rule is not None:
            start = parameter.detach() if old is None else old
            # An optimizer that maximizes steps along the gradient, so it descends along -G.
            downhill = -after if group.get("maximize") else after
            step = self._choose_rate(start, downhill, learning_rate(group, self._rule))
            eta, used = step.eta, None if step.eta is None else step.rate is not None
            changes = step.rate is not None or step.move is not None
            self._old = (start.clone() if old is None else old) if changes else None
        self.last = Last(eta, used, True, untreated, after)

    def _is_treated(self, G: Tensor) -> bool:
        """Return whether a gradient is the result of the last treatment (Note [Nested steps])."""
        if self.last is None or not self.last.finite:
            return False
        after = self.last._after
        return (G.device, G.dtype) == (after.device, after.dtype) and torch.equal(G, after)

    def _choose_rate(self, old: Tensor, G: Tensor, lr: float) -> Step:
        """Return the step from the parameter's value ``old``, with the rate chosen by the rule."""
        W = to_matrix(old, self._place.kind)
        if self._target == "weight":  # Note [Two readings of OLR]
            W, G = weight_and_derivative(self._place.layer, self._place.parameter, G, old)
        self._step = step = Step(W, G, lr)
        for part in self._parts:
            part.on_step(step)
        return step

    @torch.no_grad()
    def _after_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        step, old = self._step, self._old
        self._step = self._old = None
        parameter = self._place.parameter
        closure = treated_closure((args, kwargs), self)
        missed = closure is not None and not closure.called
        if missed and parameter.grad is not None and parameter.requires_grad:
            raise UserError(
                f"{type(optimizer).__name__} never called its closure, so it stepped with an "
                f"untreated gradient of layer {self._place.name!r}: call backward before the step, "
                "and call the step without a closure"
            )
        if step is not None and old is not None:
            self._move(parameter, old, step)

    def _move(self, parameter: Tensor, old: Tensor, step: Step) -> None:
        """Replace the step that the optimizer took from ``old``."""
        old = old.to(wide(old.dtype))
        new = parameter.to(old.dtype)
        if step.rate is not None:
            new = old.lerp(new, step.rate / step.lr if step.lr else 0.0)
        if step.move is not None and (new - old).isfinite().all():
            D = step.move(to_matrix(new - old, self._place.kind))
            new = old + from_matrix(D, old, self._place.kind)
        parameter.copy_(new)
