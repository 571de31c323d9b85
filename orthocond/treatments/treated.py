"""``treat``: the treatments of one layer of a model, and the handle on them.

Note [Hooks on the step]
    Gradients are treated in a pre-hook of the optimizer's step: by then they are accumulated,
    averaged over processes, unscaled and clipped, and equal on every process. OLR leaves the
    group's learning rate alone, since schedulers own it, and moves its one parameter to
    lerp(old, new, eta / lr) after the step. For SGD with momentum and weight decay and for AdamW
    the step is proportional to lr, so this is a step with eta.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from orthocond.errors import UserError, unknown
from orthocond.treatments.protocol import Options, Step, Target, Treatment
from orthocond.treatments.registry import TREATMENTS, parse_treatments

SHARDED = ("DTensor", "FlatParameter")


def _kappa(G: Tensor) -> float:
    s = torch.linalg.svdvals(G.double())
    return (s.max() / s.min()).item()


@dataclass(frozen=True)
class Last:
    """What happened in the last step.

    Args:
        eta: the learning rate that the rule found; None without one.
        eta_used: whether the step was taken with it; None without a rule.
        finite: whether the gradient was; one that is not is left to the training loop as it is.
    """

    eta: float | None
    eta_used: bool | None
    finite: bool
    _before: Tensor = field(repr=False)
    _after: Tensor = field(repr=False)

    @cached_property
    def gradient_kappa_before(self) -> float:
        """Largest over smallest singular value of the gradient as it came."""
        return _kappa(self._before)

    @cached_property
    def gradient_kappa_after(self) -> float:
        """The same of the gradient that the optimizer got."""
        return _kappa(self._after)


class Treated:
    """The treatments of one layer, from ``oc.treat``.

    Attributes:
        layer: the module now in place.
        parameter: the tensor that gradient and step treatments act on.
        treatments: their names, in canonical order.
        last: what happened in the last step, None before the first.
    """

    def __init__(
        self, model: nn.Module, name: str, layer: nn.Module, parts: list[Treatment]
    ) -> None:
        self.layer, self.last = layer, None
        self.treatments = tuple(part.name for part in parts)
        self._model, self._name, self._parts = model, name, parts
        self._handles: list[Any] = []
        self._step: Step | None = None
        self._old: Tensor | None = None

    last: Last | None

    @property
    def parameter(self) -> nn.Parameter:
        """Underlying parameter: the filter of OW, the matrix of OW-Stiefel, W itself without."""
        trained = [
            p
            for n, p in self.layer.named_parameters()
            if p.requires_grad and not n.endswith("bias")
        ]
        return trained[0]

    def _effective(self) -> Tensor:
        kernel = getattr(self.layer, "kernel", None)
        weight: Tensor = kernel() if callable(kernel) else self.layer.weight  # type: ignore[assignment]
        return weight.flatten(1)

    @torch.no_grad()
    def weight(self) -> Tensor:
        """The effective weight (out, in k k), detached."""
        training = self.layer.training
        weight = self._effective_in_evaluation().detach().clone()
        self.layer.train(training)
        return weight

    def _effective_in_evaluation(self) -> Tensor:
        self.layer.eval()  # so that looking moves no power iteration
        return self._effective()

    def penalty(self) -> Tensor:
        """The sum of the loss terms, 0-d; 0 where no treatment has one."""
        total = self.parameter.new_zeros(())
        for part in self._parts:
            if part.acts_on == "loss":
                term = part.penalty(self._effective())
                total = total if term is None else total + term
        return total

    def bind(self, optimizer: Any) -> None:
        """Hook the gradient and step treatments on an optimizer's step.

        Args:
            optimizer: of torch, or accelerate's wrapper of one.

        Raises:
            UserError: it does not hold the parameter, or holds it sharded.
        """
        if hasattr(optimizer, "accelerator_state"):  # accelerate's wrapper, which has no hooks
            optimizer = optimizer.optimizer
        parameter = self.parameter
        if type(parameter.data).__name__ in SHARDED or type(parameter).__name__ in SHARDED:
            raise UserError(
                f"the parameter of layer {self._name!r} is sharded: "
                "its singular values are not to be had on one process"
            )
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if id(parameter) not in held:
            raise UserError(
                f"the optimizer does not hold the parameter of layer {self._name!r}: "
                "call treat before the optimizer is built"
            )
        if any(part.acts_on in ("gradient", "step") for part in self._parts):
            self._handles += [
                optimizer.register_step_pre_hook(self._before_step),
                optimizer.register_step_post_hook(self._after_step),
            ]

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, *_: Any) -> None:
        parameter, self._step = self.parameter, None
        if parameter.grad is None:
            return
        # A fused optimizer divides by this itself, later.
        scale = getattr(optimizer, "grad_scale", None)
        before = (parameter.grad if scale is None else parameter.grad / scale).flatten(1).clone()
        if not before.isfinite().all():
            self.last = Last(None, None, False, before, before)
            return
        after = before
        for part in self._parts:
            after = part.on_gradient(after)
        if after is not before:
            treated = after if scale is None else after * scale
            parameter.grad.copy_(treated.view_as(parameter.grad))
        lr = next(
            float(group["lr"])
            for group in optimizer.param_groups
            if any(p is parameter for p in group["params"])
        )
        step = Step(parameter.detach().flatten(1), after, lr)
        for part in self._parts:
            part.on_step(step)
        self._step = step
        self._old = parameter.detach().clone() if step.rate is not None else None
        used = None if step.eta is None else step.rate is not None
        self.last = Last(step.eta, used, True, before, after)

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, *_: Any) -> None:
        step, self._step = self._step, None
        if step is not None and step.rate is not None and self._old is not None:
            new = self.parameter
            new.copy_(self._old.lerp(new, step.rate / step.lr if step.lr else 0.0))
        self._old = None

    def remove(self) -> nn.Module:
        """Undo everything: no hooks, and a plain layer of the present weight in place.

        Returns:
            That layer; its parameters are new, so an optimizer that goes on is built anew.
        """
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for part in self._parts:
            self.layer = part.restore(self.layer)
        self._model.set_submodule(self._name, self.layer)
        self._parts, self.treatments = [], ()
        return self.layer


def treat(
    model: nn.Module,
    layer: str,
    treatments: str | Iterable[str],
    *,
    ol_weight: float = 1e-4,
    target: Target = "parameter",
) -> Treated:
    """Treat a layer of a model, in place; call it before the optimizer is built.

    Args:
        model: any model.
        layer: the name of a layer in it, as ``model.named_modules()`` has it.
        treatments: such as 'nog+ow+olr', or a sequence of names; order does not matter, and an
            empty one gives a handle that does nothing.
        ol_weight: factor of the orthogonal loss.
        target: what OLR looks at; ``parameter`` is the only one yet.

    Returns:
        The handle: ``bind`` the optimizer, add ``penalty()`` to the loss, look at ``last``.

    Raises:
        UserError: no such layer or treatment, a layer without a weight, or treatments that exclude
            each other.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3))
        >>> treated = oc.treat(model, "0", "nog+olr")
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> treated.bind(optimizer)
        >>> model(torch.ones(1, 3, 8, 8)).square().sum().backward()
        >>> optimizer.step()
        >>> treated.last.eta_used
        True
    """
    names = treatments if isinstance(treatments, str) else "+".join(treatments)
    parts = [TREATMENTS[name](Options(ol_weight, target)) for name in parse_treatments(names)]
    modules = dict(model.named_modules())
    if layer not in modules or layer == "":
        raise unknown("layer", layer, [name for name in modules if name])
    module = modules[layer]
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() < 2:
        raise UserError(
            f"layer {layer!r} is a {type(module).__name__} without a weight matrix: "
            "treat a convolution or a linear layer"
        )
    for part in parts:
        module = part.replace(module)
    model.set_submodule(layer, module)
    return Treated(model, layer, module, parts)
