from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthocond.config.schema import Config, checked, parse_seeds
from orthocond.config.sources import presets, read_preset, resolve
from orthocond.errors import UserError


@pytest.mark.parametrize("name", presets())
def test_every_preset_resolves(name: str) -> None:
    assert list(resolve(name))


def test_later_layers_override_earlier_ones(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("epochs = 5\nbatch_size = 64\n[data]\ntrain_images = 640\n")
    grid = resolve("quick", file, {"batch_size": 32, "data": {"name": "cifar10"}}, ["epochs=7"])
    config = grid.config
    assert (config.epochs, config.batch_size) == (7, 32)
    assert (config.data.name, config.data.train_images) == ("cifar10", 640)
    assert config.data.test_images == read_preset("quick")["data"]["test_images"]


def test_methods_are_canonical_and_listed_once() -> None:
    grid = resolve(flags={"methods": ["olr+nog", "svd+nog+olr", "bn"], "seeds": "1"})
    assert [config.method for config in grid] == ["svd+nog+olr", "bn"]


def test_the_paper_presets_have_the_settings_of_the_paper() -> None:
    for name in ("paper-dbn-cifar10", "paper-dbn-cifar100"):
        grid = resolve(name)
        config = grid.config
        assert (config.model, config.epochs, config.batch_size) == ("resnet50", 350, 128)
        assert (config.lr, config.momentum, config.weight_decay) == (0.1, 0.9, 5e-4)
        assert (config.lr_milestones, config.lr_decay) == ((100, 200, 300), 0.1)
        assert len(list(grid)) == 14 * 10
    config = resolve("paper-gcp-imagenet").config
    assert (config.model, config.epochs, config.batch_size) == ("resnet18", 60, 256)
    assert (config.lr, config.weight_decay, config.lr_milestones) == (0.1, 1e-4, (30, 45))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["epoch=3"], "unknown setting 'epoch'"),
        (["data.trainimages=3"], "did you mean 'data.train_images'"),
        (["epochs=0"], "epochs: Input should be greater than or equal to 1, got 0"),
        (["epochs=many"], "epochs: Input should be a valid integer"),
        (["lr=nan"], "lr: "),
        (["lr=1e300"], "lr: Input should be a number that float32 can hold, at most 3.4e+38, got"),
        (["weight_decay=inf"], "weight_decay: Input should be "),
        (["lr=true"], "lr: Input should be a number, not a boolean, got True"),
        (["epochs=true"], "epochs: Input should be a number, not a boolean, got True"),
        (["data.holdout=false"], "data.holdout: Input should be a number, not a boolean"),
        (["lr_milestones=[true]"], "lr_milestones.0: Input should be a number, not a boolean"),
        (["precision=half"], "precision: Input should be 'float64'"),
        (["epochs"], "expected key=value"),
        (["config.lr=1"], "unknown setting 'config'"),
        (["method=nog"], "use --method"),
        (["lr_milestones=[3, 2]"], "do not increase"),
        (["lr_milestones=3"], "lr_milestones: Input should be a list in square brackets, got 3"),
        (["data=leaves"], "did you mean data.name?"),
        (["data=cifar10", "data.size=32"], "data is 'cifar10' in one place and a table of"),
        (["data.size=32", "data=cifar10"], "{'size': 32}, in another; did you mean data.name?"),
        (["data.size.x=1", "data.size=32"], "data.size is 32 in one place and a table of"),
        (["task=gcp", "epochs.x=1"], "epochs: "),
        (["running=roots"], "running: Input should be 'covariance' or 'root'"),
        (["task=gcp", "running=root"], "running 'root' is for task 'dbn': 'gcp' keeps no moving"),
        (["task=gcp", "eps=0.1"], "eps 0.1 is for task 'dbn': the meta-layer of 'gcp' has no eps"),
        (
            ["task=gcp", "groups=2"],
            "groups 2 is for task 'dbn': the meta-layer of 'gcp' has no groups",
        ),
    ],
)
def test_a_bad_setting_is_refused_in_one_line(settings: list[str], words: str) -> None:
    with pytest.raises(UserError) as error:
        resolve(settings=settings)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_names_are_refused_with_the_nearest_known_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown preset 'quik'.*did you mean 'quick'"):
        resolve("quik")
    with pytest.raises(UserError, match="did you mean 'nog'"):
        resolve(flags={"methods": ["nogg"]})
    with pytest.raises(UserError, match="does not exist for task"):
        resolve(flags={"methods": ["bn"], "task": "gcp"})
    (tmp_path / "broken.toml").write_text("epochs = [")
    with pytest.raises(UserError, match="is not valid TOML"):
        resolve(file=tmp_path / "broken.toml")
    with pytest.raises(UserError, match="cannot read"):
        resolve(file=tmp_path / "missing.toml")


