# SPDX-License-Identifier: Apache-2.0
"""Indexes of FAISS, read and written through its Python package: arrays only, no file is parsed here."""
