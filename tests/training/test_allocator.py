"""Large tensors that are freed and made again cost no page faults."""

import subprocess
import sys

# In a process of its own, as in training: in the tests' process, threads and memory that other
# tests left behind have page faults too.
CODE = """
import resource
import torch
from orthocond.training.allocator import keep_memory

def faults_of_fresh_tensors(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        torch.zeros(2**23)  # 32 MB, written throughout: 8,192 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_memory()
faults_of_fresh_tensors(20)  # the first few may take new memory each, as the heap is laid out
print(faults_of_fresh_tensors(20))
"""


def test_freed_memory_is_reused_without_new_page_faults() -> None:
    found = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 1000
