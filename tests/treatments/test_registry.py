import pytest

from orthocond.errors import UserError
from orthocond.treatments import TREATMENTS, parse_treatments


def test_order_does_not_matter_and_one_order_comes_back() -> None:
    assert parse_treatments("olr+ow+nog") == ("nog", "ow", "olr")
    assert parse_treatments("") == ()
    for name in TREATMENTS:
        assert parse_treatments(name) == (name,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nogg", "unknown treatment 'nogg'.*did you mean 'nog'"),
        ("nog+nog", "'nog' is listed 2 times"),
        ("sn+ow", "sn and ow exclude each other: a layer has one weight parametrization"),
        ("ow+ow-stiefel", "ow and ow-stiefel exclude each other"),
        ("olr+olr-exact", "olr and olr-exact exclude each other: a step has one learning rate"),
        ("nog+rescale", "nog and rescale exclude each other: the second would undo the first"),
        ("olr+slow", "olr and slow exclude each other"),
    ],
)
def test_a_sum_that_makes_no_sense_is_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_treatments(text)
