"""The layer that a whitening layer can be merged into, found by torch.fx.

Note [Which layer comes before]
    torch.fx traces the forward. A layer is merged if it is called once, its output is the input of
    the whitening layer and of nothing else, and the forward does not read its tensors. A network
    that can't be traced keeps all its layers, and each whitening layer becomes a 1x1 convolution.
    Arguments with a default value are traced as given and as left out. Other calls are not seen:
    another method of the model, or the forward after an attribute was changed.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, fx, nn

from orthocond.layers.decorrelated_base import DecorrelatedBatchNorm

KINDS = {nn.Linear: 2, nn.Conv1d: 3, nn.Conv2d: 4, nn.Conv3d: 5}
"""Layers that whitening can be merged into (their subclasses may compute something else), with the
number of dimensions of the output that the whitening layer must have got."""


class _Tracer(fx.Tracer):
    """A tracer for which the spectral layers are leaves, and which records the tensors read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: set[int] = set()  # ids of the parameters and buffers that the forward reads

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = type(m).__module__.startswith("orthocond.layers.")
        own = own or (isinstance(m, DecorrelatedBatchNorm) and not m._modules)
        return own or super().is_leaf_module(m, module_qualified_name)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if isinstance(attr_val, Tensor):
            self.read.add(id(attr_val))
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def traces(model: nn.Module) -> list[tuple[fx.Graph, set[int]]]:
    """Return the graphs of a model, each with the ids of the tensors that its forward reads.

    The list is empty if the model can't be traced.
    """
    signature = inspect.signature(type(model).forward).parameters.values()
    defaults = {p.name: p.default for p in signature if p.default is not p.empty}
    found = []
    for given in [None, defaults] if defaults else [None]:
        tracer = _Tracer()
        try:
            found.append((tracer.trace(model, concrete_args=given), tracer.read))
        except Exception:  # the forward of a stranger runs on proxies: anything may be raised
            return []
    return found


def computes_as(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Return whether a module is of a kind, and its class has the forward of this kind."""
    own = any(getattr(type(module), n) is not getattr(kind, n) for n in ("forward", "__call__"))
    return isinstance(module, kind) and not own


def _is_hooked(module: nn.Module) -> bool:
    return any("hooks" in name and bool(value) for name, value in vars(module).items())


def _fit(layer: nn.Module, norm: DecorrelatedBatchNorm) -> bool:
    """Return whether a layer can take in the whitening of its output."""
    if type(layer) not in KINDS or _is_hooked(layer) or _is_hooked(norm):
        return False
    if isinstance(layer, nn.Linear):
        return norm.spatial == 1 and layer.out_features == norm.num_features
    C, groups = layer.out_channels, layer.groups
    assert isinstance(C, int) and isinstance(groups, int)
    whole = (C // groups) % (norm.num_features // norm.groups) == 0
    return KINDS[type(layer)] == norm.spatial + 2 and norm.num_features == C and whole


def layers_before(
    model: nn.Module, graph: fx.Graph, read: set[int]
) -> dict[DecorrelatedBatchNorm, nn.Module]:
    """Return the layer that each whitening layer can be merged into, in one graph of the model."""
    calls: dict[nn.Module, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls.setdefault(model.get_submodule(node.target), []).append(node)
    layer_of = {nodes[0]: module for module, nodes in calls.items() if len(nodes) == 1}
    found: dict[DecorrelatedBatchNorm, nn.Module] = {}
    for node, norm in layer_of.items():
        source = node.args[0] if node.args else None
        if not isinstance(norm, DecorrelatedBatchNorm) or not isinstance(source, fx.Node):
            continue
        layer = layer_of.get(source)
        if layer is None or len(source.users) > 1 or not _fit(layer, norm):
            continue
        if read.isdisjoint(
            id(t) for m in (layer, norm) for t in m.state_dict(keep_vars=True).values()
        ):
            found[norm] = layer
    return found
