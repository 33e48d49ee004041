# SPDX-License-Identifier: Apache-2.0
"""What an installed wheel must do anywhere: no test packages, no source tree, a few seconds.

python smoke.py [--isa NAME]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import residua as rz


def check(condition: bool, what: str) -> None:
    if not condition:
        raise SystemExit(f"smoke test failed: {what}")


def search_everything(rows: int) -> None:
    """Search the sample with every codec, through a file, with a filter, after a removal."""
    sample = rz.datasets.load_sample()
    x, q = sample.documents[:rows], sample.queries[:20]
    dim = x.shape[1]
    exact = rz.exact_search(q, x, 10)
    codecs = [None, rz.FloatCodec(dim, "float16"), rz.BinaryCodec(dim), rz.RecurrentBinaryCodec(dim, bits=2)]
    for codec in codecs:
        index = rz.FlatIndex(dim, codec=codec)
        index.add(x, [f"row {i}" for i in range(rows)])
        found = index.search(q, 10)
        same = np.array([[f"row {i}" for i in row] for row in exact.ids]) == found.ids
        check(same.mean() > 0.9, f"{codec}: recall {same.mean()}")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "index"
            index.save(path)
            for mmap in (False, True):
                loaded = rz.load(path, mmap=mmap)
                again = loaded.search(q, 10, num_threads=2)
                check(bool((again.ids == found.ids).all()), f"{codec}: other ids from a file, mmap={mmap}")
                check(again.scores.tobytes() == found.scores.tobytes(), f"{codec}: other scores from a file")
                del loaded
        index.remove(["row 0"])
        allowed = np.arange(rows - 1) % 2 == 0
        hits = index.search(x[:1], 5, filter=allowed)
        check("row 0" not in hits.ids, f"{codec}: a removed row was found")
        check(all(int(i.split()[1]) % 2 == 1 for i in hits.ids[0]), f"{codec}: the filter was passed over")
    try:
        index.search(q[:, :-1])
    except rz.errors.ShapeError:
        return
    check(False, "queries of another dim were accepted")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--isa", help="fail unless these kernels are active")
    parser.add_argument("--rows", type=int, default=2000)
    options = parser.parse_args()
    config = rz.show_config()
    check(options.isa in (None, config["isa"]), f"the active kernels are {config['isa']}, not {options.isa}")
    search_everything(options.rows)
    print(f"residua {config['version']} works: {config['isa']} of {', '.join(config['isa_available'])}")


if __name__ == "__main__":
    main()
