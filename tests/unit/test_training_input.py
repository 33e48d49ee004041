# SPDX-License-Identifier: Apache-2.0
"""What training refuses before it needs PyTorch, and what it says where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import residua as rz

X = np.random.default_rng(0).normal(size=(200, 32)).astype("f4")


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        rz.errors.UnsupportedError, match=r'needs PyTorch; run: pip install "residua\[train\]"'
    ):
        rz.train_recurrent_binary(X, bits=1)


def test_bad_input(tmp_path: Path) -> None:
    spoiled = X.copy()
    spoiled[7, 3] = np.nan
    zero = X.copy()
    zero[5] = 0
    other_dim = rz.RecurrentBinaryCodec(16).fit(X[:, :16])
    other_metric = rz.RecurrentBinaryCodec(32).fit(X, metric="l2")
    state = tmp_path / "state.npz"
    for options, error, message in [
        ({"x": X[:1]}, ValueError, "at least 64 vectors to train on, got 1"),
        ({"x": spoiled}, rz.errors.NonFiniteError, "x: row 7"),
        ({"x": zero}, ValueError, "x: row 5 is a zero vector"),
        ({"x": X.astype(int)}, TypeError, "astype"),
        ({"queries": X[:, :8]}, rz.errors.ShapeError, "8 dims, expected 32"),
        ({"queries": spoiled}, rz.errors.NonFiniteError, "queries: row 7"),
        ({"pairs": (X[:5], X[:6])}, rz.errors.ShapeError, "5 queries and 6 documents"),
        ({"pairs": (X[:8], spoiled[:8])}, rz.errors.NonFiniteError, "pairs: documents: row 7"),
        ({"pairs": X}, TypeError, "pairs must be"),
        ({"pairs": (X[:0], X[:0])}, ValueError, "at least 1 pair"),
        ({"compatible_with": other_dim}, rz.errors.ShapeError, "16 dims, x has 32"),
        ({"compatible_with": other_metric}, ValueError, "fitted for metric 'l2'"),
        ({"compatible_with": rz.RecurrentBinaryCodec(32)}, rz.errors.NotTrainedError, "not trained"),
        ({"compatible_with": rz.ScalarCodec(32)}, TypeError, "must be a RecurrentBinaryCodec"),
        ({"preset": "bebr", "metric": "ip"}, rz.errors.UnsupportedError, "cosine of codes"),
        (
            {"preset": "bebr", "compatible_with": rz.RecurrentBinaryCodec(32).fit(X)},
            rz.errors.UnsupportedError,
            "codes of its own",
        ),
        ({"bits": 0.4}, ValueError, "from 0.5 to 8 bits"),
        ({"preset": "best"}, ValueError, "preset must be one of"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1"),
        ({"metric": "dot"}, ValueError, "metric must be one of"),
    ]:
        with pytest.raises(error, match=message):
            rz.train_recurrent_binary(**{"x": X, "bits": 1, "checkpoint": state, **options})
    assert not state.exists()
    state.write_bytes(b"kept")
    with pytest.raises(rz.errors.ShapeError):
        rz.train_recurrent_binary(X, bits=1, pairs=(X[:5], X[:6]), checkpoint=state)
    assert state.read_bytes() == b"kept"
