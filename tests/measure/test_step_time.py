"""What is timed and how it is summed up; no test asserts a time."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
import torch

from orthocond.config.schema import Config
from orthocond.errors import UserError
from orthocond.measure.step_time import (
    PHASES,
    TrainingStep,
    interleaved,
    spread,
    time_cases,
    timed_cases,
)

TINY = Config.model_validate({"batch_size": 4, "data": {"size": 8, "classes": 2}})


def test_the_spread_is_numpys():
    values = np.random.default_rng(0).random(23).tolist()
    found = spread(values)
    assert found["min"] == min(values)
    quartiles = [found["q1"], found["median"], found["q3"]]
    assert quartiles == pytest.approx(np.percentile(values, [25, 50, 75]))


def test_methods_take_turns_in_an_order_that_rotates():
    order: list[str] = []
    told: list[tuple[int, int]] = []

    def step(name):
        return lambda: order.append(name) or {"step": len(order)}

    found = interleaved({n: step(n) for n in "abc"}, 6, lambda *p: told.append(p))
    rounds = ["".join(order[i : i + 3]) for i in range(0, len(order), 3)]
    assert all(sorted(r) == ["a", "b", "c"] for r in rounds)
    assert {rounds.count(r) for r in rounds} == {3} and len(set(rounds)) == 3  # each first as often
    assert len(rounds) == 9 and [len(found[n]) for n in "abc"] == [6, 6, 6]  # 3 rounds warm up
    assert min(f["step"] for rows in found.values() for f in rows) == 10
    assert told[-1] == (9, 9)


def test_the_network_without_a_spectral_layer_is_what_others_are_compared_with():
    def names(task, *methods):
        return [c.method for c in timed_cases(Config(task=task, method="svd"), methods)]

    assert names("dbn", "ow+nog", "svd") == ["bn", "svd+nog+ow", "svd"]
    assert names("gcp", "svd", "gap", "svd") == ["gap", "svd"]


def test_each_case_is_timed_and_compared_round_by_round():
    rows = time_cases(timed_cases(TINY, ["nog+olr"]), torch.device("cpu"))
    assert [row["method"] for row in rows] == ["bn", "svd+nog+olr"]
    for row in rows:
        assert (row["batch_size"], row["image_size"], row["classes"]) == (4, 8, 2)
        assert row["rounds"] == 20
        for phase in PHASES:
            figures = row[f"{phase}_ms"]
            assert 0 < figures["min"] <= figures["q1"] <= figures["median"] <= figures["q3"]
    assert set(rows[0]["ratio"].values()) == {1}


def test_a_step_trains():
    torch.manual_seed(0)
    config = timed_cases(TINY, ["nog"])[1]
    step = TrainingStep(config, torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 0, 1]))
    before = {name: p.detach().clone() for name, p in step.model.named_parameters()}
    phases = step.run()
    assert set(phases) == set(PHASES)
    assert phases["step"] == pytest.approx(phases["forward"] + phases["backward"])
    assert all(not torch.equal(before[n], p) for n, p in step.model.named_parameters())
    assert step.treated.last is not None and step.treated.last.gradient_kappa_after < 1.001


def test_ratios_are_medians_over_the_rounds(monkeypatch):
    from orthocond.measure import step_time

    draw = np.random.default_rng(0)
    made = {"bn": draw.random((20, 4)) + 1, "svd": draw.random((20, 4)) + 2}

    def fake(steps, rounds, report):
        return {
            name: [dict(zip(PHASES, row, strict=True)) for row in made[name.split("-")[2]]]
            for name in steps
        }

    monkeypatch.setattr(step_time, "interleaved", fake)
    rows = time_cases(timed_cases(TINY, ["svd"]), torch.device("cpu"))
    for i, phase in enumerate(PHASES):
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
    ],
)
def test_what_can_not_be_timed_is_one_line(settings, methods, rounds, message):
    config = Config.model_validate(TINY.model_dump() | settings)
    with pytest.raises(UserError, match=message) as error:
        time_cases(timed_cases(config, methods), torch.device("cpu"), rounds)
    assert "\n" not in str(error.value)
