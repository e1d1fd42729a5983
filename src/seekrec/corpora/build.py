# SPDX-License-Identifier: Apache-2.0
"""A split and a catalogue as instruction corpora: one data set of token ids for each task.

Every training target becomes one row of `nrip`, or one of `nsip` and one of `nsqp`; every item one row of each
alignment task. Histories are those of the split, cut to the latest recommendations and searches; impressions are left
out, because GenSAR has no token for what was shown and not clicked.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetDict, DatasetInfo, Features, List, Value
from datasets.table import InMemoryTable
from transformers import PreTrainedTokenizerBase

from seekrec.corpora.prompts import PromptWriter, check_vocabulary, end_token_id
from seekrec.corpora.settings import CorpusSettings
from seekrec.corpora.targets import report_questions
from seekrec.corpora.tasks import TASKS, Task, choose_tasks
from seekrec.corpora.templates import TEMPLATES
from seekrec.corpora.text import shared_encoder, tokenizer_digest
from seekrec.corpora.tokens import IdentifierVocabulary
from seekrec.errors import DataError
from seekrec.events.columns import EventColumns
from seekrec.schema import RECOMMENDATION, SEARCH, IdMap, item_texts
from seekrec.util.hashing import json_digest
from seekrec.util.ragged import Ragged

if TYPE_CHECKING:
    from seekrec.catalog import Catalog
    from seekrec.events import Split

Part = Literal["train", "validation", "test"]

CORPUS_FEATURES = Features(
    {
        "input_ids": List(Value("int32")),  # the instruction, ending with end of sequence
        "labels": List(Value("int32")),  # the answer
        "task": ClassLabel(names=list(TASKS)),
        "user_id": Value("string"),  # null in tasks about items
        "item_id": Value("string"),  # the item asked for or described; null for a search without a click
    }
)
CORPUS_VERSION = 1

# Bounds the index arrays: 16,384 rows of 150 tokens need 40 MB.
ROWS_AT_A_TIME = 16_384
# Histories are asked of the split for so many targets at a time.
_TARGETS_AT_A_TIME = 1_000_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Targets:
    """The events that a part asks for.

    Args:
        events ([`EventColumns`]): All events that `rows` and `histories` number.
        rows (`np.ndarray`): int64 event numbers of shape `(n,)`.
        histories (`Ragged`): Event numbers, one row a target, cut to the settings.
        user_id (`pyarrow.Array`): One a target.
        item_id (`pyarrow.Array`): One a target; null for a search without a click.
    """

    events: EventColumns
    rows: np.ndarray
    histories: Ragged
    user_id: pa.Array
    item_id: pa.Array


def build_corpus(
    split: Split,
    catalog: Catalog,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: IdentifierVocabulary,
    settings: CorpusSettings | None = None,
    *,
    part: Part = "train",
) -> DatasetDict:
    """Write the corpora of a part of a split.

    Args:
        split (`Split`): Targets and histories.
        catalog (`Catalog`): Items and identifiers; it must hold every item of the split's log.
        tokenizer (`PreTrainedTokenizerBase`): Has the tokens of the vocabulary.
        vocabulary ([`IdentifierVocabulary`]): Where the identifier tokens are.
        settings ([`CorpusSettings`], *optional*): Tasks and lengths.
        part (`str`): `"train"`, or a held-out part: that has wording 0 in every row and no tasks about items.

    Returns:
        `datasets.DatasetDict`: For each task with rows a data set with the columns `CORPUS_FEATURES`.

    Raises:
        ConfigurationError: If a task is unknown or impossible.
        CatalogError: If the vocabulary does not fit the catalogue.
        UnknownItemError: If the catalogue lacks an item of the log.
        DataError: If a task was asked for by name and training has no row of it.
    """
    settings = CorpusSettings() if settings is None else settings
    check_vocabulary(catalog, vocabulary)
    tasks = choose_tasks(settings.tasks, vocabulary.views)
    asks_events = any(not task.is_about_items for task in tasks)
    targets = find_targets(split, catalog, settings, part) if asks_events else _no_targets()
    asked = [task.behavior for task in tasks if task.behavior is not None and task.kind in ("nrip", "nsip")]
    if part == "train" and asked:
        is_search = targets.events.is_search[targets.rows]
        chosen = (targets.events.item[targets.rows] >= 0) & np.isin(np.where(is_search, SEARCH, RECOMMENDATION), asked)
        report_questions(split, targets.rows[chosen], is_search[chosen].astype(int), behaviors=asked)
    writer = PromptWriter(
        targets.events,
        catalog.codes,
        vocabulary,
        shared_encoder(tokenizer),
        eos_token_id=end_token_id(tokenizer),
        settings=settings,
    )
    items = np.empty(0, dtype=np.int64)
    if part == "train" and any(task.is_about_items for task in tasks):
        items = np.flatnonzero(~catalog.is_removed)
        texts = item_texts(catalog.items)
        items = items[writer.add_items(items, [texts[row] for row in items.tolist()])]
    fingerprint = corpus_fingerprint(split, catalog, tokenizer, vocabulary, settings, part=part)
    corpus = DatasetDict()
    for task in tasks:
        batches = list(_write_task(task, writer, targets, items, catalog, settings, part))
        if batches:
            corpus[task.name] = _make_dataset(batches, f"{fingerprint} {task.name}")
        elif settings.tasks is not None and part == "train":
            raise DataError(
                f"`tasks` names {task.name!r}, but log {split.log.name!r} has nothing to train it on; leave it out, "
                "or give the log searches and the items text."
            )
    logger.info("Corpus %s of %s: %s.", part, split.log.name, {name: len(rows) for name, rows in corpus.items()})
    return corpus


def corpus_fingerprint(
    split: Split,
    catalog: Catalog,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: IdentifierVocabulary,
    settings: CorpusSettings | None = None,
    *,
    part: Part = "train",
) -> str:
    """Give a SHA-256 over all that decides the content of a corpus, without building it.

    Args:
        split (`Split`): As for [`build_corpus`], like all others.
        catalog (`Catalog`): Items and identifiers.
        tokenizer (`PreTrainedTokenizerBase`): Encodes the text.
        vocabulary ([`IdentifierVocabulary`]): Where the identifier tokens are.
        settings ([`CorpusSettings`], *optional*): Tasks and lengths.
        part (`str`): Part of the split.

    Returns:
        `str`: 64 hexadecimal digits.
    """
    wordings = {kind: [asdict(template) for template in templates] for kind, templates in TEMPLATES.items()}
    content = [
        CORPUS_VERSION,
        part,
        (CorpusSettings() if settings is None else settings).to_dict(),
        vocabulary.to_dict(),
        split.fingerprint(),
        catalog.content_hash,
        tokenizer_digest(tokenizer),
        wordings,
    ]
    return json_digest(content)


def find_targets(split: Split, catalog: Catalog, settings: CorpusSettings, part: Part) -> Targets:
    """Give the targets of a part with their histories.

    Args:
        split (`Split`): The split.
        catalog (`Catalog`): Numbers the items.
        settings ([`CorpusSettings`]): Lengths of the histories.
        part (`str`): `"train"`, `"validation"` or `"test"`.
    """
    log = split.log
    if part == "train":
        events = EventColumns.from_table(log.events, catalog.id_map)
        rows = split.training_targets(include_queries=True)
        histories = _cut_histories(split, events, rows, settings)
        user_id, item_id = (log.events[name].take(pa.array(rows)) for name in ("user_id", "item_id"))
        return Targets(events, rows, histories, _one_array(user_id), _one_array(item_id))
    cases = split.cases(part)
    asked = pa.table(
        {
            "behavior": pa.array(cases.behavior, pa.string()),
            "query": pa.array(cases.query, pa.string()),
            "item_id": pa.array(cases.item_id, pa.string()),
            "action": pa.array(["click"] * len(cases), pa.string()),
            "timestamp": pa.array(cases.timestamp, pa.int64()),
        }
    )
    # The questions are events too, behind those of the log.
    rows = np.arange(log.num_events, log.num_events + len(cases))
    both = pa.concat_tables([log.events.select(asked.column_names), asked])
    events = EventColumns.from_table(both, catalog.id_map)
    histories = events.cut(
        cases.histories,
        settings.max_history_recommendations,
        settings.max_history_searches,
    )
    return Targets(events, rows, histories, pa.array(cases.user_id, pa.string()), _one_array(asked["item_id"]))


def _no_targets() -> Targets:
    nothing = Ragged.from_lists([])
    empty = pa.array([], pa.string())
    return Targets(EventColumns.from_events([], IdMap([])), np.empty(0, dtype=np.int64), nothing, empty, empty)


def _cut_histories(split: Split, events: EventColumns, rows: np.ndarray, settings: CorpusSettings) -> Ragged:
    """Give the histories of training targets, cut to the settings."""
    limits = (settings.max_history_recommendations, settings.max_history_searches)
    is_written, is_search = ~events.is_shown, events.is_search
    kinds = ((is_written & ~is_search, limits[0]), (is_written & is_search, limits[1]))
    parts = []
    for start in range(0, len(rows), _TARGETS_AT_A_TIME):
        chunk = rows[start : start + _TARGETS_AT_A_TIME]
        found = split.training_histories(target_rows=chunk, max_of_kind=kinds)
        parts.append(events.cut(Ragged(found.values, found.offsets), *limits))
    return Ragged.stack(parts) if parts else Ragged.from_lists([])


def _write_task(
    task: Task,
    writer: PromptWriter,
    targets: Targets,
    items: np.ndarray,
    catalog: Catalog,
    settings: CorpusSettings,
    part: Part,
) -> Iterator[pa.RecordBatch]:
    """Write one task, some thousand rows at a time."""
    if task.is_about_items:
        rows, histories = items, None
        user_id = pa.nulls(len(items), pa.string())
        item_id = _one_array(catalog.items["item_id"].take(pa.array(items)))
    else:
        is_search = targets.events.is_search[targets.rows]
        chosen = is_search if task.behavior == "search" else ~is_search
        if task.kind != "nsqp":
            chosen = chosen & (targets.events.item[targets.rows] >= 0)
        numbers = np.flatnonzero(chosen)
        rows, histories = targets.rows[numbers], targets.histories.take(numbers)
        user_id, item_id = (column.take(pa.array(numbers)) for column in (targets.user_id, targets.item_id))
    templates = np.zeros(len(rows), dtype=np.int64)
    if part == "train":
        known = len(TEMPLATES[task.kind])
        # Its own generator for each task, so that leaving one task out changes nothing in the others.
        generator = np.random.default_rng([settings.seed, TASKS.index(task.name)])
        templates = generator.integers(min(known, settings.num_templates or known), size=len(rows))
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        stop = min(start + ROWS_AT_A_TIME, len(rows))
        chunk = slice(start, stop)
        inputs = writer.write_inputs(
            task, rows[chunk], templates[chunk], None if histories is None else histories.slice(start, stop)
        )
        labels = writer.write_labels(task, rows[chunk])
        yield pa.record_batch(
            [
                inputs.to_arrow(),
                labels.to_arrow(),
                pa.array(np.full(stop - start, TASKS.index(task.name), dtype=np.int64)),
                user_id[chunk],
                item_id[chunk],
            ],
            schema=CORPUS_FEATURES.arrow_schema,
        )


def _make_dataset(batches: list[pa.RecordBatch], name: str) -> Dataset:
    return Dataset(
        InMemoryTable.from_batches(batches),
        info=DatasetInfo(features=CORPUS_FEATURES),
        # Without it `datasets` hashes the whole table.
        fingerprint=hashlib.sha256(name.encode()).hexdigest()[:16],
    )


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks else pa.array([], column.type)
