"""Where a treated layer is in its model, and which of its parameters is treated."""

from __future__ import annotations

from torch import nn

from orthocond.errors import UserError


def weight_parameters(layer: nn.Module) -> dict[str, nn.Parameter]:
    """Return what a layer trains, but for its bias, parametrized or not."""
    named = layer.named_parameters()
    return {n: p for n, p in named if p.requires_grad and "bias" not in n.split(".")}


class Place:
    """A layer at all the names that it has in a model, and its parameter by name.

    By name, and not by ``requires_grad``: a layer that is frozen later keeps its parameter.

    Args:
        model: the model.
        name: of the layer, for messages.
        names: all of its names, if the module is used at several.
        layer: the module in place.
    """

    def __init__(self, model: nn.Module, name: str, names: list[str], layer: nn.Module) -> None:
        self._model, self._names = model, names
        self.name, self.layer = name, layer

    def put(self, layer: nn.Module) -> None:
        """Put a layer in place at all the names; a single parameter is behind its weight."""
        if layer is not self.layer:
            for name in self._names:
                self._model.set_submodule(name, layer)
        self.layer = layer
        ((self._parameter, parameter),) = weight_parameters(layer).items()
        self._shape = parameter.shape

    @property
    def kind(self) -> type[nn.Module]:
        """The layer's class, which tells the order of its weight's axes."""
        return type(self.layer)

    @property
    def parameter(self) -> nn.Parameter:
        """The parameter that gradient and step treatments act on.

        Raises:
            UserError: it is sharded; FSDP leaves DTensors or flat pieces, or takes the parameter
                out of its layer.
        """
        module, _, leaf = self._parameter.rpartition(".")
        parameter = self.layer.get_submodule(module)._parameters.get(leaf)
        sharded = parameter is None or type(parameter).__name__ == "DTensor"
        if parameter is None or sharded or parameter.shape != self._shape:
            raise UserError(
                f"the parameter of layer {self.name!r} is sharded: "
                "its singular values are not to be had on one process"
            )
        return parameter
