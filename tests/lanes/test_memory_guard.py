"""A lane's own memory: what counts as growth, and that what is free goes back."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from carray.lanes import memory_guard
from carray.lanes.memory_guard import LaneMemory, MemoryLimit, own_bytes
from carray.training.compute.malloc import trim
from carray.typing import GIB

MIB = 2**20


@pytest.mark.parametrize(("third", "allowed"), [(0.5, 1.5), (1.0, 2.0), (6.0, 9.0)])
def test_growth_is_told_once_both_bounds_over_the_third_trial_are_passed(
    monkeypatch: pytest.MonkeyPatch, third: float, allowed: float
) -> None:
    held = iter([0.1, 0.2, third, allowed - 0.01, allowed + 0.01])
    monkeypatch.setattr(memory_guard, "own_bytes", lambda: int(next(held) * GIB))
    memory = LaneMemory(MemoryLimit())
    assert [memory.exceeds_limit() for _ in range(5)] == [False] * 4 + [True]


def test_mapped_files_do_not_count_and_arrays_do(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("map") / "pixels"
    np.ones(64 * MIB, np.uint8).tofile(file)
    trim()  # or the array below takes what earlier tests have left to this process
    before = own_bytes()
    mapped = np.memmap(file, np.uint8, "r")
    assert int(mapped.sum(dtype=np.int64)) == 64 * MIB
    assert own_bytes() - before < 16 * MIB
    held = np.ones(64 * MIB, np.uint8)
    assert own_bytes() - before > 48 * MIB
    assert held[0] == 1


def test_what_is_free_between_what_is_used_goes_back() -> None:
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim"):
        pytest.skip("this C library has no malloc_trim")
    blocks = [bytearray(100_000) for _ in range(1000)]  # below the size that is mapped
    del blocks[: len(blocks) - 1]  # the last one keeps the top of the heap
    full = own_bytes()
    trim()
    assert full - own_bytes() > 50 * MIB
