"""In what precision a training computes; weights and their optimizer are fp32 always."""
from __future__ import annotations

import functools

import torch


@functools.cache
def compute(device: str) -> torch.dtype:
    """bf16 where the hardware multiplies in it. Where it does not (x86 before AVX-512 BF16 and AMX, as Cascade Lake is, or a GPU before Ampere) bf16 is
    emulated, and fp32 takes a third of its time on such a CPU."""
    if device != "cpu":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    able = torch.cpu.get_capabilities()
    return torch.bfloat16 if any(able.get(unit) for unit in ("avx512_bf16", "amx_bf16", "bf16")) else torch.float32


def name(device: str) -> str:
    """As a card says it."""
    return str(compute(device)).removeprefix("torch.")


def autocast(device: torch.device) -> torch.autocast:
    """For the forward pass of a training on this device."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=compute(device.type) is torch.bfloat16)
