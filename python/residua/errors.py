# SPDX-License-Identifier: Apache-2.0
"""Every error that Residua raises on purpose.

All derive from :class:`ResiduaError` and from the built-in type that a caller would expect, so
``except ValueError`` and ``except rz.errors.ResiduaError`` both work.
"""

from __future__ import annotations

__all__ = [
    "CorruptFileError",
    "DriftWarning",
    "DtypeError",
    "DuplicateIdError",
    "FallbackWarning",
    "FileError",
    "InvalidTypeError",
    "InvalidValueError",
    "NonFiniteError",
    "NotTrainedError",
    "OutOfMemoryError",
    "OutOfRangeError",
    "ResiduaError",
    "ShapeError",
    "UnknownIdError",
    "UnsupportedError",
]


class ResiduaError(Exception):
    """Base class of all errors of this package."""


class InvalidValueError(ResiduaError, ValueError):
    """An argument is outside its range."""


class InvalidTypeError(ResiduaError, TypeError):
    """An argument has a type that cannot work here."""


class ShapeError(ResiduaError, ValueError):
    """An array has the wrong number of axes, dims or rows."""


class DtypeError(ResiduaError, TypeError):
    """An array has an element type that is not accepted here."""


class NonFiniteError(ResiduaError, ValueError):
    """Vectors contain NaN or infinity."""


class NotTrainedError(ResiduaError, RuntimeError):
    """A codec is used before it was fitted."""


class DuplicateIdError(ResiduaError, ValueError):
    """An id is given twice, or exists already."""


class UnknownIdError(ResiduaError, KeyError):
    """An id is not in the index."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0]) if self.args else ""


class OutOfRangeError(ResiduaError, IndexError):
    """A row number is not in the table, or a query number not in the results."""


class OutOfMemoryError(ResiduaError, MemoryError):
    """A device, or the cap on its memory, has no room for what was asked."""


class CorruptFileError(ResiduaError, ValueError):
    """A file is damaged, or is not what it should be."""


class UnsupportedError(ResiduaError, ValueError):
    """A valid request that this object, build or version cannot serve."""


class DriftWarning(UserWarning):
    """Rows that were added to an index differ from those that it was trained on (``hits.stats["warning"]``).

    Attributes
    ----------
    error_ratio
        Mean squared distance of the added rows to their centroids, over that of training.
    imbalance_ratio
        How unequal the lists are, over how unequal training left them.
    """

    def __init__(self, message: str, error_ratio: float, imbalance_ratio: float) -> None:
        super().__init__(message)
        self.error_ratio = error_ratio
        self.imbalance_ratio = imbalance_ratio


class FallbackWarning(UserWarning):
    """Training found nothing better than the closed form, which is what was returned."""


class FileError(ResiduaError, OSError):
    """The operating system refused to read or write a file."""
