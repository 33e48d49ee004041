# SPDX-License-Identifier: Apache-2.0
"""Stages of a funnel as users give them."""

from __future__ import annotations

from typing import Any

from residua._codec import Codec
from residua._validate import as_int
from residua.codecs import RecurrentBinaryCodec
from residua.errors import InvalidTypeError, InvalidValueError, UnsupportedError


def as_funnel(funnel: Any, codec: Codec | None) -> list[tuple[int, int]]:
    """Return the stages; none for None. Native code compares them with the index and with k."""
    if funnel is None:
        return []
    # An untrained one scans floats, but would stop to serve the same search once it is fitted.
    if isinstance(codec, RecurrentBinaryCodec):
        raise UnsupportedError(
            "funnel needs dims that stand one after the other, and a RecurrentBinaryCodec orders its bits by "
            "variance; use codec=None, FloatCodec, ScalarCodec or BinaryCodec"
        )
    expected = "funnel must be a list of (dims, keep) pairs such as [(64, 1000), (128, 200)]"
    try:
        if isinstance(funnel, (str, bytes, dict)):
            raise TypeError
        stages = [tuple(stage) for stage in funnel]
    except TypeError:
        raise InvalidTypeError(f"{expected}, got {funnel!r}") from None
    if not stages:
        raise InvalidValueError(f"{expected}, got an empty one; None searches all dims at once")
    for stage in stages:
        if len(stage) != 2:
            raise InvalidValueError(f"{expected}, got a stage of {len(stage)} values: {stage!r}")
    return [
        (
            as_int(dims, f"funnel: dims of stage {i}", 1, 65_536),
            as_int(keep, f"funnel: keep of stage {i}", 1, 2**31 - 1),
        )
        for i, (dims, keep) in enumerate(stages, 1)
    ]
