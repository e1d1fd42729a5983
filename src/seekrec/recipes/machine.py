# SPDX-License-Identifier: Apache-2.0
"""The machine that a recipe runs on: cores, memory, GPU, free disk, and how fast it multiplies right now."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from seekrec.util.clock import share_of_core
from seekrec.util.precision import cpu_has_bf16
from seekrec.util.units import format_bytes

# Matrices of the probe: the sizes of a feed-forward layer of a small model.
_ROWS, _WIDTH, _INNER = 1024, 64, 256
_PROBE_SECONDS = 0.3


@dataclass(frozen=True)
class Machine:
    """A machine.

    Args:
        num_cores (`int`): Cores that this process may use.
        num_threads (`int`): Threads of torch.
        memory (`int`): Bytes of memory, or of this process's share of it where a container limits that.
        free_disk (`int`): Bytes that are free where the run writes.
        gpu (`str`, *optional*): Name of the GPU.
        gpu_memory (`int`): Bytes of its memory.
        gflops (`float`): Billions of float32 operations a second, measured on small matrices.
        has_bf16 (`bool`): Whether it multiplies in bfloat16 natively.
        share_of_core (`float`): Share of a core that this process got so far, 1 on a machine of its own.
    """

    num_cores: int
    num_threads: int
    memory: int
    free_disk: int
    gpu: str | None
    gpu_memory: int
    gflops: float
    has_bf16: bool
    share_of_core: float = 1.0

    @classmethod
    def measure(cls, folder: str | Path, *, use_cpu: bool = False) -> Machine:
        """Look at this machine; a third of a second goes into the probe.

        Args:
            folder (`str` or `Path`): Folder of the run; it need not exist.
            use_cpu (`bool`): Leave a GPU out of account.
        """
        place = Path(folder).absolute()
        while not place.exists():
            place = place.parent
        has_gpu = torch.cuda.is_available() and not use_cpu
        device = torch.device("cuda" if has_gpu else "cpu")
        return cls(
            num_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            num_threads=torch.get_num_threads(),
            memory=memory_size(),
            free_disk=shutil.disk_usage(place).free,
            gpu=torch.cuda.get_device_name() if has_gpu else None,
            gpu_memory=torch.cuda.get_device_properties(0).total_memory if has_gpu else 0,
            gflops=_measure_gflops(device),
            has_bf16=torch.cuda.is_bf16_supported() if has_gpu else cpu_has_bf16(),
            share_of_core=share_of_core(),
        )

    def __str__(self) -> str:
        text = (
            f"{self.num_cores} cores ({self.num_threads} threads), {format_bytes(self.memory)} of memory, "
            f"{format_bytes(self.free_disk)} of free disk"
        )
        gpu = "no GPU" if self.gpu is None else f"{self.gpu} with {format_bytes(self.gpu_memory)}"
        return f"{text}, {gpu}; {self.gflops:.0f} GFLOP/s on small matrices"


def memory_size() -> int:
    """Return the bytes of memory that this process may use."""
    return min(int(psutil.virtual_memory().total), _memory_limit())


def _memory_limit() -> int:
    """Return the limit of a container (cgroup v2 or v1); a very large number where there is none."""
    for place in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(place).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            return int(text)
    return 1 << 62


def _measure_gflops(device: torch.device) -> float:
    """Multiply for a moment; where others use the machine, too, it is their share that is measured."""
    scale = 8 if device.type == "cuda" else 1
    left = torch.ones(_ROWS * scale, _WIDTH, device=device)
    right = torch.ones(_WIDTH, _INNER, device=device)
    (left @ right).sum().item()
    count, seconds, started = 0, 0.0, time.perf_counter()
    with torch.no_grad():
        # Once at least: on a busy machine the moment may be over before it began.
        while not count or seconds < _PROBE_SECONDS:
            for _ in range(10):
                product = left @ right
            product.sum().item()
            count, seconds = count + 10, time.perf_counter() - started
    return 2e-9 * _ROWS * scale * _WIDTH * _INNER * count / seconds


__all__ = ["Machine", "memory_size"]
