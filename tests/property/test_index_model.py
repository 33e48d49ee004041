# SPDX-License-Identifier: Apache-2.0
"""Indexes against a dict: any sequence of changes leaves what the dict holds, and finds it."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import residua as rz
from residua.errors import DuplicateIdError, UnknownIdError

DIM = 3
small = st.integers(0, 40)
seeds = st.integers(0, 2**16)


def rows(n: int, seed: int) -> np.ndarray:
    """Small whole numbers, never zero rows: scores are exact, and many tie."""
    x = np.random.default_rng(seed).integers(-3, 4, (n, DIM)).astype(np.float32)
    x[~x.any(axis=1), 0] = 1
    return x


class FlatIndexMachine(RuleBasedStateMachine):
    """The model: ids in order of insertion, and their vectors."""

    @initialize(
        strings=st.booleans(),
        metric=st.sampled_from(["ip", "l2"]),
        codec=st.sampled_from(["none", "float32", "recurrent", "binary"]),
        mode=st.sampled_from(["auto", "float32", "disk", "int8"]),
    )
    def start(self, strings: bool, metric: str, codec: str, mode: str) -> None:
        self.strings, self.metric = strings, metric
        self.exact = mode != "int8"  # int8 keeps rounded values
        sample = rows(300, 1)
        made: Any = {
            "none": lambda: None,
            "float32": lambda: rz.FloatCodec(DIM),
            "recurrent": lambda: rz.RecurrentBinaryCodec(DIM, 4).fit(sample, metric=metric),
            "binary": lambda: rz.BinaryCodec(DIM),
        }[codec]()
        self.index = self.make(metric, made, mode, sample)
        self.model: dict[Any, np.ndarray] = {}
        self.order: list[Any] = []
        self.highest = -1

    def make(self, metric: str, codec: Any, mode: str, sample: np.ndarray) -> Any:
        return rz.FlatIndex(DIM, metric=metric, codec=codec, vectors=mode)

    def options(self) -> dict[str, Any]:
        """What makes a search exact."""
        return {"rerank": None if self.index.codec is None else 10_000}

    def id_of(self, number: int) -> Any:
        return f"n{number:02d}" if self.strings else number

    def store(self, ids: list[Any], x: np.ndarray) -> None:
        for i, row in zip(ids, x, strict=True):
            if i not in self.model:
                self.order.append(i)
                if not self.strings:
                    self.highest = max(self.highest, i)
            self.model[i] = row

    @rule(numbers=st.lists(small, max_size=12), seed=seeds, upsert=st.booleans())
    def add(self, numbers: list[int], seed: int, upsert: bool) -> None:
        ids, x = [self.id_of(n) for n in numbers], rows(len(numbers), seed)
        refused = len(set(ids)) < len(ids) or (not upsert and any(i in self.model for i in ids))
        try:
            added = self.index.add(x, ids, upsert=upsert)
        except DuplicateIdError:
            assert refused
            return
        assert not refused
        assert added.tolist() == ids
        self.store(ids, x)

    @precondition(lambda self: not self.strings)
    @rule(n=st.integers(0, 70), seed=seeds)
    def add_automatic(self, n: int, seed: int) -> None:
        x = rows(n, seed)
        ids = self.index.add(x).tolist()
        if ids:
            assert ids == list(range(ids[0], ids[0] + n))
            assert ids[0] > self.highest or (
                ids[0] not in self.model and ids[0] > max(self.model, default=-1)
            )
        self.store(ids, x)

    @rule(numbers=st.lists(small, max_size=12), ignore=st.booleans())
    def remove(self, numbers: list[int], ignore: bool) -> None:
        ids = [self.id_of(n) for n in numbers]
        unknown = [i for i in ids if i not in self.model]
        try:
            removed = self.index.remove(ids, missing="ignore" if ignore else "raise")
        except UnknownIdError:
            assert unknown
            assert not ignore
            return
        assert ignore or not unknown
        gone = set(ids) & set(self.model)
        assert removed == len(gone)
        self.order = [i for i in self.order if i not in gone]
        for i in gone:
            del self.model[i]

    @rule()
    def compact(self) -> None:
        self.index.compact()

    @rule(mmap=st.booleans())
    def save_and_load(self, mmap: bool) -> None:
        handle, path = tempfile.mkstemp()
        os.close(handle)
        try:
            self.index.save(path)
            self.index = rz.load(path, mmap=mmap)
        finally:
            os.unlink(path)

    @rule(numbers=st.lists(small, max_size=6))
    def get(self, numbers: list[int]) -> None:
        ids = [self.id_of(n) for n in numbers]
        known = all(i in self.model for i in ids)
        try:
            got = self.index.get(ids)
        except UnknownIdError:
            assert not known
            return
        assert known
        wanted = np.array([self.model[i] for i in ids]).reshape(len(ids), DIM)
        np.testing.assert_allclose(got, wanted, atol=0 if self.exact else 0.02)

    @rule(
        seed=seeds, k=st.integers(1, 60), share=st.sampled_from([None, 0.0, 0.3, 1.0]), by_mask=st.booleans()
    )
    def search(self, seed: int, k: int, share: float | None, by_mask: bool) -> None:
        q = rows(2, seed)
        allowed, given = self.order, None
        if share is not None:
            mask = np.random.default_rng(seed).random(len(self.order)) < share
            allowed = [i for i, keep in zip(self.order, mask, strict=True) if keep]
            given = mask if by_mask else list(allowed)
        hits = self.index.search(q, k, filter=given, **self.options())
        assert hits.ids.shape == (2, k)
        assert (hits.counts == min(k, len(allowed))).all()
        for i in range(2):
            scores = {j: self.score(q[i], self.model[j]) for j in allowed}
            best = sorted(scores, key=lambda j: (-scores[j], j))[:k]
            found = hits.ids[i][: len(best)].tolist()
            if self.exact:
                assert found == best
                sign = -1 if self.metric == "l2" else 1
                assert [sign * s for s in hits.scores[i][: len(best)].tolist()] == [scores[j] for j in best]
            else:
                assert len(set(found)) == len(best)
                assert set(found) <= set(allowed)
            missing = None if hits.ids.dtype == object else -1
            assert all(j == missing for j in hits.ids[i][len(best) :].tolist())

    @rule(seed=seeds, limit=st.integers(-10, 30))
    def range_search(self, seed: int, limit: int) -> None:
        if not self.exact:
            return
        q = rows(1, seed)
        ids, scores = self.index.range_search(q, limit)[0]
        inner = -limit if self.metric == "l2" else limit
        wanted = {j: s for j in self.order if (s := self.score(q[0], self.model[j])) >= inner}
        assert ids.tolist() == sorted(wanted, key=lambda j: (-wanted[j], j))
        sign = -1 if self.metric == "l2" else 1
        assert [sign * s for s in scores.tolist()] == [wanted[j] for j in ids.tolist()]

    def score(self, q: np.ndarray, x: np.ndarray) -> float:
        return float(-((q - x) ** 2).sum() if self.metric == "l2" else q @ x)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        if not hasattr(self, "index"):
            return
        assert len(self.index) == len(self.model)
        for n in (0, 1, 20, 40):
            assert (self.id_of(n) in self.index) == (self.id_of(n) in self.model)


FlatIndexMachine.TestCase.settings = settings(
    max_examples=120, stateful_step_count=25, deadline=None, derandomize=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
TestFlatIndexModel = FlatIndexMachine.TestCase


class IVFIndexMachine(FlatIndexMachine):
    """The same of an index of lists, all of which are read; its codes may be of residuals."""

    def make(self, metric: str, codec: Any, mode: str, sample: np.ndarray) -> Any:
        if isinstance(codec, rz.RecurrentBinaryCodec):
            codec = rz.RecurrentBinaryCodec(DIM, 4)
        return rz.IVFIndex(DIM, metric=metric, codec=codec, vectors=mode, nlist=5).train(sample)

    def options(self) -> dict[str, Any]:
        return {**super().options(), "nprobe": 5}


IVFIndexMachine.TestCase.settings = FlatIndexMachine.TestCase.settings
TestIVFIndexModel = IVFIndexMachine.TestCase


class HNSWIndexMachine(FlatIndexMachine):
    """The same of a graph, in both layouts, whose walks keep as many rows as there are."""

    def make(self, metric: str, codec: Any, mode: str, sample: np.ndarray) -> Any:
        layout: Any = "compact" if codec is None or mode == "disk" else "turbo"
        return rz.HNSWIndex(
            DIM, metric=metric, codec=codec, vectors=mode, M=3, ef_construction=8, layout=layout
        )

    def options(self) -> dict[str, Any]:
        return {**super().options(), "ef": 10_000}

    @rule(seed=seeds, k=st.integers(1, 5))
    def walk(self, seed: int, k: int) -> None:
        """With few rows kept the walk goes over the graph, and finds rows that are there, each once."""
        hits = self.index.search(rows(2, seed), k, ef=5)
        for found, count in zip(hits.ids, hits.counts, strict=True):
            assert count == min(k, len(self.model))
            real = found[:count].tolist()
            assert len(set(real)) == count
            assert set(real) <= set(self.model)

    @invariant()
    def leads_to_every_row(self) -> None:
        if hasattr(self, "index"):
            assert self.index._native.shape()["unreachable"] == 0


HNSWIndexMachine.TestCase.settings = settings(FlatIndexMachine.TestCase.settings, max_examples=50)
TestHNSWIndexModel = HNSWIndexMachine.TestCase
