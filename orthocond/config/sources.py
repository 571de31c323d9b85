"""Sources of a configuration: preset, file, flags and ``key=value`` settings.

A grid is resolved from the defaults, a preset (TOML in the package), a configuration file, flags
and ``key=value`` settings. Each of them overrides the ones before it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from orthocond.config.methods import Method
from orthocond.config.schema import Config, Grid, checked, shortened
from orthocond.errors import UserError, unknown

USE = {"method": 'methods = ["svd"]', "seed": 'seeds = "0-2"'}
MAX_FILE = 1 << 16  # bytes of a configuration file, far more than any real one has
MAX_DOTS = 100  # in a line of TOML: tomllib's memory grows with the square of a key's depth


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
        text = data.decode("utf-8-sig")  # some editors begin a file with a byte order mark
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
        raise UserError(f"setting {shortened(text)}: expected key=value, such as epochs=3")
    if text.count(".") > MAX_DOTS:
        raise UserError(f"setting {shortened(text)} has more than {MAX_DOTS} dots")
    path = key.strip().split(".")
    try:
        parsed = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):  # not TOML, or a number with too many digits
        return path, value
    if list(parsed) != ["value"]:
        raise UserError(f"setting {shortened(text)}: expected one value on one line")
    return path, parsed["value"]


def _merge(base: dict[str, Any], over: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings with others over them.

    Raises:
        UserError: a key has a table in one of them and a value in the other, which would be lost.
    """
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        tables = isinstance(old, Mapping), isinstance(value, Mapping)
        if key in merged and tables[0] != tables[1]:
            values, name = (value, old) if tables[0] else (old, value), f"{prefix}{key}"
            hint = f"; did you mean {name}.name?" if name == "data" else ""
            raise UserError(
                f"{name} is {shortened(values[0])} in one place and a table of settings, "
                f"{shortened(values[1])}, in another{hint}"
            )
        merged[key] = _merge(old, value, f"{prefix}{key}.") if all(tables) else value  # type: ignore[arg-type]
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
        for key, instead in USE.items():  # a Grid sets these for each run
            if key in layer:
                raise UserError(
                    f"setting {key!r} belongs to one run: use {key}s, such as {instead}"
                )
        merged = _merge(merged, layer)
    for text in settings:
        path, value = parse_setting(text)
        if path[0] in ("method", "seed", "methods", "seeds"):
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
