from dataclasses import FrozenInstanceError
from typing import get_args

import pytest

from orthocond.config.methods import SOLVERS
from orthocond.config.schema import Config
from orthocond.config.tasks import TASKS, find_task
from orthocond.errors import UserError


def test_a_configuration_takes_the_tasks_that_there_are() -> None:
    field = Config.model_fields["task"]
    assert get_args(field.annotation) == tuple(TASKS)
    assert field.default == next(iter(TASKS))
    assert all(find_task(name).name == name for name in TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_the_solvers_of_a_task_are_methods_and_only_its_own_baseline_is_among_them(
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


def test_an_unknown_task_is_named_with_those_that_there_are() -> None:
    with pytest.raises(UserError, match=r"unknown task 'dbm': allowed are dbn, gcp; .*'dbn'"):
        find_task("dbm")


def test_a_task_can_not_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        TASKS["dbn"].baseline = "gap"  # type: ignore[misc]
    with pytest.raises(TypeError):
        TASKS["new"] = TASKS["dbn"]  # type: ignore[index]
