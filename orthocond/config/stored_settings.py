"""Settings that are newer than a stored run, and the values that the run had in effect.

A new key of ``orthocond.config.schema.Config`` gets a line in ``HISTORICAL`` if earlier runs
behaved as one value of the key. Stored files are never rewritten: their settings are completed
when they are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FORMAT = 2
"""Version of the run format, in each manifest; a manifest without a version has version 1."""

HISTORICAL: Mapping[str, Any] = {
    "calibration_stream": "shared",  # since format 2
    "eval_every": 1,
    "running": "covariance",
    "gamma_start": "one",
}
"""Top-level key of a configuration: its value in runs that were stored without the key."""


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored settings with the historical value of each key that they lack.

    Example:
        >>> completed({"lr": 0.1})["running"]
        'covariance'
    """
    return {**HISTORICAL, **settings}


def reduced(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without the keys that have their historical value.

    Two configurations are equal if and only if they are reduced to the same settings, and the
    settings of a run of format 1 are reduced to themselves.

    Example:
        >>> reduced({"calibration_stream": "shared", "lr": 0.1})
        {'lr': 0.1}
    """
    return {k: v for k, v in settings.items() if k not in HISTORICAL or HISTORICAL[k] != v}


def flat(value: Any, key: str = "") -> dict[str, Any]:
    """Return nested settings as one level of dotted keys."""
    if not isinstance(value, Mapping):
        return {key: value}
    pairs = [flat(v, f"{key}.{k}" if key else str(k)) for k, v in value.items()]
    return {k: v for pair in pairs for k, v in pair.items()}
