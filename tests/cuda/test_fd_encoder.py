# SPDX-License-Identifier: Apache-2.0
"""Fixed-dimensional encodings on a CUDA device: the bits of the CPU's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import residua as rz
from residua.errors import InvalidValueError, NonFiniteError, OutOfMemoryError, ShapeError, UnsupportedError

DIM = 24
RNG = np.random.default_rng(1)
TOKENS = [RNG.normal(size=(n, DIM)).astype(np.float32) for n in (3, 0, 40)]
SMALL: dict[str, Any] = {"k_sim": 3, "reps": 4, "proj_dim": 8}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"proj": "dense", "center": np.full(DIM, 0.2)},
        {"proj": "identity", "proj_dim": None, "final_dim": 40},
        {"fill_empty": False},
        {"compat": "google"},
        {"compat": "fastembed"},
    ],
    ids=lambda o: ",".join(map(str, o)) or "default",
)
def test_encodings_are_those_of_the_cpu(options: dict[str, Any]) -> None:
    given = {**SMALL, **options}
    here, there = rz.FDEncoder(DIM, **given), rz.FDEncoder(DIM, **given, device="cuda")
    for tokens in (TOKENS, [t.astype(np.float16) for t in TOKENS]):
        np.testing.assert_array_equal(there.encode_documents(tokens), here.encode_documents(tokens))
        np.testing.assert_array_equal(there.encode_queries(tokens), here.encode_queries(tokens))
    np.testing.assert_array_equal(there.encode_queries(TOKENS[0]), here.encode_queries(TOKENS[0]))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_tokens_and_encodings_on_the_device(dtype: str) -> None:
    encoder = rz.FDEncoder(DIM, **SMALL)
    there = encoder.to("cuda")
    assert (encoder.device, there.device, there.to("cpu").device) == ("cpu", "cuda:0", "cpu")
    flat, offsets = np.concatenate(TOKENS).astype(dtype), np.array([0, 3, 3, 43])
    expected = encoder.encode_documents((flat, offsets))
    out = there.encode_documents((rz.cuda.to_device(flat), offsets), out="device")
    assert isinstance(out, rz.cuda.DeviceArray)
    np.testing.assert_array_equal(out.to_numpy(), expected)
    one = there.encode_documents(rz.cuda.to_device(flat[:3]))
    np.testing.assert_array_equal(one, expected[0])
    padded = flat[:12].reshape(3, 4, DIM)
    np.testing.assert_array_equal(
        there.encode_queries(rz.cuda.to_device(padded)), encoder.encode_queries(padded)
    )
    mask = np.arange(12).reshape(3, 4) % 3 > 0
    np.testing.assert_array_equal(
        there.encode_queries(rz.cuda.to_device(padded), mask=mask), encoder.encode_queries(padded, mask=mask)
    )


def test_a_device_is_no_part_of_the_encoder(tmp_path: Path) -> None:
    there = rz.FDEncoder(DIM, **SMALL, device="cuda")
    assert "device" not in there.config
    assert "device='cuda:0'" in repr(there)
    there.save(tmp_path / "encoder.rz")
    loaded = rz.load(tmp_path / "encoder.rz")
    assert loaded.device == "cpu"
    np.testing.assert_array_equal(loaded.encode_queries(TOKENS), there.encode_queries(TOKENS))


def test_a_cap_on_memory() -> None:
    there = rz.FDEncoder(DIM, **SMALL).to("cuda", memory_limit=100_000)
    with pytest.raises(OutOfMemoryError, match="an array needs"):
        there.encode_queries(np.ones((200, 1, DIM), np.float32))
    np.testing.assert_array_equal(
        there.encode_queries(TOKENS), rz.FDEncoder(DIM, **SMALL).encode_queries(TOKENS)
    )


def test_what_is_wrong_is_said() -> None:
    there = rz.FDEncoder(DIM, **SMALL, device="cuda")
    bad = TOKENS[2].copy()
    bad[7, 1] = np.nan
    for tokens in (
        [TOKENS[0], bad],
        (rz.cuda.to_device(np.concatenate([TOKENS[0], bad])), np.array([0, 3, 43])),
    ):
        with pytest.raises(NonFiniteError, match=r"(document|set) 1, token 7"):
            there.encode_documents(tokens)
    with pytest.raises(InvalidValueError, match="overflow float32"):
        there.encode_queries(np.full((3, DIM), 3e38, np.float32))
    with pytest.raises(ShapeError, match="expected 24"):
        there.encode_queries(rz.cuda.to_device(TOKENS[0][:, :8].copy()))
    with pytest.raises(UnsupportedError, match="encode them on the CPU"):
        rz.FDEncoder(5000, 1, 1, 1, device="cuda")
    with pytest.raises(InvalidValueError, match="device='cuda'"):
        rz.FDEncoder(DIM, **SMALL).encode_queries(TOKENS, out="device")
    np.testing.assert_array_equal(
        there.encode_queries(TOKENS), rz.FDEncoder(DIM, **SMALL).encode_queries(TOKENS)
    )
