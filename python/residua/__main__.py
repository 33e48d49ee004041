# SPDX-License-Identifier: Apache-2.0
"""The entry point of `residua` and `python -m residua`."""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["main"]

_NEEDED = ("typer", "rich", "matplotlib")


def main() -> int:
    """Run the command line and return its exit code; 2 when the extra that it needs is not installed."""
    missing = [module for module in _NEEDED if importlib.util.find_spec(module) is None]
    if missing:
        print(
            f'residua: the command line needs {", ".join(missing)}; run: pip install "residua[cli]"',
            file=sys.stderr,
        )
        return 2
    try:
        from residua.cli import run
    except KeyboardInterrupt:
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
