# SPDX-License-Identifier: Apache-2.0
"""Whatever is added, removed and compacted, a token store scores as a list of arrays does."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import residua as rz

DIM = 8
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.integers(0, 40), max_size=5)),
        st.tuples(st.just("remove"), st.lists(st.integers(0, 30), max_size=4)),
        st.tuples(st.just("compact"), st.just([])),
        st.tuples(st.just("reload"), st.lists(st.booleans(), min_size=1, max_size=1)),
    ),
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(form=st.sampled_from(["float32", "float16", "int8"]), steps=STEPS, seed=st.integers(0, 99))
def test_a_store_is_a_list(form: str, steps: list[tuple[str, list[int]]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    query = rng.standard_normal((5, DIM), dtype=np.float32)
    store = rz.TokenStore((np.empty((0, DIM), np.float32), [0]), form)
    model: list[np.ndarray | None] = []  # None: removed
    for action, numbers in steps:
        if action == "add":
            documents = [rng.standard_normal((n, DIM), dtype=np.float32) for n in numbers]
            store.add(documents)
            model += [rz.TokenStore([d], form).get(0) for d in documents]
        elif action == "remove":
            gone = sorted({n for n in numbers if n < len(model) and model[n] is not None})
            store.remove(gone)
            for n in gone:
                model[n] = None
        elif action == "compact":
            store.compact()  # all documents keep their numbers
        else:
            with tempfile.TemporaryDirectory() as folder:
                store.save(Path(folder) / "s")
                loaded = rz.load(Path(folder) / "s", mmap=bool(numbers[0]))
            assert isinstance(loaded, rz.TokenStore)
            store = loaded
    assert len(store) == len(model)
    assert store.n_tokens == sum(len(d) for d in model if d is not None)
    left = [np.empty((0, DIM), np.float32) if d is None else d for d in model]
    expected = rz.maxsim(query, left) if left else np.empty(0, np.float32)
    np.testing.assert_array_equal(rz.maxsim(query, store), expected)
