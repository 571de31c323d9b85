"""Torchvision's models by name, and files of weights that are never run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from orthocond.errors import UserError
from orthocond.zoo import read_weights, torchvision_model


class Runs:
    """What it unpickles to makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return torchvision_model("squeezenet1_1").state_dict()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_are_those_of_the_file(tmp_path, state, suffix):
    path = tmp_path / f"weights{suffix}"
    state = {name: tensor + 1 for name, tensor in state.items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    model = torchvision_model("squeezenet1_1", path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_the_classifier_of_the_file_decides_the_classes(tmp_path, state):
    state = {n: t[:7] if n.startswith("classifier") else t for n, t in state.items()}
    save_file({n: t.contiguous() for n, t in state.items()}, tmp_path / "seven.safetensors")
    model = torchvision_model("squeezenet1_1", tmp_path / "seven.safetensors")
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_random_weights_are_the_same_every_time():
    a, b = (torchvision_model("squeezenet1_1").state_dict() for _ in range(2))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))]
)
def test_a_pickle_is_refused_and_not_run(tmp_path, save, recwarn):
    path, made = tmp_path / "weights.pt", tmp_path / "made"
    save({"a": torch.zeros(1), "b": Runs(made)}, path)
    with pytest.raises(UserError, match=r"weights.pt' is a pickle of more than tensors.*not run"):
        read_weights(path)
    assert not made.exists() and not recwarn


def test_a_whole_model_is_refused(tmp_path):
    torch.save(torch.nn.Linear(1, 1), tmp_path / "model.pt")
    with pytest.raises(UserError, match="is a pickle of more than tensors"):
        read_weights(tmp_path / "model.pt")


@pytest.mark.parametrize("name", ["missing.pt", "missing.safetensors"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(UserError, match=f"cannot read the weights '.*{name}': No such file"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("name", ["cut.pt", "cut.safetensors"])
@pytest.mark.parametrize("keep", [0, 5, 100, 2000])
def test_a_damaged_file_is_one_line(tmp_path, name, keep):
    path = tmp_path / name
    value = {"a": torch.zeros(1000)}
    save_file(value, path) if name.endswith("s") else torch.save(value, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError) as error:
        read_weights(path)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_other_contents_and_other_networks_are_named(tmp_path, state):
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"no state dict \(keys epoch, state_dict\): save names"):
        read_weights(tmp_path / "a.pt")
    torch.save([1, 2], tmp_path / "b.pt")
    with pytest.raises(UserError, match=r"no state dict \(list\)"):
        read_weights(tmp_path / "b.pt")
    torch.save(state, tmp_path / "c.pt")
    with pytest.raises(UserError, match=r"are not of resnet18: Missing key\(s\)") as error:
        torchvision_model("resnet18", tmp_path / "c.pt")
    assert "\n" not in str(error.value)


def test_an_unknown_model_gets_the_nearest_one():
    with pytest.raises(UserError, match=r"unknown model 'resnet19'.*; did you mean 'resnet1"):
        torchvision_model("resnet19")
