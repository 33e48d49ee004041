# SPDX-License-Identifier: Apache-2.0
"""Makes python/residua/data/sample.npz from a folder of paper embeddings.

    python bench/make_sample.py DATA_FOLDER [OUTPUT]

DATA_FOLDER holds base_vectors.npy and query_vectors.npy (float16) with base_attributes.parquet and
query_attributes.parquet row by row beside them. The first 8,000 base rows become the documents (the
base is in random order) and the last 500 queries the queries, so that the earlier queries stay free
for development. Needs pyarrow.
"""

from __future__ import annotations

import sys
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

N_DOCUMENTS = 8_000
N_QUERIES = 500
DEPTH = 100
OUTPUT = Path(__file__).resolve().parents[1] / "python" / "residua" / "data" / "sample.npz"

# Authors are left out: they double the size and no example needs them.
TEXT = ("id", "title", "venue", "venue_type")
NUMBERS = {"year": np.int16, "n_authors": np.int16, "has_code": np.bool_, "has_doi": np.bool_}


def text_column(values: list[str]) -> np.ndarray:
    """Joins strings by newlines into UTF-8 bytes: half the size of fixed-width unicode once compressed."""
    if any("\n" in v for v in values):
        raise SystemExit("a text value contains a newline, which separates values in the file")
    return np.frombuffer("\n".join(values).encode(), dtype=np.uint8)


def columns(table, prefix: str) -> dict[str, np.ndarray]:
    out = {f"{prefix}.{name}": text_column(table[name].to_pylist()) for name in TEXT}
    for name, dtype in NUMBERS.items():
        values = table[name].to_numpy()
        out[f"{prefix}.{name}"] = values.astype(dtype)
        if not np.array_equal(out[f"{prefix}.{name}"], values):
            raise SystemExit(f"column {name!r} does not fit {np.dtype(dtype).name}")
    return out


def nearest(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """Exact top rows by cosine in float64, ties to the lower row."""
    q = queries.astype(np.float64)
    x = documents.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return np.argsort(-(q @ x.T), axis=1, kind="stable")[:, :DEPTH].astype(np.int16)


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Like np.savez_compressed, with fixed time stamps: the same input gives the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            buffer = BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(
                zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9
            )


def main(folder: Path, output: Path) -> None:
    documents = np.load(folder / "base_vectors.npy", mmap_mode="r")[:N_DOCUMENTS]
    queries = np.load(folder / "query_vectors.npy", mmap_mode="r")[-N_QUERIES:]
    base = pq.read_table(folder / "base_attributes.parquet").slice(0, N_DOCUMENTS)
    asked = pq.read_table(folder / "query_attributes.parquet")
    write_npz(
        output,
        {
            "documents": documents,
            "queries": queries,
            "ground_truth": nearest(queries, documents),
            **columns(base, "document"),
            **columns(asked.slice(len(asked) - N_QUERIES), "query"),
        },
    )
    print(f"{output.name}: {output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else OUTPUT)
