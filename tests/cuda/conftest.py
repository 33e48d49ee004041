# SPDX-License-Identifier: Apache-2.0
"""Tests of residua._cuda, on a GPU where there is one, else in the emulation (RESIDUA_CUDA=EMULATED)."""

from __future__ import annotations

import os

# Before the first question for a device; a real build does not look at it.
os.environ.setdefault("RESIDUA_CUDA_EMULATED", "1")

import pytest

import residua as rz


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reason = rz.cuda._look()[1]
    if not reason:
        return
    here = os.path.dirname(__file__)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.skip(reason=reason))
