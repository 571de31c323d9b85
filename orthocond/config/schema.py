"""Configuration of a run and of a grid of runs: frozen and validated; unknown keys are refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from orthocond.config.methods import Method
from orthocond.config.tasks import TASKS
from orthocond.errors import UserError, unknown


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):  # pydantic would take true as 1
        raise ValueError("Input should be a number, not a boolean")
    return value


def _float32(value: float) -> float:
    largest = torch.finfo(torch.float32).max  # torch can't multiply a float32 tensor by more
    if value > largest:
        raise ValueError(f"Input should be a number that float32 can hold, at most {largest:.2g}")
    return value


Int = Annotated[int, BeforeValidator(_no_boolean)]
Float = Annotated[float, BeforeValidator(_no_boolean)]
Positive = Annotated[Int, Field(ge=1)]
Model = TypeVar("Model", bound=BaseModel)
Fraction = Annotated[Float, Field(ge=0, lt=1)]
Rate = Annotated[Float, Field(gt=0, allow_inf_nan=False), AfterValidator(_float32)]
Weight = Annotated[Float, Field(ge=0, allow_inf_nan=False), AfterValidator(_float32)]

MAX_SEEDS = 1000


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(_Strict):
    """Data of a run: which images, and how many of them."""

    name: str = "leaves"  # leaves, cifar10, cifar100, fashion-mnist, folder:PATH or imagenet:PATH
    size: Positive | None = None  # side of the square images in pixels; None: as in the data set
    classes: Annotated[Int, Field(ge=2)] | None = None  # the first N of the sorted class names
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
    seed: Annotated[Int, Field(ge=0, lt=2**31)] = 0
    epochs: Positive = 2
    batch_size: Positive = 128  # images in one optimizer step, over all processes
    accumulate: Positive = 1  # micro-batches that each process splits its part of a batch into
    lr: Rate = 0.1
    warmup_epochs: Weight = 0.0  # in which the rate rises linearly from 0
    lr_milestones: tuple[Rate, ...] = ()  # epochs, may be fractions, at which the rate is lowered
    lr_decay: Annotated[Float, Field(gt=0, le=1)] = 0.1  # factor of the rate at each milestone
    momentum: Fraction = 0.9
    weight_decay: Weight = 5e-4
    precision: Literal["float64", "float32", "bfloat16", "float16"] = "float32"
    channels_last: bool = False
    sync_batch_norm: bool = False  # nn.BatchNorm layers take statistics over all processes
    eps: Weight = 1e-2  # added to the covariance's diagonal (DBN)
    groups: Positive = 1
    gamma_start: Literal["one", "uniform"] = "one"  # of the norm after the stem (DBN); in (0, 1)
    backward: Literal["exact", "pade", "taylor", "raw"] = "exact"
    running: Literal["covariance", "root"] = "covariance"  # what moving averages are of (DBN)
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
        if self.running == "root" and not task.running_statistics:
            raise ValueError(
                f"running 'root' is for task 'dbn': {task.name!r} keeps no moving averages"
            )
        if self.gamma_start != "one" and not task.has_gamma:
            raise ValueError(
                f"gamma_start {self.gamma_start!r} is for task 'dbn': the meta-layer of "
                f"{task.name!r} has no gamma; use 'one'"
            )
        for name, used in (("eps", task.has_eps), ("groups", task.has_groups)):
            value, default = getattr(self, name), type(self).model_fields[name].default
            if value != default and not used:
                raise ValueError(
                    f"{name} {value:g} is for task 'dbn': the meta-layer of {task.name!r} has no "
                    f"{name}; leave it out"
                )
        if list(self.lr_milestones) != sorted(set(self.lr_milestones)):
            raise ValueError(f"lr_milestones {list(self.lr_milestones)} do not increase")
        return self


class Grid(_Strict):
    """Runs of one configuration: each method with each seed."""

    methods: tuple[str, ...] = ("svd",)
    seeds: str = "0"
    config: Config = Config()

    @field_validator("methods")
    @classmethod
    def _some(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        if not methods:
            raise ValueError("at least one method is needed, such as svd")
        return methods

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
        allowed = [name for name in _keys(model) if name not in ("method", "seed")]
        raise unknown("setting", key, allowed)  # a Grid sets the two for each run
    reason = first["msg"].removeprefix("Value error, ")
    if not key:  # keys contradict each other: the reason names them
        raise UserError(reason)
    if first["type"] == "model_type":
        raise UserError(f"{key} is a table of settings: did you mean {key}.name?")
    if first["type"] == "tuple_type":
        reason = "Input should be a list in square brackets"
    raise UserError(f"{key}: {reason}, got {shortened(first['input'])}")


def shortened(value: Any) -> str:
    """Return the repr of a value for an error message, with at most 60 characters."""
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
            raise UserError(
                f"seeds {shortened(text)}: expected numbers and ranges such as 0-4 or 0,3"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            raise UserError(f"seeds {part.strip()!r} run backwards: write {last}-{first}")
        if last - first >= MAX_SEEDS or last >= 2**31:
            raise UserError(f"seeds {part.strip()!r}: at most {MAX_SEEDS} at once, below 2^31")
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))
