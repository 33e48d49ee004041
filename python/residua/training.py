# SPDX-License-Identifier: Apache-2.0
"""Learned recurrent binary codes: the closed form and gradient descent. Needs the extra `[train]`."""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np

from residua import _core, _recurrent_fit
from residua._bebr import PAIRS, BebrLearner
from residua._checkpoint import Plan
from residua._learning import BATCH, Learner, Lesson, Pairs, Parts, load_torch, threads_of
from residua._progress import reporter
from residua._typing import ArrayLike, FloatArray, IntArray, Metric, Progress
from residua._validate import (
    METRICS,
    as_array,
    as_choice,
    as_int,
    as_path,
    as_seed,
    as_threads,
    as_vectors,
    refuse_huge_values,
    refuse_zero_rows,
)
from residua.codecs import RecurrentBinaryCodec, wrap
from residua.errors import FallbackWarning, InvalidTypeError, InvalidValueError, ShapeError, UnsupportedError
from residua.indexes import FlatIndex

__all__ = ["train_recurrent_binary"]

_LEAST_ROWS = 64
_ROWS = 100_000  # rows that are learned from, and the values they may hold
_VALUES = 2**26
_ROW_QUERIES = 8_192  # rows that stand in for queries
_NEAR = 128  # neighbours whose scores are learned
_HELD_OUT = 1_000
_HELD_OUT_ROWS = 20_000  # rows that held-out queries search
_STEPS = 64  # per epoch, at most
_EPOCHS = 8
_PRESET_EPOCHS = 10
_PATIENCE = 3
_MARGIN = 0.003  # gain in held-out recall for which the learned codec is taken
_K = 10
_HARD = 8  # rows per pair that the closed form takes for the document
_MINED = 8_192  # pairs for which they are looked for


