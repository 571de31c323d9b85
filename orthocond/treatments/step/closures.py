"""Closures of an optimizer's step, wrapped so that the gradient is treated after the backward pass.

Note [Closures]
    A closure computes the gradient inside the step. So the gradient is treated as soon as the
    closure returns, after any clipping in the closure (Lightning clips there). This is correct for
    optimizers that call the closure once, before they change a parameter. A line search calls the
    closure several times and compares losses with gradients; but a treated gradient is not the
    gradient of the loss. So ``bind`` refuses the known line searches, and the wrapper refuses the
    second call for all others. The wrapper, which the hook after the step receives, keeps the state
    of its closure: if the ``step`` of an optimizer calls the ``step`` of its base class, the hooks
    run a second time in between, and state kept elsewhere would be overwritten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orthocond.errors import UserError

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments of a step: the positional ones, of which the optimizer is the first, and keywords."""


class TreatedClosure:
    """A closure that treats the gradient after its only call (Note [Closures]).

    Args:
        closure: the closure to wrap.
        owner: the object whose treatments are applied.
        treat: function that treats the gradient.
        optimizer: name of the optimizer, for messages.
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
        """Call the closure, treat the gradient, and return the closure's loss.

        Raises:
            UserError: this is the second call; the closure is not called again.
        """
        if self.called:
            raise UserError(
                f"{self._optimizer} evaluates its closure again within one step, but a treated "
                "gradient is not the gradient of the loss: use an optimizer that evaluates the "
                "closure once; this step was stopped halfway and may have changed the weights"
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
    """Return the arguments of a step with their closure replaced by another."""
    args, kwargs = call
    if "closure" in kwargs:
        return args, {**kwargs, "closure": closure}
    return (args[0], closure, *args[2:]), kwargs


def treated_closure(call: Call, owner: object) -> TreatedClosure | None:
    """Return the owner's wrapper in a step's arguments, or None; wrappers may be nested."""
    closure = closure_of(call)
    while isinstance(closure, TreatedClosure) and closure.owner is not owner:
        closure = closure.closure
    return closure if isinstance(closure, TreatedClosure) else None
