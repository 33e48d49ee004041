# SPDX-License-Identifier: Apache-2.0
"""What all codecs share: encoding, decoding, scores, files."""

from __future__ import annotations

from typing import TypeVar

from residua import _core
from residua._saved import Saved
from residua._typing import ArrayLike, ByteArray, FloatArray, Metric, Progress
from residua._validate import (
    METRICS,
    as_choice,
    as_codes,
    as_threads,
    as_vectors,
    refuse_huge_values,
    refuse_zero_rows,
)
from residua.errors import InvalidTypeError, InvalidValueError, NotTrainedError

C = TypeVar("C", bound="Codec")


class Codec(Saved):
    """Base class of all codecs; not made directly.

    A codec is trained once, then immutable. Two codecs with the same ``fingerprint`` give the same
    codes and the same scores.
    """

    _dim: int
    _native: _core.Codec | None
    _metric_fixed = True  # False: the first fit, or the first index, sets the metric
    _is_query_side = False  # True: serves queries against the codes of another codec

    def __init__(self) -> None:
        raise InvalidTypeError(
            "Codec is a base class; use FloatCodec, ScalarCodec, BinaryCodec, PQCodec, "
            "RecurrentBinaryCodec or ResidualCodec"
        )

    @property
    def dim(self) -> int:
        """Dims of the vectors."""
        return self._dim

    @property
    def is_trained(self) -> bool:
        """Whether the codec can encode."""
        return self._native is not None

    @property
    def metric(self) -> Metric:
        """The metric that scores estimate: ``"cosine"``, ``"ip"`` or ``"l2"``."""
        return self._trained().metric

    @property
    def code_bytes(self) -> int:
        """All bytes per vector, scalars included."""
        return self._trained().code_bytes

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that depend on everything the answers depend on."""
        return self._trained().fingerprint

    def fit(
        self: C,
        x: ArrayLike,
        *,
        queries: ArrayLike | None = None,
        metric: Metric = "cosine",
        num_threads: int | None = None,
        progress: Progress = False,
    ) -> C:
        """Learn what the codec needs from a sample of vectors; once only.

        Parameters
        ----------
        x
            ``(n, dim)`` vectors.
        queries
            ``(nq, dim)`` sample of queries, or None.
        metric
            ``"cosine"``, ``"ip"`` or ``"l2"``: what scores estimate.
        num_threads
            At least 1; None uses the CPUs that the process may use. The result does not depend on it.
        progress
            True draws a progress bar; a callable gets ``(done, total)``.

        Returns
        -------
        The codec itself.
        """
        raise NotImplementedError

    def _as_sample(
        self, x: ArrayLike, queries: ArrayLike | None, metric: str
    ) -> tuple[FloatArray, FloatArray | None]:
        """Check what a fit is given, and return the vectors and the queries, None where there are none."""
        if self._native is not None:
            raise InvalidValueError(f"{self!r} is fitted already; make a new codec")
        as_choice(metric, "metric", METRICS)
        v, _ = as_vectors(x, self._dim, "x")
        self._refuse_few(len(v))
        q = None
        if queries is not None:
            q, _ = as_vectors(queries, self._dim, "queries")
            q = q if len(q) else None
        for rows, name in ((v, "x"), (q, "queries")):
            if rows is None:
                continue
            if metric == "cosine":
                refuse_zero_rows(rows, name)
            refuse_huge_values(rows, name, metric)
        return v, q

    def _refuse_few(self, n: int) -> None:
        """Refuse a sample of n vectors that is too small to fit on."""
        if n == 0:
            raise InvalidValueError("x: expected at least 1 vector to fit on, got 0")

    def encode(self, x: ArrayLike, *, num_threads: int | None = None) -> ByteArray:
        """Encode vectors.

        Parameters
        ----------
        x
            ``(n, dim)`` float32, float16, bfloat16 or float64; finite, and not zero under cosine.
        num_threads
            At least 1; None uses the CPUs that the process may use. Codes do not depend on it.

        Returns
        -------
        ``(n, code_bytes)`` uint8.

        Raises
        ------
        NotTrainedError, ShapeError, DtypeError, NonFiniteError, InvalidValueError
        """
        return self._encode(x, num_threads, False)

    def _encode(self, x: ArrayLike, num_threads: int | None, refine: object) -> ByteArray:
        if not isinstance(refine, bool) and refine != "scale":
            raise InvalidTypeError(f"refine must be True, False or 'scale', got {refine!r}")
        native = self._trained()
        v, _ = as_vectors(x, self._dim, "x")
        if native.metric == "cosine":
            refuse_zero_rows(v, "x")
        effort = "scaled" if refine == "scale" else "refined" if refine else "rounded"
        return native.encode(v, as_threads(num_threads), effort)

    def decode(self, codes: ArrayLike, *, num_threads: int | None = None) -> FloatArray:
        """Approximate the vectors (unit vectors under cosine) that gave ``codes``.

        Parameters
        ----------
        codes
            ``(n, code_bytes)`` uint8 as :meth:`encode` returns them.
        num_threads
            As for :meth:`encode`.

        Returns
        -------
        ``(n, dim)`` float32.
        """
        native = self._trained()
        c, _ = as_codes(codes, native.code_bytes, "codes")
        return native.decode(c, as_threads(num_threads))

    def scores(self, queries: ArrayLike, codes: ArrayLike, *, num_threads: int | None = None) -> FloatArray:
        """Score float queries against codes (asymmetric).

        Parameters
        ----------
        queries
            ``(nq, dim)``, or ``(dim,)`` for one query.
        codes
            ``(n, code_bytes)`` uint8.
        num_threads
            As for :meth:`encode`.

        Returns
        -------
        ``(nq, n)`` float32, or ``(n,)`` for one query: estimates of the metric (similarity for cosine and
        ip, squared distance for l2).
        """
        native = self._trained()
        q, single = as_vectors(queries, self._dim, "queries", one=True)
        if native.metric == "cosine":
            refuse_zero_rows(q, "queries")
        c, _ = as_codes(codes, native.code_bytes, "codes")
        out = native.scores(q, c, as_threads(num_threads))
        return out[0] if single else out

    def symmetric_scores(
        self, codes_a: ArrayLike, codes_b: ArrayLike, *, num_threads: int | None = None
    ) -> FloatArray:
        """Score codes against codes (SDC); integer arithmetic per pair.

        Parameters
        ----------
        codes_a
            ``(na, code_bytes)`` uint8, or ``(code_bytes,)`` for one code.
        codes_b
            ``(nb, code_bytes)`` uint8.
        num_threads
            As for :meth:`encode`.

        Returns
        -------
        ``(na, nb)`` float32, or ``(nb,)``; for :class:`BinaryCodec` ``dim - 2 * hamming``.
        """
        native = self._trained()
        a, single = as_codes(codes_a, native.code_bytes, "codes_a")
        b, _ = as_codes(codes_b, native.code_bytes, "codes_b")
        out = native.symmetric_scores(a, b, as_threads(num_threads))
        return out[0] if single else out

    def _write(self, path: bytes) -> None:
        self._trained().save(path, metric_is_free=not self._metric_fixed)

    def _trained(self) -> _core.Codec:
        if self._native is None:
            raise NotTrainedError(f"{self!r} is not trained; call fit(x) on a sample of vectors first")
        return self._native

    def _join(self, metric: str) -> None:
        """Check the metric of an index that the codec is given to, or take it while it is still free."""
        if not self._metric_fixed:
            self._adopt(metric)
        elif self.is_trained and self.metric != metric:
            raise InvalidValueError(f"codec is fitted for metric {self.metric!r}, the index uses {metric!r}")

    def _adopt(self, metric: str) -> None:
        """Take the metric of the index that the codec was given to, where no data are needed."""

    def _recipe(self) -> str:
        """Text from which :func:`from_recipe` makes this codec untrained; empty when data-free."""
        return ""

    def __repr__(self) -> str:
        state = (
            f"{self.code_bytes} bytes/vector, {self.metric}" if self._native is not None else "not trained"
        )
        return f"{type(self).__name__}({self._describe()}, {state})"

    def _describe(self) -> str:
        return f"dim={self._dim}"
