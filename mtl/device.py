"""Which device computes, in which precision, and what its memory does meanwhile."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from mtl.errors import DeviceError

# Loaded where a device is chosen: it takes seconds, and the page is shown before.
if TYPE_CHECKING:
    import torch


# glibc's `mallopt`: what is larger comes straight from the system, and what lies free at the end above this goes back.
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
_USUAL_BYTES = 32 * 1024**2  # what it comes to by itself in a process that has used large blocks
_ALL_BYTES = 2**31 - 1


@contextmanager
def heap_kept() -> Iterator[None]:
    """Until it ends, memory that is freed stays with this process, where glibc manages it; then it goes back.

    A step on the CPU frees and takes blocks of 77 MB again and again. Each time the system fills new pages with zeros,
    which costs a seventh of the step. Threads beside the first one have heaps of their own, and gain little.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    glibc = ctypes.CDLL(None)
    glibc.mallopt(_MMAP_THRESHOLD, 2**30)
    glibc.mallopt(_TRIM_THRESHOLD, _ALL_BYTES)
    try:
        yield
    finally:
        glibc.mallopt(_MMAP_THRESHOLD, _USUAL_BYTES)
        glibc.mallopt(_TRIM_THRESHOLD, 2 * _USUAL_BYTES)
        glibc.malloc_trim(0)


def choose_device(name: str) -> "torch.device":
    """`auto` is cuda, then mps, then cpu; DeviceError where the named one is not there."""
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"device: got {name!r}; needed auto, cpu, cuda, cuda:1 or mps") from None
    there = ", ".join(kind for kind, is_there in available.items() if is_there)
    if not available.get(device.type, False):
        raise DeviceError(f"device: {name} is not there; this machine has {there}; take one of these, or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"device: {name} is not there; this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def choose_precision(name: str, device: "torch.device") -> Literal["32-true", "bf16-mixed"]:
    """Lightning's name of the precision; `auto` is bfloat16 where the device computes in it."""
    bfloat16 = name == "bfloat16" or (name == "auto" and _computes_in_bfloat16(device))
    return "bf16-mixed" if bfloat16 else "32-true"


def _computes_in_bfloat16(device: "torch.device") -> bool:
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # A CPU without these instructions emulates bfloat16, at a loss.
    capabilities = torch.cpu.get_capabilities()
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
