# SPDX-License-Identifier: Apache-2.0
"""Learned recurrent codes. Everything here needs PyTorch: pip install '.[train]'."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import residua as rz
from residua import _core, _learning
from residua.training import _EPOCHS

torch = pytest.importorskip("torch", reason="training needs PyTorch: pip install '.[train]'")

Matrix = np.ndarray[Any, Any]
DIM = 64


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def x() -> Matrix:
    """Heavy tails along skewed axes, which variances say little about: room above the closed form."""
    rng = np.random.default_rng(0)
    return np.asarray(rng.laplace(size=(4000, DIM)) ** 3 @ rng.normal(size=(DIM, DIM)), dtype="f4")


@pytest.fixture(scope="module")
def learned(x: Matrix) -> rz.RecurrentBinaryCodec:
    return train(x, bits=1)


def train(x: Matrix, **options: Any) -> rz.RecurrentBinaryCodec:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rz.errors.FallbackWarning)
        return rz.train_recurrent_binary(x, **{"num_threads": 1, "epochs": 3, **options})


def recall(codec: rz.RecurrentBinaryCodec, queries: Matrix, base: Matrix) -> float:
    scores = codec.scores(queries, codec.encode(base))
    order = np.argsort(scores if codec.metric == "l2" else -scores, axis=1)[:, :10]
    return rz.recall(order, rz.exact_search(queries, base, metric=codec.metric).ids)


def test_learning_gains_on_new_queries(x: Matrix, learned: rz.RecurrentBinaryCodec) -> None:
    seen = learned.training
    assert seen is not None
    assert seen["learned"]
    assert seen["recall"] >= seen["start_recall"] + 0.003
    rng = np.random.default_rng(9)
    queries = x[:300] * rng.uniform(0.8, 1.2, size=(300, DIM)).astype("f4")
    closed = rz.RecurrentBinaryCodec(DIM, 1).fit(x)
    assert recall(learned, queries, x) > recall(closed, queries, x)
    assert learned.code_bytes == closed.code_bytes


def test_a_learned_codec_is_native(x: Matrix, learned: rz.RecurrentBinaryCodec, tmp_path: Path) -> None:
    learned.save(tmp_path / "codec.rsd")
    again = rz.load(tmp_path / "codec.rsd")
    assert again.fingerprint == learned.fingerprint
    codes = again.encode(x[:200])
    np.testing.assert_array_equal(codes, learned.encode(x[:200]))
    index = rz.FlatIndex(DIM, codec=again)
    index.add(x)
    assert rz.recall(index.search(x[:50], 10).ids, rz.exact_search(x[:50], x).ids) > 0.95
    unit = x[:200] / np.linalg.norm(x[:200], axis=1, keepdims=True)
    assert np.einsum("ij,ij->i", again.decode(codes), unit).mean() > 0.8


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_the_forward_pass_is_the_native_one(x: Matrix, metric: Any) -> None:
    """Errors of scores by torch equal native scores less exact ones, up to the query's own rounding."""
    rows = np.ascontiguousarray(x[:400] / np.linalg.norm(x[:400], axis=1, keepdims=True))
    native = rz.RecurrentBinaryCodec(DIM, 2).fit(rows, metric=metric)._trained()
    asked = np.ascontiguousarray(rows[:30])
    near = np.tile(np.arange(400), (30, 1))
    lesson = _learning.Lesson(rows, asked, near, None, metric, 1)
    plan = _learning.Plan("", 1, 1, 0, "", False)
    learner = _learning.Learner(_core.recurrent_parts(native), lesson, plan, "cpu")
    z = learner._rows - learner._center
    with torch.no_grad():
        errors = learner._errors(learner._queries, z, learner._values(learner._weights, z)).numpy()
    scores = native.scores(asked, native.encode(rows, 1, "rounded"), 1)
    exact = asked @ rows.T
    wanted = (scores - exact) if metric != "l2" else -(scores - ((asked[:, None] - rows) ** 2).sum(2)) / 2
    np.testing.assert_allclose(errors, wanted, atol=2e-3)
    assert np.abs(wanted).max() > 0.02


def test_the_same_seed_gives_the_same_codec(x: Matrix, learned: rz.RecurrentBinaryCodec) -> None:
    assert train(x, bits=1).fingerprint == learned.fingerprint
    assert train(x, bits=1, seed=1).fingerprint != learned.fingerprint


