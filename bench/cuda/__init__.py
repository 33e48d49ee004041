# SPDX-License-Identifier: Apache-2.0
"""Measures of the GPU: `python -m bench.cuda`; with `--emulated` in tiny sizes on the CPU."""
