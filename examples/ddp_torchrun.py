"""Train in two processes: the covariance is the one of the whole batch, not of each half.

Run it with ``torchrun --nproc-per-node 2 ddp_torchrun.py``.
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import orthocond as oc
from orthocond.data import load_data

dist.init_process_group("gloo")  # nccl on GPUs
rank, world = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
data = load_data("leaves", train_images=640, test_images=200)

model = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1, bias=False),
    oc.DecorrelatedBatchNorm2d(16),  # sums its moments over the processes
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(4),
    nn.Flatten(),
    nn.Linear(256, len(data.classes)),
)
treated = oc.treat(model, "0", "nog")
parallel = DistributedDataParallel(model)
optimizer = torch.optim.SGD(parallel.parameters(), lr=0.05, momentum=0.9)
treated.bind(optimizer)

for epoch in range(3):
    for images, labels in data.train_batches(epoch, 0, batch_size=64, rank=rank, world=world):
        optimizer.zero_grad()
        loss = cross_entropy(parallel(images), labels) + treated.penalty()
        loss.backward()
        optimizer.step()
    total = loss.detach()
    dist.all_reduce(total)
    if rank == 0:
        print(f"epoch {epoch + 1}: loss {total.item() / world:.2f}")
dist.destroy_process_group()
