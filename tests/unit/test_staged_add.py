# SPDX-License-Identifier: Apache-2.0
"""An addition whose fit of the codec fails leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import residua as rz
from residua.errors import InvalidValueError

DIM = 16
CODECS: dict[str, Callable[[], rz.Codec]] = {
    "recurrent": lambda: rz.RecurrentBinaryCodec(DIM),
    "scalar": lambda: rz.ScalarCodec(DIM),
    "residual": lambda: rz.ResidualCodec(DIM, 3),
    "random": lambda: rz.BinaryCodec(DIM, rotation="random"),
    "itq": lambda: rz.BinaryCodec(DIM, rotation="itq"),
}


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)


def waiting(ids: Any = None, codec: str = "recurrent", n: int = 100) -> rz.FlatIndex:
    index = rz.FlatIndex(DIM, metric="l2", codec=CODECS[codec]())
    index.add(vectors(n), ids)
    return index


@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize("name", CODECS)
def test_fits_refuse_values_whose_squares_overflow(name: str, metric: Any) -> None:
    x = vectors(300)
    x[7, 3] = -1e19
    codec = CODECS[name]()
    with pytest.raises(InvalidValueError, match=r"x: row 7 .*1e\+19.*16 dims: scale the vectors"):
        codec.fit(x, metric=metric)
    assert not codec.is_trained
    if name in ("recurrent", "scalar", "residual"):
        with pytest.raises(InvalidValueError, match="queries: row 7 "):
            codec.fit(vectors(300), queries=x, metric=metric)
    limit = np.float32(np.sqrt(np.finfo(np.float32).max / DIM) / 2.01)
    x = np.clip(x / np.abs(x[:7]).max(), -1, 1) * limit
    codec.fit(x, metric=metric)
    assert np.isfinite(codec.scores(x, codec.encode(x))).all()


@pytest.mark.parametrize("name", CODECS)
def test_under_cosine_lengths_do_not_matter(name: str) -> None:
    x = vectors(300)
    huge, plain = (CODECS[name]().fit(x * np.float32(s)) for s in (2.0**100, 1))
    np.testing.assert_array_equal(huge.encode(x), plain.encode(x))


@pytest.mark.parametrize(
    ("ids", "upsert"), [("automatic", False), ("int", False), ("int", True), ("str", False), ("str", True)]
)
@pytest.mark.parametrize("error", [InvalidValueError, KeyboardInterrupt])
def test_a_fit_that_fails_takes_the_rows_out(
    ids: str, upsert: bool, error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name: Callable[[int], Any] = str if ids == "str" else int
    given = None if ids == "automatic" else [name(i) for i in range(100)]
    index = waiting(given)
    if error is KeyboardInterrupt:

        def interrupt(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(rz.RecurrentBinaryCodec, "fit", interrupt)
    new = None if given is None else [name(i) for i in range(90 if upsert else 100, 390)]
    bad = vectors(290 + 10 * upsert if new is not None else 290, 1) * np.float32(1e19)
    expected = vectors(100)
    with pytest.raises(error):
        index.add(bad, new, upsert=upsert)
    assert len(index) == 100
    assert not index.codec.is_trained  # type: ignore[union-attr]
    np.testing.assert_array_equal(index.get([name(i) for i in range(100)]), expected)
    assert name(100) not in index
    index.save(tmp_path / "after.rsd")
    waiting(given).save(tmp_path / "before.rsd")
    assert (tmp_path / "after.rsd").read_bytes() == (tmp_path / "before.rsd").read_bytes()

    monkeypatch.undo()
    added = index.add(vectors(200, 2), None if given is None else [name(i) for i in range(100, 300)])
    assert added.tolist() == [name(i) for i in range(100, 300)]
    assert index.codec.is_trained  # type: ignore[union-attr]
    assert len(index) == 300


def test_vectors_that_the_kept_type_cannot_hold(tmp_path: Path) -> None:
    """The fit succeeds and the conversion fails: both are undone."""
    index = rz.FlatIndex(DIM, metric="l2", codec=rz.ScalarCodec(DIM), vectors="float16")
    with pytest.raises(InvalidValueError, match="65504"):
        index.add(vectors(300) * 1e6)
    assert len(index) == 0
    assert not index.codec.is_trained  # type: ignore[union-attr]
    assert index.add(vectors(300)).tolist() == list(range(300))
    assert index.codec.is_trained  # type: ignore[union-attr]


def test_an_error_of_the_progress_callback() -> None:
    """Before the change it keeps all rows out; at the end all are in."""

    def fail_at(stop: int) -> Callable[[int, int], None]:
        def report(done: int, total: int) -> None:
            assert total == 1
            if done == stop:
                raise RuntimeError("stop")

        return report

    index = waiting()
    with pytest.raises(RuntimeError, match="stop"):
        index.add(vectors(300, 1), progress=fail_at(0))
    assert len(index) == 100
    with pytest.raises(RuntimeError, match="stop"):
        index.add(vectors(300, 1), progress=fail_at(1))
    assert len(index) == 400
    assert index.codec.is_trained  # type: ignore[union-attr]


@pytest.mark.parametrize("codec", [None, rz.FloatCodec(DIM), rz.BinaryCodec(DIM)])
def test_train_without_anything_to_fit_checks_the_sample(codec: rz.Codec | None) -> None:
    index = rz.FlatIndex(DIM, metric="ip", codec=codec)
    seen: list[tuple[int, int]] = []
    assert index.train(vectors(5), progress=lambda *done: seen.append(done)) is index
    assert index.train(vectors(5), queries=vectors(2)) is index
    assert seen == [(1, 1)]
    for options, error in (
        ({"x": np.ones((2, 3))}, ValueError),
        ({"x": vectors(2), "queries": np.ones((2, 3))}, ValueError),
        ({"x": vectors(2), "progress": "yes"}, TypeError),
        ({"x": vectors(2), "num_threads": 0}, ValueError),
    ):
        with pytest.raises(error):
            index.train(**options)  # type: ignore[arg-type]
