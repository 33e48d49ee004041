# SPDX-License-Identifier: Apache-2.0
"""Fixed-dimensional encodings of multi-vector embeddings."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from residua import _core, _cuda_multivector, cuda
from residua._token_encoder import TokenEncoder
from residua._tokens import Tokens
from residua._typing import AnyArray, ArrayLike, FloatArray
from residua._validate import as_choice, as_dim, as_flag, as_floats, as_int, as_seed, as_threads
from residua.errors import InvalidValueError, ShapeError

__all__ = ["FDEncoder"]

_PROJECTIONS = ("count_sketch", "dense", "identity")
_MAX_OUTPUT = 2**26


class FDEncoder(TokenEncoder):
    """Turn sets of token vectors into single vectors whose inner product estimates MaxSim.

    MUVERA (arXiv 2405.19504): ``reps`` times, ``k_sim`` random hyperplanes send every token to one of
    ``2 ** k_sim`` cells, and tokens are projected to ``proj_dim`` values. A cell of a query holds the sum of
    its tokens, a cell of a document the mean; an empty cell of a document takes the token that is nearest by
    hash. ``queries @ documents.T / reps`` then estimates, from below, the sum over query tokens of the best
    inner product (:func:`maxsim`). Search the encodings with metric ``"ip"``.

    Parameters
    ----------
    dim
        Dims of the tokens.
    k_sim
        Hyperplanes per repetition, 0 to 16.
    reps
        Repetitions; more of them matter most for recall.
    proj_dim
        Values per cell; None is 16, and ``dim`` with ``proj="identity"``.
    proj
        ``"count_sketch"`` (every dim goes to one value, with a random sign), ``"dense"`` (random signs over
        ``sqrt(proj_dim)``) or ``"identity"``. None is ``"count_sketch"``; with ``compat="fastembed"`` it is
        what fastembed does: ``"dense"``, or ``"identity"`` where ``proj_dim`` is ``dim``.
    final_dim
        Shorten the encoding to this many values by a count sketch, or None. The long form is never built.
    fill_empty
        Whether empty cells of documents take the nearest token; queries never do.
    center
        ``(dim,)`` mean of the document tokens, taken off before hashing only, so that values and ranks stay:
        recovers recall where tokens share a direction. None: no centring.
    seed
        Encodings of different seeds, or of other settings, do not fit together.
    compat
        ``"google"`` gives the values of the C++ code of google/graph-mining, ``"fastembed"`` those of
        ``fastembed.postprocess.Muvera`` (its default seed is 42), both to about 1e-5. None: our own numbers,
        equal on all machines.
    device
        Where encoding runs: ``"cpu"``, or ``"cuda"``, ``"cuda:1"``, a ``torch.device`` or a number. The
        values are those of the CPU.

    Notes
    -----
    Time per document of t tokens: ``O(t * reps * dim * (k_sim + 1))`` with a count sketch. The encoder is
    immutable; any number of threads may use it, and results do not depend on the number of threads.

    Examples
    --------
    >>> import numpy as np, residua as rz
    >>> rng = np.random.default_rng(0)
    >>> documents = [rng.normal(size=(n, 128)).astype("float32") for n in (80, 3, 41)]
    >>> encoder = rz.FDEncoder(128)
    >>> vectors = encoder.encode_documents(documents)
    >>> vectors.shape
    (3, 10240)
    >>> query = encoder.encode_queries(documents[1])  # one query, its tokens are those of document 1
    >>> int(np.argmax(vectors @ query))
    1
    """

    _native: _core.FDEncoder
    _there: Any  # the native encoder of a device, or None

    def __init__(
        self,
        dim: int,
        k_sim: int = 5,
        reps: int = 20,
        proj_dim: int | None = None,
        proj: Literal["count_sketch", "dense", "identity"] | None = None,
        final_dim: int | None = None,
        fill_empty: bool = True,
        center: ArrayLike | None = None,
        seed: int = 1,
        compat: Literal["google", "fastembed"] | None = None,
        *,
        device: Any = "cpu",
    ) -> None:
        number = cuda._as_device(device)
        d = as_dim(dim)
        k = as_int(k_sim, "k_sim", 0, 16)
        r = as_int(reps, "reps", 1, 65_536)
        given = None if proj is None else as_choice(proj, "proj", _PROJECTIONS)
        width = d if given == "identity" else 16
        if proj_dim is not None:
            width = as_int(proj_dim, "proj_dim", 1, 65_536)
        final = 0 if final_dim is None else as_int(final_dim, "final_dim", 1, _MAX_OUTPUT)
        if compat is not None:
            as_choice(compat, "compat", ("google", "fastembed"))
        kind = _projection(given, compat, d, width)
        if kind == "identity" and width != d:
            raise InvalidValueError(f"proj='identity' keeps all {d} dims, got proj_dim={width}")
        if compat is not None and center is not None:
            raise InvalidValueError(f"compat={compat!r} hashes tokens as they are; leave center out")
        if compat == "fastembed" and final:
            raise InvalidValueError("compat='fastembed' has no final projection; leave final_dim out")
        wide = r * 2**k * width
        if wide > _MAX_OUTPUT:
            raise InvalidValueError(
                f"reps * 2**k_sim * proj_dim = {wide} values ({wide * 4 / 2**20:.0f} MiB per vector); at "
                f"most {_MAX_OUTPUT} are supported, lower k_sim, reps or proj_dim"
            )
        s = as_seed(seed)
        if compat == "google" and s + r > 2**31:
            raise InvalidValueError(f"compat='google' takes seeds below 2**31 - reps, got {s}")
        planes = signs = None
        if compat == "fastembed":
            planes, signs = _fastembed_tables(d, k, r, 0 if kind == "identity" else width, s)
        self._native = _core.FDEncoder(
            d, k, r, width, kind, final, as_flag(fill_empty, "fill_empty"), s, compat or "",
            _as_center(center, d), planes, signs,
        )  # fmt: skip
        self._place(number)

    @classmethod
    def _from_native(cls, native: _core.FDEncoder) -> FDEncoder:
        encoder = cls.__new__(cls)
        encoder._native = native
        encoder._there = None
        return encoder

    def _place(self, number: int | None, memory_limit: Any = None, stream: Any = None) -> None:
        self._there = None
        if number is not None:
            self._there = _cuda_multivector.encoder_of(self._native, number, memory_limit, stream)

    def to(self, device: Any, *, memory_limit: int | None = None, stream: Any = None) -> FDEncoder:
        """Return the same encoder on another device.

        Parameters
        ----------
        device
            As for the class.
        memory_limit
            Most bytes of the device that it and its calls may take; None: all it has.
        stream
            What is done is ordered on it: None for a stream of our own, a handle, or a stream of PyTorch,
            CuPy or cuda.core.

        Raises
        ------
        UnsupportedError
            CUDA is not available, or tokens are too long for the device.
        InvalidTypeError, InvalidValueError, OutOfMemoryError
        """
        number = cuda._as_device(device)
        encoder = self._from_native(self._native)
        encoder._place(number, memory_limit, stream)
        return encoder

    @property
    def device(self) -> str:
        """``"cpu"``, or ``"cuda:0"``, …"""
        return "cpu" if self._there is None else f"cuda:{self._there.context.device}"

    @property
    def dim(self) -> int:
        """Dims of the tokens."""
        return int(self._native.params["dim"])

    @property
    def output_dim(self) -> int:
        """Values of an encoding: ``reps * 2 ** k_sim * proj_dim``, or ``final_dim``."""
        return self._native.output_dim

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that make this encoder: ``FDEncoder(**encoder.config)``."""
        p = self._native.params
        return {
            **p,
            "final_dim": p["final_dim"] or None,
            "compat": p["compat"] or None,
            "center": self._native.center if len(self._native.center) else None,
        }

    def encode_documents(
        self,
        tokens: Any,
        *,
        mask: ArrayLike | None = None,
        num_threads: int | None = None,
        out: Literal["numpy", "device"] = "numpy",
    ) -> Any:
        """Encode documents.

        Parameters
        ----------
        tokens
            A list of ``(t, dim)`` arrays, ``(tokens (T, dim), offsets (n + 1,))``, or a padded
            ``(n, t, dim)`` array; float32, float16, bfloat16 or float64, as NumPy arrays or CPU tensors. A
            2-D array is one document. An encoder on a CUDA device reads float32 and float16 arrays there
            (``__dlpack__`` or ``__cuda_array_interface__``), but for lists and masks, without a copy.
        mask
            ``(n, t)`` bool or 0 and 1: which tokens of a padded array count. None: all of them.
        num_threads
            At least 1; None uses the CPUs that the process may use. Results do not depend on it.
        out
            ``"numpy"``, or ``"device"`` for a :class:`residua.cuda.DeviceArray`, ``(n, output_dim)``.

        Returns
        -------
        ``(n, output_dim)`` float32, ``(output_dim,)`` for one document. A document without tokens, or whose
        tokens are all masked, is a zero vector.

        Raises
        ------
        ShapeError, DtypeError, InvalidTypeError
        NonFiniteError
            Names the first bad document and token.
        InvalidValueError
            Values overflow float32.
        OutOfMemoryError
            The device has no room, with sizes.
        """
        return self._run(tokens, mask, True, num_threads, out)

    def encode_queries(
        self,
        tokens: Any,
        *,
        mask: ArrayLike | None = None,
        num_threads: int | None = None,
        out: Literal["numpy", "device"] = "numpy",
    ) -> Any:
        """Encode queries.

        Parameters
        ----------
        tokens, mask, num_threads, out
            As for :meth:`encode_documents`.

        Returns
        -------
        ``(n, output_dim)`` float32, ``(output_dim,)`` for one query; zero for a query without tokens.

        Raises
        ------
        ShapeError, DtypeError, InvalidTypeError, NonFiniteError, InvalidValueError, OutOfMemoryError
            As for :meth:`encode_documents`.
        """
        return self._run(tokens, mask, False, num_threads, out)

    def _run(self, tokens: Any, mask: Any, document: bool, num_threads: int | None, out: str) -> Any:
        if self._there is None:
            if as_choice(out, "out", ("numpy", "device")) != "numpy":
                raise InvalidValueError(
                    "out='device' is for encoders on a device: FDEncoder(..., device='cuda')"
                )
            return self._checked(tokens, mask, document, num_threads)
        as_threads(num_threads)
        encoded, single = _cuda_multivector.encode(
            self._there, tokens, mask, self.dim, document=document, out=out
        )
        return encoded[0] if single and out == "numpy" else encoded

    def _encode(self, sets: Tokens, document: bool, threads: int) -> FloatArray:
        if self._there is not None:
            encoded: FloatArray = self._there.encode(sets.flat, sets.offsets, document, False)
            return encoded
        return self._native.encode(sets.flat, sets.offsets, document, threads)

    def __repr__(self) -> str:
        shown = {k: v for k, v in self.config.items() if k != "center" and v is not None}
        if len(self._native.center):
            shown["center"] = "…"
        if self._there is not None:
            shown["device"] = self.device
        return f"FDEncoder({', '.join(f'{k}={v!r}' for k, v in shown.items())}, {self.output_dim} dims)"


