# SPDX-License-Identifier: Apache-2.0
"""What a process does around a search: fork, signals, limits on CPUs and memory, no GIL."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

import numpy as np
import pytest

import residua as rz

DIM = 48
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
linux = pytest.mark.skipif(sys.platform != "linux", reason="affinity and address-space limits of Linux")


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)


def python(code: str, timeout: float = 90, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, check=False,
        env={**os.environ, **env},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    return done.stdout.strip()


PREPARED = """
import os, threading, time, warnings
import numpy as np, residua as rz
warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads is the subject
x = np.random.default_rng(0).standard_normal((20_000, 48)).astype("f4")
index = rz.FlatIndex(48, codec={codec})
index.add(x)
wanted = index.search(x[:64], 5, num_threads=2)
def right():
    found = index.search(x[:64], 5, num_threads=2)
    return (found.ids == wanted.ids).all() and found.scores.tobytes() == wanted.scores.tobytes()
def fork():
    pid = os.fork()
    if pid == 0:
        ok = False
        try:
            ok = right() and rz.exact_search(x[:4], x, 3, num_threads=2).ids[0, 0] == 0
        finally:
            os._exit(0 if ok else 1)
    return pid
"""
CODECS = ["None", "rz.BinaryCodec(48)", "rz.RecurrentBinaryCodec(48, 2)"]


@needs_fork
@pytest.mark.parametrize("codec", CODECS)
def test_fork_while_other_threads_search(codec: str) -> None:
    """The forked child holds what its parent's threads held, and must still answer."""
    code = PREPARED.format(codec=codec) + """
stop, turns = threading.Event(), []
def search():
    while not stop.is_set():
        index.search(x[:256], 5, num_threads=2)
        turns.append(1)
threads = [threading.Thread(target=search) for _ in range(3)]
for t in threads: t.start()
while len(turns) < 3: time.sleep(0.001)
children = [fork() for _ in range(8)]
codes = [os.waitpid(pid, 0)[1] for pid in children]
assert right()
stop.set()
for t in threads: t.join()
print(codes.count(0), len(codes))
"""  # fmt: skip
    assert python(code) == "8 8"


@needs_fork
def test_fork_of_a_forked_child_and_after_threads_have_ended() -> None:
    code = PREPARED.format(codec="rz.RecurrentBinaryCodec(48, 1)") + """
threads = [threading.Thread(target=right) for _ in range(4)]
for t in threads: t.start()
for t in threads: t.join()
pid = os.fork()
if pid == 0:
    inner = fork()
    os._exit(0 if os.waitpid(inner, 0)[1] == 0 and right() else 1)
assert os.waitpid(pid, 0)[1] == 0 and right()
index.add(x[:10])
print(len(index))
"""  # fmt: skip
    assert python(code) == "20010"


