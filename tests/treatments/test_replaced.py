"""What a treatment that replaces the module would lose: hooks, a forward, a frozen bias."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

import orthocond as oc
from orthocond.errors import UserError


class Scaled(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Standardised(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight - weight.mean(), bias)


def _replaced_on_the_object() -> nn.Conv2d:
    layer = nn.Conv2d(3, 4, 3, padding=1)
    layer.forward = lambda x: 2 * nn.Conv2d.forward(layer, x)
    return layer


def test_ow_refuses_a_layer_whose_forward_it_would_lose() -> None:
    for layer in (Scaled(3, 4, 3, padding=1), Standardised(3, 4, 3, padding=1)):
        model = nn.Sequential(layer)
        own = f"^ow replaces the layer, and the forward of this {type(layer).__name__} is its own"
        with pytest.raises(UserError, match=own):
            oc.treat(model, "0", "ow")
        assert model[0] is layer
        oc.treat(model, "0", "nog+ow-stiefel")  # keeps the layer with its forward
    with pytest.raises(UserError, match="ow replaces the layer, and the forward of this Conv2d"):
        oc.treat(nn.Sequential(_replaced_on_the_object()), "0", "ow")


HOOKS = {
    "forward": lambda m: m.register_forward_hook(lambda *_: None),
    "forward-pre": lambda m: m.register_forward_pre_hook(lambda *_: None),
    "backward": lambda m: m.register_full_backward_hook(lambda *_: None),
    "state": lambda m: m.register_state_dict_post_hook(lambda *_: None),
    "probe": lambda m: oc.ConditioningProbe(nn.Sequential(m), "0", side="output")._handle,
}


@pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
def test_ow_refuses_a_layer_whose_hooks_it_would_lose(
    hook: Callable[[nn.Module], RemovableHandle],
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))
    layer, handle = model[0], hook(model[0])
    lost = "replaces the layer, and this {} has hooks, which the new layer would lose: remove them"
    with pytest.raises(UserError, match=f"^ow {lost.format('Conv2d')}, or close the probe"):
        oc.treat(model, "0", "ow")
    assert model[0] is layer
    handle.remove()
    treated = oc.treat(model, "0", "nog+ow")
    handle = hook(model[0])
    with pytest.raises(UserError, match=f"^remove {lost.format('SkewOrthogonalConv2d')}"):
        treated.remove()
    assert model[0] is treated.layer and treated.treatments == ("nog", "ow")
    handle.remove()
    assert treated.remove() is model[0]


def test_torchs_default_dtype_does_not_change_the_start_of_ow() -> None:
    def start() -> Tensor:
        torch.manual_seed(0)
        layer = nn.Conv2d(3, 4, 3, padding=1, dtype=torch.float32)
        return oc.treat(nn.Sequential(layer), "0", "ow").parameter.detach()

    expected = start()
    for dtype in (torch.float64, torch.bfloat16):
        torch.set_default_dtype(dtype)
        try:
            assert torch.equal(start(), expected)
        finally:
            torch.set_default_dtype(torch.float32)


def test_ow_keeps_a_frozen_bias() -> None:
    for dtype in (torch.float64, torch.bfloat16):
        model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, dtype=dtype))
        bias = model[0].bias.requires_grad_(False).clone()
        treated = oc.treat(model, "0", "ow")
        assert not treated.layer.bias.requires_grad and torch.equal(treated.layer.bias, bias)
        plain = treated.remove()
        assert not plain.bias.requires_grad and torch.equal(plain.bias, bias)
        assert plain.weight.requires_grad
