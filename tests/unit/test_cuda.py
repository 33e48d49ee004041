# SPDX-License-Identifier: Apache-2.0
"""What rz.cuda says where there is no CUDA."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import residua as rz
from residua.errors import InvalidTypeError, InvalidValueError, UnsupportedError


class Native(ModuleType):
    """A module of which one thing is wrong."""

    def __init__(self, version: str = rz.__version__, emulated: bool = False, devices: int = 0) -> None:
        super().__init__("residua._cuda")
        self.__version__ = version
        self.is_emulated = lambda: emulated
        self.device_count = lambda: (devices, "" if devices else "CUDA driver version is insufficient")
        self.device_info = lambda _: {"name": "a GPU"}


def install(monkeypatch: pytest.MonkeyPatch, native: Any) -> None:
    monkeypatch.setitem(sys.modules, "residua._cuda", native)
    monkeypatch.delenv("RESIDUA_CUDA_EMULATED", raising=False)


@pytest.mark.parametrize(
    ("native", "reason"),
    [
        (None, r"pip install residua-cuda, or build it with nvcc.*RESIDUA_CUDA=ON"),
        (Native(version="0.0.9"), r"0\.0\.9 and residua of .*pip install residua-cuda=="),
        (Native(emulated=True, devices=1), "RESIDUA_CUDA_EMULATED=1 allows that"),
        (Native(), "no CUDA device can be used: CUDA driver version is insufficient"),
    ],
    ids=["missing", "version", "emulated", "no device"],
)
def test_why_there_is_none(monkeypatch: pytest.MonkeyPatch, native: Any, reason: str) -> None:
    install(monkeypatch, native)
    assert rz.cuda.is_available() is False
    assert rz.cuda.device_count() == 0
    index = rz.FlatIndex(8, codec=rz.BinaryCodec(8))
    index.add(np.eye(8, dtype=np.float32))
    for use in (
        lambda: rz.cuda.device_info(),
        lambda: rz.cuda.to_device(np.zeros(3)),
        lambda: index.to("cuda"),
    ):
        with pytest.raises(UnsupportedError, match="CUDA is not available here: .*" + reason):
            use()
    assert index.device == "cpu"
    assert index.to("cpu") is index
    assert len(index.search(np.eye(8, dtype=np.float32), k=1).ids) == 8


def test_a_module_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError("libstdc++.so.6: version not found")

    monkeypatch.setattr(rz.cuda, "import_module", fail)
    with pytest.raises(UnsupportedError, match=r"cannot be loaded \(libstdc\+\+"):
        rz.cuda.device_info()


def test_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, None)
    assert "not installed" in rz.show_config()["cuda"]
    install(monkeypatch, Native(devices=2))
    assert rz.cuda.is_available()
    assert rz.cuda.device_count() == 2
    assert rz.show_config()["cuda"] == "a GPU, a GPU"


def test_graph_indexes_stay_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, None)
    index = rz.HNSWIndex(8)
    with pytest.raises(UnsupportedError, match="FlatIndex and IVFIndex"):
        index.to("cuda")
    assert index.to("cpu") is index


def test_arrays_of_a_device_are_refused() -> None:
    class OnDevice:
        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            return {}

    with pytest.raises(InvalidTypeError, match="x is on a CUDA device"):
        rz.FlatIndex(8).add(OnDevice())  # type: ignore[arg-type]


def test_the_stream_of_every_thread_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="stream 2 is another stream in every thread"):
        rz.cuda._as_stream(2)
    assert rz.cuda._as_stream(0) == 1
