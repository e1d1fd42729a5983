# SPDX-License-Identifier: Apache-2.0
"""Queries that a model writes for items: doc2query, and paraphrases of descriptions (IntSR, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import torch
from huggingface_hub import snapshot_download
from tqdm.auto import tqdm

from seekrec.errors import ConfigurationError
from seekrec.schema import MAX_QUERY_CHARACTERS, item_texts
from seekrec.util.hashing import folder_sha256
from seekrec.util.text import fold_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# T5s that paraphrase were trained with this before the text; those that write queries with nothing.
PARAPHRASE_PREFIX = "paraphrase: "
NUM_TEXTS = 3
# Sampling of docTTTTTquery: queries differ, and stay with the text.
_TOP_K = 10
_MAX_NEW_TOKENS = 64
_MAX_INPUT_TOKENS = 384
_BATCH_SIZE = 32


class TextWriter:
    """A sequence-to-sequence model that writes texts for texts, such as `doc2query/msmarco-t5-base-v1`.

    Args:
        name_or_path (`str`): A folder, or a name on the Hub.
        device (`str`, *optional*): As in torch; an accelerator if there is one.

    Raises:
        ConfigurationError: If there is no such model.
    """

    def __init__(self, name_or_path: str, *, device: str | None = None) -> None:
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        try:
            self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name_or_path)
            model: PreTrainedModel = AutoModelForSeq2SeqLM.from_pretrained(name_or_path)
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"The model {name_or_path!r} of the query pool cannot be loaded ({error}); pass a folder or Hub name "
                "of a sequence-to-sequence model, such as doc2query/msmarco-t5-base-v1."
            ) from error
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.eval().to(self.device)

    def write(
        self,
        texts: Sequence[str],
        *,
        num_texts: int = NUM_TEXTS,
        seed: int = 0,
        show_progress: bool = False,
    ) -> list[list[str]]:
        """Write for each text.

        What the model returns is data: it is folded as queries are; what is empty, longer than a query may be, a copy
        of the text or given twice is left out.

        Args:
            texts (`Sequence[str]`): What is read; nothing is written for an empty one.
            num_texts (`int`): Samples drawn for each text.
            seed (`int`): Seed of the samples.
            show_progress (`bool`): Show a progress bar.

        Returns:
            `list[list[str]]`: At most `num_texts` for each text.
        """
        written: list[list[str]] = [[] for _ in texts]
        # Of like length, so that little is padded; longest first, so that too little memory shows at once.
        rows = sorted((row for row, text in enumerate(texts) if text.strip()), key=lambda row: -len(texts[row]))
        starts = range(0, len(rows), _BATCH_SIZE)
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(seed)
            for start in tqdm(starts, desc="pseudo-queries", disable=not show_progress):
                batch = rows[start : start + _BATCH_SIZE]
                inputs = self.tokenizer(
                    [texts[row] for row in batch],
                    truncation=True,
                    max_length=_MAX_INPUT_TOKENS,
                    padding=True,
                    return_tensors="pt",
                ).to(self.device)
                tokens = self.model.generate(
                    input_ids=inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    do_sample=True,
                    top_k=_TOP_K,
                    num_beams=1,
                    num_return_sequences=num_texts,
                    max_new_tokens=_MAX_NEW_TOKENS,
                )
                answers = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
                for place, row in enumerate(batch):
                    written[row] = _clean(answers[place * num_texts : (place + 1) * num_texts], texts[row])
        return written


def texts_to_read(items: pa.Table, kind: str) -> list[str]:
    """Return what a model reads of each item: to write queries, title and description; to paraphrase, the description.

    Args:
        items (`pyarrow.Table`): Rows of `ITEM_FEATURES`.
        kind (`str`): `"doc2query"` or `"paraphrase"`.

    Returns:
        `list[str]`: With what the model expects before it; empty where there is nothing to read.
    """
    if kind == "doc2query":
        return item_texts(items)
    return [PARAPHRASE_PREFIX + text if text and text.strip() else "" for text in items["description"].to_pylist()]


def writer_version(name_or_path: str) -> str:
    """Return the version of a model: the same path or name may contain other weights tomorrow.

    Returns:
        `str`: A SHA-256 of a folder's files; the name and the commit of a Hub repository, which is fetched if it is
            not there.

    Raises:
        ConfigurationError: If there is no such model.
    """
    if Path(name_or_path).is_dir():
        return folder_sha256(name_or_path)
    try:
        return f"{name_or_path}@{Path(snapshot_download(name_or_path, local_files_only=True)).name}"
    except (OSError, ValueError):
        TextWriter(name_or_path, device="cpu")
    return f"{name_or_path}@{Path(snapshot_download(name_or_path, local_files_only=True)).name}"


def _clean(answers: list[str], text: str) -> list[str]:
    """Fold answers, and leave out what is no new query."""
    own = fold_text(text.removeprefix(PARAPHRASE_PREFIX))
    folded = dict.fromkeys(fold_text(answer) for answer in answers)
    return [one for one in folded if one.strip() and len(one) <= MAX_QUERY_CHARACTERS and one != own]


__all__ = ["NUM_TEXTS", "PARAPHRASE_PREFIX", "TextWriter", "texts_to_read", "writer_version"]
