# SPDX-License-Identifier: Apache-2.0
"""Search options as users give them, in the words of the native code."""

from __future__ import annotations

import math
from typing import Any

from residua._validate import as_choice, as_int, as_number
from residua.errors import InvalidTypeError, InvalidValueError

_AUTO_RERANK = -1


def as_scoring(scoring: Any, *, has_codec: bool) -> str:
    """Return ``"asymmetric"`` or ``"symmetric"``."""
    if scoring is None:
        return "asymmetric"
    name = as_choice(scoring, "scoring", ("asymmetric", "symmetric"))
    if name == "symmetric" and not has_codec:
        raise InvalidTypeError("scoring='symmetric' needs a codec; this index scans float vectors")
    return name


def as_rerank(rerank: Any, *, vectors: str, has_codec: bool) -> int:
    """Return how many candidates to settle exactly: -1 automatic, 0 none."""
    if rerank is None:
        return _AUTO_RERANK
    if rerank is False:
        return 0
    candidates = _AUTO_RERANK if rerank is True else as_int(rerank, "rerank", 0, 2**31 - 1)
    if candidates and not has_codec:
        raise InvalidTypeError(
            f"rerank={rerank!r} needs a codec; this index scans float vectors exactly: leave rerank out"
        )
    if candidates and vectors == "none":
        raise InvalidValueError("rerank needs kept vectors, and this index was made with vectors='none'")
    return candidates


def as_threshold(threshold: Any) -> float:
    """Return the threshold of a range search; infinities are allowed, NaN is not."""
    limit = as_number(threshold, "threshold")
    if math.isnan(limit):
        raise InvalidValueError("threshold must be a number, got NaN")
    return limit
