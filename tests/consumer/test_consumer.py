# SPDX-License-Identifier: Apache-2.0
"""Programs built against the installed C and C++ package answer as Python does, bit for bit.

``RESIDUA_PREFIX`` names an installed package; without it one is built and installed first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import residua as rz

DIM = 40
PROGRAMS = ("c/search_c", "cpp/search_cpp_shared", "cpp/search_cpp_static")
FUNCTIONS = {
    "residua_index_free",
    "residua_index_get_info",
    "residua_index_int_id",
    "residua_index_load",
    "residua_index_search",
    "residua_index_string_id",
    "residua_last_error",
    "residua_version",
}


def run(*command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    tool = shutil.which(str(command[0]))
    assert tool, f"{command[0]} is needed: cmake and ninja come with .[test], binutils with the compiler"
    done = subprocess.run([tool, *map(str, command[1:])], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done


def configure_and_build(source: Path, build: Path, *options: str) -> None:
    run("cmake", "-S", source, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", *options)
    run("cmake", "--build", build)


@pytest.fixture(scope="module")
def prefix(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if installed := os.environ.get("RESIDUA_PREFIX"):
        return Path(installed)
    build, place = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("prefix")
    configure_and_build(root, build, "-DRESIDUA_PYTHON=OFF")
    run("cmake", "--install", build, "--prefix", place)
    return place


@pytest.fixture(scope="module")
def programs(prefix: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    build = tmp_path_factory.mktemp("consumer")
    for language in ("c", "cpp"):
        source = root / "tests" / "consumer" / language
        configure_and_build(source, build / language, f"-DCMAKE_PREFIX_PATH={prefix}")
    return {name: build / name for name in PROGRAMS}


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)


def make_index(case: str) -> rz.FlatIndex:
    makers = {"codes": lambda: rz.RecurrentBinaryCodec(DIM, 2), "bits text": lambda: rz.BinaryCodec(DIM)}
    metric = {"codes": "cosine", "bits text": "ip", "floats": "l2"}[case]
    index = rz.FlatIndex(DIM, metric=metric, codec=makers[case]() if case in makers else None)
    ids = [f"número {i}" for i in range(700)] if case == "bits text" else (np.arange(700) * 5).tolist()
    index.add(vectors(700), ids)
    index.remove([ids[i] for i in (0, 1, 333, 699)])  # rows and places differ from here on
    return index


def expected(hits: rz.Hits) -> list[tuple[int, int, str, float]]:
    return [
        (q, i, str(hits.ids[q, i]), float(hits.scores[q, i]))
        for q in range(len(hits.counts))
        for i in range(int(hits.counts[q]))
    ]


def printed(text: str) -> list[tuple[int, int, str, float]]:
    rows = [line.split("\t") for line in text.splitlines()]
    return [(int(q), int(i), name, float.fromhex(score)) for q, i, name, score in rows]


@pytest.mark.parametrize("case", ["codes", "bits text", "floats"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_answers_equal_those_of_python(
    program: str, case: str, programs: dict[str, Path], tmp_path: Path
) -> None:
    index, q = make_index(case), vectors(9, 1)
    index.save(tmp_path / "index")
    q.tofile(tmp_path / "queries")
    done = run(programs[program], tmp_path / "index", tmp_path / "queries", "7")
    assert printed(done.stdout) == expected(index.search(q, 7))

    mask = np.random.default_rng(2).random(len(index)) < 0.01  # fewer than k
    np.packbits(mask, bitorder="little").tofile(tmp_path / "filter")
    done = run(programs[program], tmp_path / "index", tmp_path / "queries", "12", tmp_path / "filter")
    hits = index.search(q, 12, filter=mask)
    assert 0 < hits.counts[0] < 12
    assert printed(done.stdout) == expected(hits)


@pytest.mark.parametrize("program", PROGRAMS)
def test_errors_reach_the_program_as_text(program: str, programs: dict[str, Path], tmp_path: Path) -> None:
    queries = tmp_path / "queries"
    vectors(1).tofile(queries)
    make_index("codes").save(tmp_path / "index")
    damaged = bytearray((tmp_path / "index").read_bytes())
    damaged[100] ^= 1
    (tmp_path / "damaged").write_bytes(damaged)
    rz.BinaryCodec(DIM).fit(vectors(10)).save(tmp_path / "codec")
    for file, k, words in (
        ("absent", "3", "cannot load"),
        ("damaged", "3", "damaged"),
        ("codec", "3", "not an index"),
        ("index", "0", "k is 0"),
    ):
        done = run(programs[program], tmp_path / file, queries, k, check=False)
        assert done.returncode == 1, file
        assert words in done.stderr, file


def test_the_shared_library_exports_the_documented_functions_alone(prefix: Path, root: Path) -> None:
    (library,) = prefix.rglob("libresidua.so")
    lines = run("nm", "--dynamic", "--defined-only", library).stdout.splitlines()
    exported = {line.split()[2].split("@")[0] for line in lines if line.split()[1] != "A"}
    assert exported == FUNCTIONS
    header = (root / "cpp" / "include" / "residua" / "residua.h").read_text(encoding="utf-8")
    assert {name for name in FUNCTIONS if f"{name}(" in header} == FUNCTIONS
    assert header.count("\nRESIDUA_API ") == len(FUNCTIONS)
