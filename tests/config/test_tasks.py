from dataclasses import FrozenInstanceError
from typing import get_args

import pytest

from orthocond.config.methods import SOLVERS
from orthocond.config.schema import Config
from orthocond.config.tasks import TASKS, find_task
from orthocond.errors import UserError


def test_a_configuration_accepts_exactly_the_known_tasks() -> None:
    field = Config.model_fields["task"]
    assert get_args(field.annotation) == tuple(TASKS)
    assert field.default == next(iter(TASKS))
    assert all(find_task(name).name == name for name in TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_accepts_its_own_solvers_and_only_its_own_baseline(
    name: str,
) -> None:
    task = TASKS[name]
    assert set(task.solvers) < set(SOLVERS)
    for method in SOLVERS:
        if method in task.solvers:
            assert Config(task=name, method=method).method == method
        else:
            with pytest.raises(ValueError, match=f"did you mean '{task.baseline}'"):
                Config(task=name, method=method)


def test_an_unknown_task_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown task 'dbm': allowed are dbn, gcp; .*'dbn'"):
        find_task("dbm")


def test_a_task_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        TASKS["dbn"].baseline = "gap"  # type: ignore[misc]
    with pytest.raises(TypeError):
        TASKS["new"] = TASKS["dbn"]  # type: ignore[index]
