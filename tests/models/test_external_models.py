"""Tests of torchvision's and timm's models by name, and of files of weights that are not run."""

from __future__ import annotations

import os
import pickle
from importlib.util import find_spec
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import save_file

from orthocond.errors import UserError, is_out_of_memory
from orthocond.models.external_models import read_weights, torchvision_model, zoo_model


class Runs:
    """An object whose unpickling creates a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return torchvision_model("squeezenet1_1").state_dict()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_loaded_weights_equal_those_of_the_file(tmp_path, state, suffix):
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


def test_random_weights_leave_the_global_random_numbers_alone():
    before = torch.get_rng_state()
    zoo_model("squeezenet1_0")
    assert torch.equal(torch.get_rng_state(), before)


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


@pytest.mark.parametrize("text", ["hello", "table", "a,b\n1,2\n", "# Notes\n", "(", "t"])
def test_a_text_is_no_file_of_weights(tmp_path, text):
    path = tmp_path / "notes.pt"
    path.write_text(text)
    with pytest.raises(UserError, match=r"notes.pt' .*not a file of weights") as error:
        read_weights(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("form", ["zip", "before torch 1.6", "safetensors"])
def test_changed_bytes_are_at_most_one_line(tmp_path, form):
    """Change or cut a file at random: it is read, or refused in one line."""
    value = {"a": torch.ones(4, 4), "b": torch.zeros(3)}
    path = tmp_path / f"weights.{'safetensors' if form == 'safetensors' else 'pt'}"
    if form == "safetensors":
        save_file(value, path)
    else:
        torch.save(value, path, _use_new_zipfile_serialization=form == "zip")
    whole, random = path.read_bytes(), Random(0)
    refused = 0
    for i in range(150):
        content = bytearray(whole[: random.randrange(len(whole))] if i % 3 == 0 else whole)
        for _ in range(random.randrange(3) if content else 0):
            content[random.randrange(len(content))] = random.randrange(256)
        path.write_bytes(content)
        try:
            read_weights(path)
        except UserError as error:
            assert path.name in str(error) and "\n" not in str(error)
            refused += 1
        except Exception as error:
            assert is_out_of_memory(error)
    assert refused > 50


def test_other_contents_and_other_networks_are_named(tmp_path, state):
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"not a state dict \(keys epoch, state_dict\): save o"):
        read_weights(tmp_path / "a.pt")
    torch.save([1, 2], tmp_path / "b.pt")
    with pytest.raises(UserError, match=r"not a state dict \(list\)"):
        read_weights(tmp_path / "b.pt")
    torch.save(state, tmp_path / "c.pt")
    with pytest.raises(UserError, match=r"do not fit resnet18: Missing key\(s\)") as error:
        torchvision_model("resnet18", tmp_path / "c.pt")
    assert "\n" not in str(error.value)


def test_an_unknown_model_gets_the_nearest_one():
    with pytest.raises(UserError, match=r"unknown model 'resnet19'.*; did you mean 'resnet1"):
        torchvision_model("resnet19")


# timm

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")


@needs_timm
@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext.r160_in1k"])
def test_a_model_of_timm_has_random_weights_that_are_the_same_every_time(name):
    import timm

    a, b = (zoo_model(f"timm:{name}").state_dict() for _ in range(2))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert a.keys() == timm.create_model(name).state_dict().keys()


@needs_timm
@pytest.mark.parametrize(
    ("name", "heads", "size"),
    [
        ("test_resnet", ["fc"], 32),
        ("test_convnext", ["head.fc"], 32),
        ("test_efficientnet", ["classifier"], 32),
        ("deit_tiny_distilled_patch16_224", ["head", "head_dist"], 224),
    ],
)
def test_weights_of_timm_are_those_of_the_file_and_decide_the_classes(tmp_path, name, heads, size):
    import timm

    state = timm.create_model(name, num_classes=7).state_dict()
    assert all(len(state[f"{head}.weight"]) == 7 for head in heads)
    save_file(state, tmp_path / "seven.safetensors")
    model = zoo_model(f"timm:{name}", tmp_path / "seven.safetensors").eval()
    assert all(torch.equal(model.state_dict()[key], state[key]) for key in state)
    with torch.no_grad():
        assert model(torch.zeros(1, 3, size, size)).shape == (1, 7)


@needs_timm
def test_a_network_of_timm_without_a_classifier_takes_its_weights(tmp_path):
    import timm

    name = "vit_small_patch16_dinov3"
    state = timm.create_model(name).state_dict()
    torch.save(state, tmp_path / "weights.pt")
    assert zoo_model(f"timm:{name}", tmp_path / "weights.pt").state_dict().keys() == state.keys()


@needs_timm
def test_weights_of_another_network_than_that_of_timm_are_named(tmp_path, state):
    torch.save(state, tmp_path / "c.pt")
    with pytest.raises(UserError, match=r"do not fit timm:test_resnet: Missing key\(s\)") as error:
        zoo_model("timm:test_resnet", tmp_path / "c.pt")
    assert "\n" not in str(error.value)


@needs_timm
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet19", "unknown model 'timm:resnet19': .*; did you mean 'timm:resnet1"),
        ("resnet18.a1_in1", "did you mean 'timm:resnet18.a1_in1k'"),
        ("", "unknown model 'timm:'"),
        ("hf-hub:timm/resnet18.a1_in1k", "unknown model 'timm:hf-hub:timm/resnet18.a1_in1k'"),
        ("local-dir:/tmp", "unknown model"),
    ],
)
def test_an_unknown_model_of_timm_gets_the_nearest_one_and_no_download(name, words):
    with pytest.raises(UserError, match=words):
        zoo_model(f"timm:{name}")


def test_without_timm_the_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("orthocond.models.external_models.find_spec", lambda name: None)
    with pytest.raises(UserError, match="the package timm is missing: pip install timm"):
        zoo_model("timm:resnet18")


def test_the_nearest_name_is_torchvisions_where_timm_is_not_asked_for():
    with pytest.raises(UserError, match="timm:NAME for a model of timm; did you mean 'convnext_"):
        zoo_model("convnext_atto")


# Memory


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_file_too_large_for_memory_is_not_reported_as_damaged(tmp_path, state, error):
    path = tmp_path / "weights.pt"
    torch.save(state, path)

    def load(*_: object, **__: object) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", load)
        with pytest.raises(type(error)) as raised:
            read_weights(path)
    assert raised.value is error
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Module, "load_state_dict", load)
        with pytest.raises(type(error)):
            torchvision_model("squeezenet1_1", path)
