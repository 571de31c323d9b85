"""Closures of an optimizer's step, wrapped so that the gradient is treated after the backward.

Note [Closures]
    A closure computes the gradient inside the step, so the gradient is treated right after it (and
    after clipping: Lightning has both in there). That is right for optimizers that call it once,
    before they move anything. A line search calls it again and compares losses with gradients, and
    a treated gradient is not that of the loss: the known ones are refused by ``bind``, the others
    at their second call. What belongs to a closure is kept in its wrapper, which the hook after the
    step is given, and not beside it: an optimizer whose ``step`` calls that of its base class runs
    the hooks a second time in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orthocond.errors import UserError

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""The arguments of a step: positional ones from the optimizer itself on, and keywords."""


class TreatedClosure:
    """A closure and what follows its only call (Note [Closures]).

    Args:
        closure: what is called.
        owner: whose treatments follow.
        treat: the treatments.
        optimizer: the optimizer's name, for messages.
    """

    def __init__(
        self,
        closure: Callable[..., Any],
        owner: object,
        treat: Callable[[], None],
        optimizer: str,
    ) -> None:
        self.closure, self.owner, self.called = closure, owner, False
        self._treat, self._optimizer = treat, optimizer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the closure's loss; its gradient is treated.

        Raises:
            UserError: it is the second call; the closure is not called then.
        """
        if self.called:
            raise UserError(
                f"{self._optimizer} evaluates its closure again within one step, and a treated "
                "gradient is not that of the loss: use an optimizer that evaluates it once; this "
                "step is broken off, and the weights are where its first evaluation has moved them"
            )
        self.called = True
        loss = self.closure(*args, **kwargs)
        self._treat()
        return loss


def closure_of(call: Call) -> Callable[..., Any] | None:
    """Return the closure among the arguments of a step, or None."""
    args, kwargs = call
    closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
    return closure if callable(closure) else None


def with_closure(call: Call, closure: Callable[..., Any]) -> Call:
    """Return the arguments of a step with another closure in place of theirs."""
    args, kwargs = call
    if "closure" in kwargs:
        return args, {**kwargs, "closure": closure}
    return (args[0], closure, *args[2:]), kwargs


def treated_closure(call: Call, owner: object) -> TreatedClosure | None:
    """Return an owner's wrapper among the closures of a step, each of which may wrap another."""
    closure = closure_of(call)
    while isinstance(closure, TreatedClosure) and closure.owner is not owner:
        closure = closure.closure
    return closure if isinstance(closure, TreatedClosure) else None
