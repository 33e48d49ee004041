# SPDX-License-Identifier: Apache-2.0
"""Write the saved index of hnswlib that tests read where hnswlib is not installed, and what it finds.

python tests/unit/data/make_hnswlib_file.py
"""

from __future__ import annotations

from pathlib import Path

import hnswlib
import numpy as np

HERE = Path(__file__).parent
rng = np.random.default_rng(11)
x = rng.integers(-40, 41, (90, 6)).astype(np.float32)
labels = rng.permutation(500)[:90]
queries = rng.integers(-40, 41, (8, 6)).astype(np.float32)
index = hnswlib.Index(space="l2", dim=6)
index.init_index(max_elements=120, M=3, ef_construction=40, random_seed=5)
index.add_items(x, labels, num_threads=1)
for label in labels[:9]:
    index.mark_deleted(label)
index.set_ef(90)
index.save_index(str(HERE / "hnswlib-l2.bin"))
found, distances = index.knn_query(queries, k=7, num_threads=1)
np.savez_compressed(
    HERE / "hnswlib-l2.npz",
    queries=queries,
    ids=found.astype(np.int64),
    distances=distances,
    deleted=labels[:9],
)
