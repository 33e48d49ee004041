# SPDX-License-Identifier: Apache-2.0
"""The first stage of a multi-vector index: single vectors of documents in an index over codes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from residua import _core
from residua._candidates import FEW, Count, guessed_count
from residua._tokens import Tokens, part, pick
from residua._typing import AnyArray, FloatArray, IntArray, Progress
from residua._validate import as_choice
from residua.codecs import Codec, RecurrentBinaryCodec, check_codec, from_recipe, wrap
from residua.errors import InvalidTypeError, ShapeError, UnsupportedError
from residua.fd_encoder import FDEncoder
from residua.hnsw_index import HNSWIndex
from residua.indexes import FlatIndex
from residua.learned_encoder import LearnedEncoder

# More dims need fewer candidates, but longer for a query: about the same time on 5,000 documents.
_LEARNED_DIM = 512
_LEARNED_BITS = 4.0
_LEARNED = "e_"  # before the names of the parts of a LearnedEncoder
_FIT_AT = FEW + 1
_FIT_GIVEN_AT = 256  # where an encoder is asked for
_SAMPLE = 4096  # documents that encoder and codecs are fitted to, at most
_BATCH_BYTES = 2**28  # of vectors that are made at a time

Stage = FlatIndex | HNSWIndex
Sample = tuple[AnyArray, IntArray]  # tokens, offsets
Known = tuple[IntArray, FloatArray]  # places of documents, ascending, and their vectors


@runtime_checkable
class Encoder(Protocol):
    """Makes vectors whose inner product estimates MaxSim."""

    @property
    def dim(self) -> int: ...
    @property
    def output_dim(self) -> int: ...
    def encode_documents(self, tokens: Any, *, num_threads: int | None = None) -> FloatArray: ...
    def encode_queries(self, tokens: Any, *, num_threads: int | None = None) -> FloatArray: ...


def named_encoder(name: str, dim: int, seed: int) -> Encoder:
    if name == "learned":
        return LearnedEncoder(dim, output_dim=_LEARNED_DIM, seed=seed)
    return FDEncoder(dim, seed=seed)


def make_encoder(encoder: Any, dim: int, seed: int) -> Encoder | None:
    """The encoder that is named or given; None for one that is chosen when there are documents."""
    if isinstance(encoder, str):
        if as_choice(encoder, "encoder", ("auto", "fde", "learned")) == "auto":
            return None
        return named_encoder(encoder, dim, seed)
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
        self,
        dim: int,
        encoder: Encoder | None,
        codec: Any,
        kind: str,
        columns: Mapping[str, str] | None,
        seed: int,
    ) -> None:
        if isinstance(codec, str):
            as_choice(codec, "codec", ("auto",))
        elif codec is not None:
            encoder = encoder or FDEncoder(dim, seed=seed)
            check_codec(codec, encoder.output_dim)
        self.dim = dim
        self.encoder = encoder
        self.kind = kind
        self.columns = None if columns is None else dict(columns)
        self._codec = codec
        self._seed = seed

    @property
    def fit_at(self) -> int:
        """Documents at which a first stage is made: few are ranked by all their tokens at once."""
        return _FIT_AT if self.encoder is None else _FIT_GIVEN_AT

    def waiting(self) -> FlatIndex:
        """An index of empty vectors, for filters alone."""
        return FlatIndex(1, metric="ip", columns=self.columns)

    def fit(
        self, sample: Sample, asked: Sample | None, num_threads: int | None, progress: Progress
    ) -> tuple[Encoder, Stage, Count, FloatArray]:
        """Fit encoder and codec to documents; return them, the codec in an empty index, and the vectors."""
        encoder = self.encoder
        if encoder is None:
            encoder = named_encoder("learned", self.dim, self._seed)
        if isinstance(encoder, LearnedEncoder) and not encoder.is_trained:
            encoder.fit(sample, queries=asked, num_threads=num_threads, progress=progress)
        codec = self._codec
        if isinstance(codec, str):
            bits = _LEARNED_BITS if isinstance(encoder, LearnedEncoder) else 1.0
            codec = RecurrentBinaryCodec(encoder.output_dim, bits=bits, seed=self._seed)
        x = encoder.encode_documents(sample, num_threads=num_threads)
        if isinstance(codec, Codec) and not codec.is_trained:
            q = None if asked is None else encoder.encode_queries(asked, num_threads=num_threads)
            codec.fit(x, queries=q, metric="ip", num_threads=num_threads)

        def score(some: Sample) -> FloatArray:
            q = encoder.encode_queries(some, num_threads=num_threads)
            if codec is None:
                return np.asarray(q @ x.T, np.float32)
            fitted: Codec = codec
            return fitted.scores(q, codec.encode(x, num_threads=num_threads), num_threads=num_threads)

        count = guessed_count(sample, asked, score, num_threads)
        vectors: Any = "float32" if codec is None else "none"
        options: Any = {"metric": "ip", "codec": codec, "vectors": vectors, "columns": self.columns}
        if self.kind == "hnsw":
            return encoder, HNSWIndex(encoder.output_dim, seed=self._seed, **options), count, x
        return encoder, FlatIndex(encoder.output_dim, **options), count, x

    def parts(self, *, trained: bool) -> dict[str, Any]:
        """What makes this anew; the codec only where the first stage does not hold it yet."""
        out: dict[str, Any] = {"stage": self.kind, "seed": self._seed, "columns": json.dumps(self.columns)}
        out["dim"] = self.dim
        if self.encoder is None:
            pass
        elif isinstance(self.encoder, FDEncoder):
            out["encoder"] = self.encoder._native
        elif isinstance(self.encoder, LearnedEncoder):
            out |= {f"{_LEARNED}{name}": value for name, value in self.encoder._parts().items()}
        else:
            raise UnsupportedError(
                f"an encoder of type {type(self.encoder).__name__} cannot be saved; an FDEncoder or a "
                "LearnedEncoder can"
            )
        if self._codec is None or isinstance(self._codec, str):
            out["codec"] = self._codec or "none"
        elif not trained and self._codec.is_trained:
            out["codec"] = self._codec._trained()
        else:
            out["codec"] = "given"
            out["recipe"] = self._codec._recipe()
        return out

    @classmethod
    def from_parts(cls, parts: dict[str, Any]) -> FirstStage:
        """Read what :meth:`parts` made."""
        encoder: Encoder | None = None
        size = len(_LEARNED)
        if "encoder" in parts:
            encoder = FDEncoder._from_native(parts["encoder"])
        elif f"{_LEARNED}dim" in parts:
            encoder = LearnedEncoder._from_parts(
                {name[size:]: value for name, value in parts.items() if name.startswith(_LEARNED)}
            )
        codec = parts["codec"]
        if not isinstance(codec, str):
            codec = wrap(codec)
        elif codec == "none":
            codec = None
        elif codec == "given" and encoder is not None:
            codec = from_recipe(encoder.output_dim, parts["recipe"]) if parts["recipe"] else None
        return cls(parts["dim"], encoder, codec, parts["stage"], json.loads(parts["columns"]), parts["seed"])


def stage_of(native: _core.Index) -> Stage:
    """The first stage that a file holds."""
    return (HNSWIndex if isinstance(native, _core.HNSWIndex) else FlatIndex)._from_native(native)


def add_vectors(
    stage: Stage,
    encoder: Encoder | None,
    sets: Tokens,
    numbers: IntArray,
    num_threads: int | None,
    report: Callable[[int, int], None] = lambda done, of: None,
    known: Known | None = None,
) -> None:
    """Encode documents batch by batch, and add them; without an encoder, empty vectors.

    ``known``: vectors of some of the documents, which are not encoded again.
    """
    report(0, max(1, len(sets)))
    batch = max(1, _BATCH_BYTES // (4 * (1 if encoder is None else encoder.output_dim)))
    for i in range(0, len(sets), batch):
        last = min(i + batch, len(sets))
        if encoder is None:
            vectors = empty_vectors(last - i)
        elif known is None:
            vectors = encoder.encode_documents(part(sets, i, last), num_threads=num_threads)
        else:
            vectors = _completed(known, encoder, sets, (i, last), num_threads)
        stage.add(vectors, numbers[i:last], num_threads=num_threads)
        report(last, len(sets))


def _completed(
    known: Known, encoder: Encoder, sets: Tokens, bounds: tuple[int, int], num_threads: int | None
) -> FloatArray:
    """Vectors of the documents within bounds, some of which are known."""
    places, vectors = known
    first, last = np.searchsorted(places, bounds)
    out = np.empty((bounds[1] - bounds[0], encoder.output_dim), np.float32)
    out[places[first:last] - bounds[0]] = vectors[first:last]
    rest = np.setdiff1d(np.arange(*bounds), places[first:last], assume_unique=True)
    for i in range(0, len(rest), _SAMPLE):  # their tokens are copied
        some = rest[i : i + _SAMPLE]
        copied = pick(sets, some)
        out[some - bounds[0]] = encoder.encode_documents(
            (copied.flat, copied.offsets), num_threads=num_threads
        )
    return out


def empty_vectors(n: int) -> FloatArray:
    """What stands for documents and queries while there is no encoder."""
    return np.zeros((n, 1), np.float32)


def fitting_sample(sets: list[Tokens]) -> tuple[Sample, IntArray]:
    """Documents with tokens, evenly spaced, at most _SAMPLE of them; and their places."""
    lengths = np.concatenate([np.diff(s.offsets) for s in sets])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    flat = np.concatenate([s.flat.astype(np.float32, copy=False) for s in sets]) if sets[1:] else sets[0].flat
    full = np.flatnonzero(lengths)
    places = full[:: max(1, -(-len(full) // _SAMPLE))]
    chosen = pick(Tokens(flat, offsets, False), places)
    return (chosen.flat, chosen.offsets), places