def _projection(given: str | None, compat: str | None, dim: int, proj_dim: int) -> str:
    if compat == "fastembed":
        if proj_dim > dim:
            raise InvalidValueError(f"compat='fastembed' needs proj_dim <= dim={dim}, got {proj_dim}")
        kind = "identity" if proj_dim == dim else "dense"
        if given not in (None, kind):
            raise InvalidValueError(
                f"compat='fastembed' has proj={kind!r} for proj_dim={proj_dim}, got {given!r}"
            )
        return kind
    if compat == "google" and given == "dense":
        raise InvalidValueError("compat='google' has proj='count_sketch' or 'identity', got 'dense'")
    return given or "count_sketch"


def _fastembed_tables(dim: int, k_sim: int, reps: int, proj_dim: int, seed: int) -> tuple[AnyArray, AnyArray]:
    """Draw hyperplanes, then signs, in the order in which fastembed asks NumPy for them."""
    rng = np.random.default_rng(seed)
    planes = np.stack([rng.normal(size=(dim, k_sim)).T for _ in range(reps)])
    signs = rng.choice([-1, 1], size=(reps, dim, proj_dim)).transpose(0, 2, 1)
    return np.ascontiguousarray(planes, np.float32).ravel(), np.ascontiguousarray(signs, np.int8).ravel()


def _as_center(center: Any, dim: int) -> FloatArray | None:
    if center is None:
        return None
    c = as_floats(center, "center")
    if len(c) != dim:
        raise ShapeError(f"center: {len(c)} values, expected dim={dim}")
    return c
