# SPDX-License-Identifier: Apache-2.0
"""FDEncoder: what it computes, what it takes, what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import residua as rz
from residua import errors

Floats = npt.NDArray[np.float32]
TOKENS = np.sin(1 + 0.7 * np.arange(20)).astype(np.float32).reshape(5, 4)
# The C++ code of google/graph-mining, built with libstdc++: 4 dims, k_sim=2, 2 repetitions, seed 1.
GOOGLE_QUERY = [
    0,
    0,
    0,
    0,
    -0.64547,
    -0.97753,
    -0.12443,
    0.99166,
    1.55851,
    -0.99166,
    0,
    0,
    -1.86919,
    0.97753,
    0,
    0,
]
GOOGLE_DOCUMENT = [
    1.77247, 0.58896, -0.64547, -0.97753, -1.26332, -0.80130, -0.12443, 0.99166,
    1.55851, -0.99166, -1.83161, 0.62507, -1.86919, 0.97753, 1.72579, -0.58896,
]  # fmt: skip


@pytest.fixture
def documents() -> list[Floats]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((n, 24), dtype=np.float32) for n in (5, 1, 40, 17, 16)]


def test_google_golden_values() -> None:
    encoder = rz.FDEncoder(4, 2, 2, 2, compat="google")
    np.testing.assert_allclose(encoder.encode_queries(TOKENS[:2]), GOOGLE_QUERY, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_documents(TOKENS), GOOGLE_DOCUMENT, atol=1e-5)
    short = rz.FDEncoder(4, 2, 2, 2, final_dim=4, compat="google")
    np.testing.assert_allclose(
        short.encode_queries(TOKENS[:2]), [-3.08151, -0.99166, 0.85310, -0.97753], atol=1e-5
    )
    np.testing.assert_allclose(
        short.encode_documents(TOKENS), [-4.08793, -2.78454, -1.15474, 1.33721], atol=1e-5
    )


@pytest.mark.parametrize(
    ("settings", "columns"),
    [
        ({"proj_dim": 16}, [-6, 14, 4, 3, 2, -10, 8, -5]),
        ({"proj": "identity", "final_dim": 10240}, [-4270, 9549, 3095, 2417, 1907, -6858, 5517, -3207]),
    ],
)
def test_google_count_sketches(settings: dict[str, Any], columns: list[int]) -> None:
    encoder = rz.FDEncoder(8, 0, 1, compat="google", **settings)
    found = encoder.encode_queries([row[None, :] for row in np.eye(8, dtype=np.float32)])
    expected = np.zeros_like(found)
    expected[np.arange(8), np.abs(columns)] = np.sign(columns)
    np.testing.assert_array_equal(found, expected)


def like_fastembed(x: Floats, k_sim: int, reps: int, proj_dim: int, seed: int, document: bool) -> Floats:
    """What fastembed.postprocess.Muvera computes, from its description, one cell at a time."""
    rng = np.random.default_rng(seed)
    planes = [rng.normal(size=(x.shape[1], k_sim)) for _ in range(reps)]
    signs = rng.choice([-1, 1], size=(reps, x.shape[1], proj_dim))
    blocks = []
    for plane, sign in zip(planes, signs, strict=True):
        cell = ((x @ plane) > 0) @ (1 << np.arange(k_sim))
        block = np.zeros((2**k_sim, x.shape[1]))
        for c in range(2**k_sim):
            inside = x[cell == c]
            if len(inside):
                block[c] = inside.mean(axis=0) if document else inside.sum(axis=0)
            elif document:
                near = min(set(cell.tolist()), key=lambda o: (bin(o ^ c).count("1"), o))
                block[c] = x[int(np.argmax(cell == near))]
        blocks.append(block if proj_dim == x.shape[1] else block @ sign / np.sqrt(proj_dim))
    return np.concatenate([b.ravel() for b in blocks]).astype(np.float32)


@pytest.mark.parametrize(("k_sim", "proj_dim"), [(3, 5), (5, 16), (4, 24)])
def test_fastembed_semantics(documents: list[Floats], k_sim: int, proj_dim: int) -> None:
    encoder = rz.FDEncoder(24, k_sim, 3, proj_dim, seed=42, compat="fastembed")
    for x in documents:
        for document, found in ((True, encoder.encode_documents(x)), (False, encoder.encode_queries(x))):
            expected = like_fastembed(x, k_sim, 3, proj_dim, 42, document)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_fastembed_itself(documents: list[Floats]) -> None:
    muvera = pytest.importorskip("fastembed.postprocess").Muvera(24, 4, 8, 6, 7)
    encoder = rz.FDEncoder(24, 4, 6, 8, seed=7, compat="fastembed")
    for x in documents:
        d, q = muvera.process_document(x), muvera.process_query(x)
        np.testing.assert_allclose(encoder.encode_documents(x), d, rtol=0, atol=1e-5 * np.abs(d).max())
        np.testing.assert_allclose(encoder.encode_queries(x), q, rtol=0, atol=1e-5 * np.abs(q).max())


class _Tensor:
    """A CPU tensor that speaks DLPack only."""

    def __init__(self, x: Floats) -> None:
        self._x = x

    def __dlpack__(self, **arguments: Any) -> Any:
        return self._x.__dlpack__(**arguments)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._x.__dlpack_device__()


def test_every_form_gives_the_same(documents: list[Floats]) -> None:
    encoder = rz.FDEncoder(24, 3, 4, 8)
    expected = np.stack([encoder.encode_documents(x) for x in documents])  # one at a time
    assert expected.shape == (5, encoder.output_dim) == (5, 4 * 8 * 8)
    flat, sizes = np.concatenate(documents), [len(x) for x in documents]
    padded = np.full((5, 40, 24), np.nan, np.float32)  # padding is never read
    mask = np.arange(40) < np.array(sizes)[:, None]
    padded[mask] = flat
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    forms: list[tuple[Any, Any]] = [
        (documents, None),
        (tuple(documents), None),
        ([_Tensor(x) for x in documents], None),
        ([x.astype(np.float64) for x in documents], None),
        ([x[:, ::-1][:, ::-1] for x in documents], None),
        ((flat, offsets), None),
        ((flat, offsets.astype(np.uint32)), None),
        (padded, mask),
        (padded, mask.astype(np.int64)),
    ]
    for tokens, m in forms:
        np.testing.assert_array_equal(encoder.encode_documents(tokens, mask=m), expected)
    np.testing.assert_array_equal(
        encoder.encode_queries(padded[2], mask=mask[2]), encoder.encode_queries(documents[2])
    )
    two = encoder.encode_documents(
        (documents[0], documents[1])
    )  # a tuple of two sets, not of tokens and offsets
    np.testing.assert_array_equal(two, expected[:2])


def test_float16_tokens_are_their_float32_values(documents: list[Floats]) -> None:
    encoder = rz.FDEncoder(24, 3, 4, 8)
    half = [x.astype(np.float16) for x in documents]
    single = [x.astype(np.float32) for x in half]
    np.testing.assert_array_equal(encoder.encode_documents(half), encoder.encode_documents(single))
    np.testing.assert_array_equal(
        encoder.encode_documents([half[0], single[1]]), encoder.encode_documents(single[:2])
    )


def test_threads_do_not_matter(documents: list[Floats]) -> None:
    encoder = rz.FDEncoder(24, 4, 5, 8, final_dim=100, center=np.full(24, 0.1))
    expected = encoder.encode_documents(documents * 5, num_threads=1)
    np.testing.assert_array_equal(encoder.encode_documents(documents * 5, num_threads=4), expected)


def test_no_tokens_give_zero() -> None:
    encoder = rz.FDEncoder(4, 2, 2, 2)
    empty = np.zeros((0, 4), np.float32)
    found = encoder.encode_documents([TOKENS, empty, [], TOKENS[:1]])
    assert not found[1:3].any()
    np.testing.assert_array_equal(found[0], encoder.encode_documents(TOKENS))
    hidden = encoder.encode_queries(np.ones((2, 3, 4), np.float32), mask=np.zeros((2, 3), bool))
    assert hidden.shape == (2, 16)
    assert not hidden.any()
    assert encoder.encode_documents([]).shape == (0, 16)
    assert not encoder.encode_documents(empty).any()


def test_a_document_of_20000_tokens() -> None:
    x = np.random.default_rng(1).standard_normal((20_000, 8), dtype=np.float32)
    cells = rz.FDEncoder(8, 3, 1, proj="identity").encode_queries(x).reshape(8, 8)
    np.testing.assert_allclose(cells.sum(axis=0), x.sum(axis=0, dtype=np.float64), atol=0.05)
    mean = rz.FDEncoder(8, 0, 1, proj="identity").encode_documents(x)
    np.testing.assert_allclose(mean, x.mean(axis=0, dtype=np.float64), atol=1e-4)


def test_center_moves_the_hash_and_not_the_values(documents: list[Floats]) -> None:
    center = np.linspace(-1, 2, 24, dtype=np.float32)
    settings: dict[str, Any] = {"k_sim": 3, "reps": 4, "proj": "identity"}
    for x in documents:
        moved = rz.FDEncoder(24, **settings).encode_queries(x - center).reshape(4, 8, 24)
        kept = rz.FDEncoder(24, center=center, **settings).encode_queries(x).reshape(4, 8, 24)
        counts = ((kept - moved) @ center) / (center @ center)
        np.testing.assert_allclose(counts, np.round(counts), atol=1e-4)
        np.testing.assert_allclose(counts.sum(axis=1), len(x), atol=1e-3)
        np.testing.assert_allclose(kept - moved, counts[..., None] * center, atol=1e-4)


def test_final_projection_is_a_count_sketch(documents: list[Floats]) -> None:
    """Of the encoding without it: every value goes to one place, with one sign."""
    wide, short = (rz.FDEncoder(24, 2, 2, 4, final_dim=f, seed=5) for f in (None, 7))
    both = [(wide.encode_documents(x), short.encode_documents(x)) for x in documents]
    rng = np.random.default_rng(3)
    more = [rng.standard_normal((6, 24), dtype=np.float32) for _ in range(60)]
    both += [(wide.encode_queries(x), short.encode_queries(x)) for x in more]
    a, b = (np.stack(side).astype(np.float64) for side in zip(*both, strict=True))
    sketch = np.linalg.lstsq(a, b, rcond=None)[0]
    np.testing.assert_allclose(sketch, np.round(sketch), atol=1e-3)
    assert (np.abs(np.round(sketch)).sum(axis=1) == 1).all()
    assert set(sketch.round().ravel()) == {-1, 0, 1}


def test_seeds_are_independent() -> None:
    """Seeds s and s + 1 share nothing, and neither do repetitions."""
    x = np.random.default_rng(2).standard_normal((1, 64), dtype=np.float32)
    rows = np.concatenate(
        [rz.FDEncoder(64, 4, 3, 8, seed=s).encode_documents(x).reshape(3, -1) for s in (1, 2)]
    )
    assert len(np.unique(rows, axis=0)) == 6


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"proj": "dense", "fill_empty": False, "seed": 9},
        {"proj": "identity", "k_sim": 0, "final_dim": 5},
        {"center": np.arange(4, dtype=np.float32)},
        {"compat": "google", "seed": 3},
        {"compat": "fastembed", "proj_dim": 3, "seed": 42},
    ],
)
def test_config_and_files_make_the_same_encoder(settings: dict[str, Any], tmp_path: Path) -> None:
    encoder = rz.FDEncoder(4, **{"reps": 3, **settings})
    expected = encoder.encode_documents([TOKENS, TOKENS[1:2]])
    encoder.save(tmp_path / "encoder.rsd")
    loaded = rz.load(tmp_path / "encoder.rsd")
    assert isinstance(loaded, rz.FDEncoder)
    for other in (loaded, rz.FDEncoder(**encoder.config)):
        np.testing.assert_array_equal(other.encode_documents([TOKENS, TOKENS[1:2]]), expected)
        assert repr(other) == repr(encoder)
        assert other.output_dim == expected.shape[1]


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "encoder.rsd"
    rz.FDEncoder(4, 2, 2, 2).save(path)
    data = path.read_bytes()
    for at in range(0, len(data), 7):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        with pytest.raises(errors.CorruptFileError):
            rz.load(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k_sim": 17}, "k_sim must be at most 16"),
        ({"k_sim": -1}, "k_sim must be at least 0"),
        ({"reps": 0}, "reps must be at least 1"),
        ({"proj_dim": 0}, "proj_dim must be at least 1"),
        ({"final_dim": 0}, "final_dim must be at least 1"),
        ({"proj": "sparse"}, "'count_sketch', 'dense', 'identity'"),
        ({"proj": "identity", "proj_dim": 3}, "keeps all 4 dims, got proj_dim=3"),
        ({"compat": "c++"}, "'google', 'fastembed'"),
        ({"compat": "google", "proj": "dense"}, "compat='google' has"),
        ({"compat": "google", "seed": 2**31}, "seeds below"),
        ({"compat": "google", "center": [0, 0, 0, 0]}, "leave center out"),
        ({"compat": "fastembed", "final_dim": 8, "proj_dim": 4}, "leave final_dim out"),
        ({"compat": "fastembed"}, "needs proj_dim <= dim=4, got 16"),
        ({"compat": "fastembed", "proj_dim": 2, "proj": "count_sketch"}, "has proj='dense' for"),
        ({"center": [1.0, 2.0]}, "2 values, expected dim=4"),
        ({"center": [1.0, 2.0, np.nan, 0]}, "dim 2 is NaN"),
        ({"k_sim": 16, "reps": 100}, "MiB per vector"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("*", r"\*").replace("+", r"\+")):
        rz.FDEncoder(4, **settings)


def nan_in_one() -> list[Floats]:
    bad = TOKENS.copy()
    bad[3, 1] = np.nan
    return [TOKENS, bad, TOKENS]


PADDED = np.stack(nan_in_one())


@pytest.mark.parametrize(
    ("tokens", "mask", "error", "message"),
    [
        (nan_in_one(), None, errors.NonFiniteError, "document 1, token 3 contains NaN"),
        (nan_in_one()[1], None, errors.NonFiniteError, "tokens: token 3 contains NaN"),
        (PADDED, np.ones((3, 5)) > 0, errors.NonFiniteError, "document 1, token 3"),
        (PADDED, np.array([[1] * 5, [0, 0, 0, 1, 1], [1] * 5]), errors.NonFiniteError, "document 1, token 3"),
        (
            [np.full((2, 4), np.inf, np.float16)],
            None,
            errors.NonFiniteError,
            "document 0, token 0 .*float16 holds",
        ),
        ([TOKENS.astype(np.float64) * 1e300], None, errors.NonFiniteError, "as float32"),
        ([TOKENS, TOKENS[:, :3]], None, errors.ShapeError, "document 1 have 3 dims, expected 4"),
        (TOKENS[:, :3], None, errors.ShapeError, "tokens have 3 dims, expected 4"),
        ([TOKENS[0], TOKENS[1]], None, errors.ShapeError, r"document 0 has shape \(4,\)"),
        (TOKENS[0], None, errors.ShapeError, r"got shape \(4,\)"),
        ([TOKENS.astype(np.int8)], None, errors.DtypeError, "document 0: dtype int8"),
        ([["a", "b"]], None, errors.DtypeError, "document 0: dtype"),
        ((TOKENS, [0, 3]), None, errors.ShapeError, "offsets must ascend"),
        ((TOKENS, np.array([0, 3])), None, errors.ShapeError, "offsets must ascend from 0 to the number"),
        ((TOKENS, np.array([0, 4, 2, 5])), None, errors.ShapeError, "offsets must ascend"),
        (
            np.stack([TOKENS] * 2),
            np.ones((2, 4)) > 0,
            errors.ShapeError,
            r"mask: shape \(2, 4\), expected \(2, 5\)",
        ),
        (np.stack([TOKENS] * 2), np.full((2, 5), 2), errors.DtypeError, "mask: expected bool"),
        (np.stack([TOKENS] * 2), np.ones((2, 5)), errors.DtypeError, "mask: expected bool"),
        ([TOKENS], np.ones((1, 5)) > 0, errors.InvalidTypeError, "mask= belongs to a padded"),
        (np.full((2, 4), 3e38, np.float32), None, errors.InvalidValueError, "overflow float32"),
    ],
)
def test_bad_tokens(tokens: Any, mask: Any, error: type[Exception], message: str) -> None:
    encoder = rz.FDEncoder(4, 2, 2, 2)
    with pytest.raises(error, match=message):
        encoder.encode_documents(tokens, mask=mask)
