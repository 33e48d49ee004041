# SPDX-License-Identifier: Apache-2.0
"""Codes of a recurrent module (preset "bebr"), with weights drawn at random: needs no PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import residua as rz
from residua import _core
from residua.codecs import wrap

Matrix = np.ndarray[Any, Any]
DIM, CODE_DIMS, HIDDEN = 45, 64, 50


def weights(residuals: int) -> list[tuple[Matrix, Matrix, Matrix, Matrix]]:
    rng = np.random.default_rng(residuals)
    blocks = []
    for i in range(1 + 2 * residuals):
        inputs, outputs = (CODE_DIMS, DIM) if i % 2 else (DIM, CODE_DIMS)
        shapes = (HIDDEN, inputs), (HIDDEN,), (outputs, HIDDEN), (outputs,)
        blocks.append(tuple(rng.normal(size=shape).astype("f4") for shape in shapes))
    return blocks  # type: ignore[return-value]


def made(residuals: int = 1, **changed: Any) -> rz.RecurrentBinaryCodec:
    rng = np.random.default_rng(9)
    parts: dict[str, Any] = {
        "dim": DIM,
        "code_dims": CODE_DIMS,
        "bits": 1.5,
        "blocks": weights(residuals),
        "decode_map": rng.normal(size=(DIM, CODE_DIMS)).astype("f4"),
        "decode_offset": rng.normal(size=DIM).astype("f4"),
        "expansion": 4.0,
        **changed,
    }
    codec = wrap(_core.module_codec(**parts))
    assert isinstance(codec, rz.RecurrentBinaryCodec)
    return codec


def compose(x: Matrix, residuals: int) -> tuple[Matrix, Matrix]:
    """The published forward pass in float64; also how close the closest value before a sign is to zero."""

    def block(i: int, u: Matrix) -> Matrix:
        w, a, v, b = (part.astype("f8") for part in weights(residuals)[i])
        return np.maximum(u @ w.T + a, 0) @ v.T + b

    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    y = block(0, x)
    code, least = np.where(y < 0, -1.0, 1.0), np.abs(y).min(axis=1)
    for t in range(1, residuals + 1):
        back = block(2 * t - 1, code)
        y = block(2 * t, x - back / np.linalg.norm(back, axis=1, keepdims=True))
        code = code + 2.0**-t * np.where(y < 0, -1.0, 1.0)
        least = np.minimum(least, np.abs(y).min(axis=1))
    return code, least


def planes(codes: Matrix, residuals: int) -> Matrix:
    bits = np.unpackbits(codes[:, : (residuals + 1) * CODE_DIMS // 8], axis=1)
    signs = 2.0 * bits.reshape(len(codes), residuals + 1, CODE_DIMS) - 1
    return np.einsum("npd,p->nd", signs, 0.5 ** np.arange(residuals + 1))


@pytest.fixture(scope="module")
def x() -> Matrix:
    return np.random.default_rng(0).normal(size=(700, DIM)).astype("f4")


@pytest.mark.parametrize("residuals", [0, 1, 3, 7])
def test_codes_and_scores_are_those_of_numpy(x: Matrix, residuals: int) -> None:
    codec = made(residuals)
    codes = codec.encode(x)
    assert codes.shape == (700, (residuals + 1) * CODE_DIMS // 8 + 6)
    wanted, least = compose(x, residuals)
    sure = least > 1e-4  # float32 and float64 agree on every sign
    assert sure.mean() > 0.8
    np.testing.assert_array_equal(planes(codes[sure], residuals), wanted[sure])
    np.testing.assert_array_equal(codec.encode(x, num_threads=3), codes)
    np.testing.assert_array_equal(codec.encode(x[41:42] * 7), codes[41:42])

    unit = planes(codes, residuals)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    np.testing.assert_allclose(codec.scores(x[:40], codes), unit[:40] @ unit.T, atol=2e-3)
    np.testing.assert_allclose(codec.symmetric_scores(codes[:40], codes), unit[:40] @ unit.T, atol=1e-2)


def test_decoding_is_the_linear_map(x: Matrix) -> None:
    codec = made()
    codes = codec.encode(x)
    rng = np.random.default_rng(9)
    matrix, offset = rng.normal(size=(DIM, CODE_DIMS)), rng.normal(size=DIM)
    unit = planes(codes, 1)
    wanted = unit / np.linalg.norm(unit, axis=1, keepdims=True) @ matrix.T + offset
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(codec.decode(codes), wanted, atol=2e-3)


def test_files(x: Matrix, tmp_path: Path) -> None:
    codec = made(2)
    codec.save(tmp_path / "codec.rsd")
    again = rz.load(tmp_path / "codec.rsd")
    assert (again.fingerprint, again.bits, again.metric) == (codec.fingerprint, 1.5, "cosine")
    np.testing.assert_array_equal(again.encode(x), codec.encode(x))
    assert made(2, decode_offset=np.zeros(DIM, "f4")).fingerprint != codec.fingerprint


@pytest.mark.parametrize("make", [rz.FlatIndex, rz.IVFIndex, rz.HNSWIndex])
def test_indexes_search_by_the_module(x: Matrix, make: Any, tmp_path: Path) -> None:
    codec = made(3)
    index = make(DIM, codec=codec, vectors="none")
    index.add(x)
    exact = np.argsort(-codec.scores(x[:50], codec.encode(x)), axis=1, kind="stable")[:, :1]
    for scoring in ("asymmetric", "symmetric"):
        found = index.search(x[:50], 10, scoring=scoring).ids
        assert (found == exact).any(axis=1).mean() >= (0.99 if make is rz.FlatIndex else 0.85)
    index.save(tmp_path / "index.rsd")
    again = rz.load(tmp_path / "index.rsd")
    assert again.codec.fingerprint == codec.fingerprint
    np.testing.assert_array_equal(again.search(x[:50]).ids, index.search(x[:50]).ids)
    kept = rz.FlatIndex(DIM, codec=codec)
    kept.add(x)
    assert (kept.search(x[:50], 1).ids[:, 0] == np.arange(50)).all()


def test_bad_weights_are_refused() -> None:
    spoiled = weights(1)
    spoiled[2][0][3, 4] = np.nan
    for changed, message in [
        ({"blocks": weights(1)[:2]}, "one block and two per residual code"),
        ({"blocks": [weights(1)[0], weights(1)[0], weights(1)[2]]}, "block 1 has another number of outputs"),
        ({"blocks": spoiled}, "weights must be finite"),
        ({"code_dims": 60}, "multiple of 32"),
        ({"decode_offset": np.zeros(3, "f4")}, "one decode offset per dim"),
        ({"decode_map": np.zeros((3, 3), "f4")}, "one weight per input and output"),
        ({"expansion": 0.5}, "expansion must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            made(1, **changed)


def test_what_needs_linear_maps_refuses(x: Matrix) -> None:
    codec = made()
    with pytest.raises(rz.errors.UnsupportedError, match="no linear query side"):
        rz.compatible_queries(codec, old=x, new=x)
    with pytest.raises(rz.errors.UnsupportedError, match="no linear query side"):
        rz.train_recurrent_binary(x, bits=1, compatible_with=codec)
    with pytest.raises(ValueError, match="fitted already"):
        codec.fit(x)
