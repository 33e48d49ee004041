# SPDX-License-Identifier: Apache-2.0
"""Bytes in words."""

from __future__ import annotations


def size_text(size: float) -> str:
    """Return bytes in the largest unit of which there is one."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} GiB"
