"""Spellings of ``orthocond measure`` that name no sub-command.

``measure RUN...`` means ``measure runs RUN...``, ``measure --model ... --layer ...`` means
``measure layer ...``, ``measure --timing ...`` means ``measure time ...``, and ``measure --against
RUN ...`` means ``measure against RUN ...``. Output, errors and exit codes are those of the
sub-command.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from orthocond.errors import UserError

KINDS = {"runs": "RUNS", "layer": "--model", "time": "--timing", "against": "--against"}
"""Sub-command -> the argument that selects it in the spelling without sub-command."""
SELECTORS = {"--timing": "time", "--against": "against"}
"""Hidden option of the group -> the only sub-command that it selects."""
WHICH = (
    "name one of: RUNS, --model with --layer, --timing, or --against RUN; see orthocond measure "
    "--help"
)


class MeasureGroup(TyperGroup):
    """Group of the sub-commands of ``measure`` that also accepts the older spellings."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Pass all arguments to the sub-command, unless the first one asks for help."""
        if args and args[0] not in ctx.help_option_names:
            args = ["--", *args]  # so that the group does not read --model or --timing as its own
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the name of the sub-command, the sub-command and its arguments."""
        if args[0] in self.commands:
            return super().resolve_command(ctx, args)
        return "older spelling", OlderSpelling(self), args

    def invoke(self, ctx: Any) -> Any:
        """Run a sub-command.

        Raises:
            UserError: an option belongs to another sub-command.
        """
        try:
            return super().invoke(ctx)
        except typer.TyperException as error:
            option, name = str(getattr(error, "option_name", "")), ctx.invoked_subcommand
            if name not in self.commands or not (owners := self.owners(option)) or name in owners:
                raise
            if option in KINDS.values():
                raise _wrong_usage(WHICH) from error
            see = f"; see orthocond measure {owners[0]} --help"
            raise _wrong_usage(misplaced(option, owners, name) + see) from error

    def owners(self, option: str) -> list[str]:
        """Return the names of the sub-commands that have an option, such as ``--size``."""
        if option in SELECTORS:
            return [SELECTORS[option]]
        named = self.commands.items()
        return [name for name, command in named if any(option in p.opts for p in command.params)]


class OlderSpelling(TyperCommand):
    """Command that accepts the options of all sub-commands and runs the one they mean.

    Args:
        group: the group of the sub-commands.
    """

    def __init__(self, group: MeasureGroup) -> None:
        self.group = group
        parameters: dict[Any, Any] = {}  # by name: --size of two sub-commands is one option here
        for command in (*group.commands.values(), group):
            for parameter in command.params:
                if parameter.name == "run":  # of ``against``: its place is taken by --against RUN
                    continue
                parameter = copy.copy(parameter)
                parameter.required = False
                parameters.setdefault(parameter.name, parameter)
        super().__init__("measure", params=list(parameters.values()))

    def get_help(self, ctx: Any) -> str:
        """Show the help of the group."""
        return self.group.get_help(ctx.parent)

    def invoke(self, ctx: Any) -> Any:
        """Run the sub-command that the arguments mean.

        Raises:
            UserError: the arguments mean no sub-command or several, or an option would have no
                effect.
        """
        values = ctx.params
        name = _meant(values)
        sources = {p.name: ctx.get_parameter_source(p.name) for p in self.params}
        for parameter in self.params:
            source, owners = sources[parameter.name], self.group.owners(parameter.opts[0])
            if _given(source) and name not in owners:
                raise _wrong_usage(misplaced(parameter.opts[0], owners, name))
        if name == "runs":
            _require_run_or_command(values["runs"][0], self.group.commands)
        if name == "layer" and values["layer"] is None:
            raise _wrong_usage("--model needs --layer: which layer is measured?")
        command = self.group.commands[name]
        given = {
            # An option that was not given has the default of this sub-command: others may differ.
            str(p.name): values[p.name] if _given(sources.get(p.name)) else p.get_default(ctx)
            for p in command.params
        }
        if name == "against":
            given["run"] = values["_against"]
        return ctx.invoke(command.callback, **given)


def _given(source: Any) -> bool:
    """Return whether a parameter from this source was given on the command line."""
    return source is not None and source.name == "COMMANDLINE"


def _meant(values: Mapping[str, Any]) -> str:
    """Return the name of the sub-command that these options and arguments mean."""
    timing = values["_timing"]
    asked = {
        "runs": bool(values["runs"]),
        "layer": values["model"] is not None and not timing,
        "time": timing,
        "against": values["_against"] is not None,
    }
    if sum(asked.values()) != 1:
        raise _wrong_usage(WHICH)
    return next(name for name in asked if asked[name])


def _require_run_or_command(run: Path, commands: Iterable[str]) -> None:
    """Raise a UserError if a bare word is neither a folder nor a sub-command."""
    if str(run).isalpha() and not run.exists():
        from orthocond.errors import nearest

        raise _wrong_usage(
            f"there is no run or study {str(run)!r}, and no such sub-command: allowed are "
            f"{', '.join(commands)}{nearest(run.name, commands)}"
        )


def misplaced(option: str, owners: Iterable[str], name: str) -> str:
    """Return the message for an option that the sub-command ``name`` does not have.

    Example:
        >>> misplaced("--size", ["layer", "time"], "runs")
        '--size goes with --model or --timing, not with RUNS'
    """
    return f"{option} goes with {' or '.join(KINDS[o] for o in owners)}, not with {KINDS[name]}"


def _wrong_usage(message: str) -> UserError:
    """Return the error for wrong usage, which exits with 2."""
    from orthocond.errors import UserError  # imports torch, which help must not

    return UserError(message)
