# SPDX-License-Identifier: Apache-2.0
"""Threads change no result; searches run beside changes; fork, signals and the environment work."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import residua as rz

DIM = 48
CODECS = {
    "none": lambda: None,
    "float16": lambda: rz.FloatCodec(DIM, "float16"),
    "binary": lambda: rz.BinaryCodec(DIM),
    "residual": lambda: rz.ResidualCodec(DIM, 3),
    "rb1": lambda: rz.RecurrentBinaryCodec(DIM, 1),
    "rb4": lambda: rz.RecurrentBinaryCodec(DIM, 4),
}


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)


def python(code: str, timeout: float = 60, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, check=False,
        env={**os.environ, **env},
    )  # fmt: skip


@pytest.mark.parametrize("kind", CODECS)
@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_results_and_files_do_not_depend_on_threads(kind: str, metric: str, tmp_path: Path) -> None:
    x, q = vectors(9000), vectors(70, 1)
    files, found = [], []
    for threads in (1, 2, 3, 64):
        index = rz.FlatIndex(DIM, metric=metric, codec=CODECS[kind]())
        if kind.startswith(("rb", "residual")):
            index.train(x[:3000], num_threads=threads)
        index.add(x[:5000], num_threads=threads)
        index.add(x[5000:], num_threads=threads)
        index.add(vectors(50, 2), np.arange(50) * 3, upsert=True, num_threads=threads)
        index.save(tmp_path / "x")
        files.append((tmp_path / "x").read_bytes())
        answers = []
        for queries in (q, q[:1], q[:3]):
            for options in ({}, {"rerank": 0}, {"filter": np.arange(0, 9000, 7)}):
                hits = index.search(queries, 20, num_threads=threads, **options)
                answers += [hits.ids.tolist(), hits.scores.tobytes()]
            if kind != "none":
                hits = index.search(queries, 20, scoring="symmetric", rerank=0, num_threads=threads)
                answers += [hits.ids.tolist(), hits.scores.tobytes()]
                codes = index.codec.encode(queries, num_threads=threads)
                answers += [
                    codes.tobytes(),
                    index.codec.decode(codes, num_threads=threads).tobytes(),
                    index.codec.scores(queries, codes, num_threads=threads).tobytes(),
                    index.codec.symmetric_scores(codes, codes, num_threads=threads).tobytes(),
                ]
            ranges = index.range_search(queries, float(hits.scores[0, 10]), num_threads=threads)
            answers += [ranges.ids.tolist(), ranges.scores.tobytes(), ranges.offsets.tolist()]
        found.append(answers)
    assert all(f == files[0] for f in files)
    assert all(f == found[0] for f in found)


@pytest.mark.parametrize("kind", CODECS)
def test_many_python_threads_search_one_index(kind: str) -> None:
    index = rz.FlatIndex(DIM, codec=CODECS[kind]())
    index.add(vectors(5000))
    q = vectors(40, 1)
    wanted = index.search(q, 10)
    with ThreadPoolExecutor(8) as pool:
        for hits in pool.map(lambda _: index.search(q, 10), range(40)):
            np.testing.assert_array_equal(hits.ids, wanted.ids)
            np.testing.assert_array_equal(hits.scores, wanted.scores)


@pytest.mark.parametrize("kind", CODECS)
@pytest.mark.parametrize("strings", [False, True])
def test_searches_beside_changes(kind: str, strings: bool) -> None:
    """Every answer is one that some moment allows: rows 0-99 stay, the others come and go."""
    index = rz.FlatIndex(DIM, codec=CODECS[kind]())
    name: Callable[[int], object] = (lambda i: f"n{i}") if strings else (lambda i: i)
    x = vectors(1500)
    index.add(x[:300], [name(i) for i in range(300)])
    failures: list[BaseException] = []
    stop = threading.Event()

    def change() -> None:
        try:
            for turn in range(12):
                index.add(x[300:], [name(i) for i in range(300, 1500)])
                index.add(x[100:200], [name(i) for i in range(100, 200)], upsert=True)
                index.remove([name(i) for i in range(300, 1500)])
                if turn % 3 == 0:
                    index.compact()
        except BaseException as e:
            failures.append(e)
        finally:
            stop.set()

    def search() -> None:
        try:
            while not stop.is_set():
                hits = index.search(x[:100], 3)
                assert hits.ids[:, 0].tolist() == [name(i) for i in range(100)]
                assert (hits.counts == 3).all()
                np.testing.assert_allclose(index.get([name(5)])[0], x[5], rtol=1e-3, atol=1e-3)
                assert len(index) in (300, 1500)
                index.range_search(x[:2], 0.5)
                index.memory()
                assert name(7) in index
        except BaseException as e:
            failures.append(e)
            stop.set()

    threads = [threading.Thread(target=f) for f in (change, search, search)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert not any(t.is_alive() for t in threads)
    if failures:
        raise failures[0]
    assert len(index) == 300


def test_many_python_threads_fill_one_index() -> None:
    """The codec is fitted once, by whichever call brings the 256th row."""
    for turn in range(10):
        index = rz.FlatIndex(DIM, codec=rz.RecurrentBinaryCodec(DIM, 1))
        start = threading.Barrier(8)

        def fill(i: int, index: rz.FlatIndex = index, start: threading.Barrier = start) -> None:
            start.wait()
            for j in range(5):
                index.add(vectors(16, 100 * i + j))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(fill, range(8)))
        assert len(index) == 640, turn
        assert index.codec is not None
        assert index.codec.is_trained
        assert (index.search(vectors(16, 0), 1).scores > 0.999).all()


def test_automatic_ids_are_handed_out_once() -> None:
    index = rz.FlatIndex(DIM)
    with ThreadPoolExecutor(8) as pool:
        ids = np.concatenate(list(pool.map(lambda i: index.add(vectors(50, i)), range(40))))
    assert sorted(ids.tolist()) == list(range(2000))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_fork_after_use() -> None:
    code = """
