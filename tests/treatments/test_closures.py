"""Steps that take a closure: treated after its backward where it is called once, else refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from sam import SAM
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, AdamW, Optimizer
from toys import EACH, OPTIMIZERS, Toy, assert_same, network

import orthocond as oc
from orthocond.errors import UserError

every = pytest.mark.parametrize("treatments", EACH)
HOOKED = ["nog", "olr", "rescale+olr-exact", "slow", "polargrad+muon"]

ONCE: dict[str, Callable[..., Optimizer]] = {
    **OPTIMIZERS,
    "adam": partial(torch.optim.Adam, lr=0.01),
    "rmsprop": partial(torch.optim.RMSprop, lr=0.01),
    "adagrad": partial(torch.optim.Adagrad, lr=0.01),
    "nadam": partial(torch.optim.NAdam, lr=0.01),
    "adafactor": partial(torch.optim.Adafactor, lr=0.01),
    "rprop": partial(torch.optim.Rprop, lr=0.01),
}


@every
@pytest.mark.parametrize("build", ONCE.values(), ids=ONCE)
@pytest.mark.parametrize("keyword", [False, True], ids=["position", "keyword"])
def test_a_step_with_a_closure_equals_one_without(
    treatments: str, build: Callable[..., Optimizer], keyword: bool
) -> None:
    plain, closed = Toy(treatments, build), Toy(treatments, build)
    for _ in range(3):
        loss = plain.step()
        step = closed.optimizer.step
        got = step(closure=closed.backward) if keyword else step(closed.backward)
        assert got == loss
        if plain.treated.last is not None:
            assert closed.treated.last.eta == pytest.approx(plain.treated.last.eta, nan_ok=True)
            assert torch.equal(closed.treated.last._after, plain.treated.last._after)
    assert_same(plain.state(), closed.state())
    closed.step()  # and the next step may have no closure
    plain.step()
    assert_same(plain.state(), closed.state())


def test_muon_takes_a_closure() -> None:
    images = torch.randn(8, 6)
    states = []
    for closed in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 4, bias=False))
        treated = oc.treat(model, "0", "rescale+olr")
        optimizer = torch.optim.Muon(model.parameters(), lr=0.05)
        treated.bind(optimizer)

        def backward(model: nn.Module = model, optimizer: Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = model(images).square().sum()
            loss.backward()
            return loss

        for _ in range(2):
            if closed:
                optimizer.step(backward)
            else:
                backward()
                optimizer.step()
        assert treated.last is not None
        states.append({name: t.clone() for name, t in model.state_dict().items()})
    assert_same(*states)


@pytest.mark.parametrize("treatments", HOOKED)
def test_lbfgs_is_refused_at_bind(treatments: str) -> None:
    toy = Toy(treatments)
    with pytest.raises(UserError, match=r"^LBFGS evaluates its closure several times in a step, "):
        toy.treated.bind(LBFGS(toy.model.parameters()))


@pytest.mark.parametrize("treatments", ["ow", "ow-stiefel", "ow-conv", "ol", "sn"])
def test_treatments_without_a_step_hook_accept_lbfgs(treatments: str) -> None:
    toy = Toy(treatments)
    toy.optimizer = LBFGS(toy.model.parameters(), lr=0.1, max_iter=3)
    toy.treated.bind(toy.optimizer)

    def closure() -> Tensor:
        toy.optimizer.zero_grad()
        loss = toy.loss() + toy.treated.penalty()
        loss.backward()
        return loss

    first = closure().item()
    toy.optimizer.step(closure)
    assert closure().item() < first


class Twice(SGD):
    """An optimizer that steps, and evaluates the loss again to see whether it fell."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        assert closure is not None
        with torch.enable_grad():
            closure()
        super().step()
        with torch.enable_grad():
            return closure()


class Deaf(SGD):
    """An optimizer that takes a closure but does not call it."""

    def step(self, closure: Callable[[], Any] | None = None) -> None:
        super().step()


@pytest.mark.parametrize("treatments", HOOKED)
def test_a_second_call_in_one_step_is_refused(treatments: str) -> None:
    toy = Toy(treatments, partial(Twice, lr=0.1))
    calls = []

    def closure() -> float:
        calls.append(1)
        return toy.backward()

    with pytest.raises(UserError, match=r"^Twice evaluates its closure again.*may have changed"):
        toy.optimizer.step(closure)
    assert len(calls) == 1  # the second call is refused before the closure runs
    weight = toy.treated.parameter.detach().clone()
    toy.optimizer = SGD(toy.model.parameters(), lr=0.0)
    toy.treated.bind(toy.optimizer)
    toy.step()  # no state of the failed step is left
    assert torch.equal(toy.treated.parameter.detach(), weight)


