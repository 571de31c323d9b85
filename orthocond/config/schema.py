"""Configuration of a run and of a grid of runs: frozen and validated; unknown keys are refused.

A grid is resolved from the defaults, a preset (TOML in the package), a configuration file, flags
and ``key=value`` settings. Each of them overrides the ones before it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from orthocond.config.methods import Method
from orthocond.config.tasks import TASKS
from orthocond.errors import UserError, unknown

Positive = Annotated[int, Field(ge=1)]
Model = TypeVar("Model", bound=BaseModel)
Fraction = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]

MAX_FILE = 1 << 16  # bytes of a configuration file, far more than any real one has
MAX_DOTS = 100  # in a line of TOML: tomllib's memory grows with the square of a key's depth
MAX_SEEDS = 1000


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(_Strict):
    """Data of a run: which images, and how many of them."""

    name: str = "leaves"  # leaves, cifar10, cifar100, fashion-mnist, folder:PATH or imagenet:PATH
    size: Positive | None = None  # side of the square images in pixels; None: as in the data set
    classes: Annotated[int, Field(ge=2)] | None = None  # the first N of the sorted class names
    train_images: Positive | None = None
    test_images: Positive | None = None
    holdout: Fraction = 0.0  # fraction of the training set to evaluate on, instead of the test set


class Config(_Strict):
    """Settings of one run: all that can change its numbers, so no paths and no processes."""

    task: Literal["dbn", "gcp"] = "dbn"
    data: DataConfig = DataConfig()
    model: str = "small"
    stem_kernel: Literal[3, 11] = 3  # 11: the receptive field of the skew orthogonal convolution
    method: str = "svd"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    epochs: Positive = 2
    batch_size: Positive = 128  # images in one optimizer step, over all processes
    accumulate: Positive = 1  # micro-batches that each process splits its part of a batch into
    lr: Rate = 0.1
    warmup_epochs: Weight = 0.0  # in which the rate rises linearly from 0
    lr_milestones: tuple[Rate, ...] = ()  # epochs, may be fractions, at which the rate is lowered
    lr_decay: Annotated[float, Field(gt=0, le=1)] = 0.1  # factor of the rate at each milestone
    momentum: Fraction = 0.9
    weight_decay: Weight = 5e-4
    precision: Literal["float64", "float32", "bfloat16", "float16"] = "float32"
    channels_last: bool = False
    sync_batch_norm: bool = False  # nn.BatchNorm layers take statistics over all processes
    eps: Weight = 1e-2  # added to the covariance's diagonal (DBN)
    groups: Positive = 1
    backward: Literal["exact", "pade", "taylor", "raw"] = "exact"
    ol_weight: Weight = 1e-4  # weight of the orthogonal loss (eq. 12)
    olr_target: Literal["parameter", "weight"] = "parameter"
    probe_every: Positive = 10  # steps between two conditioning records
    eval_every: Positive = 1  # epochs between two evaluations; the last epoch always has one
    recalibration_batches: Positive = 20
    # Random stream for the order of the recalibration's images. own: a separate stream; shared: the
    # stream of the first batch's crops, as in runs of format 1 (orthocond.config.stored_settings).
    calibration_stream: Literal["own", "shared"] = "own"
    checkpoint_every: Positive = 200  # steps; a checkpoint is also written after each epoch

    @field_validator("method")
    @classmethod
    def _canonical(cls, method: str) -> str:
        return str(Method.parse(method))

    @model_validator(mode="after")
    def _fits(self) -> Config:
        task, solver = TASKS[self.task], Method.parse(self.method).solver
        if solver not in task.solvers:
            raise ValueError(
                f"method {solver!r} does not exist for task {task.name!r}: allowed are "
                f"{', '.join(task.solvers)} and sums of treatments; did you mean {task.baseline!r}?"
            )
        if list(self.lr_milestones) != sorted(set(self.lr_milestones)):
            raise ValueError(f"lr_milestones {list(self.lr_milestones)} do not increase")
        return self


class Grid(_Strict):
    """Runs of one configuration: each method with each seed."""

    methods: tuple[str, ...] = ("svd",)
    seeds: str = "0"
    config: Config = Config()

    def __iter__(self) -> Iterator[Config]:  # type: ignore[override]
        """Yield the configuration of each run: all methods with one seed, then with the next."""
        seen = dict.fromkeys(str(Method.parse(m)) for m in self.methods)
        for seed in parse_seeds(self.seeds):
            for method in seen:
                yield checked(Config, self.config.model_dump() | {"method": method, "seed": seed})


def checked(model: type[Model], settings: Mapping[str, Any]) -> Model:
    """Return settings as a model, or raise an error of one line that names the key.

    Raises:
        UserError: an unknown key, a wrong type or a value out of range; the first one is named.
    """
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        raise unknown("setting", key, _keys(model))
    reason = first["msg"].removeprefix("Value error, ")
    if not key:  # keys contradict each other: the reason names them
        raise UserError(reason)
    if first["type"] == "model_type":
        raise UserError(f"{key} is a table of settings: did you mean {key}.name?")
    raise UserError(f"{key}: {reason}, got {_short(first['input'])}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, field in model.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            keys += _keys(nested, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of a text such as '3', '0-4' or '0,2,5-7'.

    Raises:
        UserError: not a list of numbers and ranges, a range that runs backwards, a range of more
            than 1,000 seeds, or a seed of 2^31 or more.

    Example:
        >>> parse_seeds("0-2,7")
        [0, 1, 2, 7]
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", part, re.ASCII)
        if match is None:
            raise UserError(f"seeds {_short(text)}: expected numbers and ranges such as 0-4 or 0,3")
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            raise UserError(f"seeds {part.strip()!r} run backwards: write {last}-{first}")
        if last - first >= MAX_SEEDS or last >= 2**31:
            raise UserError(f"seeds {part.strip()!r}: at most {MAX_SEEDS} at once, below 2^31")
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))


def presets() -> list[str]:
    """Return the names of the configurations that ship with the package.

    Example:
        >>> "quick" in presets()
        True
    """
    folder = files("orthocond.config.presets")
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name[-5:] == ".toml")


def _parse_toml(text: str, origin: str) -> dict[str, Any]:
    if any(line.count(".") > MAX_DOTS for line in text.split("\n")):
        raise UserError(f"{origin} has a line with more than {MAX_DOTS} dots")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # wrong syntax, or a number with too many digits
        raise UserError(f"{origin} is not valid TOML: {error}") from None


def read_preset(name: str) -> dict[str, Any]:
    """Return the settings of a preset, as in its file.

    Raises:
        UserError: there is no such preset.
    """
    if name not in presets():
        raise unknown("preset", name, presets())
    return _parse_toml(
        (files("orthocond.config.presets") / f"{name}.toml").read_text(), f"preset {name}"
    )


def read_config_file(path: Path) -> dict[str, Any]:
    """Return the settings of a TOML file: keys of a Config, ``methods`` and ``seeds``.

    Raises:
        UserError: the file is missing, too large, not UTF-8 or not TOML.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the configuration file {str(path)!r}: {error}") from None
    if len(data) > MAX_FILE:
        raise UserError(f"the configuration file {str(path)!r} is larger than {MAX_FILE} bytes")
    return _parse_toml(text, f"configuration file {str(path)!r}")


