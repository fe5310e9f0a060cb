"""What arithmetic a machine is fastest at without losing accuracy."""

import torch


def choose_precision(setting: str = "auto") -> str:
    """Lightning Fabric's name of the precision to use: `auto` takes bfloat16 where the hardware multiplies it.

    On CPUs that is AVX512-bf16 or AMX; elsewhere bfloat16 is emulated, and slower than float32.
    """
    if setting != "auto":
        return setting
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16-mixed" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "32-true"
