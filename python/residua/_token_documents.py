# SPDX-License-Identifier: Apache-2.0
"""The documents of a multi-vector index: tokens, single vectors, columns and ids, and how they change."""

from __future__ import annotations

from threading import Lock
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from residua._candidates import Count
from residua._columns import as_cells
from residua._document_ids import DocumentIds
from residua._first_stage import Encoder, FirstStage, Known, Stage, add_vectors, fitting_sample
from residua._progress import reporter
from residua._saved import Saved
from residua._tokens import Tokens, as_queries, as_tokens, pick
from residua._typing import AnyArray, ArrayLike, FloatArray, Ids, IntArray, Progress
from residua._validate import as_choice, as_flag, as_ids, as_threads
from residua.errors import InvalidValueError
from residua.learned_encoder import LearnedEncoder
from residua.token_store import TokenStore

_Self = TypeVar("_Self", bound="TokenDocuments")

_FIT_AT = 256  # documents at which the codec of the tokens is fitted


class State(NamedTuple):
    """What a search reads, replaced as a whole: documents have the same numbers in both parts."""

    encoder: Encoder | None  # None: all documents are candidates
    stage: Stage  # vectors and columns by number
    store: TokenStore


class TokenDocuments(Saved):
    """Documents of token vectors that change while they are searched."""

    def _start(self, dim: int, plan: FirstStage, token_codec: str) -> None:
        self._dim = dim
        self._plan = plan
        self._token_codec = token_codec
        self._ids = DocumentIds()
        self._changes = Lock()
        self._count = Count(10, 10, 0)
        form = "float32" if token_codec.startswith("rb") else token_codec
        self._state = State(None, plan.waiting(), TokenStore(_no_tokens(dim), form))

    @property
    def dim(self) -> int:
        """Dims of the tokens."""
        return self._dim

    @property
    def encoder(self) -> Encoder | None:
        """The encoder of the first stage; None until it is chosen."""
        return self._plan.encoder

    @property
    def first_stage(self) -> Stage | None:
        """The index of the single vectors, by number of document; None until codecs are fitted."""
        return None if self._state.encoder is None else self._state.stage

    @property
    def tokens(self) -> TokenStore:
        """The kept tokens, by number of document; a removed one has none."""
        return self._state.store

    @property
    def is_trained(self) -> bool:
        """Whether codecs and encoder are fitted; until then searches are exact."""
        return self._state.encoder is not None

    def train(
        self: _Self,
        tokens: Any,
        *,
        queries: Any = None,
        mask: ArrayLike | None = None,
        num_threads: int | None = None,
        progress: Progress = False,
    ) -> _Self:
        """Fit codecs, and a learned encoder, on a sample of documents; they are not added.

        Parameters
        ----------
        tokens, mask
            Documents, as for :meth:`add`.
        queries
            Sample of queries in the same forms, for a learned encoder and the codec; or None.
        num_threads
            At least 1; None uses the CPUs that the process may use.
        progress
            True draws a progress bar; a callable gets ``(done, total)``.

        Returns
        -------
        The index itself.

        Raises
        ------
        InvalidValueError
            It is trained already, or there are no tokens.
        ShapeError, DtypeError, InvalidTypeError, NonFiniteError
        """
        as_threads(num_threads)
        sets = as_tokens(tokens, self._dim, "tokens", "document", mask)
        asked = None if queries is None else as_queries(queries, self._dim, name="queries")
        if len(sets.flat) == 0:
            raise InvalidValueError("tokens: expected at least 1 token to train on, got 0")
        with self._changes:
            if self.is_trained:
                raise InvalidValueError(
                    "this index is trained already; make a new MultiVectorIndex to train anew"
                )
            self._fit(sets, asked, num_threads, progress, stage=True)
        return self

    def add(
        self,
        tokens: Any,
        ids: Ids | None = None,
        columns: Any = None,
        *,
        mask: ArrayLike | None = None,
        upsert: bool = False,
        num_threads: int | None = None,
        progress: Progress = False,
    ) -> AnyArray:
        """Add documents; all of them or, on an error, none.

        Parameters
        ----------
        tokens
            A list of ``(t, dim)`` arrays, ``(tokens (T, dim), offsets (n + 1,))``, or a padded
            ``(n, t, dim)`` array; float32, float16, bfloat16 or float64, as NumPy arrays or
            CPU tensors. A 2-D array is one document. A document without tokens is kept and never found.
        ids
            ``(n,)`` integers 0 … 2**63 - 1 or str; None continues from the largest id + 1.
        columns
            Values of the columns, one per document, as for :meth:`FlatIndex.add`.
        mask
            ``(n, t)`` bool or 0 and 1: which tokens of a padded array count.
        upsert
            Replace the documents of ids that exist instead of raising DuplicateIdError; columns that are not
            named become null.
        num_threads
            At least 1; None uses the CPUs that the process may use.
        progress
            True draws a progress bar; a callable gets ``(documents done, n)``.

        Returns
        -------
        ``(n,)`` ids: int64, or object (str).

        Raises
        ------
        ShapeError, DtypeError, InvalidTypeError, DuplicateIdError, InvalidValueError
        NonFiniteError
            Names the first bad document and token.
        """
        threads = as_threads(num_threads)
        as_flag(upsert, "upsert")
        report = reporter(progress, "add")
        sets = as_tokens(tokens, self._dim, "tokens", "document", mask)
        n = len(sets)
        given = None if ids is None else as_ids(ids, n)
        if upsert and given is None:
            raise InvalidValueError("upsert=True needs ids")
        as_cells(columns, self._state.stage._native.fields, n)  # refuses before anything is done
        with self._changes:
            replaced = [] if given is None else self._ids.check_new(given, upsert=upsert)
            known = self._fit_if_due(sets, num_threads)
            first = self._ids.next_number
            state = self._state
            numbers = np.arange(first, first + n)
            try:
                add_vectors(state.stage, state.encoder, sets, numbers, num_threads, report, known)
                if columns is not None:
                    state.stage.set_columns(numbers, columns)
                state.store._native.add(sets.flat, sets.offsets, threads)
            except BaseException:
                state.stage.remove(numbers, missing="ignore")
                raise
            self._ids.erase(replaced)
            self._ids.add(n if given is None else given)
            self._drop(replaced)
            if n >= _FIT_AT and isinstance(state.encoder, LearnedEncoder):
                state.encoder._forget_solver()
        return self._ids.ids_of(numbers)

    def remove(self, ids: Ids, *, missing: Literal["raise", "ignore"] = "raise") -> int:
        """Remove documents by id; their memory is given back by :meth:`compact`.

        Parameters
        ----------
        ids
            Ids to remove; one given twice counts once.
        missing
            ``"raise"`` UnknownIdError (a KeyError) for an id that is not there, before anything is removed;
            ``"ignore"`` skips it.

        Returns
        -------
        How many were removed.
        """
        as_choice(missing, "missing", ("raise", "ignore"))
        with self._changes:
            numbers = np.unique(self._ids.numbers(ids, missing=missing)).tolist()
            self._ids.erase(numbers)
            self._drop(numbers)
        return len(numbers)

    def get(self, ids: Ids) -> list[FloatArray]:
        """Return the tokens of documents, as they are kept.

        Parameters
        ----------
        ids
            ``(n,)`` ids.

        Returns
        -------
        n arrays ``(t, dim)`` float32.

        Raises
        ------
        UnknownIdError, which names the first id that is not there.
        """
        store = self._state.store
        return [store.get(number) for number in self._ids.numbers(ids).tolist()]

    def columns(self, ids: Ids) -> dict[str, AnyArray]:
        """Return the values of all columns for some documents, as :meth:`FlatIndex.columns` does."""
        return self._state.stage.columns(self._ids.numbers(ids))

    def set_columns(self, ids: Ids, columns: Any) -> None:
        """Replace values of columns in place, as :meth:`FlatIndex.set_columns` does."""
        with self._changes:
            self._state.stage.set_columns(self._ids.numbers(ids), columns)

    def compact(self) -> None:
        """Give back the memory of removed documents; ids stay as they are."""
        with self._changes:
            self._state.stage.compact()
            self._state.store.compact()

    def memory(self) -> dict[str, int]:
        """Return the bytes of every part; their sum is the index.

        ``first_stage`` is what grows with the documents, ``first_stage_codec`` what does not; ``tokens`` and
        ``token_codec`` likewise; and ``encoder``, of a learned one.
        """
        stage, store = self._state.stage.memory(), self._state.store.memory()
        return {
            "first_stage": sum(stage.values()) - stage.get("codec", 0),
            "first_stage_codec": stage.get("codec", 0),
            "tokens": sum(store.values()) - store.get("codec", 0),
            "token_codec": store.get("codec", 0),
            "encoder": getattr(self.encoder, "_memory_bytes", 0),
            "ids": self._ids.memory_bytes,
        }

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, id: object) -> bool:
        try:
            return self._ids.find(as_ids([id], 1))[0] is not None
        except (TypeError, ValueError):
            return False

    @property
    def _codes_wait(self) -> bool:
        return self._token_codec.startswith("rb") and isinstance(self._state.store.codec, str)

    def _fit_if_due(self, sets: Tokens, threads: int | None) -> Known | None:
        """Fit what is to be fitted where the index has documents enough with ``sets``; see :meth:`_fit`."""
        total = len(self) + len(sets)
        stage = not self.is_trained and total >= self._plan.fit_at
        if len(sets.flat) and (stage or (self._codes_wait and total >= _FIT_AT)):
            return self._fit(sets, None, threads, False, stage=stage)
        return None

    def _fit(
        self, sets: Tokens, queries: Tokens | None, threads: int | None, progress: Progress, *, stage: bool
    ) -> Known | None:
        """Fit codecs, and the first stage, to ``sets`` and to what is here, and put that into their form.

        Returns vectors of some of the ``sets``, where a first stage was made.
        """
        before, live = self._state, self._ids.live
        kept = [before.store.get(i) for i in range(len(before.store))]
        here = as_tokens(kept, self._dim, "tokens", "document") if kept else None
        sample, places = fitting_sample([sets] if here is None else [here, sets])
        asked = None if queries is None else (queries.flat, queries.offsets)
        store = before.store
        if self._codes_wait:
            fitted: Any = TokenStore(sample, self._token_codec, queries=asked, num_threads=threads).codec
            store = TokenStore((here.flat, here.offsets) if here else _no_tokens(self._dim), fitted)
        if not stage:
            self._state = before._replace(store=store)
            return None
        encoder, index, self._count, vectors = self._plan.fit(sample, asked, threads, progress)
        if here is not None:
            add_vectors(index, encoder, pick(here, live), live, threads)
            if self._plan.columns:
                index.set_columns(live, before.stage.columns(live))
        self._plan.encoder = encoder
        self._state = State(encoder, index, store)
        added = places >= len(kept)
        return places[added] - len(kept), vectors[added]

    def _drop(self, numbers: list[int]) -> None:
        self._state.stage.remove(numbers)
        self._state.store.remove(numbers)


def _no_tokens(dim: int) -> tuple[AnyArray, IntArray]:
    return np.empty((0, dim), np.float32), np.zeros(1, np.int64)
