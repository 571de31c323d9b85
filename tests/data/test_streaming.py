from __future__ import annotations

import os
import signal

import pytest
import torch
from image_tree import write_image, write_tree
from PIL import Image
from torchvision.transforms import v2

from orthocond.data import load_data, streaming
from orthocond.data.streaming import MEAN, STD, WorkerLost

SIZE = 14  # side of the crop from images of 16 x 16 pixels


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("tree") / "images", count=4)


@pytest.fixture(scope="module")
def data(tree):
    return load_data(f"imagenet:{tree}", size=SIZE)


def test_evaluation_sees_the_middle_of_what_the_folder_path_reads(tree, data):
    """Use images of the size before the crop, so that neither of the two paths scales them."""
    folder = load_data(f"folder:{tree}")
    streamed = torch.cat([images for images, _ in data.eval_batches(3)])
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    pixels = (streamed * std + mean) * 255
    expected = folder.evaluation.images[:, :, 1:-1, 1:-1].float()
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-3)  # 255 eps, some operations
    labels = torch.cat([labels for _, labels in data.eval_batches(3)])
    assert torch.equal(labels, folder.evaluation.labels)


def test_evaluation_sees_what_torchvisions_transforms_make(tree):
    """Use a size that needs scaling: by 256/224, and then the middle crop."""
    data = load_data(f"imagenet:{tree}", size=28)
    transform = v2.Compose(
        [
            v2.Resize([32, 32]),
            v2.CenterCrop(28),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    images = torch.cat([images for images, _ in data.eval_batches(4)])
    paths = [path for path, _ in data.evaluation]
    expected = torch.stack([transform(Image.open(path)) for path in paths])
    assert torch.equal(images, expected)


def test_training_crops_are_windows_of_the_training_images(tree, data):
    folder = load_data(f"folder:{tree}")
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    windows = {}
    for image, label in zip(folder.train.images, folder.train.labels.tolist(), strict=True):
        for top in range(3):
            for left in range(3):
                crop = image[:, top : top + SIZE, left : left + SIZE]
                windows[crop.numpy().tobytes()] = windows[crop.flip(2).numpy().tobytes()] = label
    seen = 0
    for images, labels in data.train_batches(0, 0, 4):
        pixels = ((images * std + mean) * 255).round().to(torch.uint8)
        for crop, label in zip(pixels, labels.tolist(), strict=True):
            assert windows[crop.contiguous().numpy().tobytes()] == label
            seen += 1
    assert seen == 8


def test_shares_and_resumed_epochs_see_the_same_images(data):
    whole = list(data.train_batches(1, 3, 4))
    shares = [list(data.train_batches(1, 3, 4, rank, 2)) for rank in range(2)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert torch.equal(torch.cat([images for images, _ in parts]), batch[0])
    (resumed,) = data.train_batches(1, 3, 4, first_step=1)
    assert torch.equal(resumed[0], whole[1][0]) and torch.equal(resumed[1], whole[1][1])
    assert not torch.equal(whole[0][0], next(data.train_batches(2, 3, 4))[0])


def test_more_processes_than_images_in_the_last_batch_take_the_same_number_of_steps(tree):
    """Use 9 images in batches of 4: the last batch has an image for one of two processes."""
    write_image(tree.parent / "odd" / "val" / "a" / "8.png")
    odd = write_tree(tree.parent / "odd", count=4)
    streamed, folder = (load_data(f"{kind}:{odd}", size=SIZE) for kind in ("imagenet", "folder"))
    for rank, lengths in enumerate([[2, 2, 1], [2, 2, 0]]):
        batches = list(streamed.eval_batches(4, rank, 2))
        assert [len(labels) for _, labels in batches] == lengths
        for ours, expected in zip(batches, folder.eval_batches(4, rank, 2), strict=True):
            assert [(t.shape, t.dtype) for t in ours] == [(t.shape, t.dtype) for t in expected]


def test_calibration_sees_training_images_in_an_order_of_its_own(data):
    batches = list(data.calibration_batches(0, 3, 2))
    assert [len(labels) for _, labels in batches] == [3, 3]


def test_the_fingerprint_knows_names_and_sizes(tree, data, tmp_path):
    assert load_data(f"imagenet:{tree}", size=SIZE).fingerprint == data.fingerprint
    assert load_data(f"imagenet:{tree}", train_images=4).fingerprint != data.fingerprint


def test_names_need_not_be_utf_8(tmp_path):
    root = write_tree(tmp_path / "images", count=4)
    named = root / "train" / "a" / os.fsdecode(b"caf\xe9.png")
    try:
        (root / "train" / "a" / "0.png").rename(named)
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    data = load_data(f"imagenet:{root}", size=SIZE)
    assert named in dict(data.train) and len(data.fingerprint) == 64


def test_a_worker_that_is_killed_is_reported_in_one_line(data, monkeypatch):
    monkeypatch.setattr(streaming, "open_image", lambda _: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(
        WorkerLost, match=r"^a process that reads the images ended: .*(killed|exited)"
    ) as e:
        list(data.eval_batches(4))
    assert "\n" not in str(e.value)
