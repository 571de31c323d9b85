"""The place of a treated layer in its model, and the parameter of the layer that is treated."""

from __future__ import annotations

from torch import Tensor, nn

from orthocond.errors import UserError


def weight_parameters(layer: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trained parameters of a layer by name, without those of its bias."""
    named = layer.named_parameters()
    return {n: p for n, p in named if p.requires_grad and "bias" not in n.split(".")}


def refilled(parameter: nn.Parameter, value: Tensor) -> nn.Parameter:
    """Give a parameter a value, which may have another shape, and return it.

    A treatment of the weight trains another tensor than the plain layer does. If the tensor were a
    new parameter, an optimizer that was built before would go on to step the old one, silently. So
    the object is kept, as in torch's ``register_parametrization``.
    """
    parameter.grad = None  # of the old shape
    parameter.data = value.detach()
    return parameter


class Place:
    """A layer with all the names that it has in a model, and its treated parameter.

    The parameter is found by its name, not by ``requires_grad``, so a layer that is frozen later
    keeps its parameter.

    Args:
        model: the model.
        name: name of the layer, for messages.
        layer: a module of the model.
    """

    def __init__(self, model: nn.Module, name: str, layer: nn.Module) -> None:
        self._model = model
        self.name, self.layer = name, layer

    def put(self, layer: nn.Module) -> None:
        """Put a layer in the place of the present one; its weight must have one parameter.

        A model may use a module under several names, and may have changed since the last call: a
        module that was inserted into an ``nn.Sequential`` moves the names of those after it.

        Raises:
            UserError: the model does not have the present layer any more.
        """
        if layer is not self.layer:
            modules = self._model.named_modules(remove_duplicate=False)
            names = [name for name, module in modules if module is self.layer]
            if not names:
                raise UserError(
                    f"the model does not have the layer {self.name!r} any more that was treated: "
                    "put handle.layer back into the model, or drop the handle"
                )
            for name in names:  # torch.compile's wrapper of a layer calls the layer it was made for
                self._model.set_submodule(name.removesuffix("._orig_mod"), layer)
        self.layer = layer
        ((self._parameter, parameter),) = weight_parameters(layer).items()
        self._shape = parameter.shape

    @property
    def kind(self) -> type[nn.Module]:
        """The layer's class, which gives the order of its weight's axes."""
        return type(self.layer)

    @property
    def parameter(self) -> nn.Parameter:
        """The parameter that gradient and step treatments act on.

        Raises:
            UserError: the parameter is sharded. FSDP leaves a DTensor or a flat piece in its place,
                or removes the parameter from its layer. Or the weight was parametrized, pruned or
                normalized after ``treat``, or an earlier parametrization was removed.
        """
        module, _, leaf = self._parameter.rpartition(".")
        owner = dict(self.layer.named_modules()).get(module)
        parameter = None if owner is None else owner._parameters.get(leaf)
        others = [n for n, _ in self.layer.named_parameters() if "bias" not in n.split(".")]
        if parameter is None and others:
            raise UserError(
                f"layer {self.name!r} has the parameter {' and '.join(others)} in the place of "
                f"{self._parameter}: change the parametrization of the weight (pruning and weight "
                "norm, too) before treat, not afterwards"
            )
        sharded = parameter is None or type(parameter).__name__ == "DTensor"
        if parameter is None or sharded or parameter.shape != self._shape:
            raise UserError(
                f"the parameter of layer {self.name!r} is sharded, and one process can't compute "
                "the singular values of a part: treat layers that are whole on every process"
            )
        return parameter