def test_checkpoints_go_on_where_training_stopped(
    x: Matrix, learned: rz.RecurrentBinaryCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.npz"
    saved = _learning.Learner.save

    def stop_after_one(self: _learning.Learner, *arguments: Any) -> None:
        saved(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(_learning.Learner, "save", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        train(x, bits=1, checkpoint=path)
    monkeypatch.undo()
    assert path.exists()
    resumed = train(x, bits=1, checkpoint=path)
    assert resumed.fingerprint == learned.fingerprint
    # Finished: there is nothing left to train.
    assert train(x, bits=1, checkpoint=path).fingerprint == learned.fingerprint


def test_checkpoints_of_others_are_refused(x: Matrix, tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    train(x[:500], bits=1, epochs=1, checkpoint=path)
    before = path.read_bytes()
    for rows, options in [(x[:501], {}), (x[:500], {"bits": 2}), (x[:500], {"epochs": 2})]:
        with pytest.raises(ValueError, match="checkpoint of another configuration"):
            train(rows, **{"bits": 1, "epochs": 1, "checkpoint": path, **options})
    assert path.read_bytes() == before
    path.write_bytes(b"nothing")
    with pytest.raises(rz.errors.CorruptFileError, match="not a checkpoint"):
        train(x[:500], bits=1, epochs=1, checkpoint=path)
    assert path.read_bytes() == b"nothing"


def test_what_cannot_be_improved_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(600, DIM)).astype("f4")
    monkeypatch.setattr("residua.training._MARGIN", 1.0)
    with pytest.warns(rz.errors.FallbackWarning, match="closed form is returned"):
        codec = rz.train_recurrent_binary(noise, bits=1, epochs=1, num_threads=1)
    assert codec.training is not None
    assert not codec.training["learned"]
    unit = _core.normalize(noise)
    assert codec.fingerprint == rz.RecurrentBinaryCodec(DIM, 1).fit(unit).fingerprint


def test_early_stop(x: Matrix, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("residua.training._Trial.recall", lambda self, native: 0.5)
    codec = train(x[:300], bits=1, epochs=_EPOCHS)
    assert codec.training is not None
    assert (codec.training["epochs"], codec.training["best_epoch"]) == (4, 1)


def test_queries_pairs_and_progress(x: Matrix, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(2)
    documents = x[rng.integers(0, 2000, 300)]
    queries = documents * rng.uniform(0.5, 1.5, size=documents.shape).astype("f4")
    calls: list[tuple[int, int]] = []
    codec = train(
        x[:2000],
        bits=0.5,
        queries=queries,
        epochs=1,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert codec.bits == 0.5
    assert calls[-1] == (calls[-1][1], calls[-1][1])
    paired = train(x[:2000], bits=0.5, queries=queries, pairs=(queries, documents), epochs=1, progress=True)
    assert paired.fingerprint != codec.fingerprint
    drawn = capsys.readouterr().err
    assert "loss" in drawn
    assert "recall@10" in drawn


def test_a_compatible_codec_shares_the_query_side(x: Matrix) -> None:
    old = rz.RecurrentBinaryCodec(DIM, 1, seed=5).fit(x[:1500])
    moved = x[1500:] * np.linspace(0.7, 1.3, DIM, dtype="f4")
    new = train(moved, bits=1, compatible_with=old)
    a, b = _core.recurrent_parts(old._native), _core.recurrent_parts(new._native)
    for name in ("query_map", "query_mean", "center", "step", "group_bits"):
        np.testing.assert_array_equal(a[name], b[name])
    assert (a["encode_map"] != b["encode_map"]).any()
    codes = new.encode(moved[:300])
    np.testing.assert_allclose(old.scores(moved[:20], codes), new.scores(moved[:20], codes), atol=1e-4)


def test_mapped_rows(x: Matrix, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", x[:1000])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert train(mapped, bits=1, epochs=1).fingerprint == train(x[:1000], bits=1, epochs=1).fingerprint


def test_devices(x: Matrix) -> None:
    with pytest.raises(ValueError, match="device 'nowhere' cannot be used"):
        train(x[:200], bits=1, device="nowhere")


def test_transforms_of_blocks_are_refused() -> None:
    wide = np.random.default_rng(3).normal(size=(100, 400)).astype("f4")
    with pytest.raises(rz.errors.UnsupportedError, match="made of blocks"):
        train(wide, bits=1)
