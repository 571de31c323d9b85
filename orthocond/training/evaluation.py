"""Loss and accuracy of a classifier, on one process or many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from orthocond.errors import UserError
from orthocond.host import wide_device

Reduce = Callable[[Tensor], Tensor]


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    reduce: Reduce = lambda sums: sums,
) -> dict[str, float]:
    """Return the mean cross-entropy, and top-1 and top-5 accuracy in percent.

    Args:
        model: a classifier; put it in evaluation mode before.
        batches: pairs of images (b, 3, H, W) and labels (b,), on the model's device.
        reduce: sums a tensor over the processes.

    Returns:
        ``loss``, ``top1`` and ``top5``; with fewer than five classes top5 counts all of them.

    Raises:
        UserError: there are no images.

    Example:
        >>> images, labels = torch.eye(3), torch.tensor([0, 1, 1])
        >>> evaluate(torch.nn.Identity(), [(images, labels)])["top5"]
        100.0
    """
    sums: Tensor | None = None
    for images, labels in batches:
        logits = model(images)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        hits = logits.topk(min(5, logits.shape[1])).indices == labels.unsqueeze(1)  # (b, <= 5)
        part = logits.new_zeros(4, dtype=torch.float64, device=wide_device(logits.device))
        part[0] = cross_entropy(logits, labels, reduction="sum")
        part[1], part[2], part[3] = hits[:, 0].sum(), hits.sum(), len(labels)
        sums = part if sums is None else sums + part
    if sums is None:
        raise UserError("there are no images to evaluate on")
    loss, top1, top5, n = reduce(sums).tolist()
    return {"loss": loss / n, "top1": 100 * top1 / n, "top5": 100 * top5 / n}


@contextmanager
def buffers_restored(model: nn.Module) -> Iterator[None]:
    """Restore all buffers at the end, which undoes changes to the running statistics."""
    saved = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(saved[name])
