# SPDX-License-Identifier: Apache-2.0
"""Product quantization: every sub-space coded by the number of its nearest codeword."""

from __future__ import annotations

from typing import Literal

import numpy as np

from residua import _core, _pq_fit
from residua._codec import Codec
from residua._progress import reporter
from residua._typing import ArrayLike, ByteArray, FloatArray, Metric, Progress
from residua._validate import (
    METRICS,
    as_choice,
    as_dim,
    as_int,
    as_seed,
    as_threads,
)
from residua.errors import InvalidValueError, NonFiniteError, ShapeError, UnsupportedError

__all__ = ["PQCodec"]


class PQCodec(Codec):
    """Cut vectors into sub-spaces and keep, for each, the number of its nearest codeword.

    Codewords are the centroids of k-means. A vector takes ``n_subspaces * bits / 8`` bytes and nothing else.

    Parameters
    ----------
    dim
        Dims of the vectors, 1 … 65,536.
    n_subspaces
        Sub-spaces, 1 … ``dim``. Where they do not divide ``dim``, the first ones have one dim more.
    bits
        8 (256 codewords per sub-space) or 4 (16).
    rotation
        ``"none"``, or ``"opq"``: a rotation learned together with the codewords, up to 4,096 dims.
    seed
        Seed of the samples and of k-means.

    Notes
    -----
    Jégou, Douze and Schmid, "Product quantization for nearest neighbour search" (TPAMI 2011); Ge, He, Ke and
    Sun, "Optimized product quantization" (CVPR 2013). docs/codecs.md has the score, the scan and figures.

    Examples
    --------
    >>> import residua as rz
    >>> sample = rz.datasets.load_sample()
    >>> codec = rz.PQCodec(384, n_subspaces=48, bits=4).fit(sample.documents[:2000])
    >>> codec.code_bytes
    24
    """

    def __init__(
        self,
        dim: int,
        n_subspaces: int,
        bits: Literal[8, 4] = 8,
        rotation: Literal["none", "opq"] = "none",
        seed: int = 0,
    ) -> None:
        self._dim = as_dim(dim)
        self._n_subspaces = as_int(n_subspaces, "n_subspaces", 1, 65_536)
        if self._n_subspaces > self._dim:
            raise InvalidValueError(
                f"n_subspaces must be at most dim, which is {self._dim}, got {n_subspaces}"
            )
        self._bits = as_int(bits, "bits", 4, 8)
        if self._bits not in (4, 8):
            raise InvalidValueError(f"bits must be 8 or 4, got {bits}")
        self._rotation = as_choice(rotation, "rotation", ("none", "opq"))
        if rotation == "opq" and self._dim > _pq_fit.MAX_OPQ_DIMS:
            raise UnsupportedError(
                f"rotation='opq' takes up to {_pq_fit.MAX_OPQ_DIMS} dims, got {dim}; use rotation='none'"
            )
        self._seed = as_seed(seed)
        self._native = None

    @classmethod
    def from_codebooks(
        cls,
        codebooks: ArrayLike,
        *,
        metric: Metric,
        dim: int | None = None,
        rotation: ArrayLike | None = None,
    ) -> PQCodec:
        """Make a trained codec of given codewords; its scores are the plain metric of what codes stand for.

        Parameters
        ----------
        codebooks
            ``(n_subspaces, 256 or 16, dims of the widest sub-space)``; the rest of narrower ones is not used.
        metric
            ``"cosine"``, ``"ip"`` or ``"l2"``.
        dim
            Dims of the vectors; None takes those of ``rotation``, or all dims of the codewords.
        rotation
            ``(dims of all sub-spaces, dim)`` with orthonormal rows, which vectors are multiplied by; or None.

        Returns
        -------
        The codec.

        Raises
        ------
        ShapeError, InvalidValueError, NonFiniteError
        """
        as_choice(metric, "metric", METRICS)
        books = _as_finite(codebooks, "codebooks", 3)
        n_subspaces, values, width = books.shape
        if values not in (16, 256):
            raise ShapeError(f"codebooks: expected 256 or 16 codewords per sub-space, got {values}")
        turn = None if rotation is None else _as_finite(rotation, "rotation", 2)
        if dim is None:
            dim = n_subspaces * width if turn is None else turn.shape[1]
        rows = dim if turn is None else turn.shape[0]
        if turn is not None and turn.shape[1] != dim:
            raise ShapeError(f"rotation: expected {dim} columns, got {turn.shape[1]}")
        if not n_subspaces <= rows or -(-rows // n_subspaces) != width:
            raise ShapeError(
                f"codebooks: {n_subspaces} sub-spaces of {rows} dims have up to "
                f"{-(-rows // n_subspaces)} dims each, got codewords of {width}"
            )
        codec = cls(dim, n_subspaces, 8 if values == 256 else 4)
        codec._rotation = "none" if turn is None else "opq"
        flat = np.empty(0, np.float32) if turn is None else turn
        codec._native = _core.pq_codec(
            dim,
            n_subspaces,
            codec._bits,
            metric,
            flat,
            books,
            _pq_fit.NONE,
            0.0,
            0.0,
            _pq_fit.EXPANSION_UNKNOWN,
        )
        return codec

    @property
    def n_subspaces(self) -> int:
        """Sub-spaces that vectors are cut into."""
        return self._n_subspaces

    @property
    def bits(self) -> int:
        """Bits per sub-space."""
        return self._bits

    @property
    def rotation(self) -> str:
        """``"none"`` or ``"opq"``."""
        return self._rotation

    @property
    def codebooks(self) -> FloatArray:
        """Codewords ``(n_subspaces, 2**bits, dims of the widest sub-space)``, zeros past narrower ones."""
        return _core.pq_parts(self._trained())[0]

    @property
    def rotation_matrix(self) -> FloatArray | None:
        """The rotation ``(dims, dim)`` that vectors are multiplied by, or None."""
        return _core.pq_parts(self._trained())[1]

    @property
    def code_bytes(self) -> int:
        """All bytes per vector; known before the fit."""
        return (self._n_subspaces * self._bits + 7) // 8

    def fit(
        self,
        x: ArrayLike,
        *,
        queries: ArrayLike | None = None,
        metric: Metric = "cosine",
        num_threads: int | None = None,
        progress: Progress = False,
    ) -> PQCodec:
        """Learn codewords, and the rotation, from a sample.

        Parameters
        ----------
        x
            ``(n, dim)`` vectors, at least ``2**bits`` of them; more than 100,000 are sampled down to it. Rows
            may repeat: with fewer distinct ones than codewords some codewords are equal.
        queries
            ``(nq, dim)`` sample of queries, which sets the number of candidates that re-ranking takes; None
            takes vectors in their place.
        metric
            ``"cosine"``, ``"ip"`` or ``"l2"``.
        num_threads
            At least 1; None uses the CPUs that the process may use. The result does not depend on it.
        progress
            True draws a progress bar; a callable gets ``(done, total)``.

        Returns
        -------
        The codec itself.

        Raises
        ------
        InvalidValueError
            The codec is fitted already, ``x`` has fewer rows than there are codewords, or values are so large
            that squares overflow.
        ShapeError, DtypeError, NonFiniteError
        """
        v, q = self._as_sample(x, queries, metric)
        self._native = _pq_fit.fit(
            v,
            q,
            n_subspaces=self._n_subspaces,
            bits=self._bits,
            rotation=self._rotation,
            metric=metric,
            seed=self._seed,
            num_threads=as_threads(num_threads),
            report=reporter(progress, "fit"),
        )
        return self

    def _refuse_few(self, n: int) -> None:
        if n < 2**self._bits:
            raise InvalidValueError(
                f"x: {self._bits} bits per sub-space need at least {2**self._bits} vectors to fit on, "
                f"got {n}" + ("; bits=4 needs 16" if self._bits == 8 else "")
            )

    def encode(
        self, x: ArrayLike, *, num_threads: int | None = None, refine: bool | Literal["scale"] = False
    ) -> ByteArray:
        """Encode vectors, one code per row.

        Parameters
        ----------
        x
            ``(n, dim)`` float32, float16, bfloat16 or float64; finite, and not zero under cosine.
        num_threads
            At least 1; None uses the CPUs that the process may use. Codes do not depend on it.
        refine
            False takes the nearest codewords. True goes on from these, one sub-space at a time, so that
            errors of sub-spaces cancel in the directions in which near neighbours differ: about 8 times
            slower, better by 1 to 2 points of recall@10 without a rotation, and codes decode to vectors a
            little farther away. ``"scale"`` takes two sweeps instead of three, as symmetric searches do for
            their queries. Codes stay the same beyond 2,048 dims and for :meth:`from_codebooks`.

        Returns
        -------
        ``(n, code_bytes)`` uint8.

        Raises
        ------
        NotTrainedError, ShapeError, DtypeError, NonFiniteError, InvalidValueError
        """
        return self._encode(x, num_threads, refine)

    @classmethod
    def _wrap(cls, native: _core.Codec) -> PQCodec:
        books, *_ = _core.pq_parts(native)
        codec = cls(native.dim, len(books), 8 if books.shape[1] == 256 else 4)
        codec._rotation = "opq" if native.rotation == "opq" else "none"
        codec._native = native
        return codec

    def _recipe(self) -> str:
        sizes = f"n_subspaces={self._n_subspaces} bits={self._bits}"
        return f"pq {sizes} rotation={self._rotation} seed={self._seed}"

    def _describe(self) -> str:
        parts = f"dim={self._dim}, n_subspaces={self._n_subspaces}, bits={self._bits}"
        return parts if self._rotation == "none" else f"{parts}, rotation={self._rotation!r}"


def _as_finite(x: ArrayLike, name: str, ndim: int) -> FloatArray:
    array = np.ascontiguousarray(x, np.float32)
    if array.ndim != ndim or 0 in array.shape:
        raise ShapeError(f"{name}: expected a {ndim}-D array that is not empty, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise NonFiniteError(f"{name} must be finite")
    return array
