# SPDX-License-Identifier: Apache-2.0
"""Checksum, half floats, and the container that every file is."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residua._core import store
from residua.errors import CorruptFileError, InvalidValueError


def test_xxh64_gives_the_published_values() -> None:
    """The sanity buffer and values of the reference implementation (xxHash, cli/xsum_sanity_check.c)."""
    prime32, prime64 = 2654435761, 11400714785074694797
    state, buffer = prime32, bytearray()
    for _ in range(222):
        buffer.append(state >> 56)
        state = state * prime64 % 2**64
    for length, seed, expected in [
        (0, 0, 0xEF46DB3751D8E999),
        (0, prime32, 0xAC75FDA2929B17EF),
        (1, 0, 0xE934A84ADB052768),
        (1, prime32, 0x5014607643A9B4C3),
        (4, 0, 0x9136A0DCA57457EE),
        (14, 0, 0x8282DCC4994E35C8),
        (14, prime32, 0xC3BD6BF63DEB6DF0),
        (222, 0, 0xB641AE8CB691C174),
        (222, prime32, 0x20CB8AB7AE10C14A),
    ]:
        assert store.xxh64(bytes(buffer[:length]), seed) == expected
    assert store.xxh64(b"abc") == 0x44BC2CF5AD770999


def test_half_to_float_is_exact_for_all_halves() -> None:
    halves = np.arange(2**16, dtype=np.uint16)
    expected = halves.view(np.float16).astype(np.float32)
    assert np.array_equal(store.float_from_half(halves), expected, equal_nan=True)


def test_float_to_half_rounds_to_nearest_even() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 300_000, dtype=np.uint32)
    halves = np.arange(2**16 - 1, dtype=np.uint16).view(np.float16).astype(np.float32)
    following = (np.arange(2**16 - 1, dtype=np.uint16) + 1).view(np.float16).astype(np.float32)
    with np.errstate(all="ignore"):
        ties = (halves + following) / 2  # half-way cases
        near = np.concatenate([ties, np.nextafter(ties, np.inf), np.nextafter(ties, -np.inf)]).astype(
            np.float32
        )
        values = np.concatenate([bits.view(np.float32), near.astype(np.float32)])
        expected = values.astype(np.float16)
    actual = store.half_from_float(values).view(np.float16)
    assert np.array_equal(np.isnan(actual), np.isnan(values))
    assert np.array_equal(
        actual.view(np.uint16)[~np.isnan(values)], expected.view(np.uint16)[~np.isnan(values)]
    )


def example_writer() -> store.Writer:
    writer = store.Writer("index")
    writer.put_int("n", -3)
    writer.put_double("x", 0.1)
    writer.put_string("name", "ä\0b")
    writer.put_bytes("raw", b"\x00\xff")
    writer.put("empty", b"")
    writer.put("numbers", np.arange(9, dtype=np.int64).tobytes())
    inner = store.Writer("codec")
    inner.put_int("bits", 2)
    inner.put("table", b"\x01" * 64)
    writer.nest("codec", inner)
    return writer


def check_example(reader: store.Reader) -> None:
    assert reader.kind == "index"
    assert reader.version == (1, 0)
    assert reader.get_int("n") == -3
    assert reader.get_double("x") == 0.1
    assert reader.get_string("name") == "ä\0b"
    assert reader.get_bytes("raw") == b"\x00\xff"
    assert reader.section("empty") == b""
    assert reader.int64s("numbers") == list(range(9))
    assert reader.names() == ["meta", "empty", "numbers", "codec.meta", "codec.table"]
    assert all(reader.address(name) % 64 == 0 for name in reader.names())
    assert reader.has("numbers")
    assert not reader.has("number")
    assert reader.has_nested("codec")
    assert not reader.has_nested("code")
    inner = reader.nested("codec")
    assert (inner.kind, inner.get_int("bits"), inner.section("table")) == ("codec", 2, b"\x01" * 64)


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("verify", ["quick", "full"])
def test_container_round_trip(tmp_path: Path, mmap: bool, verify: str) -> None:
    path = str(tmp_path / "x")
    example_writer().write_file(path)
    reader = store.Reader.open(path, mmap=mmap, verify=verify)
    assert reader.is_mapped == mmap
    check_example(reader)
    assert Path(path).read_bytes() == example_writer().to_bytes()
    check_example(store.Reader.from_bytes(example_writer().to_bytes()))


def test_a_nested_container_outlives_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "x"
    example_writer().write_file(str(path))
    inner = store.Reader.open(str(path), mmap=True).nested("codec")
    path.unlink()
    assert inner.section("table") == b"\x01" * 64


def test_what_is_missing_or_of_another_type_is_named() -> None:
    writer = example_writer()
    writer.put("odd", b"abc")
    reader = store.Reader.from_bytes(writer.to_bytes())
    for call, message in [
        (lambda: reader.section("codes"), "section 'codes': is missing"),
        (lambda: reader.nested("codec").section("x"), r"section 'codec\.x': is missing"),
        (lambda: reader.nested("ids"), r"section 'ids\.meta': is missing"),
        (lambda: reader.get_int("m"), "section 'meta': key 'm' is missing"),
        (lambda: reader.get_int("name"), "key 'name' is a string, expected an integer"),
        (lambda: reader.get_double("n"), "key 'n' is an integer, expected a double"),
        (lambda: reader.get_int_in("n", 0, 5), "key 'n' is -3, expected 0 to 5"),
        (lambda: reader.int64s("odd"), "section 'odd': has 3 bytes, not a multiple of 8"),
    ]:
        with pytest.raises(CorruptFileError, match=message):
            call()


def test_writer_refuses_names_that_cannot_be_stored() -> None:
    writer = store.Writer("x")
    writer.put("a", b"")
    for name in ["a", "meta", "", "x" * 41, "a b", "ä"]:
        with pytest.raises(InvalidValueError):
            writer.put(name, b"")
    writer.put_int("k", 1)
    with pytest.raises(InvalidValueError):
        writer.put_int("k", 2)


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z0-9_.-]{1,40}", fullmatch=True).filter(lambda n: n != "meta"),
        st.binary(max_size=200),
        max_size=8,
    ),
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(lambda k: k != "kind"),
        st.one_of(
            st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(st.characters(codec="utf-8")), st.binary()
        ),
        max_size=8,
    ),
)
def test_any_content_round_trips(sections, meta) -> None:
    writer = store.Writer("any")
    put = {int: writer.put_int, float: writer.put_double, str: writer.put_string, bytes: writer.put_bytes}
    for name, content in sections.items():
        writer.put(name, content)
    for key, value in meta.items():
        put[type(value)](key, value)
    reader = store.Reader.from_bytes(writer.to_bytes())
    get = {int: reader.get_int, float: reader.get_double, str: reader.get_string, bytes: reader.get_bytes}
    assert {n: reader.section(n) for n in reader.names() if n != "meta"} == sections
    for key, value in meta.items():
        back = get[type(value)](key)
        assert back == value or (math.isnan(value) and math.isnan(back))
