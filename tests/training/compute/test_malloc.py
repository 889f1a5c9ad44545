"""Freed memory that stays, measured in page faults."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

TAKES_AND_FREES = """
import resource, sys
import numpy as np
from carray.training.compute.malloc import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def take():
    np.empty(48 * 2**20, np.uint8).fill(1)  # more than glibc keeps by default
for _ in range(20):
    take()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    take()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    command = [sys.executable, "-c", TAKES_AND_FREES, how]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries go their own way")
def test_a_block_that_was_freed_is_taken_again_without_asking_the_system() -> None:
    pages = 10 * 48 * 2**20 / resource.getpagesize()
    assert page_faults("system") > pages / 600  # pages may be huge: 2 MiB each
    assert page_faults("keep") < pages / 1200
