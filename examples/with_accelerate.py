"""Train with Hugging Face accelerate: the same script on a CPU, a GPU or several of them.

Run it with ``python with_accelerate.py`` or ``accelerate launch with_accelerate.py``.
"""

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import orthocond as oc
from orthocond.data import load_data

torch.manual_seed(0)
accelerator = Accelerator()
data = load_data("leaves", train_images=640, test_images=200)
dataset = TensorDataset(data.train.images / 255 - 0.5, data.train.labels)
loader = DataLoader(dataset, batch_size=64, shuffle=True, drop_last=True)

model = nn.Sequential(
    nn.Conv2d(3, 32, 3, padding=1),
    nn.ReLU(),
    oc.GlobalCovariancePool2d(32, 16),  # a 1x1 convolution, then the root of the covariance
    nn.Linear(16 * 17 // 2, len(data.classes)),
)
treated = oc.treat(model, "2.reduction", "nog+olr")
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
treated.bind(optimizer)  # before prepare, or after it
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

for epoch in range(3):
    for images, labels in loader:
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels) + treated.penalty()
        accelerator.backward(loss)
        optimizer.step()
    last = treated.last
    step = f"optimal learning rate {last.eta:.2f} ({'used' if last.eta_used else 'not used'})"
    accelerator.print(f"epoch {epoch + 1}: loss {loss.item():.2f}, {step}")
