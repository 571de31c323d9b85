"""Settings in the form that the command line accepts."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from orthocond.config.schema import Config
from orthocond.config.stored_settings import flat
from orthocond.errors import UserError


def assignments(
    settings: Mapping[str, Any], but: Collection[str] = (), base: Config | None = None
) -> list[str]:
    """Return the settings that differ from others, each as ``key=value`` for --set.

    Args:
        settings: settings of a Config, or as a run stores them; keys that a Config does not have
            are left out.
        but: dotted keys to leave out too.
        base: the settings that these are compared with; None takes the defaults.

    Raises:
        UserError: the base has a value where the settings have none: --set can't remove a value.

    Example:
        >>> assignments({"data": {"size": 64, "fingerprint": "a8"}, "lr": 0.1, "seed": 3}, ["seed"])
        ['data.size=64']
    """
    defaults = flat(Config().model_dump(mode="json"))
    given, others = defaults | flat(settings), flat((base or Config()).model_dump(mode="json"))
    changed = [k for k in others if k not in but and given[k] != others[k]]
    for key in changed:
        if given[key] is None:
            raise UserError(f"{key} is {others[key]!r}, and --set can't remove a value")
    return [f"{key}={json.dumps(given[key], ensure_ascii=False)}" for key in changed]
