from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import ttest_ind

from orthocond.data import load_data
from orthocond.data.leaves import CHUNK, CLASSES, make_leaves
from orthocond.errors import UserError


def test_an_image_depends_on_its_stream_and_its_position_only():
    few, many = make_leaves(5, 16, 4, stream=0), make_leaves(CHUNK + 9, 16, 4, stream=0)
    assert torch.equal(few.images, many.images[:5]) and torch.equal(few.labels, many.labels[:5])
    assert not torch.equal(few.images, make_leaves(5, 16, 4, stream=1).images)
    assert len(many.images.flatten(1).unique(dim=0)) == CHUNK + 9  # chunks differ


def test_leaves_have_their_own_random_stream():
    torch.manual_seed(0)
    first = make_leaves(3, 16, 2, stream=0)
    torch.manual_seed(1)
    assert torch.equal(make_leaves(3, 16, 2, stream=0).images, first.images)


@pytest.mark.parametrize(("size", "classes"), [(8, 2), (16, 10), (33, 3)])
def test_sizes_and_classes(size, classes):
    leaves = make_leaves(12, size, classes, stream=0)
    assert leaves.images.shape == (12, 3, size, size) and leaves.images.dtype == torch.uint8
    assert leaves.labels.tolist() == [i % classes for i in range(12)]


def test_classes_can_be_told_apart_by_their_images():
    """Check that fine images have more edges than coarse ones, and a hue raises its channel."""
    leaves = make_leaves(200, 32, 10, stream=0)
    names, images = [CLASSES[label] for label in leaves.labels], leaves.images.numpy() / 255
    edges = np.abs(np.diff(images)).mean((1, 2, 3))
    fine = np.array([name.startswith("fine") for name in names])
    assert ttest_ind(edges[fine], edges[~fine], alternative="greater").pvalue < 1e-6
    for channel, hue in enumerate(("red", "green", "blue")):
        tint = images[:, channel].mean((1, 2)) - images.mean((1, 2, 3))
        own = np.array([name.endswith(hue) for name in names])
        assert ttest_ind(tint[own], tint[~own], alternative="greater").pvalue < 1e-6


def test_training_and_evaluation_are_different_images():
    data = load_data("leaves", size=16, train_images=64, test_images=64)
    both = torch.cat([data.train.images, data.evaluation.images]).flatten(1)
    assert len(both.unique(dim=0)) == 128


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 7}, "data.size 7: leaves have from 8 to 256 pixels"),
        ({"size": 257}, "data.size 257: leaves have from 8 to 256 pixels"),
        ({"classes": 11}, "leaves has 10 classes, not 11"),
    ],
)
def test_unsupported_settings_of_leaves_are_refused(settings, message):
    with pytest.raises(UserError, match=f"^{message}$"):
        load_data("leaves", train_images=8, test_images=8, **settings)
