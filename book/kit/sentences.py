"""Sentences about runs, with numbers that are computed and statements that are checked."""

from __future__ import annotations

from collections.abc import Callable

from IPython.display import HTML, Markdown

from kit.elements import from_root
from kit.other_runs import named_methods, replaced, without_checks
from kit.runs import committed_runs, of_committed_runs, study
from orthocond.artifacts.manifests import CorruptRun
from orthocond.config.tasks import TASKS
from orthocond.report.commands import MissingRuns, train_command
from orthocond.report.statistics import WIDE
from orthocond.report.study import Study

LACKS = (AssertionError, ArithmeticError, LookupError, ValueError)
"""Errors of a text whose checks fail, or whose runs are missing."""


def study_text(task: str, write: Callable[[Study], str]) -> HTML | Markdown:
    """Show sentences about runs.

    Args:
        task: task of the runs that the sentences are about. Where a method has no runs, the page
            shows the command that makes them.
        write: returns the sentences in Markdown, with numbers from the runs. It checks its own
            statements with ``assert``. If the committed runs contradict them, the build stops. If
            other runs do, the page shows the sentences with the numbers of both.
    """

    def show() -> Markdown:
        runs = study()
        try:
            return Markdown(write(runs))
        except (CorruptRun, MissingRuns):
            raise
        except LACKS as error:
            if of_committed_runs():
                raise
            if commands := _commands_for(str(error), runs, task):
                raise MissingRuns("no runs of some methods for this", *commands) from None
            own = _attempt(without_checks(write), runs)
            with committed_runs():
                committed = _attempt(write)
            return Markdown(replaced(committed, own, error))

    return from_root(f"{task}-{write.__name__}", show)


def _attempt(write: Callable[[Study], str], runs: Study | None = None) -> str | None:
    """Return a text; None where the runs lack what it needs."""
    try:
        return write(study() if runs is None else runs)
    except CorruptRun:
        raise
    except LACKS:
        return None


def _commands_for(error: str, runs: Study, task: str) -> list[str]:
    """Return the commands for the methods that an error names, where they have no runs."""
    named = named_methods(error)
    for name in (task, *(other for other in TASKS if other != task)):
        fitting = [(m, wide) for m, wide in named if m.split("+")[0] in TASKS[name].solvers]
        commands = []
        for data in runs.data_sets(name):
            own = runs.select(name, data=data)
            control = runs.beside(own, stem_kernel=WIDE)
            absent = [m for m, wide in fitting if not wide and not own.runs.get(m)]
            narrow = [m for m, wide in fitting if wide and not (control and control.runs.get(m))]
            for methods, more in ((absent, {}), (narrow, {"stem_kernel": WIDE})):
                if methods:
                    settings = dict(own.settings) | more
                    commands.append(train_command(name, methods, own.folder, settings, own.seeds))
        if name != task and not runs.data_sets(name):
            new = any(m.split("+")[0] not in TASKS[task].solvers for m, _ in fitting)
            commands += runs.missing(name, [m for m, _ in fitting]).commands if new else ()
        if commands:
            return commands
    return []


def power(value: float) -> str:
    """Return a number in Markdown as two digits and a power of ten."""
    digits, exponent = f"{value:.1e}".split("e")
    return rf"${digits}\cdot10^{{{int(exponent)}}}$"
