# SPDX-License-Identifier: Apache-2.0
"""Rows of several codecs in one index: codecs whose query sides are the same, whose encoders differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import residua as rz
from residua import _core
from residua.codecs import wrap

Matrix = np.ndarray[Any, Any]
DIM = 64


@pytest.fixture(scope="module")
def x() -> Matrix:
    return np.asarray(rz.datasets.load_sample().documents[:900, :DIM], dtype=np.float32)


@pytest.fixture(scope="module")
def old(x: Matrix) -> rz.RecurrentBinaryCodec:
    return rz.RecurrentBinaryCodec(DIM, bits=2).fit(x)


def with_parts(codec: rz.RecurrentBinaryCodec, **changed: Any) -> rz.RecurrentBinaryCodec:
    made = wrap(_core.recurrent_codec(**{**_core.recurrent_parts(codec._trained()), **changed}))
    assert isinstance(made, rz.RecurrentBinaryCodec)
    return made


@pytest.fixture(scope="module")
def new(old: rz.RecurrentBinaryCodec) -> rz.RecurrentBinaryCodec:
    """Another encoder, as `compatible_with=` trains one."""
    rng = np.random.default_rng(0)
    encode = _core.recurrent_parts(old._trained())["encode_map"]
    return with_parts(old, encode_map=encode * rng.uniform(0.9, 1.1, encode.shape).astype("f4"))


@pytest.mark.parametrize("make", [rz.FlatIndex, rz.HNSWIndex])
@pytest.mark.parametrize("vectors", ["none", "auto"])
def test_rows_of_both_codecs_are_found_and_known(
    make: Any,
    vectors: str,
    x: Matrix,
    old: rz.RecurrentBinaryCodec,
    new: rz.RecurrentBinaryCodec,
    tmp_path: Path,
) -> None:
    index = make(DIM, codec=old, vectors=vectors)
    index.add(x[:600])
    index.replace_codec(new)
    assert index.codec is new
    index.add(x[600:])
    wanted = [old.fingerprint] * 600 + [new.fingerprint] * 300
    assert index.codec_versions(range(900)).tolist() == wanted
    np.testing.assert_array_equal(index.codes(range(600)), old.encode(x[:600]))
    np.testing.assert_array_equal(index.codes(range(600, 900)), new.encode(x[600:]))
    assert (index.search(x, 1).ids[:, 0] == np.arange(900)).mean() > 0.97

    index.add(x[5:7], ids=[5, 6], upsert=True)
    index.remove([0, 700])
    index.compact()
    kept = [i for i in range(900) if i not in (0, 700)]
    wanted[5] = wanted[6] = new.fingerprint
    assert index.codec_versions(kept).tolist() == [wanted[i] for i in kept]
    index.save(tmp_path / "index.rsd")
    again = rz.load(tmp_path / "index.rsd")
    assert again.codec_versions(kept).tolist() == [wanted[i] for i in kept]
    again.replace_codec(old)
    assert again.add(x[:1]).tolist() == [900]
    assert again.codec_versions([900, 899]).tolist() == [old.fingerprint, new.fingerprint]
    np.testing.assert_array_equal(again.search(x[:9]).ids[:, 0] < 901, True)


def test_scores_do_not_depend_on_the_codec_of_the_index(
    x: Matrix, old: rz.RecurrentBinaryCodec, new: rz.RecurrentBinaryCodec
) -> None:
    mixed = np.concatenate([old.encode(x[:300]), new.encode(x[300:600])])
    np.testing.assert_array_equal(old.scores(x[:20], mixed), new.scores(x[:20], mixed))
    found = []
    for codecs in ((old, new), (new, old)):
        index = rz.FlatIndex(DIM, codec=codecs[0], vectors="none")
        index.add_codes(mixed)
        index.replace_codec(codecs[1])
        found.append(index.search(x[:20]).ids)
    np.testing.assert_array_equal(*found)


def test_query_maps_of_the_old_codec_serve_the_mixed_index(
    x: Matrix, old: rz.RecurrentBinaryCodec, new: rz.RecurrentBinaryCodec
) -> None:
    queries = rz.compatible_queries(old, old=x[:200], new=x[:200, ::-1], method="procrustes")
    index = rz.FlatIndex(DIM, codec=old)
    index.add(x[:300])
    index.replace_codec(new)
    queries.add(index, x[300:400, ::-1])
    assert queries.search(index, x[:400:40, ::-1], k=1).ids[:, 0].tolist() == list(range(0, 400, 40))


def test_what_does_not_fit_is_refused(
    x: Matrix, old: rz.RecurrentBinaryCodec, new: rz.RecurrentBinaryCodec
) -> None:
    index = rz.FlatIndex(DIM, codec=old)
    index.add(x[:50])
    parts = _core.recurrent_parts(old._trained())
    others = [rz.RecurrentBinaryCodec(DIM, bits=2, seed=1).fit(x[:500])]
    for name in ("center", "query_mean", "query_map", "step"):
        values = parts[name].copy()
        values[-1] *= 1.01
        others.append(with_parts(old, **{name: values}))
    for other in [
        *others,
        rz.ScalarCodec(DIM).fit(x),
        rz.RecurrentBinaryCodec(DIM, bits=2).fit(x, metric="ip"),
    ]:
        with pytest.raises(rz.errors.UnsupportedError, match=f"{old.fingerprint}.*{other.fingerprint}"):
            index.replace_codec(other)
    with pytest.raises(rz.errors.NotTrainedError):
        index.replace_codec(rz.RecurrentBinaryCodec(DIM))
    with pytest.raises(TypeError, match="codec must be a codec"):
        index.replace_codec("new")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="codec must be a codec"):
        index.replace_codec(rz.compatible_queries(old, old=x[:50], new=x[:50], method="ridge"))
    assert index.codec is old
    assert set(index.codec_versions(range(50)).tolist()) == {old.fingerprint}
    with pytest.raises(rz.errors.UnknownIdError, match="99"):
        index.codec_versions([3, 99])
    for bare in (rz.FlatIndex(DIM), rz.FlatIndex(DIM, codec=rz.RecurrentBinaryCodec(DIM))):
        with pytest.raises(rz.errors.UnsupportedError, match="no trained codec"):
            bare.replace_codec(new)
        with pytest.raises(rz.errors.UnsupportedError, match="no codes"):
            bare.codec_versions([])


def test_spoiled_files_are_refused(
    x: Matrix, old: rz.RecurrentBinaryCodec, new: rz.RecurrentBinaryCodec, tmp_path: Path
) -> None:
    index = rz.FlatIndex(DIM, codec=old, vectors="none")
    index.add(x[:50])
    index.replace_codec(new)
    index.save(tmp_path / "index.rsd")
    image = (tmp_path / "index.rsd").read_bytes()
    assert image.count(new.fingerprint.encode()) == 1
    (tmp_path / "spoiled.rsd").write_bytes(image.replace(new.fingerprint.encode(), b"0" * 16))
    with pytest.raises(rz.errors.CorruptFileError):
        rz.load(tmp_path / "spoiled.rsd")
