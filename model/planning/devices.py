"""The peak FLOP/s of devices, of which MFU (model FLOPs utilization) is a fraction.

Reads and writes nothing. GPUs have the figures of their data sheets for dense bfloat16, to which published MFU refers (Chowdhery
et al. 2022); for other devices a matrix multiplication is measured.
"""

import re
import time
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # every command imports this table through `crawl2chat plan`; the data image has no torch
    import torch

# Words of the name that nvidia-smi shows -> FLOP/s; the first match counts. The V100 knows no bfloat16 and has its float16 figure. The
# GeForce cards have theirs with float32 accumulation, half of the one with float16 accumulation: that is what training uses.
PEAK_FLOPS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "V100": 125e12,
    "4090": 165e12,
    "3090": 71e12,
}
# 2 GFLOP: a seventh of a second on a slow core. A fast GPU needs some microseconds, as long as it takes to start a kernel: the peak
# measured there is too low, and the MFU too high, which is why GPUs are listed.
SIZE, NUM_TRIES = 1024, 5
# After so long the tries so far must do: without instructions for bfloat16 one of them takes a core 5 to 8 seconds (torch 2.13).
MAX_SECONDS = 1.0


@cache
def peak_flops(device: str, dtype: "torch.dtype") -> float:
    """FLOP/s of one device, as this process can use it."""
    import torch

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else ""
    return listed_flops(name) or measured_flops(device, dtype)


def listed_flops(name: str) -> float | None:
    """The FLOP/s of a GPU with that name; None where it is not listed."""
    # Whole at the end: "L4" is not in "L40", nor "A100" in "RTX A1000". Any beginning: "GB200" has the chip of a B200.
    return next((flops for words, flops in PEAK_FLOPS.items() if re.search(rf"{words}(?!\w)", name)), None)


def measured_flops(device: str, dtype: "torch.dtype") -> float:
    """The FLOP/s of the fastest of a few multiplications of square matrices."""
    import torch

    a, b = (torch.randn(SIZE, SIZE, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(NUM_TRIES):
        started = time.perf_counter()
        (a @ b)[0, 0].item()  # waits for the device
        seconds.append(time.perf_counter() - started)
        if sum(seconds) > MAX_SECONDS:
            break
    # The fastest: the first warms up, and other processes can only slow it down.
    return 2 * SIZE**3 / min(seconds)
