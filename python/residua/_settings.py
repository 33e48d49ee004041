# SPDX-License-Identifier: Apache-2.0
"""Search settings that an index keeps and uses where a call leaves them out."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from residua import _core
from residua._validate import as_int, as_k
from residua.errors import CorruptFileError, InvalidTypeError

_LADDER = (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96)


def ladder(first: int, last: int) -> list[int]:
    """Ascending values in steps of 1.3 to 1.5 from ``first`` to ``last``, both included."""
    out: list[int] = []
    scale = 1
    while True:
        for part in _LADDER:
            value = math.ceil(first * part * scale)
            if value >= last:
                return [*out, last]
            out.append(value)
        scale *= 128


class Settings:
    """The part of an index that keeps default settings; saved with it."""

    _native: _core.Index

    @property
    def defaults(self) -> dict[str, Any]:
        """Settings of searches that leave them out, as :func:`residua.build` or :meth:`set_defaults` chose.

        Empty where the index chooses by itself.
        """
        return dict(self._kept()["params"])

    def set_defaults(self, params: dict[str, Any], *, k: int = 10) -> None:
        """Keep settings for searches that leave them out; saved with the index.

        Parameters
        ----------
        params
            Such as ``{"rerank": 40}`` or the ``params`` of a :class:`residua.TuneResult`; empty for none.
        k
            What they are meant for: a search for more takes ``rerank`` in proportion.

        Raises
        ------
        InvalidTypeError
            A setting that this index does not have; InvalidValueError for a value out of range.
        """
        self._keep(params, as_k(k), self._kept()["why"])

    def _axes(self, k: int) -> list[tuple[str, Sequence[int]]]:
        """Settings that trade recall for speed, the coarsest first, each with its values from cheap to dear.

        With all at their last values the search is exact, or as good as this index can be.
        """
        return []

    def _with_reason(self, plan: str) -> str:
        """A plan, and the settings and why they were chosen."""
        kept = self._kept()
        settings = ", ".join(f"{name} {value}" for name, value in kept["params"].items())
        return "; ".join(part for part in (plan, settings, kept["why"]) if part)

    def _setting_names(self) -> tuple[str, ...]:
        """Settings that :meth:`set_defaults` takes."""
        return tuple(name for name, _ in self._axes(1))

    def _keep(self, params: Any, k: int, why: str) -> None:
        names = self._setting_names()
        if not isinstance(params, dict) or not set(params) <= set(names):
            has = " and ".join(map(repr, names)) or "no settings"
            raise InvalidTypeError(
                f"defaults must be a dict of settings; this index has {has}, got {params!r}"
            )
        checked = {n: as_int(v, n, 1 if n in ("nprobe", "ef") else 0, 2**31 - 1) for n, v in params.items()}
        kept = {"k": k, "params": checked, "why": why}
        self._native.tuning = json.dumps(kept) if checked or why else ""

    def _kept(self) -> dict[str, Any]:
        text = self._native.tuning
        if not text:
            return {"k": 10, "params": {}, "why": ""}
        try:
            kept = json.loads(text)
            int(kept["k"]), dict(kept["params"]), str(kept["why"])
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptFileError(
                f"the index holds default settings that cannot be read: {text!r}"
            ) from error
        return dict(kept)

    def _default(self, name: str, given: Any, k: Any) -> Any:
        """The setting given, or the default; None leaves it to native code."""
        if given is not None or not self._native.tuning:
            return given
        kept = self._kept()
        value = kept["params"].get(name)
        if value and name == "rerank" and isinstance(k, int) and k > kept["k"]:
            return math.ceil(value * k / kept["k"])
        return value
