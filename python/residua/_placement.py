# SPDX-License-Identifier: Apache-2.0
"""Where an index scans its codes: on the CPU or on a CUDA device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from residua import _core, cuda
from residua._validate import as_choice
from residua.errors import UnsupportedError
from residua.results import Hits

_Self = TypeVar("_Self", bound="Placed")


@dataclass(frozen=True)
class Place:
    """A device with a copy of the codes of one index."""

    native: _core.CodeDevice
    context: Any
    stream: Any  # the caller's, kept alive

    @property
    def name(self) -> str:
        return self.native.name

    def take(self, hits: Hits) -> Hits:
        """Hits whose ids and scores are on the device."""
        put: Any = partial(cuda._native().to_device, self.context)
        arrays: Any = [cuda.DeviceArray._of(put(a)) for a in hits]
        return Hits(arrays[0], arrays[1], hits.counts, hits.stats)


class Placed:
    """The part of an index that says where its codes are scanned."""

    _native: _core.Index
    _place: Place | None = None
    _moves = False  # whether a device can scan the codes of this class

    @property
    def device(self) -> str:
        """Where searches scan codes: ``"cpu"`` or ``"cuda:0"``, …"""
        return "cpu" if self._place is None else self._place.name

    def to(self: _Self, device: Any, *, memory_limit: int | None = None, stream: Any = None) -> _Self:
        """Return this index with its codes scanned on another device.

        Both objects are one index: rows that come and go through either are seen by both, and either saves
        it. The device holds a copy of the codes, made now and again by the first search after a change. All
        but the scan stays on the CPU, from filters to exact re-ranking, and results are the same
        (docs/cuda.md).

        Parameters
        ----------
        device
            ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or a ``torch.device``.
        memory_limit
            Bytes of the device that this copy and its searches may take; None: all that is free.
        stream
            Work is ordered on this stream: a handle (int; 0 is the default stream), or a stream of PyTorch,
            CuPy or cuda.core. None makes one.

        Returns
        -------
        An index of the same class; itself for ``"cpu"`` where it is there.

        Raises
        ------
        UnsupportedError
            CUDA is not available, or devices cannot scan the codes of this index; the message says why.
        OutOfMemoryError
            The codes do not fit; the message has the sizes.
        InvalidValueError, InvalidTypeError
        """
        number = cuda._as_device(device)
        if number is None:
            return self if self._place is None else self._at(None)
        if not self._moves:
            raise UnsupportedError(
                f"{type(self).__name__} searches on the CPU alone; FlatIndex and IVFIndex search on CUDA "
                "devices"
            )
        context = cuda._context(number, memory_limit, stream)
        native: _core.CodeDevice = cuda._native().IndexDevice(context)
        self._native.bring_codes(native, 0)
        return self._at(Place(native, context, stream))

    def _at(self: _Self, place: Place | None) -> _Self:
        """The same index at another place."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._place = place
        return other

    def _as_out(self, out: Any) -> Place | None:
        """Where results go: a device, or None for NumPy arrays."""
        if as_choice(out, "out", ("numpy", "device")) == "numpy":
            return None
        if self._place is None:
            raise UnsupportedError(
                "out='device' needs an index on a device, and this one is on the CPU: index.to('cuda')"
            )
        if self._native.id_kind == "str":
            raise UnsupportedError("out='device' needs integer ids, and those of this index are str")
        return self._place

    def _on_host(self, x: Any, name: str) -> Any:
        """Queries where the index can read them."""
        return x if self._place is None else cuda._to_host(x, self._place.context, name)

    def _scan_options(self) -> dict[str, Any]:
        """What native searches need to know of the place."""
        return {} if self._place is None else {"device": self._place.native}
