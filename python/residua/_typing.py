# SPDX-License-Identifier: Apache-2.0
"""Array and option types, named once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float32]
IntArray: TypeAlias = npt.NDArray[np.int64]
ByteArray: TypeAlias = npt.NDArray[np.uint8]
AnyArray: TypeAlias = npt.NDArray[Any]
ArrayLike: TypeAlias = npt.ArrayLike
Ids: TypeAlias = npt.ArrayLike | Sequence[str]
Metric: TypeAlias = Literal["cosine", "ip", "l2"]
Scoring: TypeAlias = Literal["asymmetric", "symmetric"]
Vectors: TypeAlias = Literal["auto", "float32", "float16", "int8", "disk", "none"]
Progress: TypeAlias = bool | Callable[[int, int], None]
