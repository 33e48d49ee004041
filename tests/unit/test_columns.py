# SPDX-License-Identifier: Apache-2.0
"""Columns of an index: every way to give them, all or nothing, and filters on them beside masks and ids."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import residua as rz
from residua.errors import ResiduaError

DIM = 6
KINDS = {
    "year": "int", "price": "float", "lang": "category", "tags": "tags", "sold": "bool", "name": "str",
    "at": "datetime",
}  # fmt: skip
VALUES: dict[str, list[Any]] = {
    "year": [2019, None, 2**62 + 1, -5],
    "price": [0.5, None, 1e300, -0.0],
    "lang": ["en", None, "日本", ""],
    "tags": [["nlp", "cv"], None, [], ["a b"]],
    "sold": [True, None, False, True],
    "name": ["ä", None, "", "😀"],
    "at": [dt.datetime(2024, 1, 2, 3, 4, 5, 6), None, dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31)],
}
UTC = dt.timezone.utc


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)


def plain(columns: dict[str, np.ndarray]) -> dict[str, list[Any]]:
    """Arrays as lists, with None for NaN and NaT."""
    return {name: [None if v is None or v != v else v for v in a.tolist()] for name, a in columns.items()}


def arrow() -> Any:
    types = [
        pa.int64(),
        pa.float64(),
        pa.string(),
        pa.list_(pa.string()),
        pa.bool_(),
        pa.string(),
        pa.timestamp("us"),
    ]
    return pa.table({k: pa.array(v, t) for (k, v), t in zip(VALUES.items(), types, strict=True)})


class Frame:
    """What pandas.DataFrame and its columns offer, as far as it is used."""

    class Series:
        def __init__(self, values: list[Any]) -> None:
            self.values = np.empty(len(values), object)
            self.values[:] = values
            self.dtype, self.iloc = self.values.dtype, self.values

        def to_numpy(self) -> np.ndarray:
            return self.values

    class Iloc:
        def __getitem__(self, at: tuple[slice, int]) -> Any:
            return Frame.Series(VALUES[list(VALUES)[at[1]]])

    columns, iloc = list(VALUES), Iloc()


class PolarsFrame:
    """What polars.DataFrame and its columns offer, as far as it is used."""

    class Series:
        def __init__(self, name: str) -> None:
            self.array, self.dtype = (
                arrow().column(name),
                {"year": "Int64", "at": "Datetime(time_unit='us')"}.get(name, "Other"),
            )

        def to_list(self) -> list[Any]:
            return self.array.to_pylist()

        def null_count(self) -> int:
            return self.array.null_count

        def fill_null(self, value: int) -> Any:
            return self.array.fill_null(value)

        def is_null(self) -> Any:
            return self.array.is_null()

        def to_numpy(self) -> np.ndarray:
            return self.array.to_numpy()

    columns = tuple(VALUES)

    def get_column(self, name: str) -> Any:
        return self.Series(name)


def dense(name: str) -> Any:
    return np.ma.masked_array(
        [v if v is not None else 0 for v in VALUES[name]], [v is None for v in VALUES[name]]
    )


SOURCES: dict[str, Callable[[], Any]] = {
    "dict of lists": lambda: VALUES,
    "dict of object arrays": lambda: {k: Frame.Series(v).to_numpy() for k, v in VALUES.items()},
    "list of dicts": lambda: [{k: v[i] for k, v in VALUES.items() if v[i] is not None} for i in range(4)],
    "arrow table": arrow,
    "arrow batch": lambda: arrow().to_batches()[0],
    "pandas": Frame,
    "polars": PolarsFrame,
    "masked arrays": lambda: {**VALUES, "year": dense("year"), "sold": dense("sold").astype(bool)},
    "NaN and NaT": lambda: {
        **VALUES,
        "price": np.array([0.5, np.nan, 1e300, -0.0]),
        "at": np.array(["2024-01-02T03:04:05.000006", "NaT", "0001-01-01", "9999-12-31"], "datetime64[us]"),
        "tags": [{"nlp", "cv"}, float("nan"), np.array([], str), ("a b", "a b")],
    },
}  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
def test_sources(source: str) -> None:
    index = rz.FlatIndex(DIM, columns=KINDS)
    ids = index.add(vectors(4), columns=SOURCES[source]())
    found = plain(index.columns(ids))
    if source == "NaN and NaT":
        found["tags"][0].sort(reverse=True)  # a set has no order
    assert found == VALUES
    assert index.columns(ids[[0, 2]])["year"].dtype == np.int64
    assert index.columns(ids)["at"].dtype == "datetime64[us]"
    assert index.search(vectors(1)[0], 4, filter="year is None").ids.tolist()[:1] == [1]


def test_whole_numbers_of_pandas_with_gaps_and_times_with_zones() -> None:
    index = rz.FlatIndex(DIM, columns={"year": "int", "at": "datetime"})
    zone = dt.timezone(dt.timedelta(hours=2))
    index.add(
        vectors(2),
        columns={"year": np.array([3.0, np.nan]), "at": [dt.datetime(2024, 1, 1, 2, tzinfo=zone), None]},
    )
    index.add(vectors(1), columns={"at": pa.array([0], pa.timestamp("ns", "Asia/Tokyo"))})
    got = index.columns([0, 1, 2])
    assert got["year"].tolist() == [3, None, None]
    assert got["at"].tolist() == [dt.datetime(2024, 1, 1), None, dt.datetime(1970, 1, 1)]
    with pytest.raises(TypeError, match="with a zone"):
        index.add(vectors(1), columns={"at": np.array(["2024-01-01"], "datetime64[D]")})
    assert len(index) == 3


BAD: dict[str, tuple[Any, str]] = {
    "unknown column": ({"yeer": [1, 2]}, "no column 'yeer'; the columns are 'year' (int), 'price' (float)"),
    "too short": ({"year": [1]}, "'year' has 1 values for 2"),
    "too long": ({"tags": [[], [], []]}, "'tags' has 3 values for 2"),
    "text as int": ({"year": [1, "x"]}, "row 1 is 'x' (str)"),
    "half as int": ({"year": [1, 2.5]}, "row 1 is 2.5"),
    "halves as int": ({"year": np.array([1, 2.5])}, "row 1 is 2.5"),
    "bools as int": ({"year": np.array([True, False])}, "array of bool"),
    "bool as int": ({"year": [1, True]}, "row 1 is True"),
    "infinity as int": ({"year": [1, float("inf")]}, "row 1 is inf"),
    "beyond int64": ({"year": [1, 2**63]}, "int64 cannot hold"),
    "beyond int64 in uint64": ({"year": np.array([1, 2**63], np.uint64)}, "int64 cannot hold"),
    "text as float": ({"price": np.array(["a", "b"])}, "expected numbers"),
    "inexact float": ({"price": [1.0, 2**53 + 1]}, "cannot hold exactly"),
    "inexact floats": ({"price": np.array([1, 2**53 + 1])}, "cannot hold exactly"),
    "int as bool": ({"sold": [True, 1]}, "row 1 is 1 (int)"),
    "ints as bool": ({"sold": np.array([0, 1])}, "array of int64"),
    "int as category": ({"lang": ["en", 3]}, "row 1 of 'lang' is of type int"),
    "bytes as text": ({"name": ["en", b"x"]}, "row 1 of 'name' is of type bytes"),
    "surrogate": ({"name": ["en", "\ud800"]}, "surrogate"),
    "long text": ({"name": ["en", "x" * 65_536]}, "65536 bytes"),
    "text as tags": ({"tags": [["a"], "nlp"]}, "row 1 of 'tags' is of type str"),
    "int as tag": ({"tags": [["a"], [3]]}, "row 1 of 'tags' is of type int"),
    "null as tag": ({"tags": [["a"], ["b", None]]}, "row 1 of 'tags'"),
    "text as time": ({"at": [None, "2024-01-01"]}, "row 1 is '2024-01-01'"),
    "ints as time": ({"at": np.array([1, 2])}, "datetime64"),
    "nanoseconds": ({"at": np.array([0, 1], "datetime64[ns]")}, "microseconds"),
    "mixed zones": ({"at": [dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 1, tzinfo=UTC)]}, "zone"),
    "one value": ({"lang": "en"}, "got a str"),
    "a number": ({"year": 3}, "got a int"),
    "not a table": (7, "got int"),
    "a list of lists": ([[1], [2]], "one dict per row"),
    "a row short": ([{"year": 1}], "1 values for 2"),
    "two axes": ({"year": np.zeros((2, 2), int)}, "2 axes"),
}


def answers(index: rz.FlatIndex) -> Any:
    ids = list(range(4))
    return (
        len(index),
        plain(index.columns(ids)),
        index.get(ids).tolist(),
        index.search(vectors(1), 9, filter="year > 0").ids.tolist(),
    )


@pytest.mark.parametrize("what", BAD)
def test_bad_columns_change_nothing(what: str, tmp_path: Path) -> None:
    columns, message = BAD[what]
    index = rz.FlatIndex(DIM, columns=KINDS)
    index.add(vectors(4), columns=VALUES)
    before = answers(index)
    index.save(tmp_path / "before")
    for attempt in (
        lambda: index.add(vectors(2, 5), columns=columns),
        lambda: index.add(vectors(2, 5), [0, 9], columns=columns, upsert=True),
        lambda: index.set_columns([0, 1], columns),
    ):
        with pytest.raises(ResiduaError) as caught:
            attempt()
        assert message in str(caught.value)
        assert isinstance(caught.value, (ValueError, TypeError))
        assert answers(index) == before
    index.save(tmp_path / "after")
    assert (tmp_path / "after").read_bytes() == (tmp_path / "before").read_bytes()


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ([("a", "int")], TypeError, "dict"),
        ({1: "int"}, TypeError, "names must be str"),
        ({"a": "integer"}, ValueError, "'int', 'float'"),
        ({"a": int}, TypeError, "'int', 'float'"),
        ({"": "int"}, ValueError, "1 to 255 bytes"),
        ({"ä" * 200: "int"}, ValueError, "1 to 255 bytes"),
        ({"\ud800": "int"}, ValueError, "surrogate"),
        ({str(i): "int" for i in range(300)}, ValueError, "at most 256"),
    ],
)
def test_bad_schemas(columns: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        rz.FlatIndex(DIM, columns=columns)
    assert isinstance(caught.value, ResiduaError)


def filled(
    n: int = 400, codec: rz.Codec | None = None, ids: Any = None
) -> tuple[rz.FlatIndex, dict[str, Any]]:
    rng = np.random.default_rng(3)
    data = {
        "year": rng.integers(1990, 2025, n),
        "lang": rng.choice(["en", "de", "fr"], n),
        "tags": [rng.choice(["a", "b", "c"], rng.integers(0, 3), replace=False).tolist() for _ in range(n)],
    }
    index = rz.FlatIndex(DIM, codec=codec, columns={"year": "int", "lang": "category", "tags": "tags"})
    index.add(vectors(n), ids, columns=data)
    return index, data


CODECS: list[Callable[[], rz.Codec | None]] = [
    lambda: None,
    lambda: rz.ScalarCodec(DIM, 8),
    lambda: rz.BinaryCodec(DIM),
]


@pytest.mark.parametrize("codec", CODECS)
def test_a_filter_is_its_mask(codec: Callable[[], rz.Codec | None]) -> None:
    index, data = filled(codec=codec())
    index.remove(np.arange(0, 400, 7))
    live = np.arange(400) % 7 != 0
    mask = (data["year"] >= 2000) & (data["lang"] == "en")
    queries = vectors(9, 1)
    text = "year >= 2000 and lang == 'en'"
    for given in (text, rz.where(text), (rz.col("year") >= 2000) & (rz.col("lang") == "en")):
        found = index.search(queries, 10, filter=given)
        wanted = index.search(queries, 10, filter=mask[live])
        assert found.ids.tolist() == wanted.ids.tolist()
        assert found.stats["matches"] == (mask & live).sum()
        assert (
            index.range_search(queries, 0.3, filter=given).ids.tolist()
            == index.range_search(queries, 0.3, filter=mask[live]).ids.tolist()
        )
        if index.codec is not None:
            codes = index.codec.encode(queries)
            assert (
                index.search_codes(codes, 5, filter=given).ids.tolist()
                == index.search_codes(codes, 5, filter=mask[live]).ids.tolist()
            )
    nothing = index.search(queries, 3, filter="year > 3000")
    assert (nothing.counts == 0).all()
    assert (nothing.ids == -1).all()
    few = index.search(queries, 400, filter="'a' in tags and year == 2001")
    assert (few.counts == few.stats["matches"]).all()
    # After every change the next search sees it.
    index.compact()
    assert index.search(queries, 10, filter=text).ids.tolist() == wanted.ids.tolist()
    gone = found.ids[0, 0]
    index.remove([gone])
    assert gone not in index.search(queries, 10, filter=text).ids
    index.set_columns(index.search(queries, 400, filter=text).ids[0, :5], {"year": [None] * 5})
    assert index.search(queries, 10, filter=text).stats["matches"] == (mask & live).sum() - 6


def test_one_filter_per_query() -> None:
    index, data = filled()
    queries = vectors(6, 1)
    mask = data["year"] < 2000
    filters: list[Any] = ["lang == 'de'", rz.col("year") >= 2010, None, mask, [1, 2, 3], "lang == 'de'"]
    found = index.search(queries, 5, filter=filters)
    ranges = index.range_search(queries, 0.2, filter=filters)
    for i, f in enumerate(filters):
        alone = index.search(queries[i], 5, filter=f)
        assert found.ids[i].tolist() == alone.ids.tolist()
        assert found.counts[i] == alone.counts
        assert found.stats["matches"][i] == alone.stats["matches"]
        assert ranges[i][0].tolist() == index.range_search(queries[i], 0.2, filter=f).ids.tolist()
    texts = ["lang == 'de'", "lang == 'en'"] * 3
    found = index.search(queries, 5, filter=texts)
    assert found.stats["matches"] == [int((data["lang"] == t[-3:-1]).sum()) for t in texts]
    with pytest.raises(ValueError, match="expected 6, got 2"):
        index.search(queries, filter=texts[:2])
    with pytest.raises(ValueError, match="one query"):
        index.search(queries[0], filter=[rz.col("year") > 1])
    # Where ids are str, a list of str holds ids.
    named, _ = filled(ids=[f"id{i}" for i in range(400)])
    assert set(named.search(queries, 2, filter=["id1", "id2"]).ids.ravel()) == {"id1", "id2"}
    assert named.search(queries, 2, filter=[rz.where(t) for t in texts]).counts.tolist() == [2] * 6


@pytest.mark.parametrize("nlist", [1, 8])
def test_lists_are_filtered_too(nlist: int, tmp_path: Path) -> None:
    flat, data = filled(600)
    index = rz.IVFIndex(
        DIM, codec=None, nlist=nlist, columns={"year": "int", "lang": "category", "tags": "tags"}
    )
    for part in (slice(0, 300), slice(300, 600)):  # before and after the training
        index.add(vectors(600)[part], columns={name: values[part] for name, values in data.items()})
        if not index.is_trained:
            index.train(vectors(600))
    queries = vectors(9, 1)
    for text in ("year < 2003 and 'a' in tags", "lang == 'en'", "year is None"):
        wanted = flat.search(queries, 10, filter=text)
        for each in (index, _reloaded(index, tmp_path)):
            found = each.search(queries, 10, filter=text, nprobe=nlist)
            assert found.ids.tolist() == wanted.ids.tolist()
            assert found.counts.tolist() == wanted.counts.tolist()
    index.set_columns([0], {"year": [None]})
    assert index.search(queries, 3, filter="year is None").ids[:, 0].tolist() == [0] * 9
    index.remove(np.arange(0, 600, 2))
    index.compact()
    assert plain(index.columns([1, 599])) == plain(flat.columns([1, 599]))


def _reloaded(index: Any, folder: Path) -> Any:
    index.save(folder / "x")
    return rz.load(folder / "x", mmap=True)


def test_upsert_and_rows_without_columns() -> None:
    index, _ = filled(10)
    held = plain(index.columns(list(range(10))))
    index.add(vectors(2, 5), [3, 20], upsert=True)
    assert plain(index.columns(list(range(10)))) == held
    assert plain(index.columns([20])) == {"year": [None], "lang": [None], "tags": [None]}
    index.add(vectors(3, 6), [4, 21, 2], columns={"tags": [["x"], ["y", "x"], None]}, upsert=True)
    got = plain(index.columns([4, 21, 2, 3]))
    assert got["tags"] == [["x"], ["y", "x"], None, held["tags"][3]]
    assert got["year"] == [held["year"][4], None, held["year"][2], held["year"][3]]
    assert index.search(vectors(1), 3, filter="'x' in tags").counts.tolist() == [2]
    index.set_columns([4, 4, 21], {"year": [1, 2, 3]})
    assert index.columns([4, 21])["year"].tolist() == [2, 3]
    with pytest.raises(KeyError, match="id 99"):
        index.set_columns([4, 99], {"year": [7, 7]})
    with pytest.raises(TypeError, match="None"):
        index.set_columns([4], None)
    assert index.columns([4])["year"].tolist() == [2]


def test_a_failed_fit_gives_columns_back() -> None:
    index = rz.FlatIndex(
        DIM, metric="l2", codec=rz.RecurrentBinaryCodec(DIM, 2), columns={"year": "int", "tags": "tags"}
    )
    index.add(vectors(220), columns={"year": np.arange(220), "tags": [["old"]] * 220})
    new = np.full((100, DIM), 3e38, np.float32)  # too large to fit
    with pytest.raises(ResiduaError):
        index.add(
            new,
            np.arange(190, 290),
            columns={"year": np.zeros(100, int), "tags": [["new"]] * 100},
            upsert=True,
        )
    assert len(index) == 220
    got = index.columns(np.arange(220))
    assert got["year"].tolist() == list(range(220))
    assert got["tags"].tolist() == [["old"]] * 220


def test_an_index_without_columns() -> None:
    index = rz.FlatIndex(DIM)
    index.add(vectors(3))
    assert index.columns([0, 1]) == {}
    for attempt in (
        lambda: index.search(vectors(1), filter="year > 2000"),
        lambda: index.add(vectors(1), columns={"year": [1]}),
        lambda: index.set_columns([0], {"year": [1]}),
    ):
        with pytest.raises(ValueError, match="no column 'year'; the columns are none"):
            attempt()
    assert "columns" not in index.memory()


@pytest.mark.parametrize("mmap", [False, True])
def test_saved_and_loaded(mmap: bool, tmp_path: Path) -> None:
    index = rz.FlatIndex(DIM, columns=KINDS)
    index.add(vectors(4), columns=VALUES)
    index.save(tmp_path / "x")
    loaded = rz.load(tmp_path / "x", mmap=mmap)
    assert plain(loaded.columns([0, 1, 2, 3])) == VALUES
    loaded.save(tmp_path / "y")
    assert (tmp_path / "y").read_bytes() == (tmp_path / "x").read_bytes()
    for each in (loaded, index):
        each.set_columns([1], {k: [v[0]] for k, v in VALUES.items()})
        each.add(vectors(1, 2), columns={k: [v[2]] for k, v in VALUES.items()})
        each.remove([0])
        each.compact()
    assert plain(loaded.columns([1, 2, 3, 4])) == plain(index.columns([1, 2, 3, 4]))
    with pytest.raises(TypeError, match="without a zone"):
        loaded.set_columns([1], {"at": [dt.datetime(2024, 1, 1, tzinfo=UTC)]})
    assert loaded.memory()["columns"] > 0


def test_bytes_per_row() -> None:
    n = 200_000
    rng = np.random.default_rng(0)
    names = np.array([f"t{i}" for i in range(2000)])
    index = rz.FlatIndex(1, metric="ip", columns={"year": "int", "lang": "category", "tags": "tags"})
    for part in np.array_split(np.arange(n), 7):
        index.add(
            np.ones((len(part), 1), np.float32),
            columns={
                "year": rng.integers(0, 2**60, len(part)),
                "lang": names[rng.integers(0, 200, len(part))],
                "tags": names[rng.integers(0, 2000, (len(part), 3))],
            },
        )
    index.search(np.ones(1, np.float32), filter="year > 5 and lang == 't7' and 't9' in tags")
    assert index.memory()["columns"] <= 36 * n
