"""The handle on the treatments of several layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from orthocond.errors import unknown
from orthocond.treatments.last import Last
from orthocond.treatments.treated import Treated


class TreatedLayers:
    """The treatments of several layers, from ``oc.treat`` with a list of names.

    ``treated["conv1"]`` is the handle of one layer, which can be bound and removed by itself: where
    layers have optimizers of their own, bind each to its own.

    Attributes:
        treatments: their names, in canonical order; all layers have the same.
        last: layer -> what happened in its last step that had a gradient to treat.

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
        """The records of the last step, by layer."""
        return {name: treated.last for name, treated in self._layers.items()}

    def penalty(self) -> Tensor:
        """Return the sum of the layers' loss terms, 0-d."""
        first, *others = (treated.penalty() for treated in self._layers.values())
        for other in others:
            first = first + other.to(first.device)
        return first

    def bind(self, optimizer: Any) -> None:
        """Hook all layers on an optimizer's step, or none if one can't be (``Treated.bind``)."""
        for treated in self._layers.values():
            treated.check(optimizer)
        for treated in self._layers.values():
            treated.bind(optimizer)

    def remove(self) -> dict[str, nn.Module]:
        """Undo everything in all layers, and return the plain ones by name."""
        layers = {name: treated.remove() for name, treated in self._layers.items()}
        self.treatments = ()
        return layers
