# SPDX-License-Identifier: Apache-2.0
"""Codecs: values that turn vectors into short codes and score codes against queries."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from residua import _binary_fit, _core, _recurrent_fit
from residua._codec import Codec
from residua._progress import reporter
from residua._typing import ArrayLike, ByteArray, Metric, Progress
from residua._validate import (
    METRICS,
    as_choice,
    as_dim,
    as_int,
    as_number,
    as_seed,
    as_threads,
    as_vectors,
)
from residua.errors import CorruptFileError, InvalidTypeError, InvalidValueError, ShapeError, UnsupportedError
from residua.pq_codec import PQCodec
from residua.residual_codec import ResidualCodec
from residua.scalar_codec import ScalarCodec

__all__ = [
    "BinaryCodec",
    "Codec",
    "FloatCodec",
    "PQCodec",
    "RecurrentBinaryCodec",
    "ResidualCodec",
    "ScalarCodec",
]

C = TypeVar("C", bound="Codec")


class _DataFreeCodec(Codec):
    """A codec that learns nothing from data: it is trained from the start, and fit sets the metric."""

    def _make(self, metric: str) -> _core.Codec:
        raise NotImplementedError

    def fit(
        self: C,
        x: ArrayLike,
        *,
        queries: ArrayLike | None = None,
        metric: Metric = "cosine",
        num_threads: int | None = None,
        progress: Progress = False,
    ) -> C:
        """Set the metric; nothing is learned from ``x``, which is checked all the same.

        Parameters
        ----------
        x
            ``(n, dim)`` vectors.
        queries
            ``(nq, dim)`` vectors or None.
        metric
            ``"cosine"``, ``"ip"`` or ``"l2"``.
        num_threads
            At least 1; None uses the CPUs that the process may use.
        progress
            True, False or a callable ``(done, total)``.

        Returns
        -------
        The codec itself. A second fit raises InvalidValueError.
        """
        as_vectors(x, self._dim, "x")
        if queries is not None:
            as_vectors(queries, self._dim, "queries")
        as_threads(num_threads)
        report = reporter(progress, "fit")
        self._adopt(as_choice(metric, "metric", METRICS))
        report(1, 1)
        return self

    def _adopt(self, metric: str) -> None:
        if self._metric_fixed:
            if self.metric != metric:
                raise InvalidValueError(
                    f"{self!r} is fitted for metric {self.metric!r} and cannot change to {metric!r}; "
                    "make a new codec"
                )
            raise InvalidValueError(f"{self!r} is fitted already; make a new codec")
        self._native = self._make(metric)
        self._metric_fixed = True


class FloatCodec(_DataFreeCodec):
    """Store vectors as plain floats.

    Parameters
    ----------
    dim
        Dims of the vectors, 1 … 65,536.
    dtype
        ``"float32"``, or half the bytes: ``"float16"`` (11 significant bits, up to 65,504) or
        ``"bfloat16"`` (8 significant bits, the range of float32).

    Examples
    --------
    >>> import numpy as np, residua as rz
    >>> x = np.eye(3, dtype="float32")
    >>> codec = rz.FloatCodec(3, "float16").fit(x, metric="ip")
    >>> codec.decode(codec.encode(x))[2].tolist()
    [0.0, 0.0, 1.0]
    """

    def __init__(self, dim: int, dtype: Literal["float32", "float16", "bfloat16"] = "float32") -> None:
        self._dim = as_dim(dim)
        self._dtype = as_choice(dtype, "dtype", ("float32", "float16", "bfloat16"))
        self._metric_fixed = False
        self._native = self._make("cosine")

    def _make(self, metric: str) -> _core.Codec:
        return _core.float_codec(self._dim, self._dtype, metric)

    def _describe(self) -> str:
        return f"dim={self._dim}, dtype={self._dtype!r}"


class BinaryCodec(_DataFreeCodec):
    """Keep one sign bit per dim, packed as :func:`numpy.packbits` does, on request behind a rotation.

    Without a rotation the codes equal the ``ubinary`` precision of sentence-transformers, for any dim: every
    row is packed on its own, and padding bits are zero. With one, a bit is the sign of ``W (x - mean)``.
    :meth:`scores` are the metric of the queries and what :meth:`decode` gives, within 1e-3 of its size.

    Parameters
    ----------
    dim
        Dims of the vectors, 1 … 65,536.
    bits
        Bits per vector, 1 … ``dim``; None means ``dim``. Without a rotation the first ``bits`` dims count.
    rotation
        ``"none"`` (learns nothing), ``"random"`` (orthogonal, in blocks of at most 512 dims above 2,048), or
        ``"itq"``: principal components, turned until their signs lie close (Gong and Lazebnik, CVPR
        2011), up to 2,048 dims. Rotations need :meth:`fit`.
    seed
        Seed of the rotation.

    Examples
    --------
    >>> import numpy as np, residua as rz
    >>> rz.BinaryCodec(10).encode(np.array([[1, -1, 1, 1, -1, -1, -1, -1, 2, 3.0]])).tolist()
    [[176, 192]]
    >>> x = np.random.default_rng(0).standard_normal((100, 10))
    >>> rz.BinaryCodec(10, bits=8, rotation="itq").fit(x).code_bytes
    1
    """

    def __init__(
        self,
        dim: int,
        bits: int | None = None,
        rotation: Literal["none", "random", "itq"] = "none",
        seed: int = 0,
    ) -> None:
        self._dim = as_dim(dim)
        self._bits = self._dim if bits is None else as_int(bits, "bits", 1, 65_536)
        if self._bits > self._dim:
            raise InvalidValueError(f"bits must be at most dim, which is {self._dim}, got {self._bits}")
        self._rotation = as_choice(rotation, "rotation", ("none", "random", "itq"))
        self._seed = as_seed(seed)
        if rotation == "itq" and self._dim > _binary_fit.DENSE_DIMS:
            raise UnsupportedError(
                f"rotation='itq' takes up to {_binary_fit.DENSE_DIMS} dims, got {dim}; use rotation='random'"
            )
        self._metric_fixed = rotation != "none"
        self._native = self._make("cosine") if rotation == "none" else None

    @property
    def bits(self) -> int:
        """Bits per vector."""
        return self._bits

    @property
    def rotation(self) -> str:
        """``"none"``, ``"random"`` or ``"itq"``."""
        return self._rotation

    @property
    def code_bytes(self) -> int:
        """All bytes per vector; known before the fit."""
        return (self._bits + 7) // 8

    def fit(
        self,
        x: ArrayLike,
        *,
        queries: ArrayLike | None = None,
        metric: Metric = "cosine",
        num_threads: int | None = None,
        progress: Progress = False,
    ) -> BinaryCodec:
        """Set the metric and, for a rotation, learn the mean of the vectors and what the rotation needs.

        Parameters
        ----------
        x
            ``(n, dim)`` vectors; a rotation needs n >= 1.
        queries
            ``(nq, dim)`` vectors or None; only checked.
        metric
            ``"cosine"``, ``"ip"`` or ``"l2"``.
        num_threads
            At least 1; None uses the CPUs that the process may use.
        progress
            True, False or a callable ``(done, total)``.

        Returns
        -------
        The codec itself.

        Raises
        ------
        InvalidValueError
            The codec is fitted already, or a rotation gets no vectors or values whose squares overflow.
        ShapeError, DtypeError, NonFiniteError
        """
        if self._rotation == "none":
            return super().fit(x, queries=queries, metric=metric, num_threads=num_threads, progress=progress)
        v, _ = self._as_sample(x, queries, metric)
        self._native = _binary_fit.fit(
            v,
            bits=self._bits,
            rotation=self._rotation,
            metric=metric,
            seed=self._seed,
            num_threads=as_threads(num_threads),
            report=reporter(progress, "fit"),
        )
        return self

    def _make(self, metric: str) -> _core.Codec:
        return _core.binary_codec(self._dim, self._bits, metric)

    def _recipe(self) -> str:
        if self._rotation == "none":
            return ""
        return f"binary bits={self._bits} rotation={self._rotation} seed={self._seed}"

    def _describe(self) -> str:
        parts = [f"dim={self._dim}"]
        if self._bits != self._dim:
            parts.append(f"bits={self._bits}")
        if self._rotation != "none":
            parts.append(f"rotation={self._rotation!r}")
        return ", ".join(parts)


class RecurrentBinaryCodec(Codec):
    """Code vectors as a base binary code plus residual binary codes at weights 1, 1/2, 1/4, …

    Training-free: the transform, the bits of every group of 32 dims and the steps come in closed form
    from a sample of vectors. Bits per dim are chosen freely, fractions included.

    Parameters
    ----------
    dim
        Dims of the vectors, 1 … 65,536.
    bits
        Bits per dim, 0.5 … 8. A vector takes about ``dim * bits / 8`` bytes and 6 more for two scalars.
    query_aware
        Weight the dims by how far queries spread along them (the spread of ``queries`` given to
        :meth:`fit`, or of the vectors themselves).
    seed
        Seed of everything random in the fit.

    Notes
    -----
    Source: Gan et al., "Binary Embedding-based Retrieval at Tencent" (KDD 2023) for the code; docs/codecs.md
    for the closed form. Encoding costs one ``dim x dim`` transform per vector, above 2,048 dims one of blocks
    of at most 512 consecutive dims.

    Examples
    --------
    >>> import residua as rz
    >>> sample = rz.datasets.load_sample()
    >>> codec = rz.RecurrentBinaryCodec(384, bits=2).fit(sample.documents[:2000])
    >>> codec.code_bytes
    102
    """

    def __init__(self, dim: int, bits: float = 2.0, *, query_aware: bool = True, seed: int = 0) -> None:
        self._dim = as_dim(dim)
        bits = as_number(bits, "bits")
        if not 0.5 <= bits <= 8:
            raise InvalidValueError(f"bits must be from 0.5 to 8 bits per dim, got {bits}")
        if not isinstance(query_aware, bool):
            raise InvalidTypeError(f"query_aware must be True or False, got {query_aware!r}")
        self._bits = float(bits)
        self._query_aware = query_aware
        self._seed = as_seed(seed)
        self._native = None

    _training: dict[str, Any] | None = None

    @property
    def bits(self) -> float:
        """Bits per dim, without the 6 bytes of scalars."""
        return self._bits

    @property
    def training(self) -> dict[str, Any] | None:
        """What :func:`train_recurrent_binary` reached; None for other codecs, and after loading."""
        return None if self._training is None else dict(self._training)

    @property
    def code_bytes(self) -> int:
        """All bytes per vector, scalars included; known before the fit."""
        if self._native is not None:
            return self._native.code_bytes
        return _recurrent_fit.code_bytes(self._dim, self._bits)

    @property
    def _is_module(self) -> bool:
        """Whether the maps are not linear: the codec of ``preset="bebr"``."""
        return self._native is not None and self._native.kind == "recurrent_module_codec"

    def fit(
        self,
        x: ArrayLike,
        *,
        queries: ArrayLike | None = None,
        metric: Metric = "cosine",
        num_threads: int | None = None,
        progress: Progress = False,
    ) -> RecurrentBinaryCodec:
        """Learn the transform, the bit allocation and the steps from a sample, in closed form.

        Parameters
        ----------
        x
            ``(n, dim)`` vectors, n >= 1; more than 100,000 are sampled down to that.
        queries
            ``(nq, dim)`` sample of queries; None takes the vectors' own spread.
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
        self._native = _recurrent_fit.fit(
            v,
            q,
            bits=self._bits,
            metric=metric,
            query_aware=self._query_aware,
            seed=self._seed,
            num_threads=as_threads(num_threads),
            report=reporter(progress, "fit"),
        )
        return self

    def encode(
        self, x: ArrayLike, *, num_threads: int | None = None, refine: bool | Literal["scale"] = False
    ) -> ByteArray:
        """Encode vectors.

        Parameters
        ----------
        x
            ``(n, dim)`` float32, float16, bfloat16 or float64; finite, and not zero under cosine.
        num_threads
            At least 1; None uses the CPUs that the process may use. Codes do not depend on it.
        refine
            ``"scale"`` looks for the scale at which a code comes closest in angle to its vector, as
            symmetric searches do for their queries; True then goes on by coordinate ascent (three sweeps): 2
            to 4 times slower, better by 0.1 to 0.3 points of recall@10 from 2 bits on.

        Returns
        -------
        ``(n, code_bytes)`` uint8.

        Raises
        ------
        NotTrainedError, ShapeError, DtypeError, NonFiniteError, InvalidValueError
        """
        return self._encode(x, num_threads, refine)

    def _recipe(self) -> str:
        return f"recurrent bits={self._bits!r} query_aware={int(self._query_aware)} seed={self._seed}"

    def _describe(self) -> str:
        return f"dim={self._dim}, bits={self._bits:g}"


