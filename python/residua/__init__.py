# SPDX-License-Identifier: Apache-2.0
"""Residua: embedding compression and nearest-neighbour search on recurrent binary codes."""

from residua import cuda, datasets, errors
from residua._core import __version__
from residua.building import build
from residua.codecs import (
    BinaryCodec,
    Codec,
    FloatCodec,
    PQCodec,
    RecurrentBinaryCodec,
    ResidualCodec,
    ScalarCodec,
)
from residua.embedding_table import EmbeddingTable
from residua.evaluation import evaluate
from residua.exchange import from_faiss, from_hnswlib, to_faiss
from residua.fd_encoder import FDEncoder
from residua.filters import Column, Expression, col, where
from residua.functions import exact_search, hamming, load, recall, show_config
from residua.hnsw_index import HNSWIndex
from residua.indexes import FlatIndex
from residua.ivf_index import IVFIndex
from residua.learned_encoder import LearnedEncoder
from residua.multivector import ball_carve, maxsim, maxsim_tokens, maxsim_topk
from residua.multivector_index import MultiVectorIndex
from residua.pylate_index import PyLateIndex
from residua.quantization import quantize_embeddings, semantic_search
from residua.results import Hits, RangeHits
from residua.token_store import TokenStore, pool_tokens
from residua.training import train_recurrent_binary
from residua.tuning import TuneResult, tune
from residua.upgrades import CompatibleCodec, compatible_queries

__all__ = [
    "BinaryCodec",
    "Codec",
    "Column",
    "CompatibleCodec",
    "EmbeddingTable",
    "Expression",
    "FDEncoder",
    "FlatIndex",
    "FloatCodec",
    "HNSWIndex",
    "Hits",
    "IVFIndex",
    "LearnedEncoder",
    "MultiVectorIndex",
    "PQCodec",
    "PyLateIndex",
    "RangeHits",
    "RecurrentBinaryCodec",
    "ResidualCodec",
    "ScalarCodec",
    "TokenStore",
    "TuneResult",
    "__version__",
    "ball_carve",
    "build",
    "col",
    "compatible_queries",
    "cuda",
    "datasets",
    "errors",
    "evaluate",
    "exact_search",
    "from_faiss",
    "from_hnswlib",
    "hamming",
    "load",
    "maxsim",
    "maxsim_tokens",
    "maxsim_topk",
    "pool_tokens",
    "quantize_embeddings",
    "recall",
    "semantic_search",
    "show_config",
    "to_faiss",
    "train_recurrent_binary",
    "tune",
    "where",
]
