# SPDX-License-Identifier: Apache-2.0
"""Query vectors from a frozen text encoder: known queries are looked up, new ones encoded.

A saved table stores digests of queries, not their text. It still leaks information: a guessed query can be checked
against it, and a vector reveals roughly what was asked.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from seekrec.embeddings import embed_texts, load_semantic_encoder
from seekrec.embeddings.timed import embed_in_time
from seekrec.errors import ConfigurationError, DataError
from seekrec.util.files import replace_file
from seekrec.util.finite import check_finite
from seekrec.util.text import TEXT_FOLDING, check_folding, fold_text

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

QUERY_VECTORS_FILE = "query_vectors.safetensors"

# One for the tables, held for a moment, and one for the encoder, which threads cannot share. Not attributes, because a
# processor can be copied.
_TABLE, _ENCODER = threading.Lock(), threading.Lock()

# Vectors of new queries that are kept in memory: 10,000 of 384 numbers take 15 MB.
_MAX_NEW = 10_000
_DIGEST_SIZE = 16
# Texts that are embedded, and vectors that are copied, at a time.
_TEXTS_AT_ONCE = 1 << 16


class QueryVectors:
    """Texts to vectors.

    Args:
        encoder_name (`str`, *optional*): A sentence-transformers name or path; `None` is the default encoder. It is
            loaded at the first query that is not known.
        folding (`Collection[str]`): How texts are folded first, as for [`~seekrec.util.text.fold_text`]; with nothing
            named they are taken as they are.
    """

    def __init__(self, encoder_name: str | None = None, folding: Collection[str] = TEXT_FOLDING) -> None:
        self.encoder_name = encoder_name
        # Not where only a file names the encoder.
        self.encoder_is_trusted = True
        self.folding = check_folding(folding)
        self._known: dict[bytes, np.ndarray] = {}
        self._new: dict[bytes, np.ndarray] = {}
        self._encoder: SentenceTransformer | None = None

    def __len__(self) -> int:
        return len(self._known)

    def add(self, texts: Sequence[str]) -> None:
        """Compute the vectors of these texts, where missing, and keep them for good: `save` writes them."""
        missing = {key: text for key, text in self._named(texts) if key not in self._known}
        keys, new = list(missing), list(missing.values())
        for start in range(0, len(new), _TEXTS_AT_ONCE):
            vectors = self._embed(new[start : start + _TEXTS_AT_ONCE])
            self._known.update(zip(keys[start : start + _TEXTS_AT_ONCE], vectors, strict=True))

    def add_in_time(self, texts: Sequence[str], seconds_left: Callable[[], float]) -> tuple[np.ndarray, np.ndarray]:
        """Compute and keep the vectors of those texts for which there is time; see [`embed_in_time`].

        Args:
            texts (`Sequence[str]`): Texts.
            seconds_left (`Callable`): Returns the seconds that are left.

        Returns:
            `tuple[np.ndarray, np.ndarray]`: Vectors of all, as [`encode`] returns them; those that are not kept are
            made of their words. And for each whether it is kept, bool.
        """
        if not len(texts):
            return self.encode(texts), np.zeros(0, dtype=bool)
        named = self._named(texts)
        with _ENCODER:
            vectors, is_embedded = embed_in_time(
                [text for _, text in named], encoder=self._load_encoder(), seconds_left=seconds_left
            )
        rounded = self._round(vectors)
        self._known.update({key: rounded[row] for row, (key, _) in enumerate(named) if is_embedded[row]})
        return rounded.astype(np.float32), is_embedded

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors of texts; several threads may ask at once.

        Returns:
            `np.ndarray`: float32 of shape `(len(texts), dimension)`, of unit length up to half precision, to which
            they are rounded. `(0, 0)` without texts.

        Raises:
            NotFiniteError: If the encoder returns a number that is not finite.
        """
        if not len(texts):
            return np.zeros((0, 0), dtype=np.float32)
        named = self._named(texts)
        with _TABLE:
            found = {key: table[key] for table in (self._new, self._known) for key, _ in named if key in table}
        missing = {key: text for key, text in named if key not in found}
        if missing:
            computed = dict(zip(missing, self._embed(list(missing.values())), strict=True))
            found.update(computed)
            with _TABLE:
                self._new.update(computed)
                while len(self._new) > _MAX_NEW:
                    self._new.pop(next(iter(self._new)))
        first = found[named[0][0]]
        vectors = np.empty((len(named), *first.shape), np.float32)
        for start in range(0, len(named), _TEXTS_AT_ONCE):
            block = [found[key] for key, _ in named[start : start + _TEXTS_AT_ONCE]]
            vectors[start : start + len(block)] = np.stack(block)
        return vectors

    def save(self, folder: str | Path) -> None:
        """Write the kept vectors; without any, remove an older file."""
        path = Path(folder) / QUERY_VECTORS_FILE
        if not self._known:
            path.unlink(missing_ok=True)
            return
        digests = np.frombuffer(b"".join(self._known), dtype=np.uint8).reshape(-1, _DIGEST_SIZE)
        with replace_file(path) as temporary:
            save_file({"digests": digests.copy(), "vectors": np.stack(list(self._known.values()))}, temporary)

    @classmethod
    def load(
        cls, folder: str | Path, encoder_name: str | None = None, folding: Collection[str] = TEXT_FOLDING
    ) -> QueryVectors:
        """Read what `save` wrote; empty where there is no file.

        Raises:
            DataError: If the file is damaged.
        """
        loaded = cls(encoder_name, folding)
        path = Path(folder) / QUERY_VECTORS_FILE
        if path.is_file():
            try:
                arrays = load_file(path)
                digests, vectors = arrays["digests"], arrays["vectors"]
                if digests.ndim != 2 or vectors.ndim != 2 or len(digests) != len(vectors):
                    raise ValueError(f"digests of shape {digests.shape}, vectors of shape {vectors.shape}")
            except (SafetensorError, KeyError, OSError, ValueError) as error:
                raise DataError(
                    f"{path} contains no query vectors ({error}): it is damaged. Save the processor again or fetch it "
                    "anew."
                ) from error
            check_finite(f"The vectors of {path}", vectors, "row", "save the processor again, or delete the file")
            loaded._known = {row.tobytes(): vector for row, vector in zip(digests, vectors, strict=True)}
        return loaded

    def _named(self, texts: Sequence[str]) -> list[tuple[bytes, str]]:
        """Return for each text the digest that the tables know it by, and its folded form."""
        folded = [fold_text(text, self.folding) for text in texts] if self.folding else texts
        return [(hashlib.blake2b(text.encode(), digest_size=_DIGEST_SIZE).digest(), text) for text in folded]

    def _embed(self, texts: list[str]) -> np.ndarray:
        with _ENCODER:
            vectors = embed_texts(texts, encoder=self._load_encoder())
        return self._round(vectors)

    def _load_encoder(self) -> SentenceTransformer:
        if self._encoder is None and not self.encoder_is_trusted:
            raise ConfigurationError(
                f"A query is new, and the checkpoint names the text encoder {self.encoder_name!r} for it, but an "
                "encoder is not loaded just because a file names it. Pass `text_encoder=` with the path or name of an "
                "encoder you trust to `from_pretrained` of the processor."
            )
        if self._encoder is None:
            self._encoder = load_semantic_encoder(self.encoder_name)
        return self._encoder

    @staticmethod
    def _round(vectors: np.ndarray) -> np.ndarray:
        check_finite("The vectors of queries", vectors, "query", "check the encoder's weights and its data type")
        # By torch, whose conversion is the one of the catalogue's vectors.
        return np.asarray(torch.from_numpy(vectors).half().numpy())


__all__ = ["QUERY_VECTORS_FILE", "QueryVectors"]
