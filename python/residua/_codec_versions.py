# SPDX-License-Identifier: Apache-2.0
"""Rows of several codecs in one index."""

from __future__ import annotations

from threading import Lock
from typing import Any

import numpy as np

from residua import _core
from residua._codec import Codec
from residua._typing import AnyArray, Ids
from residua._validate import as_ids
from residua.errors import InvalidTypeError


class CodecVersions:
    """The part of an index that knows by which codec its rows were encoded."""

    _native: _core.Index
    _codec: Codec | None
    _fitting: Lock

    def replace_codec(self, codec: Codec) -> None:
        """Encode rows to come by another codec whose codes queries read alike; codes that are here stay.

        Such a codec is made by ``train_recurrent_binary(x, compatible_with=index.codec, …)``: its query side
        is that of the old codec, its encoder fits the vectors of a new embedding model. Searches go on as
        before.

        Parameters
        ----------
        codec
            Trained. A codec that the index had before may come back.

        Raises
        ------
        UnsupportedError
            The query sides differ, which the error tells with both fingerprints, or the index has no trained
            codec. Nothing has changed then.
        NotTrainedError, InvalidTypeError
        """
        given: Any = codec
        if not isinstance(given, Codec) or given._is_query_side:
            raise InvalidTypeError(f"codec must be a codec such as RecurrentBinaryCodec, got {given!r}")
        native = codec._trained()
        with self._fitting:
            self._native.replace_codec(native)
            self._codec = codec

    def codec_versions(self, ids: Ids) -> AnyArray:
        """Return by which codec rows were encoded.

        Parameters
        ----------
        ids
            ``(n,)`` ids, which must exist.

        Returns
        -------
        ``(n,)`` array of str: ``fingerprint`` of a codec, in the order of ``ids``.

        Raises
        ------
        UnknownIdError, which names the first id that is not there; UnsupportedError where there are no codes.
        """
        out: Any = np.array(self._native.codec_versions(as_ids(ids, None)), dtype=np.str_)
        return out  # type: ignore[no-any-return]
