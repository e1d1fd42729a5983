# SPDX-License-Identifier: Apache-2.0
"""Instructions for the two verbs beside retrieving and ranking: suggest the next query, describe an item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from transformers import PreTrainedTokenizerBase

from seekrec.corpora.prompts import PromptWriter, check_vocabulary, end_token_id
from seekrec.corpora.segments import list_histories
from seekrec.corpora.settings import CorpusSettings
from seekrec.corpora.tasks import TASK_BY_NAME
from seekrec.corpora.text import shared_encoder
from seekrec.corpora.tokens import IdentifierVocabulary
from seekrec.events.columns import EventColumns
from seekrec.schema import Request, View, item_texts

if TYPE_CHECKING:
    from seekrec.catalog import Catalog


def encode_query_questions(
    requests: Sequence[Request],
    catalog: Catalog,
    vocabulary: IdentifierVocabulary,
    tokenizer: PreTrainedTokenizerBase,
    settings: CorpusSettings,
) -> list[list[int]]:
    """Write the NSQP instruction (wording 0) of each request; a query it has is not read.

    Args:
        requests (`Sequence[Request]`): The users' histories.
        catalog (`Catalog`): Its identifiers.
        vocabulary ([`IdentifierVocabulary`]): Of the tokenizer.
        tokenizer (`PreTrainedTokenizerBase`): Has the tokens of the vocabulary.
        settings ([`CorpusSettings`]): Those of the corpus that the model was trained on.

    Returns:
        `list[list[int]]`: Token ids for the encoder.
    """
    check_vocabulary(catalog, vocabulary)
    events, histories = list_histories([request.history for request in requests])
    columns = EventColumns.from_events(events, catalog.id_map)
    writer = _writer(columns, catalog, vocabulary, tokenizer, settings)
    histories = columns.cut(histories, settings.max_history_recommendations, settings.max_history_searches)
    rows = np.arange(len(requests))
    return writer.write_inputs(TASK_BY_NAME["nsqp"], rows, np.zeros_like(rows), histories).to_lists()


def encode_description_questions(
    items: np.ndarray,
    view: View,
    catalog: Catalog,
    vocabulary: IdentifierVocabulary,
    tokenizer: PreTrainedTokenizerBase,
    settings: CorpusSettings,
) -> list[list[int]]:
    """Write the ID2Desc instruction (wording 0) of items.

    Args:
        items (`np.ndarray`): int64 rows of the catalogue.
        view (`str`): The identifier shown.
        catalog (`Catalog`): Its identifiers.
        vocabulary ([`IdentifierVocabulary`]): Of the tokenizer.
        tokenizer (`PreTrainedTokenizerBase`): Has the tokens of the vocabulary.
        settings ([`CorpusSettings`]): Those of the corpus that the model was trained on.

    Returns:
        `list[list[int]]`: Token ids for the encoder.
    """
    check_vocabulary(catalog, vocabulary)
    writer = _writer(EventColumns.from_events([], catalog.id_map), catalog, vocabulary, tokenizer, settings)
    known = np.unique(items)
    texts = item_texts(catalog.items.take(known))
    writer.add_items(known, texts)
    task = TASK_BY_NAME[f"id2desc_{view}"]
    return writer.write_inputs(task, np.asarray(items), np.zeros(len(items), dtype=np.int64)).to_lists()


def _writer(
    columns: EventColumns,
    catalog: Catalog,
    vocabulary: IdentifierVocabulary,
    tokenizer: PreTrainedTokenizerBase,
    settings: CorpusSettings,
) -> PromptWriter:
    return PromptWriter(
        columns,
        catalog.codes,
        vocabulary,
        shared_encoder(tokenizer),
        eos_token_id=end_token_id(tokenizer),
        settings=settings,
    )


__all__ = ["encode_description_questions", "encode_query_questions"]
