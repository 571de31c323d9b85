"""Claims of handles on the layers that they treat.

Note [One handle for a layer]
    Two handles that treat one gradient or one step would act one after the other, in the order of
    their ``bind`` calls: 'nog' after 'olr' chooses the learning rate for a gradient that is not the
    one of the step, and 'slow' twice divides the step by 100. A treatment of the weight that comes
    second puts another parameter into the layer, and the first handle would have none. So the
    second call of ``treat`` is refused. Claims are held weakly: a handle that was dropped and never
    bound treats nothing, and a copy of a model is a model without handles.
"""

from __future__ import annotations

from collections.abc import Iterable
from weakref import WeakSet

from torch import nn

from orthocond.errors import UserError
from orthocond.treatments.layer.place import Place, weight_parameters
from orthocond.treatments.protocol import Treatment

_CLAIMS: WeakSet[Claim] = WeakSet()
AT_THE_STEP = {"gradient", "step"}


class Claim:
    """The claim of one handle on its layer.

    Args:
        place: the layer and its place in the model.
        parts: treatments of the layer; without any, the claim excludes nothing.
    """

    def __init__(self, place: Place, parts: Iterable[Treatment]) -> None:
        self._place = place
        self._names = [part.name for part in parts]
        self._kinds: set[str] = {part.acts_on for part in parts}

    def check(self) -> None:
        """Raise UserError if another handle excludes this one."""
        layer = self._place.layer
        mine = {id(p) for p in weight_parameters(layer).values()}
        for other in list(_CLAIMS):
            theirs = other._place.layer
            same = theirs is layer
            tied = any(id(p) in mine for p in weight_parameters(theirs).values())
            if other is not self and (same or tied) and self._excludes(other, same):
                raise UserError(
                    f"layer {self._place.name!r} is treated already, by {'+'.join(other._names)} "
                    f"of layer {other._place.name!r}: name all treatments in one call, as in "
                    "'nog+olr', or call remove() of the first handle before"
                )

    def make(self) -> None:
        """Make the claim, once or again."""
        _CLAIMS.add(self)

    def end(self) -> None:
        """End the claim, if it was made."""
        _CLAIMS.discard(self)

    def _excludes(self, other: Claim, same: bool) -> bool:
        one, two = self._kinds, other._kinds
        steps = bool(one & AT_THE_STEP) and bool(two & AT_THE_STEP)
        return steps or (same and bool(one & two))


def check_claims(name: str, layer: nn.Module, parts: Iterable[Treatment]) -> None:
    """Raise UserError if a handle that exists excludes a new one."""
    new = Claim(Place(layer, name, layer), parts)
    if "weight" in new._kinds:
        # Its parameter takes the place of the one that any earlier handle acts on.
        new._kinds |= {"loss", *AT_THE_STEP}
    new.check()
