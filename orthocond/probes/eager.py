"""Call of a function outside of the graph that torch.compile traces.

Importing this module is slow, because it imports torch's tracer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


@torch.compiler.disable(
    reason="a ConditioningProbe records here, outside of the graph: "
    "close the probe, or compile without fullgraph=True"
)
def eagerly(function: Callable[..., None], *args: Any) -> None:
    """Call a function uncompiled, even inside compiled code."""
    function(*args)
