# SPDX-License-Identifier: Apache-2.0
"""What a call through residua.h costs beyond the same call inside the C++ library.

Builds a small program and lets it search exact indexes of several sizes, one query per call, one thread,
k = 10, both ways in turns. The checks of a query and the copies of its results are the difference.

    python bench/capi/overhead.py
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import residua as rz

SHAPES = ((1, 8), (10, 384), (10, 2048), (1000, 384))  # rows, dims


def run(*command: str | Path) -> str:
    tool = shutil.which(str(command[0]))
    if tool is None:
        raise SystemExit(f"{command[0]} is not installed: pip install cmake ninja")
    return subprocess.run([tool, *map(str, command[1:])], check=True, capture_output=True, text=True).stdout


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = Path(__file__).resolve().parent
        run("cmake", "-S", source, "-B", folder / "build", "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release")
        run("cmake", "--build", folder / "build", "--target", "overhead")
        print(f"isa {rz.show_config()['isa']}, ns per call of one query, medians of 401 batches of 200 calls")
        print(f"{'rows':>6} {'dims':>6} {'C':>8} {'C++':>8} {'C - C++':>8}")
        for rows, dim in SHAPES:
            x = np.random.default_rng(0).standard_normal((rows + 50, dim)).astype(np.float32)
            index = rz.FlatIndex(dim)
            index.add(x[:rows])
            index.save(folder / "index")
            x[rows:].tofile(folder / "queries")
            c, cpp, difference = run(
                folder / "build" / "overhead", folder / "index", folder / "queries", "10"
            ).split()
            print(f"{rows:>6} {dim:>6} {c:>8} {cpp:>8} {difference:>8}")


if __name__ == "__main__":
    main()