def test_eight_threads_search_while_another_changes() -> None:
    """Vectors that stay are always found, with their own score; those that come and go are whole."""
    index = rz.FlatIndex(DIM, codec=rz.RecurrentBinaryCodec(DIM, 2))
    stay, guests = vectors(600), vectors(400, 1)
    index.add(stay, np.arange(600))
    wanted = index.search(stay[:32], 1)
    stop, failures = threading.Event(), []
    searches = [0] * 8

    def search(i: int) -> None:
        try:
            while not stop.is_set():
                hits = index.search(stay[:32], 3)
                assert (hits.ids[:, 0] == np.arange(32)).all()
                np.testing.assert_array_equal(hits.scores[:, 0], wanted.scores[:, 0])
                mine = index.search(guests[i : i + 1], 1)
                assert (mine.scores[0, 0] > 0.999) == (mine.ids[0, 0] == 1000 + i)
                searches[i] += 1
        except BaseException as e:
            failures.append(e)
            stop.set()

    threads = [threading.Thread(target=search, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for turn in range(30):
        ids = index.add(guests, np.arange(1000, 1400))
        index.remove(ids[::2])
        index.remove(ids[1::2])
        if turn % 10 == 9:
            index.compact()
        if stop.is_set():
            break
    stop.set()
    for t in threads:
        t.join(60)
    assert not failures, failures[0]
    assert not any(t.is_alive() for t in threads)
    assert len(index) == 600
    assert sum(searches) > 0


INTERRUPTED = """
import os, signal, sys, threading, time
import numpy as np, residua as rz
x = np.random.default_rng(0).standard_normal((60_000, 256)).astype("f4")
small = rz.FlatIndex(256, codec=rz.RecurrentBinaryCodec(256, 2))
small.add(x[:2000])
big = rz.FlatIndex(256)
big.add(x)
before = small.search(x[:5], 3).scores.tobytes()
codec = rz.RecurrentBinaryCodec(256, 1)
def call():
    {call}
sent = []
def interrupt():
    time.sleep({after})
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
try:
    while True:
        call()
        if sent and time.monotonic() - sent[0] > 20:
            sys.exit("never interrupted")
except KeyboardInterrupt:
    late = time.monotonic() - sent[0]
assert len(small) == 2000 and len(big) == 60_000
assert small.search(x[:5], 3).scores.tobytes() == before
assert (big.search(x[:5], 1).ids[:, 0] == range(5)).all()
if not codec.is_trained:
    codec.fit(x[:2000])
codec.encode(x[:10])
print(round(late, 2))
"""


@pytest.mark.parametrize(
    "call",
    [
        "rz.RecurrentBinaryCodec(256, 1).fit(x, num_threads=1)",
        "codec.is_trained or codec.fit(np.repeat(x, 4, axis=0), num_threads=2)",
        "big.range_search(np.repeat(x, 4, axis=0), 0.9, num_threads=2)",
        "small.search(np.repeat(x, 8, axis=0), 10, scoring='symmetric', num_threads=1)",
        "rz.hamming(small.codec.encode(x[:30_000]), small.codec.encode(x[:30_000]), num_threads=1)",
    ],
    ids=["fit", "fit of one codec", "range_search", "symmetric", "hamming"],
)
def test_an_interrupt_leaves_everything_as_it_was(call: str) -> None:
    """The bound is wide, for a busy machine; the next call of everything works."""
    late = float(python(INTERRUPTED.format(call=call, after=0.4), timeout=150))
    assert late < 5, late


@pytest.mark.parametrize("threads", [1000, 4096])
def test_more_threads_than_cores_change_nothing(threads: int) -> None:
    index = rz.FlatIndex(DIM, codec=rz.RecurrentBinaryCodec(DIM, 1))
    x = vectors(6000)
    index.add(x, num_threads=threads)
    for queries in (x[:1], x[:2000]):
        one, many = (index.search(queries, 5, num_threads=n) for n in (1, threads))
        np.testing.assert_array_equal(one.ids, many.ids)
        np.testing.assert_array_equal(one.scores, many.scores)


@linux
def test_threads_that_cannot_start_cost_time_only() -> None:
    """No thread starts where its stack would be larger than the address space."""
    code = """
import os, resource, sys
hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
if len(sys.argv) == 1 and hard == resource.RLIM_INFINITY:
    resource.setrlimit(resource.RLIMIT_STACK, (2**47, hard))  # read when a program starts
    os.execv(sys.executable, [sys.executable, "-c", CODE, "again"])
import threading
import numpy as np, residua as rz
try:
    threading.Thread(target=print).start()
    assert len(sys.argv) == 1, "a thread started in spite of the limit"
except RuntimeError:
    pass
x = np.random.default_rng(0).standard_normal((6000, 32)).astype("f4")
index = rz.FlatIndex(32, codec=rz.BinaryCodec(32))
index.add(x, num_threads=8)
wanted = index.search(x[:2000], 3, num_threads=1)
found = index.search(x[:2000], 3, num_threads=8)
print((found.ids == wanted.ids).all(), found.scores.tobytes() == wanted.scores.tobytes())
"""
    code = f"CODE = {code!r}\nCODE = f'CODE = {{CODE!r}}\\n{{CODE}}'\n" + code
    assert python(code, OPENBLAS_NUM_THREADS="1") == "True True"


@linux
def test_the_affinity_of_the_process_is_the_default() -> None:
    code = """
import os, residua as rz
cores = sorted(os.sched_getaffinity(0))
seen = []
for allowed in (cores[:1], cores):
    os.sched_setaffinity(0, allowed)
    seen.append(rz.show_config()["num_threads"])
print(seen[0], seen[1] <= len(cores))
"""
    assert python(code, RESIDUA_NUM_THREADS="") == "1 True"


def test_the_module_declares_that_it_needs_no_gil(root: Path) -> None:
    """An interpreter without the GIL must not get it back by the import."""
    source = (root / "cpp" / "bindings" / "module.cpp").read_text(encoding="utf-8")
    assert "mod_gil_not_used()" in source
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        code = "import sys, residua; print(sys._is_gil_enabled())"
        assert python(code, PYTHON_GIL="") == "False"
