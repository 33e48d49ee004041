# SPDX-License-Identifier: Apache-2.0
"""Scalar codes: every dim rounded to 8 or 4 bits."""

from __future__ import annotations

from typing import Literal

import numpy as np

from residua import _core, _scalar_fit
from residua._codec import Codec
from residua._progress import reporter
from residua._typing import ArrayLike, FloatArray, Metric, Progress
from residua._validate import (
    METRICS,
    as_choice,
    as_dim,
    as_floats,
    as_int,
    as_seed,
    as_threads,
)
from residua.errors import InvalidValueError, UnsupportedError

__all__ = ["ScalarCodec"]


class ScalarCodec(Codec):
    """Round every dim to one of 256 or 16 levels; values beyond the range take its last level.

    Cheap to encode and to decode (no transform), and the levels are spread per vector or per dimension,
    whichever estimates scores better on the sample.

    Parameters
    ----------
    dim
        Dims of the vectors, 1 … 65,536.
    bits
        Bits per dim, 8 or 4. A vector takes ``dim * bits / 8`` bytes, filled up to a multiple of 4, and 8
        more for two scalars.
    seed
        Seed of the samples that the fit draws.

    Notes
    -----
    The scale of every vector makes the estimate exact along the vector itself (Gao and Long, "RaBitQ",
    SIGMOD 2024, section 3); docs/codecs.md has the score and the fit. Encoding and decoding cost
    ``O(dim)`` per vector.

    Examples
    --------
    >>> import residua as rz
    >>> sample = rz.datasets.load_sample()
    >>> codec = rz.ScalarCodec(384, bits=4).fit(sample.documents[:2000])
    >>> codec.code_bytes
    200
    """

    def __init__(self, dim: int, bits: Literal[8, 4] = 8, *, seed: int = 0) -> None:
        self._dim = as_dim(dim)
        self._bits = as_int(bits, "bits", 4, 8)
        if self._bits not in (4, 8):
            raise InvalidValueError(
                f"bits must be 8 or 4, got {bits}; RecurrentBinaryCodec takes any number of bits"
            )
        self._seed = as_seed(seed)
        self._native = None

    @property
    def bits(self) -> int:
        """Bits per dim, without the 8 bytes of scalars."""
        return self._bits

    @property
    def code_bytes(self) -> int:
        """All bytes per vector, scalars included; known before the fit."""
        return _scalar_fit.code_bytes(self._dim, self._bits)

    @property
    def ranges(self) -> Literal["per vector", "per dimension"]:
        """How the levels are spread, as the fit chose."""
        return "per dimension" if self._trained().ranges == "per dimension" else "per vector"

    def fit(
        self,
        x: ArrayLike,
        *,
        queries: ArrayLike | None = None,
        metric: Metric = "cosine",
        num_threads: int | None = None,
        progress: Progress = False,
    ) -> ScalarCodec:
        """Learn means and steps from a sample, and choose how the levels are spread.

        Parameters
        ----------
        x
            ``(n, dim)`` vectors, n >= 1; more than 2**25 values are sampled down to that.
        queries
            ``(nq, dim)`` sample of queries; None takes the vectors in their place.
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
        self._native = _scalar_fit.fit(
            v,
            q,
            bits=self._bits,
            metric=metric,
            seed=self._seed,
            num_threads=as_threads(num_threads),
            report=reporter(progress, "fit"),
        )
        return self

    @classmethod
    def from_levels(
        cls, lowest: ArrayLike, step: ArrayLike, bits: Literal[8, 4] = 8, *, metric: Metric = "cosine"
    ) -> ScalarCodec:
        """Make a codec from given levels: code ``u`` of dim ``i`` stands for ``lowest[i] + step[i] * u``.

        Vectors have no scale of their own, so that scores are those of the decoded vectors, as in the
        scalar codes of other libraries. Values go to the nearest level, and saturate.

        Parameters
        ----------
        lowest
            ``(dim,)`` value of code 0 of every dim; finite.
        step
            ``(dim,)`` distance of levels, or a number for all dims; at least 1.2e-38.
        bits
            8 or 4.
        metric
            ``"cosine"``, ``"ip"`` or ``"l2"``. Under cosine vectors are normalised before they are encoded.

        Returns
        -------
        A trained codec.

        Raises
        ------
        ShapeError, DtypeError, NonFiniteError, InvalidValueError

        Examples
        --------
        >>> import numpy as np, residua as rz
        >>> codec = rz.ScalarCodec.from_levels([0.0, -1.0], [0.5, 0.25], 4, metric="l2")
        >>> codec.decode(codec.encode(np.array([[1.1, 9.0]]))).tolist()
        [[1.0, 2.75]]
        """
        low = as_floats(lowest, "lowest")
        codec = cls(len(low), bits)
        steps = as_floats(step, "step", len(low))
        as_choice(metric, "metric", METRICS)
        if not (steps >= np.finfo(np.float32).tiny).all():
            raise InvalidValueError(f"step must be positive (at least 1.2e-38), got {steps.min():.3g}")
        middle = low.astype(np.float64) + steps.astype(np.float64) * (2**codec._bits - 1) / 2
        codec._native = _core.scalar_codec(
            codec._dim,
            codec._bits,
            metric,
            False,
            middle.astype(np.float32),
            np.zeros(codec._dim, np.float32),
            steps,
            _scalar_fit.EXPANSION_UNKNOWN[codec._bits],
            True,
        )
        return codec

    @property
    def levels(self) -> tuple[FloatArray, FloatArray]:
        """Lowest level and distance of levels, ``(dim,)`` each, of a codec without scales per vector."""
        middle, step, unit_scale = _core.scalar_ranges(self._trained())
        if not unit_scale:
            raise UnsupportedError(
                f"{self!r} gives every vector a scale of its own; levels are fixed in a codec that "
                "ScalarCodec.from_levels made"
            )
        half = step.astype(np.float64) * (2**self._bits - 1) / 2
        return (middle.astype(np.float64) - half).astype(np.float32), step

    def _recipe(self) -> str:
        return f"scalar bits={self._bits} seed={self._seed}"

    def _describe(self) -> str:
        return f"dim={self._dim}, bits={self._bits}"
