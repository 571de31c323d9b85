"""Settings as the command line takes them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from orthocond.config import Config
from orthocond.run import flat


def assignments(settings: Mapping[str, Any], but: Collection[str] = ()) -> list[str]:
    """What follows each --set: the settings that are not the defaults, as ``key=value``.

    Args:
        settings: of a Config, or as a run stores them; what is no setting is left out.
        but: dotted keys that are left out too.

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
