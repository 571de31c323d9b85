import json
import platform
from importlib.metadata import version

import torch

from orthocond.training.environment import describe


def test_the_environment_is_json_without_the_host_name() -> None:
    environment = describe(torch.device("cpu"), "float32", 2)
    text = json.dumps(environment)
    assert environment["packages"]["torch"] == version("torch")
    assert (environment["dtype"], environment["processes"]) == ("float32", 2)
    assert platform.node() not in text.split('"')
