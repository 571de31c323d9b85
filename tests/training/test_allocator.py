"""Large tensors that are freed and made again cost no page faults."""

import resource

import torch

from orthocond.training.allocator import keep_memory


def faults_of_fresh_tensors(count: int) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        torch.zeros(2**23)  # 32 MB, written throughout: 8,192 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_freed_memory_is_reused_without_new_page_faults() -> None:
    keep_memory()
    faults_of_fresh_tensors(4)
    assert faults_of_fresh_tensors(4) < 1000
