from __future__ import annotations

import os
import pickle
import shutil

import pytest
import small_run
import torch
from safetensors.torch import save as to_safetensors

from orthocond.artifacts import checkpoints
from orthocond.artifacts.atomic_files import DiskError, canonical_json
from orthocond.artifacts.checkpoints import STATE, TENSORS, Checkpoint, folders, load, newest, save
from orthocond.artifacts.manifests import MANIFEST, Damage, seal

RUN, HASH = "run", "0" * 64


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(step, small_run.tensors(step), small_run.state(step), small_run.tables(step))


@pytest.fixture
def parent(tmp_path):
    save(tmp_path, checkpoint(2), RUN, HASH)
    return tmp_path


def damage(path, run=RUN, config=HASH):
    with pytest.raises(Damage) as caught:
        load(path, run, config)
    return caught.value


def test_a_checkpoint_is_loaded_bit_for_bit(parent):
    loaded, saved = newest(parent, RUN, HASH), checkpoint(2)
    assert loaded.step == 2
    assert loaded.tensors.keys() == saved.tensors.keys()
    for name, tensor in saved.tensors.items():
        assert loaded.tensors[name].dtype == tensor.dtype
        assert loaded.tensors[name].shape == tensor.shape
        assert loaded.tensors[name].numpy().tobytes() == tensor.numpy().tobytes()
    assert canonical_json(loaded.state) == canonical_json(saved.state)
    kappa = [row["kappa"] for row in loaded.tables["conditioning"]]
    assert kappa == pytest.approx([10 ** (s / 3) for s in range(2)], rel=1e-8)


def test_tensors_that_share_memory_or_are_not_contiguous_are_saved(tmp_path):
    a = torch.arange(6.0).reshape(2, 3)
    save(tmp_path, Checkpoint(1, {"a": a, "b": a.T, "c": a[:, 1].requires_grad_()}), RUN, HASH)
    loaded = newest(tmp_path, RUN).tensors
    assert torch.equal(loaded["b"], a.T) and torch.equal(loaded["c"], a[:, 1].detach())


def test_a_new_checkpoint_replaces_the_last_even_at_the_same_step(parent):
    for step, name in [(2, "2-2"), (2, "2"), (3, "3"), (1, "1"), (10, "10")]:
        save(parent, checkpoint(step), RUN, HASH)
        assert os.listdir(parent) == [name]
        assert newest(parent, RUN, HASH).step == step


def test_the_newest_checkpoint_has_the_highest_step_and_then_the_highest_copy(tmp_path):
    for name in ("9", "10", "10-2", "10-10", "x", "1.5", "-1", ".11.1.part", "11-"):
        (tmp_path / name).mkdir()
    assert [p.name for p in folders(tmp_path)] == ["10-10", "10-2", "10", "9"]
    assert folders(tmp_path / "absent") == []
    assert newest(tmp_path / "absent", RUN) is None


def test_a_damaged_newest_is_skipped_with_a_warning_and_removed_by_the_next_save(parent):
    shutil.copytree(parent / "2", parent / "7")
    with pytest.warns(UserWarning, match=r"run 'run': skipped .*checkpoint|7/manifest.json"):
        assert newest(parent, RUN, HASH).step == 2
    save(parent, checkpoint(3), RUN, HASH)
    assert os.listdir(parent) == ["3"]


def test_when_all_are_damaged_the_newest_is_named(parent):
    (parent / "2" / TENSORS).unlink()
    shutil.copytree(parent / "2", parent / "1")
    with pytest.raises(Damage, match=rf"{parent.name}/2/{TENSORS} is missing"):
        newest(parent, RUN, HASH)


def test_a_checkpoint_of_another_step_run_or_configuration_is_refused(parent):
    (parent / "2").rename(parent / "3")
    assert damage(parent / "3").file.endswith("3/manifest.json")
    (parent / "3").rename(parent / "2")
    assert "'run'" in damage(parent / "2", run="other").reason
    assert HASH in damage(parent / "2", config="1" * 64).reason
    load(parent / "2", RUN)


@pytest.mark.parametrize("name", [TENSORS, STATE, "metrics.csv", "conditioning.csv", MANIFEST])
def test_a_file_of_another_step_is_refused(parent, tmp_path_factory, name):
    other = tmp_path_factory.mktemp("other")
    save(other, checkpoint(4), RUN, HASH)
    shutil.copy(other / "4" / name, parent / "2" / name)
    assert damage(parent / "2").file == f"{parent.name}/2/{name}"


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle ran",))


@pytest.mark.parametrize("name", [TENSORS, STATE, "metrics.csv", MANIFEST])
def test_a_pickle_is_refused_without_running_even_under_a_manifest_that_fits(parent, name):
    folder = parent / "2"
    files = {f: (folder / f).read_bytes() for f in checkpoints.LIMITS}
    files[name] = pickle.dumps(Bomb())
    about = {"run": RUN, "checkpoint": "2", "step": 2, "config": HASH}
    if name != MANIFEST:
        (folder / MANIFEST).write_bytes(seal(about, files))
    (folder / name).write_bytes(files[name])
    assert damage(folder).file == f"{parent.name}/2/{name}"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        (1 << 62).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        b'\x40\0\0\0\0\0\0\0{"a":{"dtype":"F32","shape":[9999999999],"data_offsets":[0,4]}}',
        to_safetensors({"a": torch.zeros(3)})[:-1],
    ],
)
def test_tensors_larger_than_their_file_are_refused(parent, data):
    files = {f: (parent / "2" / f).read_bytes() for f in checkpoints.LIMITS} | {TENSORS: data}
    about = {"run": RUN, "checkpoint": "2", "step": 2, "config": HASH}
    (parent / "2" / TENSORS).write_bytes(data)
    (parent / "2" / MANIFEST).write_bytes(seal(about, files))
    assert damage(parent / "2").file.endswith(TENSORS)


def test_a_checkpoint_behind_a_link_is_refused_and_its_target_kept(parent, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (parent / "2").rename(outside / "2")
    (parent / "2").symlink_to(outside / "2")
    assert damage(parent / "2").reason == "is in a folder that is a link"
    save(parent, checkpoint(3), RUN, HASH)
    assert os.listdir(parent) == ["3"]
    assert len(os.listdir(outside / "2")) == len(checkpoints.LIMITS) + 1


def test_a_disk_that_gives_back_other_bytes_keeps_the_old_checkpoint(parent, monkeypatch):
    def flip(path, files):
        write(path, {**files, TENSORS: files[TENSORS][:-1] + b"\x55"})

    write = checkpoints.write_folder
    monkeypatch.setattr(checkpoints, "write_folder", flip)
    with pytest.raises(
        DiskError, match=r"^checkpoint '.*/3' does not read back as it .*: state.safetensors"
    ):
        save(parent, checkpoint(3), RUN, HASH)
    with pytest.warns(UserWarning, match="skipped a checkpoint"):
        assert newest(parent, RUN, HASH).step == 2
