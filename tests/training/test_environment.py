import json
import platform
from importlib.metadata import version

import torch

from orthocond.training.environment import describe, has_bfloat16


def test_the_environment_is_json_without_the_host_name() -> None:
    environment = describe(torch.device("cpu"), "float32", 2)
    text = json.dumps(environment)
    assert environment["packages"]["torch"] == version("torch")
    assert (environment["dtype"], environment["processes"]) == ("float32", 2)
    assert environment["instructions"].split()[0] == torch.backends.cpu.get_cpu_capability()
    assert platform.node() not in text.split('"')


def test_the_instructions_for_bfloat16_are_part_of_the_environment(monkeypatch) -> None:
    """Processors that differ in nothing else recorded give other digits in bfloat16."""
    for has, names in ((False, []), (True, ["avx512_bf16"])):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda h=has: {"avx512_bf16": h})
        environment = describe(torch.device("cpu"), "bfloat16", 1)
        assert environment["instructions"].split()[1:] == names and has_bfloat16() is has
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # an older torch
    assert " " not in describe(torch.device("cpu"), "bfloat16", 1)["instructions"]
    assert has_bfloat16()
