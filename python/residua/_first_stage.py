# SPDX-License-Identifier: Apache-2.0
"""The first stage of a multi-vector index: single vectors of documents in an index over codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from residua._index import Index
from residua._tokens import Tokens, part, pick
from residua._typing import AnyArray, FloatArray, IntArray, Progress
from residua._validate import as_choice
from residua.codecs import Codec, RecurrentBinaryCodec, check_codec
from residua.errors import InvalidTypeError, ShapeError
from residua.fd_encoder import FDEncoder
from residua.hnsw_index import HNSWIndex
from residua.indexes import FlatIndex
from residua.learned_encoder import LearnedEncoder

_CODEC_BYTES = 1280  # of a document, at most, where the codec is chosen here
_MOST_BITS = 8.0
_SAMPLE = 4096  # documents that encoder and codecs are fitted to, at most
_BATCH = 1024  # documents encoded at a time

Sample = tuple[AnyArray, IntArray]  # tokens, offsets


@runtime_checkable
class Encoder(Protocol):
    """Makes vectors whose inner product estimates MaxSim."""

    @property
    def dim(self) -> int: ...
    @property
    def output_dim(self) -> int: ...
    def encode_documents(self, tokens: Any, *, num_threads: int | None = None) -> FloatArray: ...
    def encode_queries(self, tokens: Any, *, num_threads: int | None = None) -> FloatArray: ...


def make_encoder(encoder: Any, dim: int, seed: int) -> Encoder:
    """The encoder that is named or given."""
    if isinstance(encoder, str):
        if as_choice(encoder, "encoder", ("auto", "fde", "learned")) == "learned":
            return LearnedEncoder(dim, seed=seed)
        return FDEncoder(dim, seed=seed)
    if not isinstance(encoder, Encoder):
        raise InvalidTypeError(
            f"encoder must be 'auto', 'fde', 'learned', or have dim, output_dim, encode_documents and "
            f"encode_queries as FDEncoder has, got {encoder!r}"
        )
    if encoder.dim != dim:
        raise ShapeError(f"encoder takes tokens of {encoder.dim} dims, the index has {dim}")
    return encoder


class FirstStage:
    """What the first stage is made of."""

    def __init__(
        self, encoder: Encoder, codec: Any, kind: str, columns: Mapping[str, str] | None, seed: int
    ) -> None:
        if isinstance(codec, str):
            as_choice(codec, "codec", ("auto",))
        else:
            check_codec(codec, encoder.output_dim)
        self.encoder = encoder
        self.kind = kind
        self.columns = columns
        self._codec = codec
        self._seed = seed

    def waiting(self) -> FlatIndex:
        """An index of empty vectors, for filters alone."""
        return FlatIndex(1, metric="ip", columns=self.columns)

    def fit(
        self, sample: Sample, queries: Tokens | None, num_threads: int | None, progress: Progress
    ) -> Index:
        """Fit encoder and codec to documents, and return an empty index."""
        encoder = self.encoder
        asked = None if queries is None else (queries.flat, queries.offsets)
        if isinstance(encoder, LearnedEncoder) and not encoder.is_fitted:
            encoder.fit(sample, queries=asked, num_threads=num_threads, progress=progress)
        codec = self._codec
        if isinstance(codec, str):
            bits = min(_MOST_BITS, max(1.0, 8 * _CODEC_BYTES / encoder.output_dim))
            codec = RecurrentBinaryCodec(encoder.output_dim, bits=bits, seed=self._seed)
        if isinstance(codec, Codec) and not codec.is_trained:
            x = encoder.encode_documents(sample, num_threads=num_threads)
            q = None if asked is None else encoder.encode_queries(asked, num_threads=num_threads)
            codec.fit(x, queries=q, metric="ip", num_threads=num_threads)
        vectors: Any = "float32" if codec is None else "none"
        options: Any = {"metric": "ip", "codec": codec, "vectors": vectors, "columns": self.columns}
        if self.kind == "hnsw":
            return HNSWIndex(encoder.output_dim, seed=self._seed, **options)
        return FlatIndex(encoder.output_dim, **options)


def add_vectors(
    stage: Index,
    encoder: Encoder | None,
    sets: Tokens,
    numbers: IntArray,
    num_threads: int | None,
    report: Callable[[int, int], None] = lambda done, of: None,
) -> None:
    """Encode documents batch by batch, and add them; without an encoder, empty vectors."""
    report(0, max(1, len(sets)))
    for i in range(0, len(sets), _BATCH):
        last = min(i + _BATCH, len(sets))
        if encoder is None:
            vectors = empty_vectors(last - i)
        else:
            vectors = encoder.encode_documents(part(sets, i, last), num_threads=num_threads)
        stage.add(vectors, numbers[i:last], num_threads=num_threads)
        report(last, len(sets))


def empty_vectors(n: int) -> FloatArray:
    """What stands for documents and queries while there is no encoder."""
    return np.zeros((n, 1), np.float32)


def fitting_sample(sets: list[Tokens]) -> Sample:
    """Documents with tokens, evenly spaced, at most _SAMPLE of them."""
    lengths = np.concatenate([np.diff(s.offsets) for s in sets])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    flat = np.concatenate([s.flat.astype(np.float32, copy=False) for s in sets]) if sets[1:] else sets[0].flat
    full = np.flatnonzero(lengths)
    chosen = pick(Tokens(flat, offsets, False), full[:: max(1, -(-len(full) // _SAMPLE))])
    return chosen.flat, chosen.offsets
