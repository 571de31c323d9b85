import pytest
import torch
from torch import nn

from orthocond.training.evaluation import buffers_restored, evaluate


def test_results_of_an_evaluation_do_not_depend_on_the_batch_size() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(50, 10), torch.randint(10, (50,))
    loss = nn.functional.cross_entropy(logits.double(), labels).item()
    order = logits.argsort(1, descending=True)
    top1 = (order[:, 0] == labels).double().mean().item() * 100
    top5 = (order[:, :5] == labels[:, None]).any(1).double().mean().item() * 100
    batches = zip(logits.split(7), labels.split(7), strict=True)
    result = evaluate(nn.Identity(), batches)
    assert result == pytest.approx({"loss": loss, "top1": top1, "top5": top5}, rel=1e-6)


def test_an_evaluation_without_images_is_an_error() -> None:
    with pytest.raises(ValueError, match="no images"):
        evaluate(nn.Identity(), [])


def test_buffers_are_restored_even_after_an_error() -> None:
    model = nn.BatchNorm2d(3)
    before = {name: b.clone() for name, b in model.named_buffers()}
    with pytest.raises(RuntimeError, match="inside"), buffers_restored(model):
        model(torch.randn(4, 3, 2, 2))
        raise RuntimeError("inside")
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name])
