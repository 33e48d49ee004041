# SPDX-License-Identifier: Apache-2.0
"""The codec of a command: loaded from a file, or fitted to a sample of the input."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import residua as rz
from residua._io import VectorFile, open_vectors, sample_rows, take_floats
from residua._typing import FloatArray
from residua.cli._app import usage_error
from residua.cli._choices import check_bits, make_codec
from residua.cli._console import progress
from residua.errors import InvalidValueError, UnsupportedError

__all__ = ["CodecRequest", "load_codec", "read_queries"]

_SAMPLE_ROWS = 100_000
_SAMPLE_BYTES = 128 * 2**20


@dataclass(frozen=True)
class CodecRequest:
    """What the options say about the codec."""

    kind: str | None
    bits: float | None
    metric: str
    file: Path | None
    queries: str | None
    sample: int | None
    seed: int
    threads: int | None

    def check(self) -> None:
        """Refuse options that do not go together, before any file is opened."""
        fitting = {
            "--codec": self.kind,
            "--bits": self.bits,
            "--queries": self.queries,
            "--sample": self.sample,
        }
        clash = [name for name, value in fitting.items() if value is not None]
        if self.file is not None and clash:
            raise usage_error(f"--codec-file is a codec that is fitted already, {clash[0]} cannot change it")
        if self.file is None:
            check_bits(self.kind or "recurrent", self.bits)

    def unfitted(self, file: VectorFile) -> rz.Codec:
        """Return the codec for an index that fits it: the one of a file, or a new one."""
        if self.file is not None:
            return self._loaded(self.file, file)
        return make_codec(self.kind or "recurrent", file.dim, self.bits, self.seed)

    def train(self, index: Any, file: VectorFile) -> None:
        """Train an index on a sample of the file."""
        queries = None if self.queries is None else read_queries(self.queries, file.dim, self.metric)
        with progress("training", 2) as advance:
            x = self._sample(file, None)
            advance(1)
            index.train(x, queries=queries, num_threads=self.threads)
            advance(1)

    def codec(self, file: VectorFile) -> rz.Codec:
        """Return the trained codec for a file of vectors."""
        if self.file is not None:
            return self._loaded(self.file, file)
        codec = make_codec(self.kind or "recurrent", file.dim, self.bits, self.seed)
        for name, value in (("--sample", self.sample), ("--queries", self.queries)):
            if codec.is_trained and value is not None:
                raise usage_error(f"--codec {self.kind} learns nothing from data, {name} cannot be used")
        queries = None
        if self.queries is not None:
            queries = read_queries(self.queries, file.dim, self.metric)
        metric: Any = self.metric
        with progress("fitting", 2) as advance:
            x = self._sample(file, 1 if codec.is_trained else None)
            advance(1)
            codec.fit(x, queries=queries, metric=metric, num_threads=self.threads)
            advance(1)
        return codec

    def _loaded(self, path: Path, file: VectorFile) -> rz.Codec:
        codec = load_codec(path)
        if codec.dim != file.dim:
            raise InvalidValueError(f"{path}: the codec has {codec.dim} dims, {file.name} has {file.dim}")
        if codec.metric != self.metric:
            raise InvalidValueError(
                f"{path}: the codec is fitted for metric {codec.metric!r}; add --metric {codec.metric}"
            )
        return codec

    def _sample(self, file: VectorFile, count: int | None) -> FloatArray:
        """Draw rows uniformly; `count` rows where no more are needed."""
        count = count or self.sample or min(_SAMPLE_ROWS, max(1, _SAMPLE_BYTES // (4 * file.dim)))
        return take_floats(file, sample_rows(file.n, count, self.seed), metric=self.metric)


def load_codec(path: Path) -> rz.Codec:
    """Load a codec, and nothing else, from a file."""
    codec = rz.load(path)
    if not isinstance(codec, rz.Codec):
        raise UnsupportedError(f"{path}: holds an index, expected a codec (residua encode --save-codec)")
    return codec


def read_queries(path: str, dim: int, metric: str) -> FloatArray:
    """Read all queries of a file."""
    file = open_vectors(path, prefer=("queries", "test", "query"))
    file.require_vectors(dim)
    return take_floats(file, sample_rows(file.n, file.n, 0), metric=metric)
