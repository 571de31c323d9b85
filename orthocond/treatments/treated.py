"""``treat``: the treatments of one layer of a model, and the handle on them.

Note [Hooks on the step]
    Gradients are treated in a pre-hook of the optimizer's step: by then they are accumulated,
    averaged over processes, unscaled and clipped, and equal on every process. OLR leaves the
    group's learning rate alone, since schedulers own it, and moves its one parameter to
    lerp(old, new, eta / lr) after the step. For SGD with momentum and weight decay and for AdamW
    the step is proportional to lr, so this is a step with eta.

Note [Two readings of OLR]
    Eq. 18 asks for the eta that brings W - eta G nearest to an orthogonal matrix. Under a weight
    treatment the released code reads W as the underlying parameter, which is not the orthogonal
    matrix that the paper's Proposition 1 speaks of. ``target="weight"`` reads W as the effective
    weight, and G as its derivative along the treated gradient. The derivative, and not the secant
    (W(p) - W(p - lr g)) / lr: where W stays orthogonal both ends of the secant are minima of eq.
    18, 0 and lr alike, and rounding would choose. With the derivative ``olr-exact`` finds 0 there.
    The paper's eta* is 0 as well, up to rounding whose sign decides its guard, and Newton's has no
    curvature: where W is exactly orthogonal (1x1 OW, ow-stiefel) use ``olr-exact``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from orthocond.errors import UserError, unknown
from orthocond.treatments.effective import effective_weight, evaluation, weight_and_derivative
from orthocond.treatments.last import Last
from orthocond.treatments.protocol import Options, Step, Treatment
from orthocond.treatments.registry import TREATMENTS, parse_treatments

Target = Literal["parameter", "weight"]


class Treated:
    """The treatments of one layer, from ``oc.treat``.

    Attributes:
        layer: the module now in place.
        parameter: the tensor that gradient and step treatments act on.
        treatments: their names, in canonical order.
        last: what happened in the last step, None before the first.

    Example:
        >>> treated = oc.treat(torch.nn.Sequential(torch.nn.Linear(8, 2)), "0", "ow-stiefel")
        >>> W = treated.weight()
        >>> torch.allclose(W @ W.mT, torch.eye(2), atol=1e-5), treated.last
        (True, None)
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        layer: nn.Module,
        parts: list[Treatment],
        target: Target = "parameter",
    ) -> None:
        self.layer, self.last = layer, None
        self.treatments = tuple(part.name for part in parts)
        self._model, self._name, self._parts = model, name, parts
        self._target = target
        self._handles: list[Any] = []
        self._shape = self.parameter.shape
        self._step: Step | None = None
        self._old: Tensor | None = None

    last: Last | None

    @property
    def parameter(self) -> nn.Parameter:
        """Underlying parameter: the filter of OW, the matrix of OW-Stiefel, W itself without."""
        return self._trained()[0]

    def _trained(self) -> list[nn.Parameter]:
        return list(_weight_parameters(self.layer).values())

    @torch.no_grad()
    def weight(self) -> Tensor:
        """The effective weight in evaluation (out, in k k), detached."""
        with evaluation(self.layer):
            return effective_weight(self.layer).detach().clone()

    def penalty(self) -> Tensor:
        """The sum of the loss terms, 0-d; 0 where no treatment has one."""
        total = self.parameter.new_zeros(())
        for part in self._parts:
            if part.acts_on == "loss":
                W = effective_weight(self.layer)
                with torch.autocast(W.device.type, enabled=False):
                    term = part.penalty(W)
                total = total if term is None else total + term
        return total

    def bind(self, optimizer: Any) -> None:
        """Hook the gradient and step treatments on an optimizer's step, and off another's.

        Args:
            optimizer: of torch, or accelerate's wrapper of one.

        Raises:
            UserError: it does not hold the parameter, or holds it sharded.
        """
        if hasattr(optimizer, "accelerator_state"):  # accelerate's wrapper, which has no hooks
            optimizer = optimizer.optimizer
        trained = self._trained()
        # FSDP leaves DTensors or flat pieces, or takes the parameter out of its layer.
        if not trained or type(trained[0]).__name__ == "DTensor" or trained[0].shape != self._shape:
            raise UserError(
                f"the parameter of layer {self._name!r} is sharded: "
                "its singular values are not to be had on one process"
            )
        parameter = trained[0]
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if id(parameter) not in held:
            raise UserError(
                f"the optimizer does not hold the parameter of layer {self._name!r}: "
                "call treat before the optimizer is built"
            )
        self._unbind()
        if any(part.acts_on in ("gradient", "step") for part in self._parts):
            self._handles = [
                optimizer.register_step_pre_hook(self._before_step),
                optimizer.register_step_post_hook(self._after_step),
            ]

    def _unbind(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if kwargs.get("closure", args[1] if len(args) > 1 else None) is not None:
            raise UserError(
                "a closure computes the gradient inside the step, where it can't be treated: "
                "call backward before the step, which takes no closure"
            )
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
        step = Step(*self._reading(parameter, after), lr)
        for part in self._parts:
            part.on_step(step)
        self._step = step
        self._old = parameter.detach().clone() if step.rate is not None else None
        used = None if step.eta is None else step.rate is not None
        self.last = Last(step.eta, used, True, before, after)

    def _reading(self, parameter: nn.Parameter, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """W and G of eq. 18, see Note [Two readings of OLR]."""
        if self._target == "weight" and any(part.acts_on == "step" for part in self._parts):
            return weight_and_derivative(self.layer, parameter, gradient)
        return parameter.detach().flatten(1), gradient

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
            That layer; its parameters may be new, so an optimizer that goes on is built anew.
        """
        self._unbind()
        for part in self._parts:
            self.layer = part.restore(self.layer)
        self._model.set_submodule(self._name, self.layer)
        self._parts, self.treatments = [], ()
        return self.layer


def _weight_parameters(layer: nn.Module) -> dict[str, nn.Parameter]:
    """What a layer trains, but for its bias, parametrized or not."""
    named = layer.named_parameters()
    return {n: p for n, p in named if p.requires_grad and "bias" not in n.split(".")}


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
        target: what OLR looks at under a weight treatment: the underlying ``parameter``, as the
            released code does, or the effective ``weight`` (Note [Two readings of OLR]). Without
            one the two are the same.

    Returns:
        The handle: ``bind`` the optimizer, add ``penalty()`` to the loss, look at ``last``.

    Raises:
        UserError: no such layer, treatment or target, a layer without a weight or with one that is
            frozen, made of several parameters, or parametrized already where a treatment would do
            that, or treatments that exclude each other.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3))
        >>> treated = oc.treat(model, "0", "nog+olr")
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> treated.bind(optimizer)
        >>> model(torch.rand(4, 3, 8, 8)).square().sum().backward()
        >>> optimizer.step()
        >>> treated.treatments, round(treated.last.gradient_kappa_after, 3)
        (('nog', 'olr'), 1.0)
    """
    names = treatments if isinstance(treatments, str) else "+".join(treatments)
    if target not in get_args(Target):
        raise unknown("target", target, get_args(Target))
    parts = [TREATMENTS[name](Options(ol_weight)) for name in parse_treatments(names)]
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
    if not weight.requires_grad:
        raise UserError(f"the weight of layer {layer!r} is frozen: there is nothing to treat")
    trained = _weight_parameters(module)
    if len(trained) > 1:
        raise UserError(
            f"the weight of layer {layer!r} is made of {' and '.join(trained)}: "
            "a treatment acts on one parameter"
        )
    reshaped = [part.name for part in parts if part.acts_on == "weight"]
    if reshaped and parametrize.is_parametrized(module, "weight"):
        raise UserError(
            f"the weight of layer {layer!r} is parametrized already: {reshaped[0]} does not go "
            "with that, since a layer has one weight parametrization"
        )
    for part in parts:
        module = part.replace(module)
    model.set_submodule(layer, module)
    return Treated(model, layer, module, parts, target)
