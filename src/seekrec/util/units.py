# SPDX-License-Identifier: Apache-2.0
"""Format times and sizes for people."""


def format_seconds(seconds: float) -> str:
    """Write a time for people: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"


def format_bytes(count: int) -> str:
    """Write a size for people: `0 MB`, `12 MB`, `3.5 GB`."""
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


__all__ = ["format_bytes", "format_seconds"]
