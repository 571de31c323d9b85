"""Methods: a solver of the meta-layer, and with ``svd`` the treatments of the layer before it."""

from __future__ import annotations

from dataclasses import dataclass

from orthocond.errors import UserError, unknown

SOLVERS = {"svd": "SVD", "ns": "Newton-Schulz", "bn": "BN", "gap": "GAP"}
"""Name of each solver: its label. ``bn`` and ``gap`` are the baselines without a spectral layer."""

PLAIN = "svd"
"""Method without a treatment: treatments are compared with it."""

LABELS = {
    "polargrad": "PolarGrad",
    "ow-stiefel": "OW (Stiefel)",
    "ow-conv": "OW (BCOP)",
    "olr-newton": "OLR (Newton)",
    "olr-exact": "OLR (exact)",
    "muon": "Muon",
    "rescale": "rescale",
    "slow": "slow",
}
"""Labels of treatments; a treatment that is not listed here has its name in capitals."""


@dataclass(frozen=True)
class Method:
    """A method to compare: a solver, or ``svd`` with treatments of the Pre-SVD layer.

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
        """Return the method of any spelling: ``ow+nog`` and ``svd+nog+ow`` are the same method.

        Raises:
            UserError: an unknown or repeated name, treatments that exclude each other, two
                solvers, or treatments with a solver other than svd.

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
        if solvers not in ([], [PLAIN]):
            raise UserError(
                f"method {text!r}: treatments go with solver 'svd' only; "
                f"did you mean {'+'.join(treatments)!r}?"
            )
        return cls(PLAIN, tuple(parse_treatments("+".join(treatments))))

    def __str__(self) -> str:
        """Return the canonical spelling, which runs store."""
        return "+".join((self.solver, *self.treatments))

    @property
    def label(self) -> str:
        """Name for figures and tables.

        Example:
            >>> Method("svd", ("ow-stiefel",)).label
            'SVD + OW (Stiefel)'
        """
        treatments = (LABELS.get(name, name.upper()) for name in self.treatments)
        return " + ".join((SOLVERS[self.solver], *treatments))
