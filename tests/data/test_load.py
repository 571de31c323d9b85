from __future__ import annotations

from pathlib import Path

import pytest
import torch
from image_tree import write_tree

from orthocond.data import load_data
from orthocond.data.load import balanced, split_holdout
from orthocond.errors import UserError


def rows(images):
    return {row.numpy().tobytes() for row in images.flatten(1)}


@pytest.mark.parametrize("name", ["leaves", "folder"])
def test_held_out_images_are_training_images_that_are_not_trained_on(tmp_path, name):
    if name == "folder":
        name = f"folder:{write_tree(tmp_path / 'images', count=10)}"
    whole = load_data(name, size=16, classes=2, **small(name))
    split = load_data(name, size=16, classes=2, holdout=0.25, **small(name))
    train, held = rows(split.train.images), rows(split.evaluation.images)
    assert len(train) == 15 and len(held) == 5 and not train & held
    assert train | held == rows(whole.train.images)
    assert split.fingerprint != whole.fingerprint


@pytest.mark.parametrize("name", ["leaves", "folder"])
def test_as_many_held_out_images_are_kept_as_test_images_says(tmp_path, name):
    if name == "folder":
        name = f"folder:{write_tree(tmp_path / 'images', count=10)}"
    counts = {"train_images": 20} if name == "leaves" else {}
    every = load_data(name, size=16, classes=2, holdout=0.5, **counts)
    some = load_data(name, size=16, classes=2, holdout=0.5, test_images=4, **counts)
    assert len(rows(every.evaluation.images)) == 10
    assert some.evaluation.labels.bincount().tolist() == [2, 2]
    assert rows(some.evaluation.images) < rows(every.evaluation.images)
    assert rows(some.train.images) == rows(every.train.images)


def small(name):
    return {"train_images": 20, "test_images": 10} if name == "leaves" else {}


@pytest.mark.parametrize(
    ("sizes", "holdout", "held"),
    [
        ((40, 40, 20), 0.2, [8, 8, 4]),
        ((100, 10), 0.2, [20, 2]),
        ((100, 10), 0.25, [25, 3]),
        ((5, 5, 5), 0.5, [2, 3, 3]),
        ((1000, 1), 0.999, [999, 1]),
    ],
)
def test_a_split_takes_its_share_of_every_class(sizes, holdout, held):
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    stay, found = split_holdout(labels, holdout)
    assert sorted(stay + found) == list(range(len(labels)))
    assert torch.tensor(labels)[found].bincount().tolist() == held
    for label, size in enumerate(sizes):  # the last ones
        own = [i for i, of in enumerate(labels) if of == label]
        assert [i for i in found if labels[i] == label] == own[size - held[label] :]


def test_nothing_is_held_out_without_a_fraction():
    assert split_holdout([0, 0, 1], 0.0) == ([0, 1, 2], [])


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
@pytest.mark.parametrize("holdout", [0.1, 0.25, 0.29, 1 / 3, 0.9])
@pytest.mark.parametrize("size", [5, 7, 10, 50])
def test_a_split_of_equal_classes_is_that_of_the_recorded_runs(classes, holdout, size):
    """Earlier versions took the samples that stay from the classes in turn."""
    for labels in (
        [label for label in range(classes) for _ in range(size)],
        [label for _ in range(size) for label in range(classes)],
    ):
        stay, held = split_holdout(labels, holdout)
        assert stay == balanced(labels, len(labels) - round(holdout * len(labels)))
        assert held == sorted(set(range(len(labels))) - set(stay))


@pytest.mark.parametrize("name", ["leaves", "folder", "imagenet"])
def test_a_holdout_of_all_images_is_refused(tmp_path, name):
    if name != "leaves":
        name = f"{name}:{write_tree(tmp_path / 'images', count=4)}"
    with pytest.raises(UserError, match=r"^data.holdout 0.99 of .* leaves none to train on: lower"):
        load_data(name, size=16, holdout=0.99, **({"train_images": 8} if name == "leaves" else {}))


def test_a_holdout_of_no_image_is_refused():
    with pytest.raises(UserError, match=r"^data.holdout 0.01 of 20 training images is 0 images"):
        load_data("leaves", size=16, train_images=20, holdout=0.01)


def test_the_images_kept_are_of_all_classes():
    labels = torch.arange(300) // 100
    kept = torch.tensor(balanced(labels.tolist(), 31))
    assert labels[kept].bincount().tolist() == [11, 10, 10] and kept.tolist() == sorted(
        kept.tolist()
    )
    assert balanced([0, 1], None) == balanced([0, 1], 99) == [0, 1]


def test_a_folder_gives_as_many_images_as_asked_for(tmp_path):
    name = f"folder:{write_tree(tmp_path, ('a', 'b', 'c'), count=5)}"
    data = load_data(name, classes=2, train_images=4, test_images=3)
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    assert data.evaluation.labels.tolist() == [0, 0, 1] and list(data.classes) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("leavs", r"unknown data set 'leavs': allowed are leaves, .*; did you mean 'leaves'\?"),
        ("cifar-10", r"unknown data set 'cifar-10': .*; did you mean 'cifar10'\?"),
        ("fashion_mnist", r"; did you mean 'fashion-mnist'\?"),
        ("", r"unknown data set '': allowed are leaves, "),
        ("leaves:x", r"unknown data set 'leaves:x': .*did you mean 'leaves'"),
        ("folder", r"data set 'folder' needs a path: folder:PATH"),
        ("imagenet:", r"data set 'imagenet:' needs a path: imagenet:PATH"),
        ("folder:/absent/images", r"no such image folder: '/absent/images'"),
        ("folder:~no-such-user/x", r"^image folder '~no-such-user/x': Could not determine home"),
    ],
)
def test_an_unknown_data_set_is_refused_with_the_nearest_one(name, message):
    with pytest.raises(UserError, match=message) as error:
        load_data(name)
    assert "\n" not in str(error.value)


def test_more_classes_than_the_data_set_has_are_refused(tmp_path):
    root = write_tree(tmp_path / "images")
    for kind in ("folder", "imagenet"):
        with pytest.raises(UserError, match=r"images' has 2 classes, not 3$"):
            load_data(f"{kind}:{root}", classes=3)


def test_a_set_that_cannot_be_downloaded_names_what_to_use_instead(tmp_path, monkeypatch):
    from torchvision import datasets

    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(datasets, "CIFAR10", refuse)
    with pytest.raises(
        UserError, match=r"can't be downloaded \(no network\); use leaves or folder"
    ):
        load_data("cifar10")


def test_downloads_are_kept_in_the_cache_folder(tmp_path, monkeypatch):
    """Take an empty variable as unset, and ask for the home folder only where it is used."""
    from torchvision import datasets

    roots = []

    def refuse(root, **_):
        roots.append(root)
        raise OSError("no network")

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(datasets, "CIFAR10", refuse)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for cache in ("", str(tmp_path / "other")):
        monkeypatch.setenv("XDG_CACHE_HOME", cache)
        with pytest.raises(UserError, match="can't be downloaded"):
            load_data("cifar10")
        monkeypatch.setattr(Path, "home", no_home)
    assert roots == [tmp_path / ".cache" / "orthocond", tmp_path / "other" / "orthocond"]
    monkeypatch.delenv("XDG_CACHE_HOME")
    with pytest.raises(UserError, match=r"^cifar10 is kept in .*: set XDG_CACHE_HOME to a folder$"):
        load_data("cifar10")
