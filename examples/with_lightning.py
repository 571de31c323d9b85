"""Train with Lightning: treat the layer in ``__init__``, bind in ``configure_optimizers``."""

import logging
import warnings

import lightning
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import orthocond as oc
from orthocond.data import load_data


class Classifier(lightning.LightningModule):
    """A small network with decorrelated batch norm."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False),
            oc.DecorrelatedBatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(256, classes),
        )
        self.treated = oc.treat(self.model, "0", "nog+ow")

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        """Return the loss, with the penalty of the treatment (zero for most of them)."""
        images, labels = batch
        loss = cross_entropy(self.model(images), labels) + self.treated.penalty()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build the optimizer, and let the treatment follow its steps."""
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        self.treated.bind(optimizer)
        return optimizer


logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")
lightning.seed_everything(0, verbose=False)
data = load_data("leaves", train_images=640, test_images=200)
dataset = TensorDataset(data.train.images / 255 - 0.5, data.train.labels)
classifier = Classifier(len(data.classes))
trainer = lightning.Trainer(
    max_epochs=2,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(classifier, DataLoader(dataset, batch_size=64, shuffle=True, drop_last=True))
print(f"loss after {trainer.global_step} steps: {trainer.callback_metrics['loss']:.2f}")
values = torch.linalg.svdvals(classifier.treated.weight().flatten(1))
print(f"largest singular value of the treated weight: {values[0]:.2f}")