import os, sys
import numpy as np, residua as rz
x = np.random.default_rng(0).standard_normal((4000, 32)).astype("f4")
index = rz.FlatIndex(32, codec=rz.RecurrentBinaryCodec(32, 2), vectors=MODE)
index.add(x, num_threads=4)
wanted = index.search(x[:50], 5, num_threads=4)
children = []
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        found = index.search(x[:50], 5, num_threads=4)
        ok = (found.ids == wanted.ids).all()
        index.add(x[:10], num_threads=4)
        os._exit(0 if ok and len(index) == 4010 else 1)
    children.append(pid)
assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
assert (index.search(x[:50], 5).ids == wanted.ids).all()
index.add(x[:10])
assert len(index) == 4010
"""
    for mode in ("auto", "disk"):
        done = python(code.replace("MODE", repr(mode)))
        assert done.returncode == 0, done.stderr[-2000:]


INTERRUPTED = """
import os, signal, sys, threading, time
import numpy as np, residua as rz
x = np.random.default_rng(0).standard_normal((60_000, 128)).astype("f4")
index = rz.FlatIndex(128, codec=rz.RecurrentBinaryCodec(128, 2))
index.add(x[:2000])
big = rz.FlatIndex(128)
big.add(x)
def call():
    {call}
sent = []
def interrupt():
    time.sleep(0.3)
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
assert len(index) in (2000, 2000 + 60_000 * 8) or {adds}, len(index)
assert (index.search(x[:5], 1).ids[:, 0] == range(5)).all()
print(round(late, 2))
"""


@pytest.mark.parametrize(
    ("call", "adds"),
    [
        ("big.search(np.repeat(x, 4, axis=0), 10, num_threads={n})", False),
        ("rz.exact_search(np.repeat(x, 4, axis=0), x, 10, num_threads={n})", False),
        ("index.add(np.repeat(x, 8, axis=0), num_threads={n})", True),
        ("index.codec.encode(np.repeat(x, 8, axis=0), num_threads={n})", False),
        ("index.codec.scores(x[:20_000], index.codec.encode(x[:50_000]), num_threads={n})", False),
    ],
    ids=["search", "exact_search", "add", "encode", "scores"],
)
@pytest.mark.parametrize("n", [1, 2])
def test_an_interrupt_ends_a_long_call(call: str, adds: bool, n: int) -> None:
    """The bound is wide: what is tested is that the call does not run to its end."""
    done = python(INTERRUPTED.format(call=call.format(n=n), adds=adds), timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) < 5, done.stdout


def test_the_environment_limits_threads() -> None:
    code = "import residua as rz; print(rz.show_config()['num_threads'])"
    assert python(code, RESIDUA_NUM_THREADS="1").stdout.strip() == "1"
    cores = int(python(code, RESIDUA_NUM_THREADS="").stdout)
    assert 1 <= cores <= len(os.sched_getaffinity(0))
    assert int(python(code, RESIDUA_NUM_THREADS="1000").stdout) == cores


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_a_senseless_limit_is_an_error(value: str) -> None:
    code = """
