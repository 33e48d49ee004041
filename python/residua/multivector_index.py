# SPDX-License-Identifier: Apache-2.0
"""An index of documents that have one vector per token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from residua import _core
from residua._candidates import Candidates, Count, tune_candidates
from residua._columns import as_fields
from residua._document_ids import DocumentIds
from residua._filters import as_filter, split_filters
from residua._first_stage import (
    Encoder,
    FirstStage,
    empty_vectors,
    make_encoder,
    stage_of,
)
from residua._size_text import size_text
from residua._token_documents import State, TokenDocuments
from residua._tokens import Tokens, as_queries, part
from residua._typing import ArrayLike, Ids
from residua._validate import as_choice, as_dim, as_flag, as_int, as_k, as_seed, as_threads
from residua.codecs import Codec
from residua.errors import CorruptFileError, InvalidTypeError, InvalidValueError
from residua.multivector import carved, maxsim_topk
from residua.results import Hits, make_hits
from residua.token_store import TokenStore
from residua.tuning import TuneResult

__all__ = ["MultiVectorIndex"]

_TOKEN_CODECS = ("rb4", "float32", "float16", "int8", "rb2", "rb1")
_EXACT_BLOCK = 64  # queries scored at a time against all documents


class MultiVectorIndex(TokenDocuments):
    """Search documents by MaxSim: single vectors choose candidates, tokens rank them.

    An encoder makes one vector of every document (:class:`FDEncoder`, or :class:`LearnedEncoder`), a
    :class:`FlatIndex` or :class:`HNSWIndex` over codes of these vectors finds candidates, and MaxSim over all
    their tokens, as a :class:`TokenStore` keeps them, ranks these.

    Parameters
    ----------
    dim
        Dims of the tokens.
    encoder
        ``"learned"`` takes a :class:`LearnedEncoder` of 512 dims, fitted on the documents, ``"fde"`` an
        :class:`FDEncoder` of 10,240 dims, which needs no fit; ``"auto"`` is learned. Or an encoder of ``dim``
        dims.
    codec
        Of the first stage: ``"auto"`` takes recurrent codes, of 4 bits per dim for a learned encoder and 1
        bit for others; None float32 vectors; or a codec of ``encoder.output_dim`` dims.
    index
        Of the first stage: ``"flat"`` scans all codes, ``"hnsw"`` walks a graph, ``"auto"`` is flat.
    token_codec
        How tokens are kept: recurrent codes of 4, 2 or 1 bits per dim (``"rb4"``, ``"rb2"``, ``"rb1"``),
        ``"int8"``, ``"float16"`` or ``"float32"``.
    columns
        Typed attributes for filters, as for :class:`FlatIndex`.
    seed
        Makes encoder, codecs and graph reproducible.

    Notes
    -----
    All is fitted by :meth:`train`, or on what is there: the codec of the tokens by the call of :meth:`add`
    that reaches 256 documents, the first stage at 1,001 documents, or 256 where an encoder is named or given.
    Until then every search ranks all documents. Searches run while one thread adds and removes.

    Examples
    --------
    >>> import numpy as np, residua as rz
    >>> rng = np.random.default_rng(0)
    >>> documents = [rng.normal(size=(30, 64)).astype("float32") for _ in range(300)]
    >>> index = rz.MultiVectorIndex(64)
    >>> ids = index.add(documents)
    >>> int(index.search(documents[7][:5], k=3).ids[0])
    7
    """

    _KIND = "multivector_index"

    def __init__(
        self,
        dim: int,
        *,
        encoder: Literal["auto", "fde", "learned"] | Encoder = "auto",
        codec: Codec | Literal["auto"] | None = "auto",
        index: Literal["auto", "flat", "hnsw"] = "auto",
        token_codec: Literal["rb4", "float32", "float16", "int8", "rb2", "rb1"] = "rb4",
        columns: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        dim = as_dim(dim)
        as_choice(index, "index", ("auto", "flat", "hnsw"))
        as_choice(token_codec, "token_codec", _TOKEN_CODECS)
        as_fields(columns)
        seed = as_seed(seed)
        made = make_encoder(encoder, dim, seed)
        kind = "hnsw" if index == "hnsw" else "flat"
        self._start(dim, FirstStage(dim, made, codec, kind, columns, seed), token_codec)

    @property
    def plan(self) -> str:
        """How a search runs with default settings, in words."""
        n = len(self)
        if not self.is_trained:
            return f"MaxSim over all documents (until {self._plan.fit_at:_} documents or train())"
        return (
            f"{self._count.for_search(10, n)} candidates for k=10 of {self._state.stage.plan}, "
            f"then MaxSim over {self._token_codec} tokens"
        )

    def search(
        self,
        q_tokens: Any,
        k: int = 10,
        *,
        candidates: int | Ids | list[Ids] | None = None,
        filter: Any = None,
        subset: Any = None,
        rerank: bool = True,
        mask: ArrayLike | None = None,
        tau: float | None = None,
        num_threads: int | None = None,
    ) -> Hits:
        """Find the k documents of the largest MaxSim for every query.

        Parameters
        ----------
        q_tokens
            Queries in the forms of :meth:`add`; a 2-D array is one query, which gives one-dimensional
            results.
        k
            How many, 1 … 2**31 - 1.
        candidates
            How many documents of the first stage are ranked by their tokens; at least k are. None takes what
            :meth:`tune` chose, else what held 98 % of the ten best in a trial at the time of training, or all
            of up to 1,000 documents; both grow with k and the documents. Or ids of documents that something
            else found, which replace the first stage: one array for all queries, or a list (or rows of an
            array) with one per query.
        filter
            None, an expression such as ``rz.col("year") >= 2020``, its text, a boolean mask over the
            documents in insertion order, an array of allowed ids, or a list with one of these per query.
        subset
            Allowed ids, or a list with one array of them per query: the same as ``filter`` with ids.
        rerank
            False returns the order and the scores of the first stage, where there is one.
        mask
            ``(n, t)`` bool or 0 and 1: which tokens of a padded array count.
        tau
            Carve queries before documents are ranked (:func:`ball_carve`), for speed at some loss; None: do
            not.
        num_threads
            At least 1; None uses the CPUs that the process may use. Results do not depend on it.

        Returns
        -------
        Hits: MaxSim over the tokens as they are kept, best first, ties by earlier document.

        Raises
        ------
        ShapeError, DtypeError, InvalidTypeError, NonFiniteError, InvalidValueError
        UnknownIdError
            A candidate is not in the index.
        """
        k = as_k(k)
        threads = as_threads(num_threads)
        as_flag(rerank, "rerank")
        if filter is not None and subset is not None:
            raise InvalidTypeError("give filter= or subset=, not both: subset=ids is filter=ids")
        q = as_queries(q_tokens, self._dim, mask)
        allowed = self._as_numbers(filter if subset is None else subset, q)
        state = self._state
        if candidates is not None and not isinstance(candidates, (int, np.integer)):
            if allowed is not None or not rerank:
                raise InvalidTypeError("candidates=ids replace the first stage: leave filter and rerank out")
            chosen = Candidates.given(candidates, self._ids, len(q))
            return self._rank(state, q, k, chosen, tau, threads, {"plan": "given candidates, then maxsim"})
        count = self._count.for_search(k, len(self))
        if candidates is not None:
            count = max(k, as_int(candidates, "candidates", 1, 2**31 - 1))
        count = min(count, max(1, len(self)))
        if allowed is None and (state.encoder is None or (rerank and count == len(self))):
            return self._exact(state, q, k, tau, num_threads)
        if state.encoder is None:
            vectors, count = empty_vectors(len(q)), max(1, len(self))
        else:
            vectors = state.encoder.encode_queries((q.flat, q.offsets), num_threads=num_threads)
        wide: dict[str, Any] = {"ef": count} if self._plan.kind == "hnsw" and state.encoder else {}
        taken = count if rerank or state.encoder is None else k
        found = state.stage.search(vectors, taken, filter=allowed, num_threads=num_threads, **wide)
        if not rerank and state.encoder is not None:
            whole = self._without_new(state, found.ids, found.scores, found.counts)
            return self._hits(*whole, k, q.single, found.stats)
        chosen = Candidates.of_search(found.ids, self._ready(state))
        return self._rank(state, q, k, chosen, tau, threads, found.stats)

    def tune(
        self,
        q_tokens: Any,
        *,
        k: int = 10,
        target_recall: float = 0.95,
        mask: ArrayLike | None = None,
        seed: int = 0,
        num_threads: int | None = None,
    ) -> TuneResult:
        """Choose how many candidates are ranked, from a recall that is wanted, and keep that as the default.

        One half of the queries chooses, with a margin (a one-sided 99.9 % confidence bound of the recall
        reaches the target); the other measures. Recall is against MaxSim over all documents, by the tokens
        that are kept.

        Parameters
        ----------
        q_tokens
            A sample of queries, as for :meth:`search`.
        k
            Results per query.
        target_recall
            Recall@k to reach, above 0, at most 1.
        mask
            As for :meth:`search`.
        seed
            Seed of the halves.
        num_threads
            At least 1; None uses the CPUs that the process may use.

        Returns
        -------
        A :class:`TuneResult`, whose ``params`` hold ``candidates``.

        Raises
        ------
        InvalidValueError
            The index is empty or not trained, or there are too few queries to show the target.
        """
        as_threads(num_threads)
        if len(self) == 0 or not self.is_trained:
            raise InvalidValueError(
                f"tune needs {self._plan.fit_at:_} documents, or train(): an untrained index ranks all"
            )
        q = as_queries(q_tokens, self._dim, mask)
        result = tune_candidates(self.search, q, len(self), k, target_recall, seed, num_threads)
        self._count = Count(result.k, result.params["candidates"], len(self), tuned=True)
        return result

    def _write(self, path: bytes) -> None:
        with self._changes:
            state = self._state
            parts = self._plan.parts(trained=self.is_trained) | {
                "trained": int(self.is_trained),
                "token_codec": self._token_codec,
                "first_stage": state.stage._native,
                "tokens": state.store._native,
                "ids": self._ids.to_bytes(),
                "count": np.array(self._count, np.int64),
            }
            _core.save_nested(path, self._KIND, parts)

    @classmethod
    def _from_parts(cls, parts: dict[str, Any]) -> MultiVectorIndex:
        index = cls.__new__(cls)
        try:
            plan = FirstStage.from_parts(parts)
            stage, store = stage_of(parts["first_stage"]), TokenStore._from_native(parts["tokens"])
            index._start(store.dim, plan, parts["token_codec"])
            index._ids = DocumentIds.from_bytes(parts["ids"])
            index._count = Count.of(parts["count"])
            index._state = State(plan.encoder if parts["trained"] else None, stage, store)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorruptFileError(f"a MultiVectorIndex cannot be made of the file: {error!r}") from error
        n = index._ids.next_number
        if len(store) != n or len(stage) != len(index._ids) or plan.dim != store.dim:
            raise CorruptFileError(
                f"the parts of a MultiVectorIndex do not fit together: {len(store)} token sets, "
                f"{len(stage)} vectors, {len(index._ids)} of {n} ids"
            )
        return index

    def __repr__(self) -> str:
        size = size_text(sum(self.memory().values()))
        return (
            f"MultiVectorIndex(n={len(self):_}, dim={self._dim}, encoder={self.encoder!r}, "
            f"index={self._plan.kind!r}, token_codec={self._token_codec!r}, {size})"
        )

    def _ready(self, state: State) -> int:
        """Documents that are whole; those above are just being added."""
        return min(len(state.store), self._ids.next_number)

    def _without_new(self, state: State, numbers: Any, scores: Any, counts: Any) -> tuple[Any, Any, Any]:
        """Results of the first stage without documents that are just being added."""
        numbers, scores = np.atleast_2d(numbers), np.atleast_2d(scores)
        new = numbers >= self._ready(state)
        if not new.any():
            return numbers, scores, counts
        order = np.argsort(new, axis=1, kind="stable")
        numbers = np.take_along_axis(np.where(new, -1, numbers), order, axis=1)
        scores = np.take_along_axis(np.where(new, -np.inf, scores), order, axis=1).astype(np.float32)
        return numbers, scores, np.atleast_1d(counts) - new.sum(axis=1)

    def _as_numbers(self, allowed: Any, q: Tokens) -> Any:
        """A filter whose ids are numbers."""
        texts = not self._ids.are_texts and bool(self._plan.columns)
        parts = split_filters(allowed, len(q), q.single, texts=texts)
        return self._translated(allowed) if parts is None else [self._translated(part) for part in parts]

    def _translated(self, allowed: Any) -> Any:
        native = as_filter(allowed)
        if isinstance(native, list) or (isinstance(native, np.ndarray) and native.dtype != np.bool_):
            return self._ids.numbers(native, missing="ignore")
        return allowed

    def _exact(self, state: State, q: Tokens, k: int, tau: Any, num_threads: int | None) -> Hits:
        """MaxSim over all documents, some queries at a time."""
        live = self._ids.live
        live = live[live < len(state.store)]
        blocks = [
            maxsim_topk(
                part(q, i, min(i + _EXACT_BLOCK, len(q))), state.store, k, documents=live, tau=tau,
                num_threads=num_threads,
            )
            for i in range(0, len(q), _EXACT_BLOCK)
        ]  # fmt: skip
        stats = {"plan": "maxsim", "matches": len(live), "visited": len(live), "reranked": len(live)}
        if not blocks:
            empty = np.empty((0, k))
            return Hits(empty.astype(np.int64), empty.astype(np.float32), np.empty(0, np.int64), stats)
        ids, scores, counts = (
            np.concatenate([getattr(b, part) for b in blocks]) for part in ("ids", "scores", "counts")
        )
        return self._hits(ids, scores, counts, k, q.single, stats)

    def _rank(
        self,
        state: State,
        q: Tokens,
        k: int,
        chosen: Candidates,
        tau: Any,
        threads: int,
        stats: dict[str, Any],
    ) -> Hits:
        """Rank candidates by MaxSim."""
        sets = q if tau is None else carved(q, tau)
        numbers, scores, counts = state.store._native.rank(
            sets.flat, sets.offsets, chosen.offsets, chosen.numbers, k, threads
        )
        plan = stats["plan"] if "maxsim" in stats["plan"] else f"{stats['plan']}, then maxsim"
        reranked = len(chosen.numbers) // max(1, len(q))
        return self._hits(numbers, scores, counts, k, q.single, {**stats, "plan": plan, "reranked": reranked})

    def _hits(
        self, numbers: Any, scores: Any, counts: Any, k: int, single: bool, stats: dict[str, Any]
    ) -> Hits:
        return make_hits(
            self._ids.ids_of(np.atleast_2d(numbers)), np.atleast_2d(scores), np.atleast_1d(counts), k, "ip",
            single, stats,
        )  # fmt: skip
