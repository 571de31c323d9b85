from __future__ import annotations

import pytest
import torch
from torch import nn

from orthocond.config.schema import Config
from orthocond.config.sources import resolve
from orthocond.config.tasks import TASKS
from orthocond.errors import UserError
from orthocond.training.treated_network import build_network

GAMMA = "bn1.weight"


def built(**settings: object) -> nn.Module:
    return build_network(Config.model_validate(settings), 5)[0]


@pytest.mark.parametrize("method", ["svd", "bn", "ns", "nog+ow+olr", "sn"])
def test_gamma_starts_uniformly_and_no_other_weight_changes(method: str) -> None:
    one, uniform = (
        dict(built(method=method, gamma_start=g).state_dict()) for g in ("one", "uniform")
    )
    gamma = uniform.pop(GAMMA)
    assert torch.equal(one.pop(GAMMA), torch.ones(64))
    assert 0 <= gamma.min() < 0.1 and 0.9 < gamma.max() < 1 and abs(gamma.mean() - 0.5) < 0.15
    assert one.keys() == uniform.keys()
    assert all(torch.equal(one[name], uniform[name]) for name in one)


def test_the_seed_fixes_gamma_whatever_the_solver() -> None:
    svd, ns, bn = (built(method=m, gamma_start="uniform") for m in ("svd", "ns", "bn"))
    other = built(method="svd", gamma_start="uniform", seed=1)
    gamma = svd.get_parameter(GAMMA)
    assert torch.equal(gamma, ns.get_parameter(GAMMA)) and torch.equal(
        gamma, bn.get_parameter(GAMMA)
    )
    assert not torch.equal(gamma, other.get_parameter(GAMMA))
    double = built(gamma_start="uniform", precision="float64").get_parameter(GAMMA)
    assert double.dtype == torch.float64 and double.min() >= 0 and double.max() < 1


@pytest.mark.parametrize("method", TASKS["gcp"].solvers)
def test_a_start_of_gamma_is_refused_where_there_is_no_gamma(method: str) -> None:
    assert Config(task="gcp", method=method, gamma_start="one")
    with pytest.raises(UserError, match=r"^gamma_start 'uniform' is for task 'dbn': .* use 'one'$"):
        resolve(flags={"task": "gcp", "methods": [method]}, settings=["gamma_start=uniform"])
    with pytest.raises(UserError, match=r"^gamma_start: Input should be 'one' or 'uniform'"):
        resolve(settings=["gamma_start=zero"])
