from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from study_factory import write_run, write_study

from orthocond.artifacts.manifests import CorruptRun
from orthocond.errors import UserError
from orthocond.report.commands import MissingRuns
from orthocond.report.study import Study


def test_a_study_is_a_folder_of_runs_or_a_folder_of_studies(studies: Path) -> None:
    assert len(Study(studies).runs) == 11 + 8
    assert len(Study(studies / "dbn-study").runs) == 11
    assert Study(studies).data_sets("gcp") == ["tiny-imagenet-100"]


def test_a_selection_holds_the_runs_by_method_and_seed(study: Study) -> None:
    selection = study.select("dbn", ["ns", "svd", "svd+sn"])
    assert list(selection.runs) == ["ns", "svd"]
    assert [run.config["seed"] for run in selection.runs["svd"]] == [0, 1]
    assert selection.missing == ("svd+sn",)
    assert "--method sn --seeds 0-1" in selection.command
    assert selection.seeds == [0, 1]
    assert selection.note.startswith("dbn-study: cifar10-jpeg, small, seeds 0-1, commit 0123456,")


def test_a_diverged_run_is_counted_and_left_out(study: Study) -> None:
    selection = study.select("dbn", ["svd+nog"])
    assert [run.config["seed"] for run in selection.runs["svd+nog"]] == [0, 1]
    assert selection.diverged == {"svd+nog": 1}


def test_runs_that_diverged_do_not_hide_the_complete_runs_of_another_configuration(
    tmp_path: Path,
) -> None:
    write_study(tmp_path / "a", ("svd", "ns"), seeds=1)
    for seed in range(3):
        write_run(tmp_path / "a", "dbn", "svd+nog", seed, lr=9.0, status="diverged")
        write_run(tmp_path / "b", "dbn", "svd", seed, data="other", status="diverged")
    study = Study(tmp_path)
    assert study.data_sets("dbn") == ["cifar10-jpeg", "other"]
    selection = study.select("dbn")
    assert sorted(selection.runs) == ["ns", "svd"] and selection.set_aside == 3
    with pytest.raises(MissingRuns, match=r"every run of task 'dbn' .* diverged"):
        study.select("dbn", data="other")


def test_runs_of_another_configuration_are_set_aside(tmp_path: Path) -> None:
    write_study(tmp_path / "a", ("svd", "ns"), seeds=1)
    write_run(tmp_path / "a", "dbn", "bn", 0, lr=0.05)
    write_run(tmp_path / "b", "dbn", "svd", 0)  # a copy elsewhere is not a second seed
    selection = Study(tmp_path).select("dbn")
    assert sorted(selection.runs) == ["ns", "svd"] and selection.set_aside == 1
    assert len(selection.runs["svd"]) == 1 and Study(tmp_path).further == ["b"]


def _few(folder: Path, methods: tuple[str, ...] = ("svd", "svd+nog")) -> Path:
    return write_study(folder, methods, epochs=45, data={"train_images": 4992})


def test_studies_with_the_same_data_set_are_told_apart_by_folder(
    studies: Path, tmp_path: Path
) -> None:
    shutil.copytree(studies, tmp_path / "runs")
    alone = Study(tmp_path / "runs")
    before = alone.select("dbn")
    _few(tmp_path / "runs" / "few")
    both = Study(tmp_path / "runs")
    assert both.names("dbn") == ["dbn-study", "few"] and both.further == ["few"]
    after = both.select("dbn")
    assert after.note == before.note and after.title == before.title == "cifar10-jpeg"
    assert after.set_aside == before.set_aside == 0
    few = both.select("dbn", name="few")
    assert (few.study, few.title) == ("few", "few (cifar10-jpeg)")
    assert few.settings["data"]["train_images"] == 4992 and sorted(few.runs) == ["svd", "svd+nog"]
    assert Study(tmp_path / "runs", name="few").select("dbn").note == few.note
    assert both.only("few").names() == ["few"]
    with pytest.raises(UserError, match=r"unknown study 'few2': .*did you mean 'few'"):
        both.only("few2")


