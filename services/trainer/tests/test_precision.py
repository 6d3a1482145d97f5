"""A training computes in bf16 only where the hardware does."""
import pytest
import torch

from shoal_trainer import precision


@pytest.mark.parametrize(
    ("able", "wanted"),
    [({"avx512_f": True}, "float32"), ({"avx512_bf16": True}, "bfloat16"), ({"amx_bf16": True, "avx512_bf16": False}, "bfloat16"), ({"neon": True, "bf16": True}, "bfloat16")],
)
def test_a_processor_without_bf16_computes_in_fp32(monkeypatch: pytest.MonkeyPatch, able: dict[str, bool], wanted: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    precision.compute.cache_clear()
    try:
        assert precision.name("cpu") == wanted
        ones = torch.ones(2, 2)
        with precision.autocast(torch.device("cpu")):
            assert (ones @ ones).dtype == getattr(torch, wanted)
    finally:
        precision.compute.cache_clear()


@pytest.mark.parametrize("able", [True, False])
def test_a_gpu_without_bf16_computes_in_fp32(monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    # Asked with emulation, a V100 says that it can.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: able or including_emulation)
    precision.compute.cache_clear()
    try:
        assert precision.name("cuda") == ("bfloat16" if able else "float32")
    finally:
        precision.compute.cache_clear()
