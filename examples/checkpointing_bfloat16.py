"""Train in bfloat16 with gradient checkpointing: less memory, the same gradients.

The covariance and its root are computed in float32 or float64 under autocast too. The forward pass
of a checkpointed block runs twice, so its running statistics are updated twice in each step, as
those of nn.BatchNorm2d are. ``recalibrate`` replaces them before an evaluation.
"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

import orthocond as oc
from orthocond.data import load_data

torch.manual_seed(0)
data = load_data("leaves", train_images=256, test_images=100)


class Network(nn.Module):
    """A whitened block, computed anew in the backward pass, and a classifier."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False), oc.DecorrelatedBatchNorm2d(16), nn.ReLU()
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the scores of the classes."""
        return self.head(checkpoint(self.block, images, use_reentrant=False))


model = Network(len(data.classes))
treated = oc.treat(model, "block.0", "nog")
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
treated.bind(optimizer)
for epoch in range(2):
    for images, labels in data.train_batches(epoch, seed=0, batch_size=64):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):  # "cuda" on a GPU
            loss = cross_entropy(model(images), labels) + treated.penalty()
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch + 1}: loss {loss.item():.2f}")
oc.recalibrate(model, [images for images, _ in data.train_batches(0, seed=0, batch_size=64)])
print(f"type of the running covariance: {model.block[1].running_covariance.dtype}")
