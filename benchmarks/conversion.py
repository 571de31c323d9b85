"""Accuracy of a network before and after its batch norms become whitening layers.

A small network is trained with plain batch norm. Then the batch norm of its stem is converted,
and the network is trained for one more epoch, as is a copy that keeps the batch norm.

python benchmarks/conversion.py --data folder:/path/to/images [--epochs 4] [--threads 2]
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from common import RESULTS, begin, write
from torch import nn

import orthocond as oc
from orthocond.data import ImageData, load_data
from orthocond.models.backbones import build_model
from orthocond.training.evaluation import evaluate

BATCH = 128
LAYERS = ["bn1"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="leaves", help="image set, as for orthocond train")
    parser.add_argument("--train-images", type=int, default=4096)
    parser.add_argument("--test-images", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=4, help="epochs with batch norm")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    return parser.parse_args()


def train(model: nn.Module, data: ImageData, epochs: range, lr: float, device: str) -> None:
    """Train a network by SGD; the epochs' numbers fix the order of the images."""
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=5e-4)
    model.train()
    for epoch in epochs:
        for images, labels in data.train_batches(epoch, 0, BATCH):
            optimizer.zero_grad()
            logits = model(images.to(device))
            nn.functional.cross_entropy(logits, labels.to(device)).backward()
            optimizer.step()


def accuracy(model: nn.Module, data: ImageData, device: str) -> float:
    """Return the accuracy on the test images in percent."""
    batches = ((x.to(device), y.to(device)) for x, y in data.eval_batches(BATCH))
    return evaluate(model.eval(), batches)["top1"]


def main() -> None:
    options = arguments()
    device = begin(options.threads)
    data = load_data(
        options.data, train_images=options.train_images, test_images=options.test_images
    )
    model = build_model("dbn", "small", "bn", len(data.classes)).to(device)
    train(model, data, range(options.epochs), 0.1, device)
    before = accuracy(model, data, device)
    images = next(iter(data.eval_batches(BATCH)))[0].to(device)
    with torch.no_grad():
        logits = model(images)
    kept = copy.deepcopy(model)
    oc.convert_batch_norm(model, LAYERS)
    with torch.no_grad():
        difference = (model(images) - logits).abs().max() / logits.abs().max()
    converted = accuracy(model, data, device)
    tuned = {}
    for name, network in (("batch norm", kept), ("whitening", model)):
        train(network, data, range(options.epochs, options.epochs + 1), 0.01, device)
        tuned[name] = accuracy(network, data, device)
    result = {
        "before": before,
        "converted": converted,
        "after one more epoch": tuned,
    }
    for name, top1 in result.items():
        print(f"{name:24s} {top1}")
    write(
        options.out,
        "conversion",
        data={"name": data.name, "train": options.train_images, "test": options.test_images},
        layers=LAYERS,
        epochs=options.epochs,
        top1=result,
        largest_relative_difference_of_logits=float(difference),
    )


if __name__ == "__main__":
    main()
