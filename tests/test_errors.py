import pickle

from orthocond.errors import UserError, nearest, unknown
from orthocond.manifests import CorruptRun, Damage


def test_the_nearest_name_is_offered_only_where_there_is_one() -> None:
    assert nearest("conv", ["conv1", "fc"]) == "; did you mean 'conv1'?"
    assert nearest("zzz", ["conv1", "fc"]) == ""


def test_an_unknown_name_names_what_is_allowed() -> None:
    error = unknown("rule", "x", ["paper", "newton"])
    assert isinstance(error, UserError)
    assert str(error) == "unknown rule 'x': allowed are paper, newton"


def test_an_error_goes_to_another_process_whole() -> None:
    error = CorruptRun("a", Damage("metrics.csv", "is missing"), "remove it")
    there = pickle.loads(pickle.dumps(error))
    assert isinstance(there, CorruptRun)
    assert (str(there), there.file) == (str(error), "metrics.csv")
