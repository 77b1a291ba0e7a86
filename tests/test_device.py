"""What the memory of the processor does while a network trains on it."""

import platform

import numpy as np
import psutil
import pytest

from mtl.device import heap_kept

BLOCKS, BLOCK_BYTES = 4, 50_000_000


def resident() -> int:
    return psutil.Process().memory_info().rss


def use_and_free() -> None:
    blocks = [np.ones(BLOCK_BYTES, np.uint8) for _ in range(BLOCKS)]
    assert all(block[-1] for block in blocks)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library manages the memory here")
def test_freed_memory_stays_until_the_end_and_then_goes_back() -> None:
    use_and_free()
    before = resident()
    with heap_kept():
        use_and_free()
        assert resident() - before > 0.9 * BLOCKS * BLOCK_BYTES
    assert resident() - before < 0.1 * BLOCKS * BLOCK_BYTES
    use_and_free()
    assert resident() - before < 0.1 * BLOCKS * BLOCK_BYTES