def parse_setting(text: str) -> tuple[list[str], Any]:
    """Return the key path and the value of 'a.b=value'; a value that is not TOML is a string.

    Raises:
        UserError: there is no '=', there are too many dots, or there is more than one value.

    Example:
        >>> parse_setting("data.classes=20"), parse_setting("precision=bfloat16")
        ((['data', 'classes'], 20), (['precision'], 'bfloat16'))
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"setting {_short(text)}: expected key=value, such as epochs=3")
    if text.count(".") > MAX_DOTS:
        raise UserError(f"setting {_short(text)} has more than {MAX_DOTS} dots")
    path = key.strip().split(".")
    try:
        parsed = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):  # not TOML, or a number with too many digits
        return path, value
    if list(parsed) != ["value"]:
        raise UserError(f"setting {_short(text)}: expected one value on one line")
    return path, parsed["value"]


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, Mapping)
        merged[key] = _merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def resolve(
    preset: str | None = None,
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    settings: Iterable[str] = (),
) -> Grid:
    """Return the grid of a command line; the order is defaults, preset, file, flags, settings.

    Each of these overrides the ones before it.

    Args:
        preset: name of a preset, or None.
        file: path of a TOML file, or None.
        flags: keys of a Config, and ``methods`` and ``seeds``.
        settings: texts such as 'a.b=value'.

    Raises:
        UserError: a key or value is unknown or invalid; the first one is named.

    Example:
        >>> grid = resolve(flags={"methods": ["nog", "bn"], "seeds": "0-1"}, settings=["epochs=1"])
        >>> [(c.method, c.seed, c.epochs) for c in grid][:2]
        [('svd+nog', 0, 1), ('bn', 0, 1)]
    """
    merged: dict[str, Any] = {}
    for layer in (
        read_preset(preset) if preset else {},
        read_config_file(file) if file else {},
        flags or {},
    ):
        merged = _merge(merged, layer)
    for text in settings:
        path, value = parse_setting(text)
        if path[0] in ("method", "seed", "methods", "seeds", "config"):
            raise UserError(f"setting {path[0]!r}: use --method and --seeds")
        for key in reversed(path):
            value = {key: value}
        merged = _merge(merged, value)
    grid: dict[str, Any] = {key: merged.pop(key) for key in ("methods", "seeds") if key in merged}
    for method in checked(Grid, grid).methods:
        Method.parse(method)
    config = checked(Config, merged)
    resolved = checked(Grid, grid | {"config": config})
    list(resolved)  # every run's configuration is valid, not only the first
    return resolved
