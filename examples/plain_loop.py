"""Train a small network with decorrelated batch norm in a plain PyTorch loop.

The convolution before the whitening layer is treated by NOG, and the condition number of its
outputs is measured during training.
"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import orthocond as oc
from orthocond.data import load_data

torch.manual_seed(0)
data = load_data("leaves", train_images=640, test_images=200)  # 32x32 images of overlapping discs

model = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1, bias=False),
    oc.DecorrelatedBatchNorm2d(16),
    nn.ReLU(),
    nn.Conv2d(16, 32, 3, stride=2, padding=1),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(32, len(data.classes)),
)
treated = oc.treat(model, "0", "nog")  # before the optimizer is built
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
treated.bind(optimizer)

with oc.ConditioningProbe(model, "1", every=10) as probe:
    for epoch in range(3):
        for images, labels in data.train_batches(epoch, seed=0, batch_size=64):
            optimizer.zero_grad()
            loss = cross_entropy(model(images), labels) + treated.penalty()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.2f}")

# The moving averages lag behind the weights: estimate them anew before an evaluation.
oc.recalibrate(model, [images for images, _ in data.train_batches(0, seed=0, batch_size=64)])
model.eval()
with torch.no_grad():
    batches = list(data.eval_batches(100))
    right = sum((model(images).argmax(1) == labels).sum().item() for images, labels in batches)
print(f"test accuracy: {right / data.eval_count:.0%}")
for record in probe.records:
    found = record.median
    print(f"step {record.step}: rank {found.rank}, condition number {found.kappa_support:.0f}")
