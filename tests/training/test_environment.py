import json
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from orthocond.training.environment import describe, has_bfloat16


def test_the_environment_is_json_without_the_host_name() -> None:
    environment = describe(torch.device("cpu"), "float32", 2)
    text = json.dumps(environment)
    assert environment["packages"]["torch"] == version("torch")
    assert (environment["dtype"], environment["processes"]) == ("float32", 2)
    assert environment["instructions"].split()[0] == torch.backends.cpu.get_cpu_capability()
    assert platform.node() not in text.split('"')


def test_a_source_tree_that_is_not_installed_has_an_environment(monkeypatch) -> None:
    def absent(name: str) -> str:
        if name == "orthocond":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr("orthocond.training.environment.version", absent)
    packages = describe(torch.device("cpu"), "float32", 1)["packages"]
    assert list(packages) == ["orthocond", "torch", "torchvision", "accelerate", "numpy"]
    assert packages["orthocond"] == "unknown"


def test_the_instructions_for_bfloat16_are_part_of_the_environment(monkeypatch) -> None:
    """Processors that differ in nothing else recorded give other digits in bfloat16."""
    for has, names in ((False, []), (True, ["avx512_bf16"])):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda h=has: {"avx512_bf16": h})
        environment = describe(torch.device("cpu"), "bfloat16", 1)
        assert environment["instructions"].split()[1:] == names and has_bfloat16() is has
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # an older torch
    assert " " not in describe(torch.device("cpu"), "bfloat16", 1)["instructions"]
    assert has_bfloat16()
