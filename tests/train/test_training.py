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
from residua import _bebr, _core, _learning, training
from residua._checkpoint import Plan
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
    lesson = _learning.Lesson(rows, asked, near, metric)
    plan = Plan("recurrent", "", 1, 1, 32, 0, "")
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
    index = rz.FlatIndex(DIM, codec=old, vectors="none")
    index.add(x[:1500])
    index.replace_codec(new)
    index.add(moved[:300])
    assert set(index.codec_versions(range(1500, 1800)).tolist()) == {new.fingerprint}
    for q, first in ((x[:50], 0), (moved[:50], 1500)):  # both models' queries, rows of both codecs
        found = index.search(q, 10).ids
        assert (found == first + np.arange(50)[:, None]).any(axis=1).mean() > 0.8


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


def test_the_published_preset(x: Matrix, tmp_path: Path) -> None:
    """Codes of the native module are those of the torch module in evaluation mode."""
    seen: list[Any] = []
    made = _bebr.BebrLearner.__init__

    def watch(self: _bebr.BebrLearner, *arguments: Any) -> None:
        made(self, *arguments)
        seen.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_bebr.BebrLearner, "__init__", watch)
        codec = train(x[:2000], bits=2, preset="bebr", epochs=2)
    assert codec.training is not None
    assert codec.training["epochs"] == 2
    assert codec.code_bytes == rz.RecurrentBinaryCodec(DIM, 2).code_bytes
    (learner,) = seen
    rows = _core.normalize(x[:300])
    for block in learner._blocks:
        block.eval()
    with torch.no_grad():
        wanted = learner.compose(torch.as_tensor(rows)).numpy()
    native = learner.native(learner.kept())
    got = _bebr._composed(native.encode(rows, 1), *_bebr.code_shape(DIM, 2))
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert (np.abs(got - wanted).max(axis=1) < 1e-5).mean() > 0.98  # the rest has a value next to zero
    unit = np.einsum("ij,ij->i", native.decode(native.encode(rows, 1), 1), rows)
    assert unit.mean() > 0.3


def test_the_preset_learns_and_goes_on(x: Matrix, tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    pairs = x[:1000], x[:1000] + 0.1 * x[1000:2000]
    options: dict[str, Any] = {"bits": 2, "preset": "bebr", "pairs": pairs}
    whole = train(x[:2000], epochs=2, **options)
    first = train(x[:2000], epochs=1, **options)
    assert whole.fingerprint != first.fingerprint
    assert whole.training is not None
    assert whole.training["recall"] > 0.05  # by chance 0.007

    saved = _bebr.BebrLearner.save

    def stop_after_one(self: _bebr.BebrLearner, *arguments: Any) -> None:
        saved(self, *arguments)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_bebr.BebrLearner, "save", stop_after_one)
        with pytest.raises(KeyboardInterrupt):
            train(x[:2000], epochs=2, checkpoint=path, **options)
    assert train(x[:2000], epochs=2, checkpoint=path, **options).fingerprint == whole.fingerprint
    before = path.read_bytes()
    with pytest.raises(ValueError, match="checkpoint of another configuration"):
        train(x[:2000], epochs=2, checkpoint=path, bits=2)
    assert path.read_bytes() == before


def test_the_contrast_of_the_preset() -> None:
    """Against a NumPy cross-entropy over the own document and the five hardest others that are not it."""
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(40, DIM)).astype("f4")
    lesson = _learning.Lesson(rows, rows, np.zeros((40, 1), np.int64), "cosine")
    learner = _bebr.BebrLearner(DIM, 2, lesson, Plan("bebr", "", 1, 1, 8, 0, ""), "cpu")
    q, d = rng.normal(size=(2, 12, DIM))
    owner = np.r_[np.arange(11), 0]
    q, d = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (q, d))
    wanted = 0.0
    for scores in (q @ d.T / 0.05, d @ q.T / 0.05):
        for i, row in enumerate(scores):
            others = np.sort(row[owner != owner[i]])[-5:]
            wanted += np.log(np.exp(np.r_[row[i], others] - row[i]).sum()) / len(scores)
    tensors = (torch.as_tensor(a) for a in (3 * q, 0.2 * d, owner))
    assert float(learner.contrast(*tensors)) == pytest.approx(wanted, rel=1e-4)
    y = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0], requires_grad=True)
    signs = learner._sign(y)
    signs.sum().backward()
    assert signs.tolist() == [-1, -1, 1, 1, 1]
    assert y.grad is not None
    assert y.grad.tolist() == [0, 1, 1, 1, 0]


def test_hard_negatives_are_rows_that_codes_confuse(x: Matrix) -> None:
    rows = _core.normalize(x[:600])
    start = rz.RecurrentBinaryCodec(DIM, 1).fit(rows)._trained()
    queries, documents = rows[:50] + 0.01, rows[:50]
    documents[49] = documents[48]
    hard = training._hard_negatives(start, rows, (queries, documents), 1)
    scores = start.scores(queries, start.encode(rows, 1, "rounded"), 1)
    for i, near in enumerate(hard):
        others = [j for j in np.argsort(-scores[i], kind="stable") if (rows[j] != documents[i]).any()]
        assert len(set(near.tolist()) & set(others[:8])) >= 7  # order of ties aside
        assert (near >= 0).all()
    assert training._numbers(documents)[[47, 48, 49]].tolist() == [47, 48, 48]


def test_pairs_move_scores_of_documents_above_hard_negatives(x: Matrix) -> None:
    """Only pairs of equal documents and hard negatives enter the logits as they should."""
    rows = _core.normalize(x[:400])
    native = rz.RecurrentBinaryCodec(DIM, 1).fit(rows)._trained()
    pairs = rows[:6], rows[[0, 0, 2, 3, 4, 5]]
    hard = np.array([[7, 8], [9, -1], [10, 11], [12, 13], [14, 15], [16, 17]])
    numbers = training._numbers(pairs[1])
    own = _learning.Pairs(*pairs, numbers, hard)
    lesson = _learning.Lesson(rows, rows, np.zeros((400, 5), np.int64), "cosine", own)
    learner = _learning.Learner(_core.recurrent_parts(native), lesson, Plan("", "", 1, 1, 32, 0, ""), "cpu")
    loss = float(learner._pair_loss(own, np.arange(6)).detach())
    wanted = 0.0
    for i in range(6):
        others = [j for j in range(6) if numbers[j] != numbers[i]]
        columns = np.array([pairs[1][i], *pairs[1][others], *rows[[h for h in hard[i] if h >= 0]]])
        scores = native.scores(pairs[0][i : i + 1], native.encode(columns, 1, "rounded"), 1)[0]
        wanted += np.log(np.exp((scores - scores[0]) / 0.05).sum()) / 6
    assert loss == pytest.approx(wanted, abs=0.01)
    assert learner._queue is not None
    assert len(learner._queue[0]) == 6
