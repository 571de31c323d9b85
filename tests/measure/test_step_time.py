"""What is timed and how it is summed up; no test asserts a time."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
import torch

from orthocond.config.schema import Config
from orthocond.errors import UserError
from orthocond.measure.step_time import (
    SPANS,
    TrainingStep,
    spread,
    time_cases,
    timed_cases,
)
from orthocond.training.accelerator import make_accelerator
from orthocond.training.signals import StopSignal
from orthocond.training.stepper import Stepper

TINY = Config.model_validate({"batch_size": 4, "data": {"size": 8, "classes": 2}})


def test_the_spread_agrees_with_numpy():
    values = np.random.default_rng(0).random(23).tolist()
    found = spread(values)
    assert found["min"] == min(values)
    quartiles = [found["q1"], found["median"], found["q3"]]
    assert quartiles == pytest.approx(np.percentile(values, [25, 50, 75]))


def test_ratios_are_taken_to_the_network_without_a_spectral_layer():
    def names(task, *methods):
        return [c.method for c in timed_cases(Config(task=task, method="svd"), methods)]

    assert names("dbn", "ow+nog", "svd") == ["bn", "svd+nog+ow", "svd"]
    assert names("gcp", "svd", "gap", "svd") == ["gap", "svd"]


def test_each_case_is_timed_and_compared_round_by_round():
    rows = time_cases(timed_cases(TINY, ["nog+olr"]), make_accelerator("float32"))
    assert [row["method"] for row in rows] == ["bn", "svd+nog+olr"]
    for row in rows:
        assert (row["batch_size"], row["image_size"], row["classes"]) == (4, 8, 2)
        assert row["rounds"] == 20
        for phase in SPANS:
            figures = row[f"{phase}_ms"]
            assert 0 < figures["min"] <= figures["q1"] <= figures["median"] <= figures["q3"]
    assert set(rows[0]["ratio"].values()) == {1}


def test_a_step_trains():
    torch.manual_seed(0)
    config = timed_cases(TINY, ["nog"])[1]
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])
    step = TrainingStep(config, images, labels, make_accelerator("float32"))
    model, treated = step.stepper.model, step.stepper.treated
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    spans = step.run()
    assert list(spans) == list(SPANS) and min(spans.values()) > 0
    assert spans["step"] == pytest.approx(spans["forward"] + spans["backward"])
    assert spans["update"] < spans["backward"]
    assert all(not torch.equal(before[n], p) for n, p in model.named_parameters())
    assert treated.last is not None and treated.last.gradient_kappa_after < 1.001


@pytest.mark.parametrize("accumulate", [1, 2])
def test_timed_steps_are_those_of_training(accumulate):
    """The weights after two timed steps equal those after two steps of a run's stepper."""
    config = Config.model_validate(TINY.model_dump() | {"accumulate": accumulate, "method": "nog"})
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])
    timed = TrainingStep(config, images, labels, make_accelerator("float32"))
    trained = Stepper(config, 2, 1, make_accelerator("float32"), StopSignal())
    for _ in range(2):
        timed.run()
        trained.take_step(images, labels)
    pairs = zip(timed.stepper.model.parameters(), trained.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_each_part_of_a_step_is_marked():
    parts: list[str] = []
    config = Config.model_validate(TINY.model_dump() | {"accumulate": 2})
    stepper = Stepper(config, 2, 1, make_accelerator("float32"), StopSignal(), parts.append)
    stepper.take_step(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 0, 1]))
    assert parts == ["forward", "gradient", "forward", "gradient", "gradient", "update"]


def test_a_method_that_diverges_is_one_line():
    images = torch.full((4, 3, 8, 8), torch.nan)
    step = TrainingStep(TINY, images, torch.tensor([0, 1, 0, 1]), make_accelerator("float32"))
    with pytest.raises(UserError, match=r"^svd diverged while it was timed: lower lr \(--set\)$"):
        step.run()


def test_ratios_are_medians_over_the_rounds(monkeypatch):
    from orthocond.measure import step_time

    draw = np.random.default_rng(0)
    made = {"bn": draw.random((20, 4)) + 1, "svd": draw.random((20, 4)) + 2}

    def fake(steps, rounds, report=None):
        return {
            name: [dict(zip(SPANS, row, strict=True)) for row in made[name.split("-")[2]]]
            for name in steps
        }

    monkeypatch.setattr(step_time, "interleaved", fake)
    rows = time_cases(timed_cases(TINY, ["svd"]), make_accelerator("float32"))
    for i, phase in enumerate(SPANS):
        expected = statistics.median((made["svd"] / made["bn"])[:, i])
        assert rows[1]["ratio"][phase] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "methods", "rounds", "message"),
    [
        ({}, ["svd"], 19, r"^repeats is 19: a median of less than 20 is not reported$"),
        ({}, ["nogg"], 20, r"unknown method 'nogg': .*did you mean 'nog'\?$"),
        ({"precision": "float64"}, ["svd"], 20, r"'float64' is not timed: allowed are float32, b"),
        ({"model": "smal"}, ["svd"], 20, r"unknown model for dbn 'smal': .*'small'\?$"),
        ({"data": {"size": 1}}, ["svd"], 20, r"^the network does not take images \(4, 3, 1, 1\): "),
        ({"batch_size": 1}, ["svd"], 20, r"does not take images \(1, 3, 8, 8\): Expected more th"),
        (
            {"accumulate": 3},
            ["svd"],
            20,
            r"^batch_size 4 is not divisible by 1 processes x 3",
        ),
    ],
)
def test_cases_that_cannot_be_timed_are_refused_in_one_line(settings, methods, rounds, message):
    config = Config.model_validate(TINY.model_dump() | settings)
    with pytest.raises(UserError, match=message) as error:
        time_cases(timed_cases(config, methods), make_accelerator("float32"), rounds)
    assert "\n" not in str(error.value)
