import pytest

from orthocond.errors import UserError
from orthocond.treatments import TREATMENTS, parse_treatments


def test_treatments_in_any_order_are_stored_in_one_order() -> None:
    assert parse_treatments("olr+ow+nog") == ("nog", "ow", "olr")
    assert parse_treatments("") == ()
    assert parse_treatments("ow-conv+ol") == ("ol", "ow-conv")
    for name in TREATMENTS:
        assert parse_treatments(name) == (name,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nogg", "unknown treatment 'nogg'.*did you mean 'nog'"),
        ("nog+nog", "'nog' is listed 2 times"),
        ("sn+ow", "sn and ow exclude each other: a layer has one weight parametrization"),
        ("ow+ow-stiefel", "ow and ow-stiefel exclude each other"),
        ("ow-conv+ow", "^ow and ow-conv exclude each other: a layer has one weight param"),
        (
            "nog+ow-conv",
            "^ow-conv and nog exclude each other: the parameter of ow-conv packs several "
            "matrices, and nog needs a parameter that is one matrix$",
        ),
        (
            "ow-conv+ol+olr",
            "^ow-conv and olr exclude each other: the parameter of ow-conv packs several "
            "matrices, and olr needs a parameter that is one matrix$",
        ),
        (
            "ow-conv+muon",
            "^ow-conv and muon exclude each other: the parameter of ow-conv packs several "
            "matrices, and muon needs a parameter that is one matrix$",
        ),
        (
            "slow+ow-conv",
            "^ow-conv and slow exclude each other: the parameter of ow-conv packs several "
            "matrices, and slow needs a parameter that is one matrix$",
        ),
        ("olr+olr-exact", "olr and olr-exact exclude each other: a step has one learning rate"),
        ("nog+rescale", "nog and rescale exclude each other: the second would undo the first"),
        (
            "polargrad+nog",
            "^nog and polargrad exclude each other: the second would undo the first$",
        ),
        ("rescale+polargrad", "^polargrad and rescale exclude each other"),
        ("olr+slow", "olr and slow exclude each other"),
        ("muon+olr", "^olr and muon exclude each other: a step has one learning rate$"),
        ("nog+olr-exact+muon", "^olr-exact and muon exclude each other"),
        ("slow+muon", "^muon and slow exclude each other"),
    ],
)
def test_a_contradictory_combination_is_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_treatments(text)
