# SPDX-License-Identifier: Apache-2.0
"""Additions to an index that still awaits its codec: the rows and the fit go in together, or neither does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from residua import _core
from residua._codec import Codec
from residua._typing import AnyArray, FloatArray


def add_and_fit(
    native: _core.Index,
    x: FloatArray,
    ids: AnyArray | list[str] | None,
    upsert: bool,
    threads: int,
    fit: Callable[[], None] | None,
    columns: list[Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> AnyArray:
    """Add rows and call ``fit``; where that fails, also by an interrupt, rows and ids are as they were."""
    if fit is None:
        return native.add(x, ids, upsert, threads, columns, None, progress)
    largest = native.max_id
    there = [native.contains(ids[i : i + 1]) for i in range(len(x))] if upsert and ids is not None else []
    replaced = _chosen(ids, there, True) if any(there) else None
    vectors = None if replaced is None else native.get(replaced)
    held = None if replaced is None else native.columns(replaced)
    added = native.add(x, ids, upsert, threads, columns)
    try:
        fit()
    except BaseException:
        new = added if ids is None else _chosen(ids, there, False) if there else ids
        native.take_back(new, largest)
        if replaced is not None and vectors is not None:
            native.add(vectors, replaced, True, threads, held)
        raise
    return added


@contextmanager
def unless_it_fails(codec: Codec | None, native: _core.Index) -> Iterator[None]:
    """Leave a codec as it was where the block fails before the index has taken it."""
    before = None if codec is None else codec._native
    try:
        yield
    except BaseException:
        if codec is not None and native.awaits_codec:
            codec._native = before
        raise


def _chosen(ids: AnyArray | list[str] | None, there: list[bool], wanted: bool) -> AnyArray | list[str]:
    """The ids that are there, or those that are not."""
    if isinstance(ids, np.ndarray):
        return np.ascontiguousarray(ids[np.array(there) == wanted])
    return [i for i, is_there in zip(ids or (), there, strict=True) if is_there == wanted]
