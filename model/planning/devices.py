"""The peak FLOP/s of devices, of which MFU (model FLOPs utilization) is a fraction.

Reads and writes nothing. GPUs have the figures of their data sheets for dense bfloat16, to which published MFU refers (Chowdhery
et al. 2022); for other devices a matrix multiplication is measured.
"""

import time
from functools import cache

import torch

# Part of the name that nvidia-smi shows -> FLOP/s; the first match counts
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
SIZE, NUM_TRIES = 1024, 5


@cache
def peak_flops(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of one device, as this process can use it."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else ""
    known = next((flops for part, flops in PEAK_FLOPS.items() if part in name), None)
    return known if known else measured_flops(device, dtype)


def measured_flops(device: str, dtype: torch.dtype) -> float:
    """The FLOP/s of the fastest of a few multiplications of square matrices."""
    a, b = (torch.randn(SIZE, SIZE, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(NUM_TRIES):
        started = time.perf_counter()
        (a @ b)[0, 0].item()  # waits for the device
        seconds.append(time.perf_counter() - started)
    # The fastest: the first warms up, and other processes can only slow it down.
    return 2 * SIZE**3 / min(seconds)
