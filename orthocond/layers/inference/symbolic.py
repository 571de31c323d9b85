"""Spectral layers in graphs of ``torch.fx``, as feature extractors and quantization record them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar, cast

from torch import Tensor, nn
from torch.fx import Proxy, Tracer

M = TypeVar("M", bound=nn.Module)
P = ParamSpec("P")


def one_node(
    forward: Callable[Concatenate[M, P], Tensor],
) -> Callable[Concatenate[M, P], Tensor]:
    """Make ``torch.fx`` record a module as one node, as it records the modules of ``torch.nn``.

    A forward pass whose steps depend on the shape and dtype of its input can't be recorded step by
    step. It applies to submodules: a layer that is itself the root of the traced network has no
    name under which a graph could call it.
    """

    @wraps(forward)
    def traced(module: M, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        for x in (*args, *kwargs.values()):
            if isinstance(x, Proxy) and isinstance(x.tracer, Tracer):
                path = x.tracer.path_of_module(module)
                if path:
                    proxy = x.tracer.create_proxy("call_module", path, args, kwargs)
                    return cast(Tensor, proxy)
        return forward(module, *args, **kwargs)

    return traced
