"""The environment's variables for accelerate change no training."""

import os
from unittest.mock import patch

import pytest
import torch
from accelerate import PartialState
from accelerate.utils import DynamoBackend

from orthocond.errors import UserError
from orthocond.training.accelerator import OF_LAUNCHER, OTHER_TRAINING, make_accelerator


def test_no_variable_divides_the_loss_or_compiles_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "inductor")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    accelerator = make_accelerator("float32")
    assert accelerator.gradient_accumulation_steps == 1
    assert accelerator.state.dynamo_plugin.backend == DynamoBackend.NO
    assert accelerator.mixed_precision == "no"
    weight = torch.ones((), requires_grad=True, device=accelerator.device)
    accelerator.backward(3 * weight)
    assert weight.grad is not None and weight.grad.item() == 3


@pytest.mark.parametrize("name", OTHER_TRAINING)
def test_other_kinds_of_training_are_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "false")
    make_accelerator("float32")
    monkeypatch.setenv(name, "true")
    with pytest.raises(UserError, match=f"^{name}=true in the environment: .*; unset {name}$"):
        make_accelerator("float32")


@pytest.mark.parametrize(
    ("name", "value"), [("WORLD_SIZE", "2"), ("WORLD_SIZE", "x"), ("LOCAL_RANK", "0")]
)
def test_variables_that_are_left_of_a_launcher_are_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setattr(PartialState, "_shared_state", {})  # as in a new process
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with patch.dict(os.environ):  # accelerate sets more variables
        for other in OF_LAUNCHER:
            os.environ.pop(other, None)
        os.environ[name] = value
        message = rf"^{name}={value} in the environment, .*: unset {name}, or start"
        with pytest.raises(UserError, match=message):
            make_accelerator("float32")


@pytest.mark.parametrize("timeout", [float("inf"), float("nan"), 1e300, 0.5])
def test_an_endless_timeout_is_refused(timeout: float) -> None:
    with pytest.raises(UserError, match=f"^timeout {timeout:g}: ".replace("+", r"\+")):
        make_accelerator("float32", timeout)
