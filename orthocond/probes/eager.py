"""Keep torch.compile out of a hook. Importing this module imports torch's tracer, which is slow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


@torch.compiler.disable(
    reason="a ConditioningProbe records here, outside of the graph: "
    "close it, or compile without fullgraph=True"
)
def eagerly(function: Callable[..., None], *args: Any) -> None:
    """Call a function as it is, also where the code around the call is compiled."""
    function(*args)
