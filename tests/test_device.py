"""What the memory of the processor does while a network trains on it."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own: what others freed before would be used again.
PROGRAM = """
import numpy as np, psutil
from mtl.device import heap_kept

def resident():
    return psutil.Process().memory_info().rss / 1e6

def use_and_free():
    blocks = [np.ones(50_000_000, np.uint8) for _ in range(4)]

use_and_free()
before = resident()
with heap_kept():
    use_and_free()
    print(resident() - before)
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library manages the memory here")
def test_freed_memory_stays_until_the_end_and_then_goes_back() -> None:
    root = Path(__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, check=True)
    kept_mb, left_mb = map(float, run.stdout.split())
    assert kept_mb > 180
    assert left_mb < 20