@pytest.mark.parametrize("treatments", HOOKED)
def test_a_closure_that_is_never_called_is_noticed(treatments: str) -> None:
    toy = Toy(treatments, partial(Deaf, lr=0.1))
    toy.optimizer.step(toy.backward)  # without a gradient nothing moves
    toy.backward()
    with pytest.raises(UserError, match=r"^Deaf never called its closure, so it stepped wit"):
        toy.optimizer.step(toy.backward)
    toy.optimizer.zero_grad()
    toy.optimizer.step(toy.backward)


@pytest.mark.parametrize("treatments", HOOKED)
def test_an_error_in_the_closure_leaves_no_state_behind(treatments: str) -> None:
    toy, twin = Toy(treatments), Toy(treatments)

    def broken() -> float:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        toy.optimizer.step(broken)
    assert toy.step() == twin.step()
    assert_same(toy.state(), twin.state())


@pytest.mark.parametrize("treatments", [*HOOKED, "nog+ow+olr"])
@pytest.mark.parametrize("target", ["parameter", "weight"])
def test_sam_with_a_closure_is_sam_with_its_base_bound(treatments: str, target: str) -> None:
    states = []
    for closed in (True, False):
        toy = Toy(treatments, lambda p: SAM(p, partial(SGD, lr=0.1)), target=target)
        toy.model.eval()  # in training, u and v would depend on when the rule runs
        if not closed:
            toy.treated.bind(toy.optimizer.base_optimizer)
        for _ in range(3):
            (toy.loss() + toy.treated.penalty()).backward()
            if closed:
                toy.optimizer.step(lambda toy=toy: (toy.loss() + toy.treated.penalty()).backward())
            else:
                toy.optimizer.first_step()
                (toy.loss() + toy.treated.penalty()).backward()
                toy.optimizer.second_step()
        states.append(toy.state())
    assert_same(*states, 1e-12)


@every
def test_accelerate_passes_a_closure_on(treatments: str) -> None:
    one = Toy(treatments)
    wrapped = Toy(treatments, lambda p: Accelerator(cpu=True).prepare(OPTIMIZERS["sgd"](p)))
    for _ in range(3):
        one.step()
        wrapped.optimizer.step(wrapped.backward)
    assert_same(one.state(), wrapped.state())


LIGHTNING = [
    "nog+olr",
    "nog+ow+olr",
    "nog+sn+ol+olr-exact",
    "ow-stiefel+rescale+slow",
    "polargrad+muon",
]


@pytest.mark.parametrize("treatments", LIGHTNING)
@pytest.mark.parametrize("automatic", [True, False], ids=["automatic", "manual"])
@pytest.mark.parametrize("build", [partial(SGD, lr=0.1, momentum=0.9), partial(AdamW, lr=0.01)])
def test_training_with_lightning_equals_a_plain_loop(
    treatments: str, automatic: bool, build: Callable[..., Optimizer], tmp_path: Path
) -> None:
    lightning = pytest.importorskip("lightning")
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(24, 3, 8, 8, generator=generator, dtype=torch.float64)
    batches = [(x, torch.arange(4)) for x in images.split(4)]

    class Module(lightning.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = automatic
            self.net = network()
            self.treated = oc.treat(self.net, "0", treatments)
            self.records: list[Any] = []

        def configure_optimizers(self) -> Optimizer:
            optimizer = build(self.parameters())
            if automatic:
                self.treated.bind(optimizer)
            return optimizer

        def on_train_start(self) -> None:
            if not automatic:  # Lightning's wrapper
                self.treated.bind(self.optimizers())

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            x, labels = batch
            loss = nn.functional.cross_entropy(self.net(x), labels) + self.treated.penalty()
            if not automatic:
                self.optimizers().zero_grad()
                self.manual_backward(loss)
                nn.utils.clip_grad_norm_(self.parameters(), 0.5)
                self.optimizers().step()
            return loss

        def on_train_batch_end(self, *_: Any) -> None:
            self.records.append(self.treated.last)

    module = Module()
    trainer = lightning.Trainer(
        default_root_dir=tmp_path, enable_checkpointing=False, logger=False, max_epochs=1,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", devices=1,
        gradient_clip_val=0.5 if automatic else None,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))

    net = network()
    treated = oc.treat(net, "0", treatments)
    optimizer = build(net.parameters())
    treated.bind(optimizer)
    for step, (x, labels) in enumerate(batches):
        optimizer.zero_grad()
        (nn.functional.cross_entropy(net(x), labels) + treated.penalty()).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        optimizer.step()
        record = module.records[step]
        assert record.eta == pytest.approx(treated.last.eta, nan_ok=True)
        if "nog" in treatments:
            assert record.gradient_kappa_after == pytest.approx(1, rel=1e-9)
            assert record.gradient_kappa_before > 1.1
    assert len({id(record) for record in module.records}) == len(batches)
    assert_same(copy.deepcopy(net.state_dict()), copy.deepcopy(module.net.state_dict()))
