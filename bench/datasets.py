# SPDX-License-Identifier: Apache-2.0
"""The data folder of the benchmarks, and how a set is stretched for measurements of speed.

A folder holds `base.npy` and `queries.npy` (float16 or float32), `gt.npy` (row numbers of the nearest base
rows, best first, padded with -1), `metric.txt` (`cosine`, `ip` or `l2`), and optionally `train_queries.npy`:
queries that a codec may be fitted with and that are not among the reported ones.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["METRICS", "BenchData", "DataError", "load_folder", "save_folder", "stretch"]

METRICS = ("cosine", "ip", "l2")
_NOTE_FILE = "speed_only.json"

FloatMatrix = npt.NDArray[np.float32]


class DataError(ValueError):
    """A data folder cannot be used; the message says what is wrong with it."""


@dataclass(frozen=True)
class BenchData:
    """One set: vectors as float32, truth as row numbers. `note` is empty for untouched data."""

    name: str
    metric: str
    base: FloatMatrix
    queries: FloatMatrix
    train_queries: FloatMatrix | None = None
    truth: npt.NDArray[np.int64] | None = None
    note: str = ""

    @property
    def dim(self) -> int:
        return int(self.base.shape[1])

    def head(self, n_queries: int | None) -> BenchData:
        """The same set with only its first queries."""
        if n_queries is None or n_queries >= len(self.queries):
            return self
        truth = None if self.truth is None else self.truth[:n_queries]
        return dataclasses.replace(self, queries=self.queries[:n_queries], truth=truth)

    def first(self, n_rows: int | None) -> BenchData:
        """The same set with only its first rows, and so without its truth."""
        if n_rows is None or n_rows >= len(self.base):
            return self
        return dataclasses.replace(self, base=self.base[:n_rows], truth=None)

    def require_truth(self, kind: str) -> npt.NDArray[np.int64]:
        """Ground truth, for the kinds of case that report quality."""
        if self.note:
            raise DataError(
                f"{self.name} is for speed only ({self.note}); a {kind!r} case needs untouched data"
            )
        if self.truth is None:
            raise DataError(f"{self.name} has no gt.npy, which a {kind!r} case needs")
        return self.truth

    def summary(self) -> dict[str, object]:
        """What a result records: sizes and the folder's name, never its path."""
        return {
            "name": self.name,
            "metric": self.metric,
            "n": len(self.base),
            "dim": self.dim,
            "queries": len(self.queries),
            "train_queries": 0 if self.train_queries is None else len(self.train_queries),
            "note": self.note,
        }


def _matrix(path: Path, dim: int | None) -> FloatMatrix:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name} cannot be read: {error}") from error
    if array.ndim != 2 or array.dtype.kind not in "fui":
        raise DataError(
            f"{path.name} must be a 2-D array of numbers, got {array.dtype} of shape {array.shape}"
        )
    if dim is not None and array.shape[1] != dim:
        raise DataError(f"{path.name} has {array.shape[1]} dims, base.npy has {dim}")
    return np.ascontiguousarray(array, dtype=np.float32)


def load_folder(folder: Path | str) -> BenchData:
    """Read a data folder; every inconsistency is a `DataError`."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder; expected one with base.npy, queries.npy, gt.npy, metric.txt"
        )
    try:
        metric = (folder / "metric.txt").read_text(encoding="utf-8").strip()
    except OSError as error:
        raise DataError(f"{folder.name}: metric.txt cannot be read: {error.strerror}") from error
    if metric not in METRICS:
        raise DataError(f"{folder.name}: metric.txt says {metric!r}, expected one of {', '.join(METRICS)}")
    base = _matrix(folder / "base.npy", None)
    queries = _matrix(folder / "queries.npy", base.shape[1])
    train_path, truth_path, note_path = (
        folder / name for name in ("train_queries.npy", "gt.npy", _NOTE_FILE)
    )
    train = _matrix(train_path, base.shape[1]) if train_path.exists() else None
    truth = None
    if truth_path.exists():
        truth = np.load(truth_path, allow_pickle=False).astype(np.int64)
        if truth.ndim != 2 or len(truth) != len(queries):
            raise DataError(
                f"gt.npy has shape {truth.shape}, expected ({len(queries)}, k): one row per query"
            )
        if truth.min(initial=-1) < -1 or truth.max(initial=-1) >= len(base):
            raise DataError(f"gt.npy holds row numbers outside -1 ... {len(base) - 1}")
    note = json.loads(note_path.read_text(encoding="utf-8"))["note"] if note_path.exists() else ""
    return BenchData(folder.resolve().name, metric, base, queries, train, truth, note)


def save_folder(data: BenchData, folder: Path, dtype: str = "float16") -> None:
    """Write a data folder; the counterpart of `load_folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "base.npy", data.base.astype(dtype))
    np.save(folder / "queries.npy", data.queries.astype(dtype))
    optional = {"train_queries.npy": data.train_queries, "gt.npy": data.truth}
    for name, array in optional.items():
        if array is None:
            (folder / name).unlink(missing_ok=True)
        else:
            np.save(folder / name, array.astype(np.int32 if name == "gt.npy" else dtype))
    (folder / "metric.txt").write_text(data.metric + "\n", encoding="utf-8")
    if data.note:
        (folder / _NOTE_FILE).write_text(json.dumps({"note": data.note}) + "\n", encoding="utf-8")
    else:
        (folder / _NOTE_FILE).unlink(missing_ok=True)


def stretch(data: BenchData, *, rows: int | None = None, dims: int | None = None, seed: int = 0) -> BenchData:
    """Give a set the number of rows and dims that a speed case asks for.

    Rows are repeated with noise of a thousandth of their norm; dims are reached by one fixed random linear
    map plus noise of a hundredth, so that the covariance has full rank. The result has no ground truth and
    says in `note` what was done: it is good for measuring time, and for nothing else.
    """
    rng = np.random.default_rng(seed)
    base, queries, train, notes = data.base, data.queries, data.train_queries, []
    if dims is not None and dims != data.dim:
        mix = rng.standard_normal((data.dim, dims), dtype=np.float32) / np.float32(np.sqrt(dims))

        def widen(x: FloatMatrix) -> FloatMatrix:
            scale = np.float32(0.01 * np.linalg.norm(x, axis=1).mean() / np.sqrt(dims))
            return x @ mix + scale * rng.standard_normal((len(x), dims), dtype=np.float32)

        base, queries = widen(base), widen(queries)
        train = None if train is None else widen(train)
        notes.append(f"{data.dim} dims mixed linearly into {dims}")
    if rows is not None and rows != len(base):
        if rows > len(base):
            scale = np.float32(0.001 * np.linalg.norm(base, axis=1).mean() / np.sqrt(base.shape[1]))
            repeated = np.resize(base, (rows, base.shape[1]))
            extra = repeated[len(base) :]
            extra += scale * rng.standard_normal(extra.shape, dtype=np.float32)
            notes.append(f"{len(base)} rows repeated with noise up to {rows}")
            base = repeated
        else:
            notes.append(f"the first {rows} of {len(base)} rows")
            base = base[:rows]
    if not notes:
        return data
    note = "; ".join(filter(None, [data.note, *notes]))
    return BenchData(data.name, data.metric, base, queries, train, None, note)