def test_a_value_in_place_of_a_table_is_not_lost_to_a_later_source(tmp_path: Path) -> None:
    """Refuse the file: its data set was dropped without a word, and leaves were trained."""
    file = tmp_path / "mine.toml"
    for text in ('data = "cifar10"', '[[data]]\nname = "cifar10"'):
        file.write_text(text)
        with pytest.raises(UserError, match=r"^data is .*cifar10.* in another; did you mean data"):
            resolve(file=file, settings=["data.train_images=128"])


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("epochs = 5\n", encoding="utf-8-sig")
    assert resolve(file=file).config.epochs == 5


@pytest.mark.parametrize("text", ['method = "bn"', "seed = 3"])
def test_a_file_has_no_method_and_no_seed_of_one_run(tmp_path: Path, text: str) -> None:
    file = tmp_path / "one.toml"
    file.write_text(text)
    key = text.split()[0]
    with pytest.raises(
        UserError, match=rf"^setting '{key}' belongs to one run: use {key}s, such as"
    ):
        resolve(file=file)
    with pytest.raises(UserError, match="unknown setting 'epoch': allowed are ") as error:
        resolve(settings=["epoch=3"])
    assert f" {key}," not in str(error.value)


def test_a_grid_without_methods_is_refused() -> None:
    with pytest.raises(UserError, match=r"^methods: at least one method is needed, such as svd"):
        resolve(flags={"methods": []})


def test_numbers_are_taken_as_before() -> None:
    config = resolve(
        settings=["lr=1", "epochs=3.0", "data.size=32", "lr_milestones=[1, 2.5]"]
    ).config
    assert (config.lr, config.epochs, config.data.size) == (1.0, 3, 32)
    assert [type(config.lr), type(config.epochs)] == [float, int]
    assert config.lr_milestones == (1.0, 2.5) and config.data.classes is None


def test_an_absurdly_nested_file_is_refused(tmp_path: Path) -> None:
    deep = tmp_path / "deep.toml"
    deep.write_text("a = " + "[" * 100_000 + "]" * 100_000)
    with pytest.raises(UserError):
        resolve(file=deep)
    deep.write_bytes(b"#" * (2 << 20))
    with pytest.raises(UserError, match="larger than"):
        resolve(file=deep)


@pytest.mark.parametrize("text", ["", "x", "3-1", "-1", "0-100000", "1,,2", "²"])
def test_bad_seeds_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="seeds"):
        parse_seeds(text)


@given(st.lists(st.integers(0, 999), min_size=1, max_size=5, unique=True))
@settings(max_examples=20, deadline=None)
def test_written_seeds_are_parsed_to_the_same_seeds(seeds: list[int]) -> None:
    assert parse_seeds(",".join(map(str, seeds))) == seeds


def test_a_configuration_is_frozen_and_round_trips() -> None:
    config = Config(epochs=3)
    assert checked(Config, config.model_dump(mode="json")) == config
    with pytest.raises(ValueError, match="frozen"):
        config.epochs = 4  # type: ignore[misc]
