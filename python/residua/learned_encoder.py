# SPDX-License-Identifier: Apache-2.0
"""Single vectors of multi-vector embeddings, fitted to a collection."""

from __future__ import annotations

from typing import Any

import numpy as np

from residua import _core
from residua._learned_fit import Maps, fit_maps, query_vectors, solver_of
from residua._progress import reporter
from residua._token_encoder import TokenEncoder
from residua._tokens import Tokens, as_tokens
from residua._typing import ArrayLike, FloatArray, Progress
from residua._validate import as_dim, as_int, as_seed, as_threads
from residua.errors import CorruptFileError, InvalidValueError, NotTrainedError

__all__ = ["LearnedEncoder"]

_BATCH = 512  # documents whose targets stand in memory at once
_HALVES = ("anchors", "map", "samples")  # sections of float16
_FLOATS = ("starts", "mean")


class LearnedEncoder(TokenEncoder):
    """Turn sets of token vectors into single vectors whose inner product ranks as MaxSim, by least squares.

    After LEMUR (arXiv 2601.21853): the best inner product of a token with a document is a function of the
    token. It is fitted as a linear function of features of the token; a document is the weights of its
    function, a query the sum of the features of its tokens. Takes far fewer values than :class:`FDEncoder`
    for the same recall, but has to be fitted, and takes longer per document. Search the vectors with metric
    ``"ip"``.

    Parameters
    ----------
    dim
        Dims of the tokens.
    output_dim
        Values of a vector.
    features
        Features of a token, made of tokens of the collection; more of them fit better.
    samples
        Tokens that functions are fitted on. Time per document grows with it.
    seed
        Of what is drawn.

    Notes
    -----
    Time per document of t tokens: ``O(samples * (t * dim + output_dim))``; per query of t tokens
    ``O(features * (t * dim + output_dim))``. Inner products estimate MaxSim but for a term that is the same
    for all documents. Encoders that were fitted differently do not fit together; add documents with the
    encoder that the others were encoded with.

    Examples
    --------
    >>> import numpy as np, residua as rz
    >>> rng = np.random.default_rng(0)
    >>> documents = [rng.normal(size=(20, 16)).astype("float32") for _ in range(300)]
    >>> encoder = rz.LearnedEncoder(16, output_dim=128, features=256, samples=1024).fit(documents)
    >>> vectors = encoder.encode_documents(documents)
    >>> vectors.shape
    (300, 128)
    >>> int(np.argmax(vectors @ encoder.encode_queries(documents[7])))
    7
    """

    _KIND = "learned_encoder"

    def __init__(
        self,
        dim: int,
        *,
        output_dim: int = 1024,
        features: int = 2048,
        samples: int = 8192,
        seed: int = 1,
    ) -> None:
        self._dim = as_dim(dim)
        self._output_dim = as_int(output_dim, "output_dim", 1, 65_536)
        self._features = as_int(features, "features", 0, 65_536)
        self._samples = as_int(samples, "samples", 1, 2**20)
        self._seed = as_seed(seed)
        self._maps: Maps | None = None
        self._solver: FloatArray | None = None

    @property
    def dim(self) -> int:
        """Dims of the tokens."""
        return self._dim

    @property
    def output_dim(self) -> int:
        """Values of a vector."""
        return self._output_dim

    @property
    def is_trained(self) -> bool:
        """Whether :meth:`fit` was called."""
        return self._maps is not None

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that make this encoder, not fitted: ``LearnedEncoder(**encoder.config)``."""
        return {
            "dim": self._dim,
            "output_dim": self._output_dim,
            "features": self._features,
            "samples": self._samples,
            "seed": self._seed,
        }

    def fit(
        self,
        document_tokens: Any,
        *,
        queries: Any = None,
        mask: ArrayLike | None = None,
        num_threads: int | None = None,
        progress: Progress = False,
    ) -> LearnedEncoder:
        """Fit to a collection, or to some thousand documents of it.

        Parameters
        ----------
        document_tokens
            Documents, in any form that :meth:`encode_documents` takes.
        queries
            Tokens of queries like those that will be asked, in the same forms, or None. Up to half of the
            sample is drawn from them. They help where tokens of queries are unlike tokens of documents.
        mask
            ``(n, t)`` bool or 0 and 1: which tokens of padded documents count.
        num_threads
            At least 1; None uses the CPUs that the process may use. The fit does not depend on it. Linear
            algebra runs on the threads of NumPy.
        progress
            True draws a progress bar; a callable gets ``(done, total)``.

        Returns
        -------
        This encoder. Where fewer documents differ than ``output_dim``, the last values of vectors are zero.

        Raises
        ------
        ShapeError, DtypeError, InvalidTypeError
        NonFiniteError
            Names the first bad document or query and its token.
        InvalidValueError
            The documents have no tokens, or are so large that inner products overflow float32.
        """
        threads = as_threads(num_threads)
        report = reporter(progress, "fit")
        documents = as_tokens(document_tokens, self._dim, "document_tokens", "document", mask)
        asked = None if queries is None else as_tokens(queries, self._dim, "queries", "query")
        if len(documents.flat) == 0:
            raise InvalidValueError("document_tokens: expected at least 1 token to fit on, got 0")
        with np.errstate(over="ignore", invalid="ignore"):
            top = max(float(np.abs(t.flat).max(initial=0)) for t in (documents, asked) if t is not None)
        if top > 1e15:
            raise InvalidValueError(
                f"document_tokens: values up to {top:.3g}; scale tokens down to below 1e15"
            )
        self._maps = fit_maps(
            documents, asked, output_dim=self._output_dim, features=self._features, samples=self._samples,
            seed=self._seed, num_threads=threads, report=report,
        )  # fmt: skip
        self._solver = None
        return self

    def _encode(self, sets: Tokens, document: bool, threads: int) -> FloatArray:
        maps = self._fitted()
        if not document:
            return query_vectors(maps, sets, threads)
        if self._solver is None:
            self._solver = solver_of(maps, threads)
        out = np.zeros((len(sets), self._output_dim), np.float32)
        filled = np.flatnonzero(np.diff(sets.offsets)).astype(np.int64)
        for first in range(0, len(filled), _BATCH):
            some = filled[first : first + _BATCH]
            best, _ = _core.best_tokens(maps.samples, sets.flat, sets.offsets, None, some, threads)
            out[some] = _core.transform(
                np.ascontiguousarray((best - maps.mean[:, None]).T), self._solver, threads
            )
        return out

    def _write(self, path: bytes) -> None:
        self._fitted()
        _core.save_nested(path, self._KIND, self._parts())

    def memory(self) -> dict[str, int]:
        """Return bytes per part in a file: ``features``, ``map`` and ``samples``."""
        maps = self._fitted()
        return {
            "features": 2 * maps.anchors.size + 4 * maps.starts.size,
            "map": 2 * maps.map.size,
            "samples": 2 * maps.samples.size + 4 * maps.mean.size,
        }

    @property
    def _memory_bytes(self) -> int:
        """Bytes that are held now."""
        held = {} if self._maps is None else vars(self._maps)
        return sum(v.nbytes for v in (*held.values(), self._solver) if isinstance(v, np.ndarray))

    def _forget_solver(self) -> None:
        """Free what the next documents make anew."""
        self._solver = None

    def _parts(self) -> dict[str, Any]:
        """Return what makes this encoder anew; its settings alone where it is not fitted."""
        out: dict[str, Any] = dict(self.config)
        if self._maps is not None:
            out["scale"] = self._maps.scale
            for name in _HALVES:
                out[f"{name}_f16"] = getattr(self._maps, name).astype("<f2").ravel().view(np.uint8)
            for name in _FLOATS:
                out[f"{name}_f32"] = np.ascontiguousarray(getattr(self._maps, name), np.float32)
        return out

    @classmethod
    def _from_parts(cls, parts: dict[str, Any]) -> LearnedEncoder:
        """Read what :meth:`_parts` made. Raises CorruptFileError where the parts do not fit together."""
        try:
            encoder = cls(**{key: parts[key] for key in ("dim", "output_dim", "features", "samples", "seed")})
            if "scale" not in parts:
                return encoder
            held = {
                n: np.ascontiguousarray(parts[f"{n}_f16"]).view("<f2").astype(np.float32) for n in _HALVES
            }
            held |= {n: np.asarray(parts[f"{n}_f32"], np.float32) for n in _FLOATS}
            scale = float(parts["scale"])
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptFileError(f"a LearnedEncoder cannot be made of the file: {error!r}") from error
        n_features, n_samples = len(held["starts"]), len(held["mean"])
        shapes = {
            "anchors": (n_features, encoder._dim),
            "map": (n_features + encoder._dim + 1, encoder._output_dim),
            "samples": (n_samples, encoder._dim),
        }
        for name, shape in shapes.items():
            if held[name].size != shape[0] * shape[1]:
                raise CorruptFileError(f"{name} holds {held[name].size} values, expected {shape}")
            held[name] = held[name].reshape(shape)
        for name, values in held.items():
            if not np.isfinite(values).all():
                raise CorruptFileError(f"{name} holds NaN or infinity")
        if not (n_samples and np.isfinite(scale) and scale > 0):
            raise CorruptFileError(f"an encoder of {n_samples} samples and scale {scale}")
        encoder._maps = Maps(scale=scale, **held)
        return encoder

    def _fitted(self) -> Maps:
        if self._maps is None:
            raise NotTrainedError("this LearnedEncoder is not fitted yet; call fit(document_tokens)")
        return self._maps

    def __repr__(self) -> str:
        shown = ", ".join(f"{key}={value}" for key, value in self.config.items())
        return f"LearnedEncoder({shown}, {'fitted' if self.is_trained else 'not fitted'})"