import numpy as np, residua as rz
try:
    rz.exact_search(np.ones((1, 2)), np.ones((1, 2)), 1)
except ValueError as e:
    print(e)
rz.exact_search(np.ones((1, 2)), np.ones((1, 2)), 1, num_threads=1)
"""
    done = python(code, RESIDUA_NUM_THREADS=value)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "RESIDUA_NUM_THREADS" in done.stdout
    assert value in done.stdout


def test_an_explicit_number_of_threads_wins_over_the_environment() -> None:
    """Threads are counted while a call runs; the limit of the environment binds only the default."""
    code = """
import os, threading, time
import numpy as np, residua as rz
x = np.random.default_rng(0).standard_normal((20_000, 64)).astype("f4")
def most(n):
    seen, stop = [], threading.Event()
    def watch():
        while not stop.is_set():
            seen.append(len(os.listdir("/proc/self/task")))
            time.sleep(0.001)
    t = threading.Thread(target=watch)
    t.start()
    rz.exact_search(np.repeat(x[:500], 4, axis=0), x, 10, num_threads=n)
    stop.set()
    t.join()
    return max(seen)
base = most(1)
print(most(None) - base, most(3) - base)
"""
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("no /proc")
    done = python(code, RESIDUA_NUM_THREADS="1")
    assert done.stdout.split() == ["0", "2"], done.stderr[-2000:]


@pytest.mark.parametrize(
    ("value", "error"),
    [(0, ValueError), (-2, ValueError), (1.0, TypeError), ("2", TypeError), (True, TypeError)],
)
def test_num_threads_is_a_whole_number_of_at_least_one(value: object, error: type[Exception]) -> None:
    x = vectors(300)
    codec = rz.RecurrentBinaryCodec(DIM, 1).fit(x)
    codes = codec.encode(x)
    index = rz.FlatIndex(DIM, codec=codec)
    for call in (
        lambda: index.add(x, num_threads=value),
        lambda: index.search(x, num_threads=value),
        lambda: index.search_codes(codes, num_threads=value),
        lambda: index.range_search(x, 0.5, num_threads=value),
        lambda: codec.encode(x, num_threads=value),
        lambda: codec.decode(codes, num_threads=value),
        lambda: codec.scores(x, codes, num_threads=value),
        lambda: codec.symmetric_scores(codes, codes, num_threads=value),
        lambda: rz.exact_search(x, x, num_threads=value),
        lambda: rz.hamming(codes, codes, num_threads=value),
        lambda: rz.BinaryCodec(DIM).fit(x, num_threads=value),
        lambda: rz.RecurrentBinaryCodec(DIM, 1).fit(x, num_threads=value),
    ):
        with pytest.raises(error, match=r"num_threads must be"):
            call()
    assert len(index) == 0


@pytest.mark.parametrize("kind", ["none", "float16", "rb4"])
def test_graph_searches_beside_a_writer(kind: str) -> None:
    x = vectors(1500)
    index = rz.HNSWIndex(DIM, codec=CODECS[kind](), M=8, ef_construction=60)
    index.add(x[:600])
    gone, stop, wrong = [0], threading.Event(), []

    def search() -> None:
        while not stop.is_set():
            below = gone[0]
            hits = index.search(x[700:720], 10)
            if (hits.counts != 10).any() or (hits.ids < below).any():
                wrong.append(hits.ids)

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(search) for _ in range(2)]
        try:
            for i in range(15):
                index.add(x[600 + i * 60 : 660 + i * 60])
                index.remove(np.arange(i * 30, i * 30 + 30))
                gone[0] = i * 30 + 30
            index.compact()
        finally:
            stop.set()
        for reader in readers:
            reader.result(timeout=60)
    assert not wrong
    assert index._native.shape()["unreachable"] == 0


def test_a_graph_is_saved_and_read_beside_a_writer(tmp_path: Path) -> None:
    x = vectors(1500)
    index = rz.HNSWIndex(DIM, codec=CODECS["rb4"](), vectors="none", M=8, ef_construction=60, layout="turbo")
    index.add(x[:300])
    fixed = index.codes(np.arange(300))
    done = threading.Event()

    def read() -> int:
        rounds = 0
        while not done.is_set() or rounds == 0:
            np.testing.assert_array_equal(index.codes(np.arange(300)), fixed)
            assert index.range_search(x[0], -1.0)[0][0].size >= 300
            assert index.memory()["graph"] > 0
            index.save(tmp_path / "saved")
            loaded = rz.load(tmp_path / "saved")
            # Whole additions, and every row among them can be reached.
            assert (len(loaded) - 300) % 60 == 0
            assert loaded._native.shape()["unreachable"] == 0
            rounds += 1
        return rounds

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            for i in range(20):
                index.add(x[300 + i * 60 : 360 + i * 60], num_threads=1)
        finally:
            done.set()
        assert reader.result(timeout=60) > 0
    np.testing.assert_array_equal(rz.load(tmp_path / "saved").codes(np.arange(300)), fixed)


def test_an_index_is_asked_while_another_thread_changes_it() -> None:
    """Whoever changes it looks for Ctrl-C, for which it needs the interpreter that others hold."""
    code = """
