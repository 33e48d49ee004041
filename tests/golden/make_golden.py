# SPDX-License-Identifier: Apache-2.0
"""Write the golden files: run once per format version, and keep what it wrote.

    python tests/golden/make_golden.py FOLDER

Everything is made from whole numbers, so that any machine makes the same data.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

import residua as rz

DIM = 24


def vectors(n: int, start: int) -> np.ndarray:
    """Rows around 12 centres, from a linear congruence on integers."""
    state = np.uint64(start)
    values = np.empty(n * DIM, np.float32)
    for i in range(len(values)):
        state = np.uint64((int(state) * 6364136223846793005 + 1442695040888963407) % 2**64)
        values[i] = (int(state) >> 40) / 2**24 - 0.5
    centre = (np.arange(n)[:, None] % 12 * (np.arange(DIM)[None] + 3)) % 7 - 3
    return (values.reshape(n, DIM) + centre).astype(np.float32)


def wide(n: int, start: int) -> np.ndarray:
    """Rows of 4 * DIM dims."""
    return np.hstack([vectors(n, start + i) for i in range(4)])


def row_of_columns(i: int) -> dict[str, object]:
    """One value of every type; none at all for every seventh row."""
    if i % 7 == 6:
        return {}
    return {
        "int": i - 10 if i else 2**60 + 1,
        "float": i / 8,
        "bool": i % 3 == 0,
        "category": f"c{i % 4}",
        "tags": ["ä", "b", "c"][: i % 4],
        "str": f"row {i}",
        "datetime": np.datetime64("2024-02-28T12:00:00.000001") + np.timedelta64(i, "D"),
    }


def things() -> dict[str, rz.FlatIndex | rz.IVFIndex | rz.HNSWIndex | rz.Codec | rz.EmbeddingTable]:
    """Return what the golden files hold, by file name."""
    x = vectors(400, 1)
    recurrent = rz.RecurrentBinaryCodec(DIM, 2).fit(x)
    by_name = rz.FlatIndex(DIM, codec=recurrent)
    by_name.add(x[:150], [f"doc {i}" for i in range(150)])
    by_name.remove(["doc 7", "doc 149"])
    by_number = rz.FlatIndex(DIM, metric="l2")
    by_number.add(x[:60], np.arange(60) * 10)
    bits = rz.FlatIndex(DIM, metric="ip", codec=rz.BinaryCodec(DIM), vectors="int8")
    bits.add(x[:100])
    waiting = rz.FlatIndex(DIM, codec=rz.RecurrentBinaryCodec(DIM, 1.5, seed=3), vectors="none")
    waiting.add(x[:20])
    lists = rz.IVFIndex(DIM, metric="l2", nlist=6, seed=2).train(x)
    lists.add(x[:120], [f"doc {i}" for i in range(120)])
    lists.remove(["doc 7", "doc 119"])
    plain = rz.IVFIndex(DIM, codec=None, nlist=4, vectors="int8").train(x)
    plain.add(x[:40])
    lists_waiting = rz.IVFIndex(DIM, codec=rz.BinaryCodec(DIM), nlist=5)
    lists_waiting.add(x[:10])
    walk = rz.HNSWIndex(DIM, metric="l2", codec=None, M=4, ef_construction=20, vectors="float32")
    walk.add(x[:90], np.arange(90) * 3)
    walk.remove([9, 12])
    beside = rz.HNSWIndex(DIM, codec=recurrent, layout="turbo", M=4, ef_construction=20, seed=2)
    beside.add(x[:80], [f"doc {i}" for i in range(80)])
    graph_waiting = rz.HNSWIndex(DIM, metric="ip", M=6)
    graph_waiting.add(x[:20])
    kinds = ("int", "float", "bool", "category", "tags", "str", "datetime")
    columns = rz.FlatIndex(DIM, metric="ip", columns={kind: kind for kind in kinds})
    columns.add(x[:30], columns=[row_of_columns(i) for i in range(30)])
    columns.remove([4])
    return {
        "flat-columns": columns,
        "ivf-residual-l2": lists,
        "ivf-exact": plain,
        "ivf-waiting": lists_waiting,
        "hnsw-exact-l2": walk,
        "hnsw-turbo-str": beside,
        "hnsw-waiting": graph_waiting,
        "codec-recurrent": recurrent,
        "codec-recurrent-l2": rz.RecurrentBinaryCodec(DIM, 0.5).fit(x, metric="l2"),
        "codec-recurrent-blocks": rz.RecurrentBinaryCodec(4 * DIM, 1).fit(wide(40, 1), metric="ip"),
        "codec-binary": rz.BinaryCodec(DIM).fit(x, metric="ip"),
        "codec-binary-itq": rz.BinaryCodec(DIM, 20, "itq").fit(x, metric="l2"),
        "codec-float16": rz.FloatCodec(DIM, "float16").fit(x, metric="l2"),
        "flat-recurrent-str": by_name,
        "flat-exact-l2": by_number,
        "flat-binary-int8": bits,
        "flat-waiting": waiting,
        "codec-pq8": rz.PQCodec(DIM // 2, 3).fit(x[:, : DIM // 2], metric="l2"),
        "codec-pq4-opq": rz.PQCodec(DIM, 7, bits=4, rotation="opq").fit(x),
        "codec-scalar8": rz.ScalarCodec(DIM, 8).fit(x, metric="l2"),
        "codec-scalar4": rz.ScalarCodec(DIM, 4).fit(x),
        "table-scalar4": rz.EmbeddingTable(x[:50], rz.ScalarCodec(DIM, 4)),
    }


def facts(
    thing: rz.FlatIndex | rz.IVFIndex | rz.HNSWIndex | rz.Codec | rz.EmbeddingTable,
) -> dict[str, object]:
    """Return what must stay the same for ever; scores are rounded, as their last bits depend on the ISA."""
    q = vectors(5, 99)[:, : thing.dim] if thing.dim <= DIM else wide(5, 99)
    if isinstance(thing, rz.Codec):
        codes = thing.encode(q)
        return {
            "kind": type(thing).__name__,
            "fingerprint": thing.fingerprint,
            "metric": thing.metric,
            "code_bytes": thing.code_bytes,
            "decoded": np.round(thing.decode(codes), 4).tolist(),
            "scores": np.round(thing.scores(q, codes), 3).tolist(),
        }
    if isinstance(thing, rz.EmbeddingTable):
        return {
            "kind": type(thing).__name__,
            "length": len(thing),
            "fingerprint": thing.codec.fingerprint,
            "decoded": np.round(thing[[0, 7, -1]], 4).tolist(),
        }
    hits = thing.search(q, 6)
    codec = thing.codec
    columns = thing.columns([0, 1, 2, 3, 6]) if thing.metric == "ip" and codec is None else {}
    if columns:
        text = "int > -5 and not 'c' in tags and (bool or float < 2.5 or datetime is None)"
        columns["found"] = thing.search(q, 6, filter=text).ids
    return {
        **{f"column {name}": repr(np.asarray(v).tolist()) for name, v in columns.items()},
        "kind": type(thing).__name__,
        "length": len(thing),
        "metric": thing.metric,
        "codec": None if codec is None else type(codec).__name__,
        "fingerprint": codec.fingerprint if codec is not None and codec.is_trained else None,
        "ids": hits.ids.tolist(),
        "scores": np.round(hits.scores, 4).tolist(),
        "first": np.round(thing.get(hits.ids[0]), 4).tolist(),
    }


def main(folder: str) -> None:
    written = Path(folder) / "facts.json"
    known = json.loads(written.read_text(encoding="utf-8")) if written.exists() else {}
    for name, thing in things().items():
        if name in known:  # written once, kept for ever
            continue
        thing.save(Path(folder) / f"{name}.rsd")
        known[name] = facts(thing)
    text = json.dumps(known, indent=None, separators=(",", ":")).replace('},"', '},\n"')
    written.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
