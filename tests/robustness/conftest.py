# SPDX-License-Identifier: Apache-2.0
"""Makes mutate.py importable: in importlib mode pytest puts no test folder on sys.path."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
