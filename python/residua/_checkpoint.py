# SPDX-License-Identifier: Apache-2.0
"""Files of a training in progress: arrays in one .npz, written atomically, and what they must agree on."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from residua._io.write import atomic_output
from residua.errors import CorruptFileError, InvalidValueError

_FORMAT = 2


@dataclass(frozen=True)
class Plan:
    """What a checkpoint must agree on."""

    kind: str
    start: str  # fingerprint of the codec that training starts at
    epochs: int
    steps: int  # per epoch
    batch: int  # queries of a step
    seed: int
    data: str  # digest of rows, queries and pairs


def _text(plan: Plan) -> str:
    return json.dumps({"format": _FORMAT, **asdict(plan)}, sort_keys=True)


def write_state(path: str | os.PathLike[str], plan: Plan, arrays: dict[str, Any]) -> None:
    """Write arrays and the plan that they belong to."""
    with atomic_output(path) as file:
        np.savez(file, plan=np.frombuffer(_text(plan).encode(), np.uint8), **arrays)


def read_state(path: str | os.PathLike[str], plan: Plan) -> dict[str, Any]:
    """Read the arrays of a checkpoint of the same plan."""
    name = os.fsdecode(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        found = arrays["plan"].tobytes().decode()
        int(arrays["done"])
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise CorruptFileError(f"{name}: not a checkpoint of train_recurrent_binary ({error})") from error
    if found != _text(plan):
        raise InvalidValueError(
            f"{name}: a checkpoint of another configuration; it was made with {found}, this call has "
            f"{_text(plan)}. Give another path, or the same data and options"
        )
    return arrays
