"""Settings in the form that the command line accepts."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from orthocond.config.schema import Config
from orthocond.config.stored_settings import flat


def assignments(settings: Mapping[str, Any], but: Collection[str] = ()) -> list[str]:
    """Return the settings that differ from the defaults, each as ``key=value`` for --set.

    Args:
        settings: settings of a Config, or as a run stores them; keys that a Config does not have
            are left out.
        but: dotted keys to leave out too.

    Example:
        >>> assignments({"data": {"size": 64, "fingerprint": "a8"}, "lr": 0.1, "seed": 3}, ["seed"])
        ['data.size=64']
    """
    given, defaults = flat(settings), flat(Config().model_dump(mode="json"))
    return [
        f"{key}={json.dumps(given[key], ensure_ascii=False)}"
        for key, default in defaults.items()
        if key not in but and given.get(key, default) not in (default, None)
    ]
