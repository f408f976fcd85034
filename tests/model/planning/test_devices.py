"""Peak FLOP/s: which GPUs are recognised by their name."""

import pytest

from model.planning.devices import PEAK_FLOPS, listed_flops


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA GB200", "B200"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4090", "4090"),
        ("NVIDIA L40", None),
        ("NVIDIA RTX A1000 Laptop GPU", None),
        ("NVIDIA A10G", None),
        ("", None),
    ],
)
def test_listed_flops_are_those_of_the_whole_name(name: str, listed: str | None) -> None:
    assert listed_flops(name) == (PEAK_FLOPS[listed] if listed else None)
