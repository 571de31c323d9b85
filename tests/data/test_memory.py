from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from orthocond.data import InMemoryData, load_data
from orthocond.data.memory import CALIBRATE, ORDER, augment
from orthocond.data.protocol import generator


@pytest.fixture(scope="module")
def data() -> InMemoryData:
    return load_data("leaves", size=16, train_images=50, test_images=23, classes=4)


@pytest.mark.parametrize("padding", [0, 2, 4])
def test_augmenting_a_batch_equals_torchvision_on_each_image(padding):
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (40, 3, 16, 16), dtype=torch.uint8, generator=draw)
    offsets = torch.randint(2 * padding + 1, (40, 2), generator=draw)
    flips = torch.rand(40, generator=draw) < 0.5
    expected = []
    for image, (top, left), flip in zip(images, offsets.tolist(), flips, strict=True):
        crop = F.crop(F.pad(image, [padding]), top, left, 16, 16)
        expected.append(F.horizontal_flip(crop) if flip else crop)
    assert torch.equal(augment(images, offsets, flips, padding), torch.stack(expected))


def test_pixels_are_normalized_by_the_training_images(data):
    pixels = data.train.images.double()
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3), correction=0)
    (images, labels), *_ = data.eval_batches(batch_size=5)
    expected = F.normalize(data.evaluation.images[:5].double(), mean.tolist(), std.tolist())
    torch.testing.assert_close(images.double(), expected, rtol=0, atol=1e-5)  # float32 of (-3, 3)
    assert torch.equal(labels, data.evaluation.labels[:5])


def test_every_evaluation_image_is_seen_once_in_order(data):
    batches = list(data.eval_batches(batch_size=10))
    assert [len(labels) for _, labels in batches] == [10, 10, 3]
    assert torch.equal(torch.cat([labels for _, labels in batches]), data.evaluation.labels)


def batches_of(data, kind, rank=0, world=1, **more):
    if kind == "train":
        return list(data.train_batches(1, 7, 12, rank, world, **more))
    if kind == "eval":
        return list(data.eval_batches(12, rank, world))
    return list(data.calibration_batches(7, 12, 3, rank, world))


def test_the_training_images_are_evaluated_without_augmentation(data):
    batches = list(data.eval_batches(batch_size=10, training=True))
    mean, std = data.statistics
    pixels = (torch.cat([images for images, _ in batches]) * std + mean).round()
    assert torch.equal(pixels, data.train.images.float())
    assert torch.equal(torch.cat([labels for _, labels in batches]), data.train.labels)


@pytest.mark.parametrize("kind", ["train", "eval", "calibration"])
@pytest.mark.parametrize("world", [2, 5])
def test_the_shares_of_all_processes_make_up_the_batch_of_one(data, kind, world):
    shares = [batches_of(data, kind, rank, world) for rank in range(world)]
    for whole, *parts in zip(batches_of(data, kind), *shares, strict=True):
        for i in (0, 1):
            assert torch.equal(torch.cat([part[i] for part in parts]), whole[i])


@pytest.mark.parametrize("first", [1, 3, 4])
def test_an_epoch_goes_on_from_any_step_with_the_same_batches(data, first):
    whole, rest = batches_of(data, "train"), batches_of(data, "train", first_step=first)
    assert len(whole) == data.steps_per_epoch(12) == 4 and len(rest) == 4 - first
    for a, b in zip(whole[first:], rest, strict=True):
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_an_epoch_has_every_image_once_and_another_order_than_the_next(data):
    plain = InMemoryData.of("plain", "ab", data.train, data.evaluation)
    labelled = plain.train.labels.copy_(torch.arange(50))  # labels are positions
    try:
        orders = [
            torch.cat([labels for _, labels in plain.train_batches(epoch, seed, 10)]).tolist()
            for epoch, seed in ((0, 0), (1, 0), (0, 1))
        ]
    finally:
        labelled.copy_(torch.arange(50) % 4)
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len(set(map(tuple, orders))) == 3


def test_the_calibration_order_has_a_stream_of_its_own(data):
    """Check that the order does not use the random numbers that crop the first batch."""
    order, crops = generator(7, ORDER), generator(7, CALIBRATE, 0)
    assert torch.rand(64, generator=order).eq(torch.rand(64, generator=crops)).sum() == 0
    shared = generator(7, CALIBRATE), generator(7, CALIBRATE, 0)
    assert torch.equal(*(torch.rand(64, generator=stream) for stream in shared))  # as in format 1


def test_the_shared_stream_of_format_1_is_still_available(data):
    images, labels = next(data.calibration_batches(7, 12, 1, shared_stream=True))
    order = torch.randperm(len(data.train), generator=generator(7, CALIBRATE))
    assert torch.equal(labels, data.train.labels[order[:12]])
    assert not torch.equal(images, next(data.calibration_batches(7, 12, 1))[0])
