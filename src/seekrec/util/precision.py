# SPDX-License-Identifier: Apache-2.0
"""Find out which precisions a processor supports natively."""

from __future__ import annotations

import torch

# Of x86 and of Arm.
_CAPABILITIES = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


def cpu_has_bf16() -> bool:
    """Return whether the CPU multiplies in bfloat16 itself; one that does not takes five times as long as float32."""
    if hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return any(bool(found.get(name)) for name in _CAPABILITIES)
    # Older versions of torch tell of x86 alone.
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check() for check in checks if check is not None)


__all__ = ["cpu_has_bf16"]
