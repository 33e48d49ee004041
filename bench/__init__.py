# SPDX-License-Identifier: Apache-2.0
"""The benchmark harness: cases (what is measured), runners (one per engine), report (tables and plots)."""
