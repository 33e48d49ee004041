# SPDX-License-Identifier: Apache-2.0
"""The native module; private. Arrays must be C-contiguous and of the exact type: residua checks first.

``num_threads=0`` stands for the CPUs that the process may use. Scores are those of the public API.
"""

from collections.abc import Callable
from typing import Any, Final, Literal, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from residua._core import columns as columns
from residua._core import kernels as kernels
from residua._core import store as store
from residua._typing import AnyArray, ByteArray, FloatArray, IntArray, Metric

__version__: Final[str]
compiler: Final[str]

_Ids: TypeAlias = AnyArray | list[str]
_OneFilter: TypeAlias = _Ids | columns.Expr | None
_Filter: TypeAlias = (
    _OneFilter | tuple[list[_OneFilter], npt.NDArray[np.uint32]]
)  # which of them each query takes
# ids, scores, counts, stats
_Found: TypeAlias = tuple[AnyArray, FloatArray, IntArray, dict[str, Any]]

# What pybind11 classes are instances of; has another name at run time.
class _NativeType(type): ...

class Codec(metaclass=_NativeType):
    def __init__(self, /, *args: NoReturn, **kwargs: NoReturn) -> None: ...
    @property
    def kind(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def code_bytes(self) -> int: ...
    @property
    def metric(self) -> Metric: ...
    @property
    def counts_bits(self) -> bool: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def dtype(self) -> Literal["float32", "float16"]: ...
    @property
    def bits(self) -> float: ...
    @property
    def ranges(self) -> Literal["per vector", "per dimension", "none"]: ...
    @property
    def rotation(self) -> Literal["none", "random", "itq", "opq"]: ...
    @property
    def group_bits(self) -> list[int]: ...
    @property
    def block_dims(self) -> int: ...
    @property
    def n_codebooks(self) -> int: ...
    @property
    def beam(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...
    def reads_codes_of(self, other: Codec) -> bool: ...
    def candidates(self, k: int, n: int) -> int: ...
    def encode(self, x: FloatArray, num_threads: int, effort: str = "rounded") -> ByteArray: ...
    def decode(self, codes: ByteArray, num_threads: int) -> FloatArray: ...
    def scores(self, queries: FloatArray, codes: ByteArray, num_threads: int) -> FloatArray: ...
    def symmetric_scores(self, codes_a: ByteArray, codes_b: ByteArray, num_threads: int) -> FloatArray: ...
    def save(self, path: str | bytes, *, metric_is_free: bool = False) -> None: ...

def float_codec(dim: int, dtype: str, metric: str) -> Codec: ...
def binary_codec(dim: int, bits: int, metric: str) -> Codec: ...
def rotated_binary_codec(
    dim: int,
    bits: int,
    metric: str,
    rotation: str,
    block_dims: int,
    group_block: npt.NDArray[np.uint16],
    map: FloatArray,
    center: FloatArray,
    amplitude: float,
) -> Codec: ...
def recurrent_codec(
    dim: int,
    bits: float,
    metric: str,
    group_bits: ByteArray,
    center: FloatArray,
    query_mean: FloatArray,
    block_dims: int,
    group_block: npt.NDArray[np.uint16],
    encode_map: FloatArray,
    query_map: FloatArray,
    query_scale: FloatArray,
    step: FloatArray,
    levels: FloatArray,
) -> Codec: ...
def module_codec(
    dim: int,
    code_dims: int,
    bits: float,
    blocks: list[tuple[FloatArray, FloatArray, FloatArray, FloatArray]],
    decode_map: FloatArray,
    decode_offset: FloatArray,
    expansion: float,
) -> Codec: ...
def recurrent_parts(codec: Codec) -> dict[str, Any]: ...
def scalar_codec(
    dim: int,
    bits: int,
    metric: str,
    per_vector: bool,
    center: FloatArray,
    query_mean: FloatArray,
    step: FloatArray,
    expansion: float,
    unit_scale: bool = False,
) -> Codec: ...

# The middle and the step of every dim, and whether all vectors have a scale of 1.
def scalar_ranges(codec: Codec) -> tuple[FloatArray, FloatArray, bool]: ...

# Row codes of (n, dim) levels, for such a codec.
def encode_levels(codec: Codec, levels: ByteArray, num_threads: int) -> ByteArray: ...
def pq_codec(
    dim: int,
    n_subspaces: int,
    bits: int,
    metric: str,
    rotation: FloatArray,
    codebooks: FloatArray,
    error_weights: FloatArray,
    square_weight: float,
    mean_square: float,
    expansion: float,
) -> Codec: ...
def pq_parts(codec: Codec) -> tuple[FloatArray, FloatArray | None, float, float, FloatArray]: ...
def residual_codec(
    dim: int,
    beam: int,
    metric: str,
    center: FloatArray,
    codebooks: FloatArray,
    levels: FloatArray,
    expansion: float,
) -> Codec: ...
def with_expansion(codec: Codec, expansion: float) -> Codec: ...

# What fits take from native code. fit_steps: the steps for 1 … 8 bits, and the squared errors for
# 0 … 8 bits, by group of dims.
def normalize(x: FloatArray) -> FloatArray: ...
def gram(x: FloatArray, num_threads: int) -> npt.NDArray[np.float64]: ...
def transform(x: FloatArray, map: FloatArray, num_threads: int) -> FloatArray: ...
def fit_steps(
    y: FloatArray, group_dims: int, num_threads: int
) -> tuple[FloatArray, npt.NDArray[np.float64]]: ...

# start: centroids to go on from. Returns centroids, rows per centroid, mean squared distance, iterations.
def kmeans(
    x: FloatArray,
    k: int,
    iterations: int = 25,
    spherical: bool = False,
    max_rows: int = 0,
    seed: int = 0,
    num_threads: int = 1,
    start: FloatArray | None = None,
) -> tuple[FloatArray, npt.NDArray[np.uint32], float, int]: ...

# The m nearest centroids of every row, nearest first: numbers, and squared distances or products.
def nearest_centroids(
    x: FloatArray, centroids: FloatArray, m: int, product: bool, num_threads: int
) -> tuple[npt.NDArray[np.uint32], FloatArray]: ...

# Codewords, codebook by codebook; progress gets (codebooks done, total).
def train_residual(
    x: FloatArray,
    n_codebooks: int,
    beam: int,
    seed: int,
    num_threads: int,
    progress: Callable[[int, int], None],
) -> FloatArray: ...
def sample_rows(n: int, count: int, seed: int) -> IntArray: ...
def permutation(n: int, seed: int) -> IntArray: ...
def hamming(a: ByteArray, b: ByteArray, num_threads: int) -> npt.NDArray[np.int32]: ...

# Codes of one index on a device; made by residua._cuda.
class CodeDevice(metaclass=_NativeType):
    def __init__(self, /, *args: NoReturn, **kwargs: NoReturn) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def most_kept(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...

class Index(metaclass=_NativeType):
    def __init__(self, /, *args: NoReturn, **kwargs: NoReturn) -> None: ...
    @property
    def dim(self) -> int: ...
    @property
    def metric(self) -> Metric: ...
    @property
    def vectors(self) -> str: ...
    @property
    def awaits_codec(self) -> bool: ...
    @property
    def codec_recipe(self) -> str: ...
    @property
    def id_kind(self) -> Literal["int", "str", "none"]: ...
    @property
    def codec(self) -> Codec | None: ...
    def __len__(self) -> int: ...
    def staged_vectors(self) -> FloatArray: ...
    def add(
        self,
        x: FloatArray,
        ids: _Ids | None,
        upsert: bool,
        num_threads: int,
        columns: list[Any] | None = None,
        lists: npt.NDArray[np.uint32] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> AnyArray: ...
    @property
    def fields(self) -> list[tuple[str, str]]: ...
    def declare_columns(self, fields: list[tuple[str, str]]) -> None: ...
    def set_columns(self, ids: _Ids, columns: list[Any]) -> None: ...
    def columns(self, ids: _Ids) -> list[Any]: ...
    def bring_codes(self, device: CodeDevice, num_threads: int) -> None: ...
    def search(
        self,
        queries: FloatArray,
        k: int,
        scoring: str,
        rerank: int,
        filter: _Filter,
        num_threads: int,
        funnel: list[tuple[int, int]] = [],
        nprobe: int = 0,
        ef: int = 0,
        plan: str = "auto",
        device: CodeDevice | None = None,
    ) -> _Found: ...
    def search_codes(
        self,
        codes: ByteArray,
        k: int,
        rerank: int,
        filter: _Filter,
        num_threads: int,
        nprobe: int = 0,
        ef: int = 0,
        plan: str = "auto",
        device: CodeDevice | None = None,
    ) -> _Found: ...
    def range_search(
        self, queries: FloatArray, threshold: float, filter: _OneFilter, num_threads: int
    ) -> tuple[IntArray, AnyArray, FloatArray]: ...
    def remove(self, ids: _Ids, ignore_missing: bool) -> int: ...
    def replace_codec(self, codec: Codec) -> None: ...
    def codec_versions(self, ids: _Ids) -> list[str]: ...
    def add_codes(
        self, codes: ByteArray, ids: _Ids | None, lists: npt.NDArray[np.uint32] | None = None
    ) -> AnyArray: ...
    def codes_of(self, ids: _Ids) -> ByteArray: ...
    def all_ids(self) -> AnyArray: ...
    tuning: str  # what is saved with the index and not read by native code
    def take_back(self, ids: _Ids, max_id: int) -> None: ...
    @property
    def max_id(self) -> int: ...
    def get(self, ids: _Ids) -> FloatArray: ...
    def contains(self, ids: _Ids) -> bool: ...
    def compact(self) -> None: ...
    def memory(self) -> dict[str, int]: ...
    def save(self, path: str | bytes) -> None: ...

class FlatIndex(Index):
    def __init__(self, dim: int, metric: str, vectors: str, wants_codec: bool, codec_recipe: str) -> None: ...
    def set_codec(self, codec: Codec, num_threads: int) -> None: ...

class HNSWIndex(Index):
    def __init__(
        self,
        dim: int,
        metric: str,
        vectors: str,
        wants_codec: bool,
        codec_recipe: str,
        M: int,
        ef_construction: int,
        seed: int,
        turbo: bool,
    ) -> None: ...
    def set_codec(
        self, codec: Codec, num_threads: int, progress: Callable[[int, int], None] | None = None
    ) -> None: ...
    # None where search() has to look at the arguments.
    def search_one(
        self, q: Any, k: Any, ef: Any, num_threads: Any
    ) -> tuple[AnyArray, FloatArray, int, dict[str, Any]] | None: ...
    @property
    def M(self) -> int: ...  # noqa: N802
    @property
    def ef_construction(self) -> int: ...
    @property
    def turbo(self) -> bool: ...
    # Nanoseconds per unit of work.
    @property
    def costs(self) -> dict[str, float]: ...
    def calibrate(self) -> dict[str, float]: ...
    # Edges, entries, live rows that no walk can meet, edges to removed rows.
    def shape(self) -> dict[str, int]: ...

class IVFIndex(Index):
    def __init__(
        self,
        dim: int,
        metric: str,
        vectors: str,
        wants_codec: bool,
        codec_recipe: str,
        nlist: int,
        seed: int,
    ) -> None: ...
    def train(
        self, centroids: FloatArray, codec: Codec | None, residual: bool, error: float, num_threads: int
    ) -> None: ...
    def set_waiting(self, codec: Codec) -> None: ...
    @property
    def waiting(self) -> Codec | None: ...
    @property
    def is_trained(self) -> bool: ...
    @property
    def is_residual(self) -> bool: ...
    @property
    def wanted_nlist(self) -> int: ...
    @property
    def nlist(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def default_nprobe(self) -> int: ...
    @property
    def fit(self) -> dict[str, float]: ...
    def centroids(self) -> FloatArray: ...
    def take_as_trained(self) -> None: ...
    # Integer ids.
    def lists_of(self, ids: IntArray) -> npt.NDArray[np.uint32]: ...
    def list_sizes(self) -> npt.NDArray[np.uint32]: ...

class EmbeddingTable(metaclass=_NativeType):
    def __init__(self, codec: Codec, x: FloatArray, num_threads: int) -> None: ...
    @property
    def codec(self) -> Codec: ...
    def __len__(self) -> int: ...
    def gather(self, rows: IntArray, num_threads: int) -> FloatArray: ...
    def slice(self, begin: int, step: int, count: int, num_threads: int) -> FloatArray: ...
    def memory(self) -> dict[str, int]: ...
    def save(self, path: str | bytes) -> None: ...

class FDEncoder(metaclass=_NativeType):
    def __init__(
        self,
        dim: int,
        k_sim: int,
        reps: int,
        proj_dim: int,
        proj: str,
        final_dim: int,
        fill_empty: bool,
        seed: int,
        compat: str,
        center: FloatArray | None,
        hyperplanes: FloatArray | None,
        signs: npt.NDArray[np.int8] | None,
    ) -> None: ...
    @property
    def params(self) -> dict[str, Any]: ...
    # Empty where there is none.
    @property
    def center(self) -> FloatArray: ...
    @property
    def output_dim(self) -> int: ...
    # Tokens are float32 or float16.
    def encode(self, tokens: AnyArray, offsets: IntArray, document: bool, num_threads: int) -> FloatArray: ...
    def save(self, path: str | bytes) -> None: ...

# Tokens are float32, float16 or int8, which `scale` multiplies; `numbers` chooses documents, None all.
def maxsim(
    q: FloatArray,
    q_offsets: IntArray,
    tokens: AnyArray,
    offsets: IntArray,
    scale: FloatArray | None,
    numbers: IntArray | None,
    num_threads: int,
) -> FloatArray: ...

# (t, documents): scores and token numbers.
def best_tokens(
    q: FloatArray,
    tokens: AnyArray,
    offsets: IntArray,
    scale: FloatArray | None,
    numbers: IntArray | None,
    num_threads: int,
) -> tuple[FloatArray, IntArray]: ...

class TokenStore(metaclass=_NativeType):
    def __init__(self, codec: Codec) -> None: ...
    # form is "float32", "float16" or "int8".
    @staticmethod
    def of_floats(form: str, dim: int) -> TokenStore: ...
    # None where tokens are floats or int8.
    @property
    def codec(self) -> Codec | None: ...
    @property
    def form(self) -> str: ...
    @property
    def dim(self) -> int: ...
    # Of documents that are not removed.
    @property
    def tokens(self) -> int: ...
    @property
    def removed(self) -> int: ...
    def __len__(self) -> int: ...
    # Tokens are float32 or float16.
    def add(self, tokens: AnyArray, offsets: IntArray, num_threads: int) -> None: ...
    def remove(self, numbers: IntArray) -> None: ...
    def compact(self) -> None: ...
    def decode(self, document: int) -> FloatArray: ...
    def maxsim(
        self, q: FloatArray, q_offsets: IntArray, numbers: IntArray | None, num_threads: int
    ) -> FloatArray: ...
    def best_tokens(
        self, q: FloatArray, numbers: IntArray | None, num_threads: int
    ) -> tuple[FloatArray, IntArray]: ...
    # Numbers, scores, counts of the best of candidates[candidate_offsets[i] : candidate_offsets[i + 1]] for
    # query i, of all documents for None; (nq, at most k), padded with -1 and -inf.
    def rank(
        self,
        q: FloatArray,
        q_offsets: IntArray,
        candidate_offsets: IntArray | None,
        candidates: IntArray | None,
        k: int,
        num_threads: int,
    ) -> tuple[IntArray, FloatArray, IntArray]: ...
    def memory(self) -> dict[str, int]: ...
    def save(self, path: str | bytes) -> None: ...

# What the file holds, and whether it is a codec whose metric nobody has chosen yet. A file of several objects
# gives a dict of its parts, and "kind".
def load(
    path: str | bytes, mmap: bool, verify: str
) -> tuple[Index | EmbeddingTable | FDEncoder | TokenStore | Codec | dict[str, Any], bool]: ...

# One file of several objects, atomically. Parts are native objects, str, int, float, or arrays of float32,
# float64, int32, int64, uint8 or bool; names are 1 to 16 of a-z, 0-9 and _.
def save_nested(path: str | bytes, kind: str, parts: dict[str, Any]) -> None: ...

# The first bad row, or -1.
def first_non_finite(x: FloatArray) -> int: ...
def first_zero_row(x: FloatArray) -> int: ...

# Rows are float32, float16 or int8; `scale` multiplies int8 rows; `allowed` is a mask over rows.
def exact_search(
    q: FloatArray,
    x: AnyArray,
    k: int,
    metric: str,
    num_threads: int = 0,
    scale: FloatArray | None = None,
    allowed: npt.NDArray[np.bool_] | None = None,
) -> tuple[IntArray, FloatArray]: ...
def exact_range(
    q: FloatArray,
    x: AnyArray,
    threshold: float,
    metric: str,
    num_threads: int = 0,
    scale: FloatArray | None = None,
    allowed: npt.NDArray[np.bool_] | None = None,
) -> tuple[IntArray, IntArray, FloatArray]: ...
