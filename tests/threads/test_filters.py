# SPDX-License-Identifier: Apache-2.0
"""Filtered searches on several threads, beside changes of the columns."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

import residua as rz

N = 20_000


def made() -> rz.FlatIndex:
    rng = np.random.default_rng(0)
    index = rz.FlatIndex(8, columns={"i": "int", "c": "category", "t": "tags"})
    columns = {
        "i": np.arange(N),
        "c": [f"c{i % 7}" for i in range(N)],
        "t": [[f"t{i % 5}", f"u{i % 3}"] for i in range(N)],
    }
    index.add(rng.standard_normal((N, 8)).astype(np.float32), columns=columns)
    return index


def test_one_filter_on_many_threads() -> None:
    index = made()
    query = np.ones(8, np.float32)
    texts = [f"i < {500 * j} and c != 'c{j % 7}' or 't{j % 5}' in t" for j in range(40)]
    alone = [index.search(query, 20, filter=text, num_threads=1).ids.tolist() for text in texts]
    index.set_columns([0], {"i": [0]})  # forgets results
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: index.search(query, 20, filter=text).ids.tolist(), texts * 5))
    assert found == alone * 5


def test_searches_see_the_columns_before_a_change_or_after_it() -> None:
    index = made()
    query = np.ones(8, np.float32)
    ids = np.arange(1000)
    index.set_columns(ids, {"c": ["even"] * 1000, "t": [["even"]] * 1000})

    def search(word: str) -> set[int]:
        seen = set()
        for _ in range(40):
            seen.add(index.search(query, 5, filter=f"c == '{word}' and '{word}' in t").stats["matches"])
        return seen

    def change() -> None:
        for i in range(60):
            word = "even" if i % 2 else "odd"
            index.set_columns(ids, {"c": [word] * 1000, "t": [[word]] * 1000})

    with ThreadPoolExecutor(4) as pool:
        searches = [pool.submit(search, word) for word in ("even", "odd", "even")]
        pool.submit(change).result()
        assert all(done.result() <= {0, 1000} for done in searches)
    assert search("even") == {1000}
