# SPDX-License-Identifier: Apache-2.0
"""CUDA devices: whether there are any, what they are, and arrays on them (docs/cuda.md).

``index.to("cuda")`` scans the codes of an index on one; ``device="cuda"`` of functions and classes that take
it runs them there. Nothing of CUDA is loaded before it is asked for.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from residua import _core
from residua._cuda_training import encode, kmeans
from residua._typing import AnyArray
from residua._validate import as_int
from residua.errors import InvalidTypeError, InvalidValueError, UnsupportedError

if TYPE_CHECKING:
    from residua._cuda_multivector import TokenDocuments

__all__ = [
    "DeviceArray",
    "TokenDocuments",
    "device_count",
    "device_info",
    "encode",
    "is_available",
    "kmeans",
    "to_device",
]

_EMULATED = "RESIDUA_CUDA_EMULATED"
_LEGACY_STREAM = 1  # cudaStreamLegacy
_THREAD_STREAM = 2  # cudaStreamPerThread


def __getattr__(name: str) -> Any:
    if name == "TokenDocuments":  # its module imports this one
        return import_module("residua._cuda_multivector").TokenDocuments
    raise AttributeError(f"module 'residua.cuda' has no attribute {name!r}")


def _look() -> tuple[Any, str]:
    """The native module, or None and why it cannot be used."""
    try:
        native: Any = import_module("residua._cuda")
    except ModuleNotFoundError:
        return None, (
            "the module residua._cuda is not installed: pip install residua-cuda, or build it with nvcc from "
            "source, pip install . -C cmake.define.RESIDUA_CUDA=ON"
        )
    except ImportError as e:
        return None, f"the module residua._cuda cannot be loaded ({e}); install residua-cuda again"
    if native.__version__ != _core.__version__:
        return None, (
            f"residua._cuda is of version {native.__version__} and residua of {_core.__version__}: "
            f"pip install residua-cuda=={_core.__version__}"
        )
    if native.is_emulated():
        if os.environ.get(_EMULATED) == "1":
            return native, ""
        return None, f"this build runs CUDA kernels on the CPU, slowly, for tests; {_EMULATED}=1 allows that"
    count, reason = native.device_count()
    return (native, "") if count else (None, f"no CUDA device can be used: {reason}")


def _native() -> Any:
    """The native module; raises UnsupportedError where it cannot be used."""
    native, reason = _look()
    if native is None:
        raise UnsupportedError(f"CUDA is not available here: {reason}")
    return native


def is_available() -> bool:
    """Whether this build and this machine have what ``device="cuda"`` needs."""
    return _look()[0] is not None


def device_count() -> int:
    """How many CUDA devices can be used; 0 where CUDA is not available."""
    native = _look()[0]
    return 0 if native is None else int(native.device_count()[0])


def device_info(device: Any = "cuda") -> dict[str, Any]:
    """Describe a device.

    Parameters
    ----------
    device
        ``"cuda"``, ``"cuda:1"``, a ``torch.device``, or a number.

    Returns
    -------
    Dict with ``name``, ``compute_capability`` (major, minor), ``multiprocessors``, ``memory_bytes``,
    ``free_bytes``, ``l2_bytes`` and ``shared_bytes`` (of a block).

    Raises
    ------
    UnsupportedError, which says what is missing; InvalidValueError for a device that is not there.
    """
    info: dict[str, Any] = _native().device_info(_as_cuda(device))
    return info


def _as_device(device: Any) -> int | None:
    """The number of a CUDA device, or None for the CPU."""
    name = device
    if not isinstance(device, str) and hasattr(device, "type") and hasattr(device, "index"):  # torch.device
        name = device.type if device.index is None else f"{device.type}:{device.index}"
    if isinstance(name, (int, np.integer)) and not isinstance(name, bool):
        return as_int(name, "device", 0, 1023)
    if not isinstance(name, str):
        raise InvalidTypeError(f"device must be 'cpu', 'cuda' or 'cuda:0', got {device!r}")
    if name == "cpu":
        return None
    kind, colon, number = name.partition(":")
    if kind != "cuda" or (colon and not (number.isascii() and number.isdigit() and len(number) < 4)):
        raise InvalidValueError(f"device must be 'cpu', 'cuda' or 'cuda:0', got {device!r}")
    return int(number or 0)


def _as_cuda(device: Any) -> int:
    number = _as_device(device)
    if number is None:
        raise InvalidValueError(f"device must be 'cuda' or 'cuda:0', got {device!r}")
    return number


def _as_stream(stream: Any) -> int:
    """The handle of a stream; 0 for one of our own."""
    if stream is None:
        return 0
    handle = stream
    if hasattr(stream, "__cuda_stream__"):
        handle = stream.__cuda_stream__()[1]
    else:
        for attribute in ("cuda_stream", "ptr"):  # PyTorch, CuPy
            handle = getattr(stream, attribute, handle)
    try:
        number = as_int(handle, "stream", 0, 2**64 - 1)
    except InvalidTypeError:
        raise InvalidTypeError(
            f"stream must be None, a handle (int), or a stream of PyTorch, CuPy or cuda.core, got {stream!r}"
        ) from None
    if number == _THREAD_STREAM:
        raise InvalidValueError("stream 2 is another stream in every thread; give the handle of one stream")
    return number or _LEGACY_STREAM


def _context(device: Any, memory_limit: Any = None, stream: Any = None) -> Any:
    """A native context: a device, a cap on memory and a stream."""
    number = _as_cuda(device)
    limit = 0 if memory_limit is None else as_int(memory_limit, "memory_limit", 1, 2**63 - 1)
    handle = _as_stream(stream)
    return _native().Context(number, limit, handle)


class DeviceArray:
    """An array on a CUDA device, which other libraries read in place.

    ``torch.from_dlpack(array)`` and ``cupy.asarray(array)`` show the same memory. Made by :func:`to_device`,
    and by searches with ``out="device"``.
    """

    _native: Any

    def __init__(self) -> None:
        raise InvalidTypeError("a DeviceArray is made by rz.cuda.to_device(array)")

    @classmethod
    def _of(cls, native: Any) -> DeviceArray:
        array = cls.__new__(cls)
        array._native = native
        return array

    @property
    def shape(self) -> tuple[int, ...]:
        """As of a NumPy array."""
        shape: tuple[int, ...] = self._native.shape
        return shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy type of the elements."""
        dtype: np.dtype[Any] = np.dtype(self._native.dtype)
        return dtype

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return int(self._native.nbytes)

    @property
    def device(self) -> str:
        """``"cuda:0"``, …"""
        return f"cuda:{self._native.device}"

    def to_numpy(self) -> AnyArray:
        """Return a copy as a NumPy array."""
        array: AnyArray = self._native.to_numpy()
        return array

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        interface: dict[str, Any] = self._native.__cuda_array_interface__
        return interface

    def __dlpack__(self, **options: Any) -> Any:
        return self._native.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        device: tuple[int, int] = self._native.__dlpack_device__()
        return device

    def __len__(self) -> int:
        if not self.shape:
            raise InvalidTypeError("len() of an array without axes")
        return self.shape[0]

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype}, device={self.device!r})"


def to_device(array: Any, device: Any = "cuda") -> DeviceArray:
    """Copy an array to a CUDA device.

    Parameters
    ----------
    array
        What NumPy reads as an array of floats, int8, int32, int64, uint8, uint32 or bool.
    device
        As for :func:`device_info`.

    Returns
    -------
    DeviceArray of the same shape and type, in C order.

    Raises
    ------
    UnsupportedError
        CUDA is not available; OutOfMemoryError, with sizes; DtypeError.
    """
    context = _context(device)
    return DeviceArray._of(_native().to_device(context, np.asarray(array)))


def _to_host(x: Any, context: Any, name: str) -> Any:
    """``x``, or its elements as a NumPy array where it is on a device; waits for what makes it."""
    if isinstance(x, (np.ndarray, list, tuple)):
        return x
    native = _native()
    return native.to_host(x, context, name) if native.is_on_device(x) else x


def _config() -> str:
    """What :func:`residua.show_config` says."""
    native, reason = _look()
    if native is None:
        return reason
    return ", ".join(str(native.device_info(i)["name"]) for i in range(native.device_count()[0]))
