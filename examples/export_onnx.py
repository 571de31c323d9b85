"""Convert a trained network, fine-tune it, fold the whitening into its convolution, export it."""

import tempfile
from pathlib import Path

import onnxruntime
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import orthocond as oc
from orthocond.data import load_data

torch.manual_seed(0)
data = load_data("leaves", train_images=640, test_images=200)
model = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1),
    nn.BatchNorm2d(16),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(4),
    nn.Flatten(),
    nn.Linear(256, len(data.classes)),
)


def train(epochs: int) -> None:
    """Train the network, and print its last loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    model.train()
    for epoch in range(epochs):
        for images, labels in data.train_batches(epoch, seed=0, batch_size=64):
            optimizer.zero_grad()
            loss = cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
    print(f"loss {loss.item():.2f}")


train(2)
images, _ = next(iter(data.eval_batches(8)))
before = model.eval()(images)
oc.convert_batch_norm(model, ["1"])
print(f"conversion changed the outputs by {(model.eval()(images) - before).abs().max().item():.0e}")
train(1)
oc.recalibrate(model, [x for x, _ in data.train_batches(0, seed=0, batch_size=64)])
folded = oc.fold(model.eval())  # whitening and convolution become one convolution
print(f"folded: {[type(layer).__name__ for layer in folded][:3]}")

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "network.onnx"
    torch.onnx.export(folded, (images,), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path)
    (scores,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
error = (torch.from_numpy(scores) - model(images)).abs().max().item()
print(f"the exported network differs by less than 1e-4: {error < 1e-4}")
