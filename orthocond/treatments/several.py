"""The handle for the treatments of several layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from orthocond.errors import unknown
from orthocond.treatments.step.record import Last
from orthocond.treatments.treated import Treated


class TreatedLayers:
    """The handle for several treated layers, from ``oc.treat`` with a list of names.

    ``treated["conv1"]`` is the handle of one layer, which can be bound and removed separately. If
    each layer has its own optimizer, bind each handle to the optimizer of its layer.

    Attributes:
        treatments: names of the treatments, in canonical order, equal for all layers.
        last: for each layer, the record of its last step that had a gradient to treat.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Linear(4, 2))
        >>> treated = oc.treat(model, ["0", "1"], "nog")
        >>> treated.bind(torch.optim.SGD(model.parameters(), lr=0.1))
        >>> list(treated), treated["1"].treatments, treated.last
        (['0', '1'], ('nog',), {'0': None, '1': None})
    """

    def __init__(self, layers: dict[str, Treated]) -> None:
        self._layers = layers
        self.treatments = next(iter(layers.values())).treatments

    def __getitem__(self, name: str) -> Treated:
        """Return the handle of one layer."""
        if name not in self._layers:
            raise unknown("layer", str(name), self._layers)
        return self._layers[name]

    def __contains__(self, name: object) -> bool:
        return name in self._layers

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    @property
    def last(self) -> dict[str, Last | None]:
        """Record of the last treated step of each layer, by name; None before the first."""
        return {name: treated.last for name, treated in self._layers.items()}

    def penalty(self) -> Tensor:
        """Return the sum of the loss terms of all layers, 0-d."""
        first, *others = (treated.penalty() for treated in self._layers.values())
        for other in others:
            first = first + other.to(first.device)
        return first

    def bind(self, optimizer: Any) -> None:
        """Hook all layers on an optimizer's step; if one can't be hooked, hook none.

        Raises:
            UserError: as for ``Treated.bind``.
        """
        for treated in self._layers.values():
            treated.check(optimizer)
        for treated in self._layers.values():
            treated.bind(optimizer)

    def remove(self) -> dict[str, nn.Module]:
        """Remove the treatments of all layers, and return the plain layers by name."""
        layers = {name: treated.remove() for name, treated in self._layers.items()}
        self.treatments = ()
        return layers