def train_recurrent_binary(
    x: ArrayLike,
    *,
    bits: float,
    metric: Metric = "cosine",
    pairs: tuple[ArrayLike, ArrayLike] | None = None,
    queries: ArrayLike | None = None,
    compatible_with: RecurrentBinaryCodec | None = None,
    preset: Literal["bebr"] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    epochs: int | None = None,
    device: str = "auto",
    num_threads: int | None = None,
    progress: Progress = False,
    seed: int = 0,
) -> RecurrentBinaryCodec:
    """Learn a recurrent binary codec by gradient descent from the closed form; needs PyTorch.

    Training starts at what ``RecurrentBinaryCodec(dim, bits).fit(x)`` gives and keeps the weights of most
    recall on held-out queries. Where none of them gains, the closed form is returned, with a FallbackWarning.
    The codec encodes, decodes and searches in native code, without PyTorch.

    Parameters
    ----------
    x
        ``(n, dim)`` vectors, n >= 64; more than 100,000 are sampled down to that. Of a ``numpy.memmap`` only
        the sampled rows are read and checked.
    bits
        Bits per dim, 0.5 … 8, fractions allowed.
    metric
        ``"cosine"``, ``"ip"`` or ``"l2"``.
    pairs
        ``(queries, documents)``, two ``(m, dim)`` arrays of embeddings that belong together: adds a
        contrastive loss against the other documents of a batch and of a queue, and against the rows that the
        closed form takes for the document.
    queries
        ``(nq, dim)`` sample of queries. A quarter is held out where there are 256; else rows are.
    compatible_with
        A trained codec: its query side and steps stay, and only the encoder is trained, so that its own
        queries search old and new codes alike.
    preset
        ``"bebr"`` trains the recurrent binarization module as published, from scratch: blocks with a hidden
        layer, one residual code up to 2 bits per dim, the cosine of composed codes, for vectors and codes as
        queries alike. Cosine only, without ``compatible_with``. Its last word is the paper's, not the
        neighbours': it may rank worse than the closed form, whose recall is ``training["start_recall"]``.
    checkpoint
        File for the state after every epoch; where it exists, training goes on from it.
    epochs
        At most this many (default 8, for a preset 10); without a preset training stops after three epochs
        without a better one.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or another name of a device that PyTorch knows.
    num_threads
        At least 1; None leaves PyTorch its own number.
    progress
        True draws a line with the loss and the held-out recall; a callable gets ``(done, total)`` steps.
    seed
        Seed of the fit, the samples and the batches. Results repeat for the same number of threads.

    Returns
    -------
    A trained codec; ``codec.training`` says what was reached.

    Raises
    ------
    UnsupportedError
        PyTorch is absent, or the transform is made of blocks (above 2,048 dims, or fewer rows than dims / 2).
    InvalidValueError
        Too few rows, a checkpoint of another configuration, values that overflow.
    ShapeError, DtypeError, NonFiniteError, NotTrainedError, CorruptFileError, InvalidTypeError

    Notes
    -----
    After Gan et al., KDD 2023 (base binary code, residual codes at weights 1, 1/2, 1/4, …, straight-through
    estimator); without a preset restricted to linear maps, which keeps the query in floats and scans exact
    integer sums. docs/learned.md has figures.
    """
    as_choice(metric, "metric", METRICS)
    _check_preset(preset, metric, compatible_with)
    most = _PRESET_EPOCHS if preset else _EPOCHS
    if epochs is not None:
        most = as_int(epochs, "epochs", 1, 100_000)
    threads, seed = as_threads(num_threads), as_seed(seed)
    if checkpoint is not None:
        as_path(checkpoint)
    rows = _sampled(x, metric, seed)
    dim = rows.shape[1]
    asked = None if queries is None else _checked(queries, dim, "queries", metric)
    both = _as_pairs(pairs, dim, metric)
    old = _as_old(compatible_with, dim, metric)
    codec = RecurrentBinaryCodec(dim, bits, seed=seed)
    torch = load_torch()

    learn_from, held_out = _split(rows, asked, seed)
    if old is None:
        # On all rows and queries, the held-out ones too: both sides of the comparison start there, and what
        # may be returned is what a fit gives.
        codec.fit(rows, queries=asked, metric=metric, num_threads=num_threads)
        start = codec._trained()
    else:
        start = old._trained()
        codec._bits = old._bits
    trial = _Trial(held_out, learn_from[0], metric, seed, threads)
    with threads_of(torch, threads):
        lesson = _lesson(learn_from, both, start, seed, threads)
        learner: Learner | BebrLearner
        if preset is None:
            parts = _core.recurrent_parts(start)
            _refuse_blocks(parts, rows)
            count = max(1, min(_STEPS, len(lesson.queries) // BATCH))
            kind = "recurrent" if old is None else "compatible"
            plan = Plan(kind, start.fingerprint, most, count, BATCH, seed, _digest(lesson))
            learner = Learner(parts, lesson, plan, device, fixed_queries=old is not None)
        else:
            examples = len(lesson.rows if lesson.pairs is None else lesson.pairs.queries)
            batch = min(PAIRS, max(32, examples // 4))
            plan = Plan(preset, start.fingerprint, most, -(-examples // batch), batch, seed, _digest(lesson))
            learner = BebrLearner(dim, bits, lesson, plan, device)
        kept, outcome = _learn(learner, trial, start, checkpoint, progress)
    if outcome["learned"]:
        native = learner.native(kept)
        if preset is None:
            native = _with_levels(native, learn_from[0], threads)
        codec._native = _core.with_expansion(native, trial.expansion(native))
    else:
        codec._native = start
        given = "the closed form" if old is None else "the codec of compatible_with"
        warnings.warn(
            f"training found nothing better than {given} (held-out recall@{_K} {outcome['recall']:.4f} "
            f"against {outcome['start_recall']:.4f}); {given} is returned",
            FallbackWarning,
            stacklevel=2,
        )
    codec._training = outcome
    return codec


def _check_preset(preset: Any, metric: str, compatible_with: Any) -> None:
    if preset is None:
        return
    as_choice(preset, "preset", ("bebr",))
    if metric != "cosine":
        raise UnsupportedError(
            f"preset 'bebr' scores by the cosine of codes; metric={metric!r} needs preset=None"
        )
    if compatible_with is not None:
        raise UnsupportedError("preset 'bebr' learns codes of its own; compatible_with needs preset=None")


def _refuse_blocks(parts: Parts, rows: FloatArray) -> None:
    if parts["block_dims"] != rows.shape[1] or not len(parts["query_map"]):
        raise UnsupportedError(
            f"the transform for {rows.shape[1]} dims and {len(rows)} rows is made of blocks, which training "
            "does not know; use RecurrentBinaryCodec.fit"
        )


def _learn(
    learner: Learner | BebrLearner,
    trial: _Trial,
    start: _core.Codec,
    checkpoint: str | os.PathLike[str] | None,
    progress: Progress,
) -> tuple[Parts, dict[str, Any]]:
    """Train until nothing improves; returns the best weights and what was reached."""
    first, plan = trial.recall(start), learner.plan
    best: dict[str, Any] = {"recall": -1.0, "epoch": 0}
    if checkpoint is not None and os.path.exists(checkpoint):
        best = learner.load(checkpoint)
    line = _line(progress, plan.epochs * plan.steps)
    patience = _PATIENCE if isinstance(learner, Learner) else plan.epochs
    while learner.epoch < plan.epochs and learner.epoch - int(best["epoch"]) < patience:
        learner.run_epoch(partial(_report, line, learner, max(first, float(best["recall"]))))
        kept = learner.kept()
        reached = trial.recall(learner.native(kept))
        if reached > float(best["recall"]):
            best = {"recall": reached, "epoch": learner.epoch, **kept}
        if checkpoint is not None:
            learner.save(checkpoint, best)
    line(plan.epochs * plan.steps, None, max(first, float(best["recall"])))
    reached = float(best["recall"])
    return best, {
        "learned": not isinstance(learner, Learner) or reached >= first + _MARGIN,
        "recall": reached,
        "start_recall": first,
        "epochs": learner.epoch,
        "best_epoch": int(best["epoch"]),
    }


def _report(
    line: Callable[[int, float | None, float], None],
    learner: Learner | BebrLearner,
    recall: float,
    loss: float,
) -> None:
    line(learner.step, loss, recall)


class _Trial:
    """Held-out queries, the rows they search, and their true neighbours."""

    def __init__(self, queries: FloatArray, rows: FloatArray, metric: str, seed: int, threads: int) -> None:
        order = _core.permutation(len(rows), seed + 2)
        base = rows[order[:_HELD_OUT_ROWS]]
        k = min(_K, len(base))
        nearest, _ = _core.exact_search(queries, base, k, metric, threads)
        self._trial = _recurrent_fit._Trial(queries, base, nearest)
        self._threads = threads

    def recall(self, native: _core.Codec) -> float:
        return self._trial.run(native, self._threads)[0]

    def expansion(self, native: _core.Codec) -> float:
        return self._trial.run(native, self._threads)[1]


def _split(
    rows: FloatArray, queries: FloatArray | None, seed: int
) -> tuple[tuple[FloatArray, FloatArray | None], FloatArray]:
    """Return ((rows, queries) to learn from, held-out queries)."""
    if queries is not None and len(queries) >= 256:
        order = _core.permutation(len(queries), seed + 1)
        cut = min(_HELD_OUT, len(queries) // 4)
        return (rows, queries[np.sort(order[cut:])]), queries[order[:cut]]
    order = _core.permutation(len(rows), seed + 1)
    cut = min(_HELD_OUT, len(rows) // 4)
    return (rows[np.sort(order[cut:])], queries), rows[order[:cut]]


def _lesson(
    learn_from: tuple[FloatArray, FloatArray | None],
    pairs: tuple[FloatArray, FloatArray] | None,
    start: _core.Codec,
    seed: int,
    threads: int,
) -> Lesson:
    rows, queries = learn_from
    metric = start.metric
    near_count = min(_NEAR, len(rows) - 1)
    chosen = np.sort(_core.permutation(len(rows), seed)[:_ROW_QUERIES])
    asked = rows[chosen]
    near, _ = _core.exact_search(asked, rows, near_count + 1, metric, threads)
    near = _without(near, chosen)
    if queries is not None and len(queries):
        found, _ = _core.exact_search(queries, rows, near_count, metric, threads)
        # As many draws of queries as of rows, however few there are.
        repeats = max(1, len(asked) // len(queries))
        asked = np.concatenate([asked, *[queries] * repeats])
        near = np.concatenate([near, *[found] * repeats])
    near = np.ascontiguousarray(near)
    if pairs is None:
        return Lesson(rows, asked, near, metric)
    hard = _hard_negatives(start, rows, pairs, threads)
    return Lesson(rows, asked, near, metric, Pairs(*pairs, _numbers(pairs[1]), hard))


def _numbers(rows: FloatArray) -> IntArray:
    """Number rows so that equal rows have equal numbers."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(row.tobytes(), len(seen)) for row in rows], np.int64)


def _hard_negatives(
    start: _core.Codec, rows: FloatArray, pairs: tuple[FloatArray, FloatArray], threads: int
) -> IntArray:
    """Rows of best code scores for every query that are not its document; -1 where there are none."""
    queries, documents = pairs
    out = np.full((len(queries), _HARD), -1, np.int64)
    index = FlatIndex(start.dim, metric=start.metric, codec=wrap(start), vectors="none")
    index.add(rows, num_threads=threads or None)
    count = min(_HARD + 2, len(rows))
    for begin in range(0, min(len(queries), _MINED), 1024):
        part = slice(begin, min(begin + 1024, _MINED))
        found = index.search(queries[part], count, rerank=False, num_threads=threads or None).ids
        others = (rows[found] != documents[part, None]).any(axis=2)
        for i, (near, other) in enumerate(zip(found, others, strict=True)):
            near = near[other][:_HARD]
            out[begin + i, : len(near)] = near
    return out


def _without(near: IntArray, own: IntArray) -> IntArray:
    """Drop each row's own number, or its last neighbour where equal rows pushed it out."""
    keep = near != own[:, None]
    keep[keep.all(axis=1), -1] = False
    return np.ascontiguousarray(near[keep].reshape(len(near), -1))


def _with_levels(native: _core.Codec, rows: FloatArray, threads: int) -> _core.Codec:
    """Fit the levels that decoding puts in place of middles."""
    parts = _core.recurrent_parts(native)
    sample = rows[: _recurrent_fit._STEP_ROWS]
    encode = parts["encode_map"].reshape(len(parts["step"]), -1)
    y = _core.transform(sample - parts["center"], encode, threads) / parts["step"]
    levels = _recurrent_fit._levels(y, parts["group_bits"].astype(np.int64))
    return _core.recurrent_codec(**{**parts, "levels": levels})


def _digest(lesson: Lesson) -> str:
    seen = hashlib.sha256()
    pairs = lesson.pairs
    for array in (lesson.rows, lesson.queries, *((pairs.queries, pairs.documents) if pairs else ())):
        seen.update(str(array.shape).encode())
        seen.update(np.ascontiguousarray(array).data)
    return seen.hexdigest()[:16]


def _checked(x: ArrayLike, dim: int | None, name: str, metric: str) -> FloatArray:
    v, _ = as_vectors(x, dim, name)
    if metric == "cosine":
        refuse_zero_rows(v, name)
        return _core.normalize(v)
    refuse_huge_values(v, name, metric)
    return v


def _sampled(x: ArrayLike, metric: str, seed: int) -> FloatArray:
    """Return the rows that are learned from, as the metric sees them."""
    a = as_array(x, "x")
    if a.ndim == 2 and len(a) < _LEAST_ROWS:
        raise InvalidValueError(
            f"x: expected at least {_LEAST_ROWS} vectors to train on, got {len(a)}; "
            "RecurrentBinaryCodec.fit takes any number"
        )
    if a.ndim == 2 and a.shape[1] > 0 and isinstance(a, np.memmap):
        count = min(_ROWS, max(_LEAST_ROWS, _VALUES // a.shape[1]))
        if len(a) > count:
            a = np.asarray(a[_core.sample_rows(len(a), count, seed)])
    v = _checked(a, None, "x", metric)
    count = min(_ROWS, max(_LEAST_ROWS, _VALUES // v.shape[1]))
    return v if len(v) <= count else v[_core.sample_rows(len(v), count, seed)]


def _as_pairs(pairs: Any, dim: int, metric: str) -> tuple[FloatArray, FloatArray] | None:
    if pairs is None:
        return None
    if not isinstance(pairs, (tuple, list)) or len(pairs) != 2:
        raise InvalidTypeError("pairs must be (queries, documents), two arrays of embeddings")
    q, d = (
        _checked(side, dim, f"pairs: {name}", metric)
        for side, name in zip(pairs, ("queries", "documents"), strict=True)
    )
    if len(q) != len(d):
        raise ShapeError(f"pairs: {len(q)} queries and {len(d)} documents; they must be of equal length")
    if len(q) == 0:
        raise InvalidValueError("pairs: expected at least 1 pair, got 0")
    return q, d


def _as_old(codec: Any, dim: int, metric: str) -> RecurrentBinaryCodec | None:
    if codec is None:
        return None
    if not isinstance(codec, RecurrentBinaryCodec) or codec._is_query_side:
        raise InvalidTypeError(f"compatible_with must be a RecurrentBinaryCodec, got {type(codec).__name__}")
    if codec._is_module:
        raise UnsupportedError(
            f"compatible_with: {codec!r} has no linear query side that an encoder could share"
        )
    if codec.dim != dim:
        raise ShapeError(f"compatible_with has {codec.dim} dims, x has {dim}")
    codec._trained()
    if codec.metric != metric:
        raise InvalidValueError(f"compatible_with is fitted for metric {codec.metric!r}, not {metric!r}")
    return codec


def _line(progress: Progress, total: int) -> Callable[[int, float | None, float], None]:
    """Report steps; on the drawn line stand the loss, relative to the start, and the best held-out recall."""
    if progress is not True:
        report = reporter(progress, "train")
        return lambda done, loss, recall: report(done, total)

    def draw(done: int, loss: float | None, recall: float) -> None:
        filled = 30 * done // total
        shown = "" if loss is None else f" loss {loss:.3f}"
        end = "\n" if loss is None else ""
        bar = "#" * filled + "." * (30 - filled)
        sys.stderr.write(f"\rtrain [{bar}] {done}/{total}{shown} recall@{_K} {recall:.4f}  {end}")
        sys.stderr.flush()

    return draw