import faulthandler, threading
import numpy as np, residua as rz
faulthandler.dump_traceback_later(40, exit=True)
x = np.random.default_rng(0).standard_normal((60_000, 64), dtype=np.float32)
index = rz.FlatIndex(64, codec=rz.RecurrentBinaryCodec(64, 2).fit(x[:2000]))
changes = threading.Thread(target=lambda: [index.add(x, num_threads=1) for _ in range(2)])
changes.start()
while changes.is_alive():
    for ask in (len, repr, lambda i: 5 in i, lambda i: i.memory(), lambda i: i.defaults):
        ask(index)
assert len(index) == 120_000
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_lists_are_asked_while_another_thread_adds() -> None:
    """The same for what an IVFIndex tells of its lists; asked alone, as other questions wait elsewhere."""
    code = """
import faulthandler, threading
import numpy as np, residua as rz
faulthandler.dump_traceback_later(20, exit=True)
x = np.random.default_rng(0).standard_normal((60_000, 64), dtype=np.float32)
index = rz.IVFIndex(64, nlist=1024, codec=None)
index.train(x[:2000], num_threads=1)
index.add(x[:1])
native, first = index._native, np.zeros(1, dtype=np.int64)
changes = threading.Thread(target=lambda: index.add(x, num_threads=1))
changes.start()
while changes.is_alive():
    assert native.is_trained and native.waiting is None and not native.is_residual
    assert native.nlist == 1024 and native.default_nprobe > 0 and native.fit["added"] > 0
    assert native.centroids().shape == (1024, 64) and native.list_sizes().sum() in (1, 60_001)
    assert native.lists_of(first).shape == (1,)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=40)
