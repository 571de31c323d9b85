"""The probe on other people's networks, with channels at dimension 1 here and last there."""

from __future__ import annotations

import pytest
import torch
import torchvision
from probed import check
from torch import Tensor, nn

import orthocond as oc
from orthocond.errors import UserError


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def convnext() -> nn.Module:
    """A ConvNeXt of one block a stage, with few channels: the layers are those of convnext_tiny."""
    torch.manual_seed(0)
    blocks = [torchvision.models.convnext.CNBlockConfig(*n, 1) for n in ((12, 24), (24, None))]
    return torchvision.models.ConvNeXt(blocks)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("layer", "axis", "channels"),
    [
        ("features.0.1", 1, 12),  # LayerNorm2d, a subclass of nn.LayerNorm
        ("features.0.0", 1, 12),
        ("features.1.0.block.0", 1, 12),  # depthwise
        ("features.1.0.block.2", -1, 12),  # nn.LayerNorm after a permutation
        ("features.1.0.block.3", -1, 48),
        ("features.2.0", 1, 12),
        ("avgpool", 1, 24),
    ],
)
def test_convnext(convnext, images, layer, axis, channels, memory_format):
    model = convnext.to(memory_format=memory_format)
    images = images[:, :, :32, :32].to(memory_format=memory_format)
    check(model, layer, images, axis)
    with oc.ConditioningProbe(model, layer, side="output") as probe, torch.no_grad():
        model(images)
    assert probe.records[0].median.dimension == channels


@pytest.mark.parametrize(
    ("layer", "axis"),
    [
        ("features.0.0", 1),
        ("features.0.2", -1),
        ("features.1.0.norm1", -1),
        ("features.1.0.mlp.0", -1),
        ("features.2.reduction", -1),
        ("features.2.norm", -1),
        ("norm", -1),
    ],
)
def test_swin_has_its_channels_last(images, layer, axis):
    torch.manual_seed(0)
    model = torchvision.models.SwinTransformer([4, 4], 24, [1, 1], [2, 2], [4, 4], num_classes=5)
    check(model, layer, images, axis)


@pytest.mark.parametrize(
    ("layer", "axis"),
    [
        ("conv_proj", 1),
        ("encoder.layers.encoder_layer_0.ln_1", -1),
        ("encoder.layers.encoder_layer_0.mlp.0", -1),
        ("encoder.ln", -1),
        ("heads.head", -1),
    ],
)
def test_a_vision_transformer(images, layer, axis):
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(64, 16, 1, 2, 24, 40, num_classes=5)
    if layer == "heads.head":
        nn.init.normal_(model.heads.head.weight)  # zero at first
    check(model, layer, images, axis)


def test_an_attention_block_needs_channel_dim(images):
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(64, 16, 1, 2, 24, 40, num_classes=5)
    for name in ("encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_0.mlp"):
        with pytest.raises(UserError, match="does not tell where its channels are"):
            oc.ConditioningProbe(model, name)
        check(model, name, images, -1, channel_dim=-1)
    attention = "encoder.layers.encoder_layer_0.self_attention"
    with pytest.raises(UserError, match="the type MultiheadAttention does not tell"):
        oc.ConditioningProbe(model, attention)


@pytest.mark.parametrize(
    ("layer", "axis", "conv_mlp"),
    [
        ("stem.1", 1, True),
        ("stages.0.blocks.0.norm", 1, True),
        ("stages.0.blocks.0.norm", -1, False),
    ],
)
def test_convnext_of_timm(images, layer, axis, conv_mlp):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("convnext_atto", num_classes=5, conv_mlp=conv_mlp)
    check(model, layer, images, axis)
