from __future__ import annotations

import itertools

import pytest

from orthocond.config.methods import SOLVERS, Method
from orthocond.errors import UserError

NAMES = ("nog", "ow", "olr")


@pytest.mark.parametrize("spelling", list(itertools.permutations(NAMES)))
@pytest.mark.parametrize("prefix", ["", "svd+"])
def test_every_spelling_has_one_canonical_form(spelling: tuple[str, ...], prefix: str) -> None:
    method = Method.parse(prefix + "+".join(spelling))
    assert str(method) == "svd+nog+ow+olr"
    assert method.label == "SVD + NOG + OW + OLR"
    assert method == Method("svd", NAMES)


def test_the_solver_may_be_at_any_place_and_in_capitals() -> None:
    assert Method.parse("NOG + svd") == Method.parse("nog")


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solver_alone_is_a_method(solver: str) -> None:
    assert Method.parse(solver) == Method(solver)
    assert str(Method.parse(solver)) == solver


@pytest.mark.parametrize(
    "text",
    ["svd", "ns", "sn", "nog+olr-exact", "ow-stiefel", "nog+ol", "ow-conv", "polargrad+ow", "muon"],
)
def test_the_canonical_form_parses_to_itself(text: str) -> None:
    method = Method.parse(text)
    assert Method.parse(str(method)) == method


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("muon", "SVD + Muon"),
        ("ow+polargrad", "SVD + PolarGrad + OW"),
        ("ow-conv", "SVD + OW (BCOP)"),
    ],
)
def test_labels_of_treatments_after_the_paper(text: str, label: str) -> None:
    assert Method.parse(text).label == label


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nogg", "unknown method 'nogg': allowed are svd, ns, bn, gap, nog.*did you mean 'nog'?"),
        ("", "unknown method '': allowed are"),
        ("nog++ow", r"unknown method 'nog\+\+ow'"),
        ("svd+ns", r"method 'svd\+ns' names 2 solvers, allowed is one"),
        ("ns+nog", r"method 'ns\+nog': treatments go with solver 'svd' only; .*'nog'"),
        ("nog+nog", "nog"),
    ],
)
def test_unknown_methods_are_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        Method.parse(text)
    assert "\n" not in str(error.value)
