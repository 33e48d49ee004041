# SPDX-License-Identifier: Apache-2.0
"""What is written to a file of its own, by the native object that it holds unless it says otherwise."""

from __future__ import annotations

from typing import Any

from residua._validate import as_path

__all__ = ["Saved"]


class Saved:
    """Base of classes that :func:`residua.load` reads back."""

    _native: Any

    def save(self, path: Any) -> None:
        """Write this to ``path``, atomically; read it back with :func:`residua.load`, mapped or not.

        Parameters
        ----------
        path
            str or os.PathLike; folders are not created.

        Raises
        ------
        FileError
            An OSError: the folder is missing, the path is a directory, …
        """
        self._write(as_path(path))

    def _write(self, path: bytes) -> None:
        self._native.save(path)
