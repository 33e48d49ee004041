# SPDX-License-Identifier: Apache-2.0
"""What a path may be, and what a codec that nobody has fitted yet remembers in a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import residua as rz
from residua.errors import FileError, InvalidTypeError, InvalidValueError

DIM = 12
X = np.random.default_rng(0).standard_normal((300, DIM)).astype(np.float32)


def index() -> rz.FlatIndex:
    made = rz.FlatIndex(DIM, codec=rz.ScalarCodec(DIM))
    made.add(X)
    return made


SAVED: dict[str, Callable[[], Any]] = {
    "index": index,
    "table": lambda: rz.EmbeddingTable(X, rz.ScalarCodec(DIM)),
    "codec": lambda: rz.ScalarCodec(DIM).fit(X),
}


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are text there")
@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("what", SAVED)
def test_names_that_are_not_utf8(what: str, mmap: bool, tmp_path: Path) -> None:
    thing = SAVED[what]()
    name = os.fsencode(tmp_path) + b"/\xff\xfe ae.rsd"
    for path in (name, os.fsdecode(name), Path(os.fsdecode(name))):
        thing.save(path)
        assert os.listdir(os.fsencode(tmp_path)) == [b"\xff\xfe ae.rsd"]
        assert repr(rz.load(path, mmap=mmap)) == repr(thing)
        os.unlink(name)
    with pytest.raises(FileError) as caught:
        rz.load(name)
    assert str(caught.value).isprintable() or "\ufffd" in str(caught.value)


@pytest.mark.parametrize("what", SAVED)
def test_names_that_no_file_can_have(what: str, tmp_path: Path) -> None:
    thing = SAVED[what]()
    bad: list[tuple[Any, type[Exception]]] = [
        (f"{tmp_path}/a\0b", InvalidValueError),
        (os.fsencode(tmp_path) + b"/a\0b", InvalidValueError),
        (7, InvalidTypeError),
        (None, InvalidTypeError),
    ]
    if sys.platform != "win32":
        bad.append((f"{tmp_path}/\ud800", InvalidValueError))
    for path, error in bad:
        with pytest.raises(error, match="path"):
            thing.save(path)
        with pytest.raises(error, match="path"):
            rz.load(path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("make", [rz.FloatCodec, rz.BinaryCodec])
def test_the_metric_of_an_unfitted_codec_stays_free_in_a_file(
    make: Callable[[int], rz.Codec], mmap: bool, tmp_path: Path
) -> None:
    path = tmp_path / "c.rsd"
    make(DIM).save(path)

    def loaded() -> Any:
        return rz.load(path, mmap=mmap)

    fingerprint = make(DIM).fingerprint
    assert loaded().fingerprint == fingerprint
    assert loaded().fit(X, metric="l2").metric == "l2"
    assert rz.FlatIndex(DIM, metric="ip", codec=loaded()).codec.metric == "ip"  # type: ignore[union-attr]
    assert rz.EmbeddingTable(X, loaded()).codec.metric == "ip"
    again = loaded()
    again.save(path)
    assert loaded().fit(X, metric="ip").metric == "ip"

    make(DIM).fit(X).save(path)  # chosen, although it is the metric that an unfitted codec scores by
    with pytest.raises(InvalidValueError):
        loaded().fit(X, metric="l2")
    with pytest.raises(InvalidValueError):
        rz.FlatIndex(DIM, metric="ip", codec=loaded())


def test_the_metric_of_a_rotation_is_never_free(tmp_path: Path) -> None:
    rz.BinaryCodec(DIM, rotation="random").fit(X).save(tmp_path / "c.rsd")
    with pytest.raises(InvalidValueError):
        rz.FlatIndex(DIM, metric="ip", codec=rz.load(tmp_path / "c.rsd"))  # type: ignore[arg-type]
