# SPDX-License-Identifier: Apache-2.0
"""Arrays on the device, as they come from other libraries and go to them."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

import residua as rz
from residua.errors import DtypeError, InvalidTypeError, InvalidValueError, OutOfMemoryError, UnsupportedError

DIM = 16
RNG = np.random.default_rng(0)
X, Q = (RNG.standard_normal((n, DIM)).astype(np.float32) for n in (60, 4))


class Interface:
    """An array of another library that has the interface alone, changed on the way."""

    def __init__(self, array: rz.cuda.DeviceArray, **changes: Any) -> None:
        self.array = array
        self.__cuda_array_interface__ = {**array.__cuda_array_interface__, **changes}


class Capsule:
    """One that has DLPack alone."""

    def __init__(self, array: rz.cuda.DeviceArray, number: int = 0) -> None:
        self.array, self.number, self.streams = array, number, []

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.number

    def __dlpack__(self, stream: Any = None) -> Any:
        self.streams.append(stream)
        return self.array.__dlpack__(stream=stream)


@pytest.fixture(scope="module")
def indexes() -> tuple[rz.FlatIndex, rz.FlatIndex]:
    index = rz.FlatIndex(DIM, codec=rz.BinaryCodec(DIM))
    index.add(X)
    return index, index.to("cuda")


@pytest.mark.parametrize(
    "dtype", ["float32", "float16", "float64", "int8", "int32", "int64", "uint8", "bool"]
)
@pytest.mark.parametrize("shape", [(3, 5), (7,), (0, 4), ()])
def test_round_trip(dtype: str, shape: tuple[int, ...]) -> None:
    given = RNG.integers(0, 100, shape).astype(dtype)
    array = rz.cuda.to_device(given)
    assert (array.shape, array.dtype, array.nbytes) == (shape, given.dtype, given.nbytes)
    np.testing.assert_array_equal(array.to_numpy(), given)
    context = rz.cuda._context("cuda")
    for other in (Interface(array), Capsule(array), array):
        back = rz.cuda._to_host(other, context, "x")
        assert back.dtype == given.dtype
        np.testing.assert_array_equal(back, given)


def test_strided_arrays_arrive_as_they_are() -> None:
    given = np.arange(60, dtype=np.float32).reshape(5, 12)
    array = rz.cuda.to_device(given)
    view = Interface(array, shape=(3, 4), strides=(96, 8))
    back = rz.cuda._to_host(view, rz.cuda._context("cuda"), "x")
    np.testing.assert_array_equal(back, given[::2, :8:2])
    with pytest.raises(InvalidValueError, match="backwards"):
        rz.cuda._to_host(Interface(array, strides=(-48, 4)), rz.cuda._context("cuda"), "x")


def test_bfloat16_becomes_float32() -> None:
    given = np.array([[1.0, -2.5], [3e38, 0.0]], np.float32)
    given = (given.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    array = rz.cuda.to_device(
        (given.view(np.uint32) >> np.uint32(16)).astype(np.int32).view(np.uint8)[:, [0, 1, 4, 5]]
    )
    view = Interface(array, shape=(2, 2), typestr="<V2", strides=(4, 2))
    np.testing.assert_array_equal(rz.cuda._to_host(view, rz.cuda._context("cuda"), "x"), given)


def test_queries_on_the_device(indexes: tuple[rz.FlatIndex, rz.FlatIndex]) -> None:
    index, device = indexes
    expected = index.search(Q, k=3)
    array = rz.cuda.to_device(Q)
    capsule = Capsule(array)
    for q in (array, Interface(array), capsule):
        np.testing.assert_array_equal(device.search(q, k=3).ids, expected.ids)
    assert capsule.streams == [device._place.context.stream]  # type: ignore[union-attr]
    one = device.search(rz.cuda.to_device(Q[0]), k=3)
    np.testing.assert_array_equal(one.ids, expected.ids[0])
    codes = rz.cuda.to_device(index.codec.encode(Q))  # type: ignore[union-attr]
    np.testing.assert_array_equal(device.search_codes(codes).ids, index.search_codes(codes.to_numpy()).ids)


def test_arrays_that_are_refused(indexes: tuple[rz.FlatIndex, rz.FlatIndex]) -> None:
    index, device = indexes
    array = rz.cuda.to_device(Q)
    for x in (array, Interface(array)):
        with pytest.raises(InvalidTypeError, match=r"q is on a CUDA device.*\.cpu\(\)"):
            index.search(x)
    with pytest.raises(InvalidTypeError, match=r"\.cpu\(\)"):
        index.search(Capsule(array))
    with pytest.raises(InvalidValueError, match="q is on cuda:3, and what it is for on cuda:0"):
        device.search(Capsule(array, 3))
    with pytest.raises(DtypeError, match="q: elements of type <c8"):
        device.search(Interface(array, typestr="<c8"))
    with pytest.raises(InvalidValueError, match="masked"):
        device.search(Interface(array, mask=array))
    with pytest.raises(DtypeError, match="complex64"):
        rz.cuda.to_device(np.zeros(3, np.complex64))
    with pytest.raises(BufferError, match="to_numpy"):
        array.__dlpack__(dl_device=(1, 0))
    with pytest.raises(BufferError, match="to_numpy"):
        array.__dlpack__(copy=True)
    with pytest.raises(InvalidTypeError, match="to_device"):
        rz.cuda.DeviceArray()


def test_results_on_the_device(indexes: tuple[rz.FlatIndex, rz.FlatIndex]) -> None:
    index, device = indexes
    expected, hits = index.search(Q, k=5), device.search(Q, k=5, out="device")
    ids: Any
    scores: Any
    ids, scores = hits
    assert isinstance(ids, rz.cuda.DeviceArray)
    assert ids.device == "cuda:0"
    np.testing.assert_array_equal(ids.to_numpy(), expected.ids)
    np.testing.assert_array_equal(scores.to_numpy(), expected.scores)
    assert repr(hits) == "Hits(nq=4, k=5, plan='codes+rerank')"
    assert "k=5" in repr(device.search(Q[0], k=5, out="device"))
    with pytest.raises(UnsupportedError, match=r"index\.to\('cuda'\)"):
        index.search(Q, out="device")
    with pytest.raises(InvalidValueError, match="out must be one of"):
        device.search(Q, out="gpu")  # type: ignore[arg-type]
    text = rz.FlatIndex(DIM, codec=rz.BinaryCodec(DIM))
    text.add(X[:2], ["a", "b"])
    with pytest.raises(UnsupportedError, match="integer ids"):
        text.to("cuda").search(Q, k=1, out="device")


def test_memory_is_given_back() -> None:
    context = rz.cuda._context("cuda", 1 << 20)
    native = rz.cuda._native()
    array = native.to_device(context, np.zeros(1000, np.float32))
    assert context.used == 4000
    with pytest.raises(OutOfMemoryError, match="an array needs"):
        native.to_device(context, np.zeros(1 << 18, np.float64))
    capsule = array.__dlpack__()
    del array
    gc.collect()
    assert context.used == 4000, "the capsule keeps it"
    del capsule
    gc.collect()
    assert (context.used, context.peak) == (0, 4000)


def test_devices() -> None:
    assert rz.cuda.is_available()
    assert rz.cuda.device_count() >= 1
    info = rz.cuda.device_info()
    assert info == rz.cuda.device_info(0) | {"free_bytes": info["free_bytes"]}
    assert info["compute_capability"] >= (8, 0)
    assert 0 < info["free_bytes"] <= info["memory_bytes"]
    assert info["name"] in rz.show_config()["cuda"]

    class TorchDevice:
        type, index = "cuda", 0

    assert rz.cuda.device_info(TorchDevice())["name"] == info["name"]
    with pytest.raises(InvalidValueError, match="there is no CUDA device 99"):
        rz.cuda.device_info("cuda:99")
    with pytest.raises(InvalidValueError, match="device must be 'cuda'"):
        rz.cuda.to_device(X, "cpu")
