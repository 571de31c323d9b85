"""Whiten and treat the stem of a timm model."""

import timm
import torch
from torch.nn.functional import cross_entropy

import orthocond as oc
from orthocond.data import load_data

torch.manual_seed(0)
data = load_data("leaves", train_images=320, test_images=200)
model = timm.create_model("resnet10t", num_classes=len(data.classes))  # with pretrained=True, too

# The layer evaluates as before until its first training step, and keeps timm's activation.
layer, norm = "conv1.6", "bn1"  # the last convolution of the stem, and its batch norm
oc.convert_batch_norm(model, [norm])
treated = oc.treat(model, layer, "nog+olr")
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
treated.bind(optimizer)

model.train()
with oc.ConditioningProbe(model, norm, every=2) as probe:
    for images, labels in data.train_batches(0, seed=0, batch_size=32):
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels) + treated.penalty()
        loss.backward()
        optimizer.step()
print(type(model.get_submodule(norm)).__name__)
for record in probe.records:
    found = record.median
    print(f"step {record.step}: rank {found.rank}, condition number {found.kappa_support:.0f}")
