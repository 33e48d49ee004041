# SPDX-License-Identifier: Apache-2.0
"""MaxSim, the score of multi-vector models, over tokens as floats, int8 or codes."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from residua import _core, _cuda_multivector, cuda
from residua._tokens import Tokens, as_numbers, as_queries, as_tokens
from residua._typing import ArrayLike, FloatArray, IntArray
from residua._validate import as_choice, as_floats, as_k, as_number, as_threads
from residua.errors import InvalidTypeError, InvalidValueError, ShapeError
from residua.results import Hits, make_hits
from residua.token_store import TokenStore

__all__ = ["ball_carve", "maxsim", "maxsim_tokens", "maxsim_topk"]


def maxsim(
    q_tokens: Any,
    doc_tokens: Any,
    *,
    q_mask: ArrayLike | None = None,
    doc_mask: ArrayLike | None = None,
    doc_scales: ArrayLike | None = None,
    documents: ArrayLike | None = None,
    tau: float | None = None,
    num_threads: int | None = None,
    device: Any = "cpu",
    out: Literal["numpy", "device"] = "numpy",
) -> Any:
    """Score documents: sum over query tokens of the best inner product with a token of the document.

    Parameters
    ----------
    q_tokens
        A list of ``(t, dim)`` arrays, ``(tokens (T, dim), offsets (n + 1,))``, a padded ``(n, t, dim)``
        array, or one query as a 2-D array; float32, float16, bfloat16 or float64.
    doc_tokens
        Documents in the same forms, int8 as well (see ``doc_scales``), or a :class:`TokenStore`, whose codes
        are scored without being decoded to floats. Documents that are scored again and again on a GPU belong
        in a :class:`residua.cuda.TokenDocuments`, which is scored where it is.
    q_mask, doc_mask
        ``(n, t)`` bool or 0 and 1: which tokens of a padded array count.
    doc_scales
        ``(T,)`` float, one per document token that counts: a token is ``scale * int8``. None: 1.
    documents
        Numbers of the documents to score, in any order; None: all of them.
    tau
        Carve queries first (:func:`ball_carve`), for fewer query tokens at some loss; None: do not.
    num_threads
        At least 1; None uses the CPUs that the process may use. Scores do not depend on it.
    device
        ``"cpu"``, or a CUDA device: ``"cuda"``, ``"cuda:1"``, a ``torch.device`` or a number. Arrays on it
        (with ``__dlpack__`` or ``__cuda_array_interface__``: ``(n, t, dim)``, ``(t, dim)`` or
        ``(tokens, offsets)``) of float32 or float16 are read where they are. Scores of codes are those of the
        CPU, all others equal to about 1e-6.
    out
        ``"numpy"``, or ``"device"`` for a :class:`residua.cuda.DeviceArray` of all axes.

    Returns
    -------
    ``(nq, n)`` float32; a single query or document drops its axis. A document without tokens scores -inf.

    Raises
    ------
    ShapeError, DtypeError, InvalidTypeError
    NonFiniteError
        Names the first bad query or document and its token.
    InvalidValueError
        A query has no tokens.
    OutOfRangeError
        An IndexError: a number in ``documents`` is not there.
    UnsupportedError, OutOfMemoryError
        CUDA is not available, or the device has no room.

    Examples
    --------
    >>> import numpy as np, residua as rz
    >>> rng = np.random.default_rng(0)
    >>> documents = [rng.normal(size=(n, 64)).astype("float32") for n in (9, 30, 4)]
    >>> query = documents[2][:3]
    >>> int(rz.maxsim(query, documents).argmax())
    2
    """
    if cuda._as_device(device) is not None or isinstance(doc_tokens, _cuda_multivector.TokenDocuments):
        as_threads(num_threads)
        return _cuda_multivector.maxsim(
            q_tokens, doc_tokens, q_mask=q_mask, doc_mask=doc_mask, doc_scales=doc_scales,
            documents=documents, tau=tau, device=device, out=out,
        )  # fmt: skip
    if as_choice(out, "out", ("numpy", "device")) != "numpy":
        raise InvalidValueError("out='device' is for scores that are made there: give device='cuda'")
    table = _scores(q_tokens, doc_tokens, q_mask, doc_mask, doc_scales, documents, tau, num_threads)
    scores = table.scores[:, 0] if table.single_document else table.scores
    return scores[0] if table.single_query else scores


def maxsim_tokens(
    q_tokens: Any,
    doc_tokens: Any,
    *,
    doc_mask: ArrayLike | None = None,
    doc_scales: ArrayLike | None = None,
    documents: ArrayLike | None = None,
    num_threads: int | None = None,
) -> tuple[FloatArray, IntArray]:
    """Find the best token of every document for each token of one query, for highlighting.

    Parameters
    ----------
    q_tokens
        One query, ``(t, dim)``.
    doc_tokens, doc_mask, doc_scales, documents, num_threads
        As for :func:`maxsim`.

    Returns
    -------
    ``(scores, tokens)``, float32 and int64, ``(n, t)`` each, ``(t,)`` for a single document: the largest
    inner products, and the numbers of the tokens within their documents (of those that count, where there is
    a mask), ties to the first. -inf and -1 for documents without tokens.

    Raises
    ------
    ShapeError, DtypeError, InvalidTypeError, NonFiniteError, InvalidValueError, OutOfRangeError
    """
    threads = as_threads(num_threads)
    q, docs, numbers, scales = _inputs(q_tokens, doc_tokens, None, doc_mask, doc_scales, documents)
    if not q.single:
        raise ShapeError("q_tokens: expected one query of shape (t, dim)")
    if isinstance(docs, TokenStore):
        scores, best = docs._native.best_tokens(q.flat, numbers, threads)
    else:
        scores, best = _core.best_tokens(q.flat, docs.flat, docs.offsets, scales, numbers, threads)
        if docs.single and documents is None:
            return scores[:, 0], best[:, 0]
    return np.ascontiguousarray(scores.T), np.ascontiguousarray(best.T)


def maxsim_topk(
    q_tokens: Any,
    doc_tokens: Any,
    k: int = 10,
    *,
    q_mask: ArrayLike | None = None,
    doc_mask: ArrayLike | None = None,
    doc_scales: ArrayLike | None = None,
    documents: ArrayLike | None = None,
    tau: float | None = None,
    num_threads: int | None = None,
) -> Hits:
    """Rank documents by MaxSim, for example candidates that another index found.

    Parameters
    ----------
    q_tokens, doc_tokens
        As for :func:`maxsim`.
    k
        How many documents per query, at least 1.
    q_mask, doc_mask, doc_scales, documents, tau, num_threads
        As for :func:`maxsim`.

    Returns
    -------
    :class:`Hits`: numbers of documents, best first, ties by smaller number. Documents without tokens are
    never among them.

    Raises
    ------
    ShapeError, DtypeError, InvalidTypeError, NonFiniteError, InvalidValueError, OutOfRangeError
    """
    k = as_k(k)
    scored = _scores(q_tokens, doc_tokens, q_mask, doc_mask, doc_scales, documents, tau, num_threads)
    table, numbers = scored.scores, scored.numbers
    order = (
        np.stack([np.lexsort((numbers, -row))[:k] for row in table]) if len(table) else np.empty((0, 0), int)
    )
    ids, best = numbers[order], np.take_along_axis(table, order, axis=1)
    counts = np.isfinite(best).sum(axis=1)
    ids[~np.isfinite(best)] = -1
    return make_hits(
        ids, best, counts, k, "ip", scored.single_query, {"plan": "maxsim", "visited": len(numbers)}
    )


def ball_carve(q_tokens: Any, tau: float) -> FloatArray:
    """Replace groups of similar query tokens by their sums.

    Takes the first token that is left, groups it with all that are left and whose inner product with it is at
    least ``tau``, and goes on (MUVERA, arXiv 2405.19504, section 3.2). Scores by fewer tokens are a lower
    bound of the scores by all.

    Parameters
    ----------
    q_tokens
        One query, ``(t, dim)``.
    tau
        0.7 keeps recall for unit tokens of ColBERT-like models; larger values merge less.

    Returns
    -------
    ``(at most t, dim)`` float32.

    Raises
    ------
    ShapeError, DtypeError, NonFiniteError, InvalidTypeError, InvalidValueError
    """
    threshold = _as_threshold(tau)
    q = as_tokens(q_tokens, None, "q_tokens", "query")
    if not q.single:
        raise ShapeError("q_tokens: expected one query of shape (t, dim)")
    return _carve(q.flat.astype(np.float32, copy=False), threshold)


def _as_threshold(tau: Any) -> float:
    threshold = as_number(tau, "tau")
    if not np.isfinite(threshold):
        raise InvalidValueError(f"tau must be finite, got {tau!r}")
    return threshold


def _carve(x: FloatArray, threshold: float) -> FloatArray:
    left = np.ones(len(x), bool)
    sums = []
    for i in range(len(x)):
        if left[i]:
            group = left & (x @ x[i] >= threshold)
            group[i] = True
            left &= ~group
            sums.append(x[group].sum(axis=0))
    return np.stack(sums) if sums else np.empty_like(x)


class _Scores(NamedTuple):
    """MaxSim of every query and document, before axes of single ones are dropped."""

    scores: FloatArray  # (nq, n)
    numbers: IntArray  # (n,), of the documents
    single_query: bool
    single_document: bool


def _scores(
    q_tokens: Any,
    doc_tokens: Any,
    q_mask: Any,
    doc_mask: Any,
    doc_scales: Any,
    documents: Any,
    tau: Any,
    num_threads: Any,
) -> _Scores:
    threads = as_threads(num_threads)
    q, docs, numbers, scales = _inputs(q_tokens, doc_tokens, q_mask, doc_mask, doc_scales, documents)
    q = q if tau is None else carved(q, tau)
    single_document = False
    if isinstance(docs, TokenStore):
        scores = docs._native.maxsim(q.flat, q.offsets, numbers, threads)
    else:
        scores = _core.maxsim(q.flat, q.offsets, docs.flat, docs.offsets, scales, numbers, threads)
        single_document = docs.single and documents is None
    if numbers is None:
        numbers = np.arange(len(docs), dtype=np.int64)
    return _Scores(scores, numbers, q.single, single_document)


def carved(q: Tokens, tau: Any) -> Tokens:
    """Carve every query."""
    threshold = _as_threshold(tau)
    parts = [_carve(q.flat[a:b], threshold) for a, b in zip(q.offsets, q.offsets[1:], strict=False)]
    offsets = np.concatenate([[0], np.cumsum([len(p) for p in parts])]).astype(np.int64)
    return Tokens(np.concatenate(parts) if parts else q.flat, offsets, q.single)


def _inputs(
    q_tokens: Any, doc_tokens: Any, q_mask: Any, doc_mask: Any, doc_scales: Any, documents: Any
) -> tuple[Tokens, Tokens | TokenStore, IntArray | None, FloatArray | None]:
    scales = None
    docs: Tokens | TokenStore
    if isinstance(doc_tokens, TokenStore):
        if doc_mask is not None or doc_scales is not None:
            raise InvalidTypeError(
                "doc_mask= and doc_scales= belong to arrays of tokens, not to a TokenStore"
            )
        docs, dim = doc_tokens, doc_tokens.dim
    else:
        docs = as_tokens(doc_tokens, None, "doc_tokens", "document", doc_mask, unchecked=True)
        dim = docs.flat.shape[1]
        if doc_scales is not None:
            if docs.flat.dtype != np.int8:
                raise InvalidTypeError(f"doc_scales= belongs to int8 tokens, got {docs.flat.dtype}")
            scales = as_floats(doc_scales, "doc_scales")
            if len(scales) != len(docs.flat):
                raise ShapeError(f"doc_scales: {len(scales)} values for {len(docs.flat)} tokens that count")
    q = as_queries(q_tokens, dim if len(docs) else None, q_mask)
    return q, docs, None if documents is None else as_numbers(documents, len(docs)), scales