def refuse_query_side(codec: Codec) -> None:
    """Raise for a query map: what is stored belongs to the codec that it was made for."""
    if codec._is_query_side:
        raise UnsupportedError(
            "a query map cannot be the codec of an index, a table or a token store: store codes of the codec "
            "that the map was made for, and search them with search(index, q)"
        )


def check_codec(codec: Any, dim: int) -> None:
    """Raise unless an index of ``dim`` dims can have this codec, or None."""
    if codec is None:
        return
    if not isinstance(codec, Codec):
        raise InvalidTypeError(
            f"codec must be None or a codec such as RecurrentBinaryCodec({dim}, bits=2), got {codec!r}"
        )
    refuse_query_side(codec)
    if codec.dim != dim:
        raise ShapeError(f"codec has {codec.dim} dims, the index {dim}")


def from_recipe(dim: int, recipe: str) -> Codec:
    """Make the untrained codec that an index still waits for."""
    try:
        kind, *pairs = recipe.split()
        values = dict(p.split("=") for p in pairs)
        if kind == "scalar":
            return ScalarCodec(dim, 8 if values["bits"] == "8" else 4, seed=int(values["seed"]))
        if kind == "pq":
            return PQCodec(
                dim,
                int(values["n_subspaces"]),
                8 if values["bits"] == "8" else 4,
                "opq" if values["rotation"] == "opq" else "none",
                int(values["seed"]),
            )
        if kind == "residual":
            return ResidualCodec(
                dim, int(values["n_codebooks"]), beam=int(values["beam"]), seed=int(values["seed"])
            )
        if kind == "binary":
            rotation: Literal["random", "itq"] = "itq" if values["rotation"] == "itq" else "random"
            return BinaryCodec(dim, int(values["bits"]), rotation, int(values["seed"]))
        if kind != "recurrent":
            raise ValueError(kind)
        return RecurrentBinaryCodec(
            dim,
            float(values["bits"]),
            query_aware=values["query_aware"] == "1",
            seed=int(values["seed"]),
        )
    except (KeyError, ValueError) as e:
        raise CorruptFileError(f"the index waits for a codec of unknown recipe {recipe!r}") from e


def wrap(native: _core.Codec, *, metric_is_free: bool = False) -> Codec:
    """Give a native codec (from a file) its Python class."""
    codec: Codec
    if native.kind == "float_codec":
        codec = FloatCodec(native.dim, native.dtype)
        codec._metric_fixed = not metric_is_free
    elif native.kind == "binary_codec":
        turn: Literal["none", "random", "itq"] = "none" if native.rotation == "opq" else native.rotation
        codec = BinaryCodec(native.dim, int(native.bits), turn)
        codec._metric_fixed = not metric_is_free or native.rotation != "none"
    elif native.kind == "scalar_codec":
        codec = ScalarCodec(native.dim, 8 if native.bits == 8 else 4)
    elif native.kind == "pq_codec":
        codec = PQCodec._wrap(native)
    elif native.kind == "residual_codec":
        codec = ResidualCodec(native.dim, native.n_codebooks, beam=native.beam)
    else:
        codec = RecurrentBinaryCodec(native.dim, native.bits)
    codec._native = native
    return codec
