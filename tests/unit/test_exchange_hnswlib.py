# SPDX-License-Identifier: Apache-2.0
"""from_hnswlib: what hnswlib finds is found, its file is read without trust, and the rest is refused."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import residua as rz
from residua.errors import (
    CorruptFileError,
    FileError,
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    UnsupportedError,
)

FILE = Path(__file__).parent / "data" / "hnswlib-l2.bin"
WANTED = np.load(FILE.with_suffix(".npz"))
ROW, LABEL_AT, VECTOR_AT, HEADER = 4 + 24 + 24 + 8, 4 + 24 + 24, 4 + 24, 96
EXACT: dict[str, Any] = {"space": "l2", "codec": None, "vectors": "float32"}


@pytest.fixture
def damaged(tmp_path: Path) -> Any:
    """A function that writes the saved file with some bytes replaced, or cut, and returns its path."""

    def write(at: int = 0, value: bytes = b"", end: int | None = None, more: bytes = b"") -> Path:
        data = bytearray(FILE.read_bytes())
        data[at : at + len(value)] = value
        path = tmp_path / "damaged.bin"
        path.write_bytes(bytes(data[:end]) + more)
        return path

    return write


def test_a_saved_file_gives_the_same_neighbours() -> None:
    index = rz.from_hnswlib(FILE, **EXACT)
    assert (len(index), index.dim, index.metric, index.M, index.ef_construction) == (81, 6, "l2", 3, 40)
    hits = index.search(WANTED["queries"], 7, ef=81)
    np.testing.assert_array_equal(hits.ids, WANTED["ids"])
    np.testing.assert_allclose(hits.scores, WANTED["distances"])
    assert not any(label in index for label in WANTED["deleted"].tolist())
    shape = index._native.shape()
    assert (shape["unreachable"], shape["to_removed"]) == (0, 0)


def test_the_graph_is_taken_over() -> None:
    edges = rz.from_hnswlib(FILE, **EXACT)._native.shape()["edges"]
    data = np.frombuffer(FILE.read_bytes(), np.uint8, 90 * ROW, HEADER).reshape(90, ROW)
    theirs = data[:, :2].copy().view("<u2").sum()
    rebuilt = rz.HNSWIndex(6, metric="l2", codec=None, M=3, ef_construction=40)
    rebuilt.add(data[:, VECTOR_AT:LABEL_AT].copy().view("<f4"))
    assert abs(edges - theirs * 81 / 90) < 0.12 * theirs  # less the deleted rows, repaired around
    assert edges != rebuilt._native.shape()["edges"]


@pytest.mark.parametrize("layout", ["compact", "turbo"])
def test_codes_are_fitted_and_walked_on(layout: Any, tmp_path: Path) -> None:
    index = rz.from_hnswlib(FILE, space="l2", dim=6, codec=rz.ScalarCodec(6, 8), layout=layout)
    # 90 rows are fewer than a codec is fitted to by itself: it waits, and rows are scored exactly.
    np.testing.assert_array_equal(index.search(WANTED["queries"], 7).ids, WANTED["ids"])
    fitted = rz.ScalarCodec(6, 8).fit(np.eye(6, dtype=np.float32) * 80 - 40, metric="l2")
    index = rz.from_hnswlib(FILE, space="l2", codec=fitted, layout=layout, vectors="float32")
    assert index.search(WANTED["queries"], 7, ef=81).stats["plan"] == "scan+rerank"
    assert index.search(WANTED["queries"], 7, ef=40).stats["plan"] == "graph+rerank"
    found = index.search(WANTED["queries"], 7, ef=60).ids
    assert rz.recall(found, WANTED["ids"]) > 0.9
    index.add(WANTED["queries"], np.arange(1000, 1008))
    index.save(tmp_path / "index")
    assert (rz.load(tmp_path / "index").search(WANTED["queries"], 1).ids[:, 0] >= 1000).all()


def test_progress_and_defaults() -> None:
    seen: list[tuple[int, int]] = []
    index = rz.from_hnswlib(FILE, space="ip", progress=lambda done, total: seen.append((done, total)))
    assert (index.metric, index.layout, seen) == ("ip", "turbo", [(0, 1), (1, 1)])
    assert rz.from_hnswlib(FILE, space="cosine", codec=None).metric == "cosine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"end": 50}, "50 bytes are shorter than its header of 96"),
        ({"end": 3000}, "90 rows of 60 bytes do not fit into 3000 bytes"),
        ({"end": -4}, "cut off"),
        ({"end": -3}, "no whole numbers"),
        ({"more": b"\0" * 8}, "8 bytes follow its end"),
        ({"at": 0, "value": b"\1"}, "no rows of float32 vectors"),
        ({"at": 16, "value": struct.pack("<Q", 2**62)}, "do not fit"),
        ({"at": 24, "value": struct.pack("<Q", 2**63)}, "no rows of float32 vectors"),
        ({"at": 52, "value": struct.pack("<I", 90)}, "do not fit"),
        ({"at": 72, "value": struct.pack("<Q", 5)}, "do not go together"),
        ({"at": HEADER, "value": struct.pack("<H", 7)}, "a row has 7 neighbours, the most are 6"),
        ({"at": HEADER + 4, "value": struct.pack("<I", 90)}, "a neighbour is not among the 90 rows"),
        ({"at": HEADER + 4, "value": b"\xff" * 4}, "a neighbour is not among the 90 rows"),
        ({"at": HEADER + 90 * ROW, "value": struct.pack("<I", 10**9)}, "damaged"),
    ],
)
def test_damage_is_found(damaged: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(CorruptFileError, match=message):
        rz.from_hnswlib(damaged(**change), **EXACT)


def test_labels_must_be_ids(damaged: Any) -> None:
    second = FILE.read_bytes()[HEADER + ROW + LABEL_AT :][:8]
    with pytest.raises(CorruptFileError, match="a label stands twice"):
        rz.from_hnswlib(damaged(HEADER + LABEL_AT, second), **EXACT)
    with pytest.raises(UnsupportedError, match="label 18446744073709551615"):
        rz.from_hnswlib(damaged(HEADER + LABEL_AT, b"\xff" * 8), **EXACT)


def test_every_damaged_byte_is_an_error_or_an_index(damaged: Any) -> None:
    rng = np.random.default_rng(2)
    for at in rng.integers(0, FILE.stat().st_size, 150):
        try:
            index = rz.from_hnswlib(damaged(int(at), bytes([rng.integers(256)])), **EXACT)
        except rz.errors.ResiduaError:
            continue
        assert index._native.shape()["unreachable"] == 0


def test_a_row_that_is_its_own_neighbour(damaged: Any) -> None:
    index = rz.from_hnswlib(damaged(HEADER + 4, struct.pack("<I", 0)), **EXACT)
    assert (index.search(WANTED["queries"], 7, ef=81).ids == WANTED["ids"]).mean() > 0.9


def test_bad_arguments(damaged: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="do not say their space"):
        rz.from_hnswlib(FILE)
    with pytest.raises(InvalidValueError, match="space must be one of"):
        rz.from_hnswlib(FILE, space="hamming")  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="dim is 7, the file has vectors of 6 dims"):
        rz.from_hnswlib(FILE, space="l2", dim=7)
    with pytest.raises(FileError, match="No such file"):
        rz.from_hnswlib(tmp_path / "missing", space="l2")
    with pytest.raises(InvalidTypeError, match=r"or the path of a file that it saved, got builtins\.list"):
        rz.from_hnswlib([1, 2])
    with pytest.raises(NonFiniteError, match="the vector of label"):
        rz.from_hnswlib(damaged(HEADER + VECTOR_AT, b"\xff" * 4), **EXACT)
    with pytest.raises(InvalidValueError, match="row 0 is a zero vector"):
        rz.from_hnswlib(damaged(HEADER + VECTOR_AT, b"\0" * 24), **{**EXACT, "space": "cosine"})


class TestInstalled:
    """With hnswlib itself, of which there are no wheels."""

    hnswlib: Any

    @pytest.fixture(autouse=True)
    def _library(self) -> None:
        type(self).hnswlib = pytest.importorskip("hnswlib", reason="hnswlib is compiled: pip install hnswlib")

    def made(self, space: str, n: int = 400, **options: Any) -> tuple[Any, np.ndarray]:
        x = np.random.default_rng(1).standard_normal((n, 12)).astype(np.float32)
        index = self.hnswlib.Index(space=space, dim=12)
        index.init_index(max_elements=max(1, n), **options)
        if n > 0:
            index.add_items(x, np.arange(n) * 3)
        return index, x

    @pytest.mark.parametrize("space", ["l2", "ip", "cosine"])
    def test_an_index_is_taken_over(self, space: str) -> None:
        theirs, x = self.made(space, M=6)
        for label in (3, 300):
            theirs.mark_deleted(label)
        theirs.set_ef(400)
        ids, distances = theirs.knn_query(x[:20], k=10)
        ours = rz.from_hnswlib(theirs, codec=None)
        hits = ours.search(x[:20], 10, ef=390)
        np.testing.assert_array_equal(hits.ids, ids)
        scores = hits.scores if space == "l2" else 1 - hits.scores
        np.testing.assert_allclose(scores, distances, atol=1e-4)
        np.testing.assert_allclose(ours.get([6]), theirs.get_items([6]))

    def test_codes_from_enough_rows(self) -> None:
        theirs, x = self.made("cosine", 5200)
        index = rz.from_hnswlib(theirs)
        assert index.layout == "turbo"
        assert (index.search(x[:50], 1, ef=30).ids[:, 0] == np.arange(50) * 3).mean() > 0.9

    def test_links_that_we_cannot_have_are_built_anew(self) -> None:
        theirs, x = self.made("l2", 50, M=200)
        assert rz.from_hnswlib(theirs, codec=None).search(x, 1).ids[:, 0].tolist() == list(range(0, 150, 3))

    def test_refused(self) -> None:
        with pytest.raises(InvalidValueError, match="call init_index first"):
            rz.from_hnswlib(self.hnswlib.Index(space="l2", dim=3))
        with pytest.raises(InvalidTypeError, match=r"got hnswlib\.BFIndex"):
            rz.from_hnswlib(self.hnswlib.BFIndex("l2", 3))
        empty, _ = self.made("l2", 0)
        assert len(rz.from_hnswlib(empty, codec=None)) == 0
        with pytest.raises(InvalidValueError, match="space is 'ip', the hnswlib index has 'l2'"):
            rz.from_hnswlib(empty, space="ip")
