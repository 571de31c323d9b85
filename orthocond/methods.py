"""A method: a solver of the meta-layer, and for ``svd`` the treatments of the layer before it."""

from __future__ import annotations

from dataclasses import dataclass

from orthocond.errors import UserError, unknown

SOLVERS = {"svd": "SVD", "ns": "Newton-Schulz", "bn": "BN", "gap": "GAP"}
"""Solver: its label. ``bn`` (DBN) and ``gap`` (GCP) are the networks without a meta-layer."""

LABELS = {
    "ow-stiefel": "OW (Stiefel)",
    "olr-newton": "OLR (Newton)",
    "olr-exact": "OLR (exact)",
    "rescale": "rescale",
    "slow": "slow",
}
"""Labels of the treatments whose name in capitals is not what people say."""


@dataclass(frozen=True)
class Method:
    """What is compared: a solver, or ``svd`` and treatments of the Pre-SVD layer.

    Args:
        solver: ``svd``, ``ns``, ``bn`` or ``gap``.
        treatments: names from ``orthocond.treatments.TREATMENTS``, in their canonical order.

    Example:
        >>> method = Method.parse("olr+nog")
        >>> str(method), method.label
        ('svd+nog+olr', 'SVD + NOG + OLR')
    """

    solver: str
    treatments: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Method:
        """A method from any spelling: ``nog+ow`` is ``svd+nog+ow``, and order does not matter.

        Raises:
            UserError: an unknown or repeated name, treatments that exclude each other, two
                solvers, or treatments of a solver other than svd.

        Example:
            >>> Method.parse("ns")
            Method(solver='ns', treatments=())
        """
        names = [name.strip().lower() for name in text.split("+")]
        solvers = [name for name in names if name in SOLVERS]
        if names == solvers[:1]:
            return cls(names[0])
        from orthocond.treatments import TREATMENTS, parse_treatments  # imports torch

        for name in names:
            if name not in SOLVERS and name not in TREATMENTS:
                raise unknown("method", name or text, [*SOLVERS, *TREATMENTS])
        if len(solvers) > 1:
            raise UserError(f"method {text!r} names {len(solvers)} solvers, allowed is one")
        treatments = [name for name in names if name in TREATMENTS]
        if solvers not in ([], ["svd"]):
            raise UserError(
                f"method {text!r}: treatments go with solver 'svd' only; "
                f"did you mean {'+'.join(treatments)!r}?"
            )
        return cls("svd", tuple(parse_treatments("+".join(treatments))))

    def __str__(self) -> str:
        """The canonical spelling, as it is stored."""
        return "+".join((self.solver, *self.treatments))

    @property
    def label(self) -> str:
        """The name for figures and tables.

        Example:
            >>> Method("svd", ("ow-stiefel",)).label
            'SVD + OW (Stiefel)'
        """
        treatments = (LABELS.get(name, name.upper()) for name in self.treatments)
        return " + ".join((SOLVERS[self.solver], *treatments))
