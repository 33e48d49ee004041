# SPDX-License-Identifier: Apache-2.0
"""Residua: embedding compression and nearest-neighbour search on recurrent binary codes."""

from residua import datasets, errors
from residua._core import __version__
from residua.codecs import BinaryCodec, Codec, FloatCodec, PQCodec, RecurrentBinaryCodec, ScalarCodec
from residua.embedding_table import EmbeddingTable
from residua.functions import exact_search, hamming, load, recall, show_config
from residua.indexes import FlatIndex
from residua.ivf_index import IVFIndex
from residua.results import Hits, RangeHits

__all__ = [
    "BinaryCodec",
    "Codec",
    "EmbeddingTable",
    "FlatIndex",
    "FloatCodec",
    "Hits",
    "IVFIndex",
    "PQCodec",
    "RangeHits",
    "RecurrentBinaryCodec",
    "ScalarCodec",
    "__version__",
    "datasets",
    "errors",
    "exact_search",
    "hamming",
    "load",
    "recall",
    "show_config",
]