def test_the_further_studies_are_those_of_the_chosen_data_set(tmp_path: Path) -> None:
    for name, data in (("a", "x"), ("b", "x"), ("c", "y"), ("d", "y")):
        write_study(tmp_path / name, ("svd",), seeds=1 + (name in "ac"), data=data)
    assert Study(tmp_path).further == ["b", "d"]
    assert Study(tmp_path, "x").further == ["b"]


def test_the_control_of_a_study_is_taken_from_the_same_study(tmp_path: Path) -> None:
    write_study(tmp_path / "all", ("svd", "svd+ow"))
    _few(tmp_path / "few")
    wide = {"stem_kernel": 11, "epochs": 45, "data": {"train_images": 4992}}
    write_study(tmp_path / "few", ("svd",), **wide)
    study = Study(tmp_path)
    assert study.beside(study.select("dbn", name="all"), stem_kernel=11) is None
    control = study.beside(study.select("dbn", name="few"), stem_kernel=11)
    assert control is not None and control.study == "few"


def test_the_studies_of_a_flat_folder_are_named_by_data_and_regime(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    write_study(folder, ("svd", "svd+nog", "bn"))
    assert Study(folder).names() == ["mine"]
    write_run(folder, "gcp", "svd", 0, data="tiny")  # another task alone changes no name
    assert Study(folder).names() == ["mine"]
    write_run(folder, "dbn", "svd", 0, data="tiny")
    assert Study(folder).names("dbn") == ["mine/cifar10-jpeg", "mine/tiny"]
    write_run(folder, "dbn", "svd", 9, epochs=45, data={"train_images": 4992})
    study = Study(folder)
    few = "mine/cifar10-jpeg-4992-images-45-epochs"
    assert few in study.names("dbn") and "mine/tiny" in study.names("dbn")
    assert study.select("dbn", name=few).seeds == [9]
    assert study.select("dbn").set_aside == 1  # nothing of a folder is left out without a word


def test_a_selection_without_runs_names_the_command(study: Study, tmp_path: Path) -> None:
    with pytest.raises(MissingRuns, match=r"train --preset cifar-cpu .*cifar10-jpeg --out"):
        Study(tmp_path).select("dbn")
    with pytest.raises(MissingRuns, match=r"--task dbn --data folder:PATH/cifar10-jpeg .*stiefel"):
        study.select("dbn", ["svd+ow-stiefel"])


def test_a_study_can_be_limited_to_one_data_set(studies: Path) -> None:
    assert Study(studies, "tiny-imagenet-100").select("gcp").data == "tiny-imagenet-100"
    with pytest.raises(MissingRuns):
        Study(studies, "tiny-imagenet-100").select("dbn")
    with pytest.raises(UserError, match=r"unknown data set 'cifar10'.*did you mean 'cifar10-jpeg'"):
        Study(studies, "cifar10")


def test_a_missing_folder_is_reported_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder of runs '.*nowhere'"):
        Study(tmp_path / "nowhere")


def test_an_altered_run_is_refused_by_name(tmp_path: Path) -> None:
    run = write_run(tmp_path, "dbn", "svd", 0)
    table = run / "conditioning.csv"
    table.write_text(table.read_text().replace("train", "trian", 1))
    with pytest.raises(CorruptRun, match=r"svd-s0.*conditioning\.csv"):
        Study(tmp_path)


@pytest.mark.parametrize(("count", "words"), [(1, "1 run is .* finishes it"), (2, "2 runs are")])
def test_runs_that_are_not_complete_are_told(tmp_path: Path, count: int, words: str) -> None:
    for seed in range(count):
        (write_run(tmp_path / "a", "dbn", "svd", seed) / "manifest.json").unlink()
    study = Study(tmp_path)
    with pytest.raises(MissingRuns, match=f"no complete runs in .*: {words}") as error:
        study.select("dbn")
    assert "\n" not in str(error.value)
    write_run(tmp_path / "a", "dbn", "bn", 0)
    with pytest.raises(MissingRuns, match="orthocond train"):
        Study(tmp_path).select("gcp")
