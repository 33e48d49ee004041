# SPDX-License-Identifier: Apache-2.0
"""Residual quantization: vectors as sums of codewords, for codes of 8 to 33 bytes."""

from __future__ import annotations

from residua import _residual_fit
from residua._codec import Codec
from residua._progress import reporter
from residua._typing import ArrayLike, Metric, Progress
from residua._validate import (
    as_dim,
    as_int,
    as_seed,
    as_threads,
)

__all__ = ["ResidualCodec"]


class ResidualCodec(Codec):
    """Store a vector as a sum of codewords, one from each of a few trained codebooks of 256.

    For very short codes, below half a bit per dim, where other codecs rank worse or cannot go.

    Parameters
    ----------
    dim
        Dims of the vectors, 1 … 65,536.
    n_codebooks
        1 … 32; a vector takes one byte per codebook and one for its length.
    beam
        How many partial sums the encoder follows, 1 … 64: more find better codes and take longer.
    seed
        Seed of the sample and of k-means.

    Notes
    -----
    Residual quantization (Chen, Guan and Wang, Sensors 2010) with a beam search over tables of products
    between codewords. A fit takes ``O(n_codebooks * 256 * dim)`` operations per row and iteration of k-means,
    encoding ``O(n_codebooks * 256 * (dim + beam * n_codebooks))`` per vector. The first call of ``encode``
    makes tables of ``n_codebooks**2 * 128`` KiB.

    Examples
    --------
    >>> import residua as rz
    >>> sample = rz.datasets.load_sample()
    >>> codec = rz.ResidualCodec(384, 7).fit(sample.documents[:2000])
    >>> codec.encode(sample.documents[:3]).shape
    (3, 8)
    """

    def __init__(self, dim: int, n_codebooks: int, *, beam: int = 4, seed: int = 0) -> None:
        self._dim = as_dim(dim)
        self._n_codebooks = as_int(n_codebooks, "n_codebooks", 1, 32)
        self._beam = as_int(beam, "beam", 1, 64)
        self._seed = as_seed(seed)
        self._native = None

    @property
    def n_codebooks(self) -> int:
        """Codebooks, and bytes per vector without the one for its length."""
        return self._n_codebooks

    @property
    def beam(self) -> int:
        """How many partial sums the encoder follows."""
        return self._beam

    @property
    def code_bytes(self) -> int:
        """All bytes per vector, the one for its length included; known before the fit."""
        return self._n_codebooks + 1

    def fit(
        self,
        x: ArrayLike,
        *,
        queries: ArrayLike | None = None,
        metric: Metric = "cosine",
        num_threads: int | None = None,
        progress: Progress = False,
    ) -> ResidualCodec:
        """Train the codebooks on a sample.

        Parameters
        ----------
        x
            ``(n, dim)`` vectors, n >= 1; more than 65,536 rows or 2**25 values are sampled down to that. With
            fewer distinct rows than codewords, codewords repeat.
        queries
            ``(nq, dim)`` sample of queries, which the number of candidates for re-ranking is tried with;
            codebooks do not depend on it.
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
            The codec is fitted already, ``x`` is empty, or values are so large that squares overflow.
        ShapeError, DtypeError, NonFiniteError
        """
        v, q = self._as_sample(x, queries, metric)
        self._native = _residual_fit.fit(
            v,
            q,
            n_codebooks=self._n_codebooks,
            beam=self._beam,
            metric=metric,
            seed=self._seed,
            num_threads=as_threads(num_threads),
            report=reporter(progress, "fit"),
        )
        return self

    def _recipe(self) -> str:
        return f"residual n_codebooks={self._n_codebooks} beam={self._beam} seed={self._seed}"

    def _describe(self) -> str:
        return f"dim={self._dim}, n_codebooks={self._n_codebooks}"
