# SPDX-License-Identifier: Apache-2.0
"""What the device can do at best: copy bandwidth, as measured, and int8 tensor rate, from the data sheet."""

from __future__ import annotations

import ctypes
import functools
import statistics
import time
from typing import Any

import numpy as np

import residua as rz

__all__ = ["Device"]

# Dense int8 operations per second of the tensor cores, two per multiply and add, from NVIDIA's data sheets.
_INT8_PEAKS = {
    "H200": 1979e12,
    "GH200": 1979e12,
    "H100 PCIe": 1513e12,
    "H100 NVL": 1671e12,
    "H100": 1979e12,
    "A100": 624e12,
    "A800": 624e12,
    "L40S": 733e12,
}


class Device:
    """The device that is measured, or the emulation."""

    def __init__(self, *, emulated: bool, number: int = 0) -> None:
        self.emulated = emulated
        self.number = number
        self.info: dict[str, Any] = dict(rz.cuda.device_info(f"cuda:{number}"))
        self.name = str(self.info["name"])

    @functools.cached_property
    def copy_bandwidth(self) -> float:
        """Bytes read plus bytes written per second of a copy within the device's memory."""
        if self.emulated:
            source = np.ones(1 << 22, np.uint8)
            start = time.perf_counter()
            source.copy()
            return 2 * source.nbytes / (time.perf_counter() - start)
        return _copy_bandwidth(self.number, min(4 << 30, int(self.info["free_bytes"]) // 4))

    @functools.cached_property
    def int8_peak(self) -> float | None:
        """Operations per second: of the data sheet where it is known, else what PyTorch reaches."""
        if self.emulated:
            return 1e12
        listed = [rate for name, rate in _INT8_PEAKS.items() if name in self.name]
        return listed[0] if listed else self.int8_reached

    @functools.cached_property
    def int8_reached(self) -> float | None:
        """Operations per second of the largest plain product that PyTorch offers; None without it."""
        if self.emulated:
            return None
        try:
            import torch
        except ImportError:
            return None
        n = 8192
        a, b = (torch.randint(-128, 128, (n, n), dtype=torch.int8, device="cuda") for _ in range(2))
        seconds = []
        for _ in range(12):
            torch.cuda.synchronize()
            start = time.perf_counter()
            torch._int_mm(a, b.t())
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        return 2 * n**3 / statistics.median(seconds[2:])

    def summary(self) -> dict[str, Any]:
        return {
            **self.info,
            "emulated": self.emulated,
            "copy_bytes_per_second": self.copy_bandwidth,
            "int8_operations_per_second": self.int8_peak,
            "int8_operations_per_second_of_torch": self.int8_reached,
        }


def _copy_bandwidth(number: int, n_bytes: int) -> float:
    """By the driver, which is there wherever a device is: no other package is needed."""
    driver = ctypes.CDLL("libcuda.so.1")

    def call(name: str, *arguments: Any) -> None:
        if status := getattr(driver, name)(*arguments):
            raise RuntimeError(f"{name} returned {status}")

    device, context = ctypes.c_int(), ctypes.c_void_p()
    memory = [ctypes.c_uint64(), ctypes.c_uint64()]
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), number)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    try:
        call("cuCtxSetCurrent", context)
        for part in memory:
            call("cuMemAlloc_v2", ctypes.byref(part), ctypes.c_size_t(n_bytes))
            call("cuMemsetD8_v2", part, ctypes.c_ubyte(1), ctypes.c_size_t(n_bytes))
        seconds = []
        for _ in range(12):
            call("cuCtxSynchronize")
            start = time.perf_counter()
            call("cuMemcpyDtoD_v2", memory[1], memory[0], ctypes.c_size_t(n_bytes))
            call("cuCtxSynchronize")
            seconds.append(time.perf_counter() - start)
        return 2 * n_bytes / statistics.median(seconds[2:])
    finally:
        for part in memory:
            if part.value:
                driver.cuMemFree_v2(part)
        driver.cuDevicePrimaryCtxRelease_v2(device)
