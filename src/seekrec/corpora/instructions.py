# SPDX-License-Identifier: Apache-2.0
"""Build instruction corpora from a split and a catalogue: one data set of token ids per task.

Every training target becomes one row of `nrip`, or one of `nsip` and one of `nsqp`; every item one row of each
alignment task. Histories are those of the split, cut to the latest recommendations and searches; impressions are left
out, because GenSAR has no token for what was shown and not clicked.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetDict, DatasetInfo, Features, List, Value
from datasets.table import InMemoryTable
from transformers import PreTrainedTokenizerBase

from seekrec.catalog import Catalog
from seekrec.corpora.segments import CorpusSettings, InstructionWriter
from seekrec.corpora.targets import report_questions
from seekrec.corpora.templates import TASKS, TEMPLATES, Task, choose_tasks
from seekrec.corpora.text import tokenizer_digest
from seekrec.corpora.tokens import IdentifierVocabulary
from seekrec.errors import DataError
from seekrec.events import Split
from seekrec.events.columns import EventColumns, RequestColumns
from seekrec.schema import RECOMMENDATION, SEARCH, item_texts
from seekrec.util.arrow import one_array
from seekrec.util.hashing import hash_numbers, json_digest
from seekrec.util.ragged import Ragged

CORPUS_FEATURES = Features(
    {
        "input_ids": List(Value("int32")),  # the instruction, ending with end of sequence
        "labels": List(Value("int32")),  # the answer
        "task": ClassLabel(names=list(TASKS)),
        "user_id": Value("string"),  # null in tasks about items
        "item_id": Value("string"),  # the target, or the item described; null for a search without a click
    }
)
CORPUS_VERSION = 1

# Bounds the index arrays: 16,384 rows of 150 tokens need 40 MB.
ROWS_AT_A_TIME = 16_384
# Histories are asked of the split for so many targets at a time.
_TARGETS_AT_A_TIME = 1 << 19

logger = logging.getLogger(__name__)


def build_corpus(
    split: Split,
    catalog: Catalog,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: IdentifierVocabulary,
    settings: CorpusSettings,
    *,
    tasks: Sequence[str] | None = None,
    seed: int = 0,
) -> DatasetDict:
    """Write the training part of a split as instructions and answers.

    Args:
        split (`Split`): Targets and histories.
        catalog (`Catalog`): Items and identifiers; it must contain every item of the split's log.
        tokenizer (`PreTrainedTokenizerBase`): Has the tokens of the vocabulary.
        vocabulary ([`IdentifierVocabulary`]): The identifier tokens.
        settings ([`CorpusSettings`]): Maximum lengths.
        tasks (`Sequence[str]`, *optional*): Names out of `TASKS`; `None` takes all that the identifiers allow.
        seed (`int`): Seed of the choice of wordings.

    Returns:
        `datasets.DatasetDict`: For each task with rows a data set with the columns `CORPUS_FEATURES`.

    Raises:
        ConfigurationError: If a task is unknown or impossible.
        CatalogError: If the vocabulary does not fit the catalogue.
        UnknownItemError: If the catalogue lacks an item of the log.
        DataError: If a task was requested by name and training has no row for it.
    """
    chosen = choose_tasks(tasks, vocabulary.views)
    fingerprint = corpus_fingerprint(split, catalog, tokenizer, vocabulary, settings, tasks=tasks, seed=seed)
    written: dict[str, list[pa.RecordBatch]] = {task.name: [] for task in chosen}
    shared = (catalog, tokenizer, vocabulary, settings)
    for name, batch in write_item_tasks(*shared, tasks=chosen, seed=seed):
        written[name].append(batch)
    for name, batch in write_history_tasks(split, *shared, tasks=chosen, seed=seed):
        written[name].append(batch)
    corpus = DatasetDict()
    for name, batches in written.items():
        if batches:
            corpus[name] = _make_dataset(batches, f"{fingerprint} {name}")
        elif tasks is not None:
            raise DataError(
                f"`tasks` names {name!r}, but log {split.log.name!r} has no rows for this task; leave it out, or add "
                "searches to the log and text to the items."
            )
    logger.info("Corpus of %s: %s.", split.log.name, {name: len(rows) for name, rows in corpus.items()})
    return corpus


def write_item_tasks(
    catalog: Catalog,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: IdentifierVocabulary,
    settings: CorpusSettings,
    *,
    tasks: Sequence[Task],
    seed: int,
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Write the tasks about items, some thousand rows at a time; for the arguments see [`build_corpus`].

    Args:
        catalog (`Catalog`): Items and identifiers.
        tokenizer (`PreTrainedTokenizerBase`): Has the tokens of the vocabulary.
        vocabulary ([`IdentifierVocabulary`]): The identifier tokens.
        settings ([`CorpusSettings`]): Maximum lengths.
        tasks (`Sequence[Task]`): Those out of these that are about items are written.
        seed (`int`): Seed of the choice of wordings.

    Yields:
        `tuple[str, pyarrow.RecordBatch]`: A task and some of its rows.
    """
    about_items = [task for task in tasks if task.is_about_items]
    if not about_items:
        return
    columns = RequestColumns.read([], catalog.id_map).events
    writer = InstructionWriter(columns, catalog, vocabulary, tokenizer, settings)
    items = np.flatnonzero(~catalog.is_removed)
    texts = item_texts(catalog.items)
    items = items[writer.add_items(items, [texts[row] for row in items.tolist()])]
    for task in about_items:
        templates = _draw_templates(task, len(items), seed)
        for batch in _write_task(task, writer, items, templates, None, catalog.items):
            yield task.name, batch


def write_history_tasks(
    split: Split,
    catalog: Catalog,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: IdentifierVocabulary,
    settings: CorpusSettings,
    *,
    tasks: Sequence[Task],
    seed: int,
    draw_keys: np.ndarray | None = None,
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Write the tasks about histories, some thousand rows at a time; for the arguments see [`build_corpus`].

    Args:
        split (`Split`): Targets and histories.
        catalog (`Catalog`): Items and identifiers.
        tokenizer (`PreTrainedTokenizerBase`): Has the tokens of the vocabulary.
        vocabulary ([`IdentifierVocabulary`]): The identifier tokens.
        settings ([`CorpusSettings`]): Maximum lengths.
        tasks (`Sequence[Task]`): Those out of these that are not about items are written.
        seed (`int`): Seed of the choice of wordings.
        draw_keys (`np.ndarray`, *optional*): uint64 key of each event of the log, which is a part of a larger one, to
            draw wordings by; by the order of the targets if not given.

    Yields:
        `tuple[str, pyarrow.RecordBatch]`: A task and some of its rows.
    """
    chosen = [task for task in tasks if not task.is_about_items]
    if not chosen:
        return
    columns = EventColumns.from_table(split.log.events, catalog.id_map)
    writer = InstructionWriter(columns, catalog, vocabulary, tokenizer, settings)
    rows = split.training_targets(include_queries=True)
    is_search = columns.is_search[rows]
    asked = [task.behavior for task in chosen if task.behavior is not None and task.kind in ("nrip", "nsip")]
    if asked and draw_keys is None:
        reported = (columns.item[rows] >= 0) & np.isin(np.where(is_search, SEARCH, RECOMMENDATION), asked)
        report_questions(split, rows[reported], is_search[reported].astype(int), behaviors=asked)
    is_wanted, templates = {}, {}
    for task in chosen:
        wanted = is_search if task.behavior == SEARCH else ~is_search
        is_wanted[task] = wanted = wanted & (columns.item[rows] >= 0) if task.kind != "nsqp" else wanted
        templates[task] = np.zeros(len(rows), dtype=np.int64)
        keys = None if draw_keys is None else draw_keys[rows[wanted]]
        templates[task][wanted] = _draw_templates(task, int(wanted.sum()), seed, keys)
    for start in range(0, len(rows), _TARGETS_AT_A_TIME):
        part = slice(start, start + _TARGETS_AT_A_TIME)
        histories = _cut_histories(split, columns, rows[part], settings)
        for task in chosen:
            numbers = np.flatnonzero(is_wanted[task][part])
            drawn = templates[task][part][numbers]
            own = histories.take(numbers)
            for batch in _write_task(task, writer, rows[part][numbers], drawn, own, split.log.events):
                yield task.name, batch


def corpus_fingerprint(
    split: Split,
    catalog: Catalog,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: IdentifierVocabulary,
    settings: CorpusSettings,
    *,
    tasks: Sequence[str] | None = None,
    seed: int = 0,
) -> str:
    """Compute a SHA-256 over everything that determines a corpus, without building it.

    Args:
        split (`Split`): As for [`build_corpus`], like all others.
        catalog (`Catalog`): Items and identifiers.
        tokenizer (`PreTrainedTokenizerBase`): Encodes the text.
        vocabulary ([`IdentifierVocabulary`]): The identifier tokens.
        settings ([`CorpusSettings`]): Maximum lengths.
        tasks (`Sequence[str]`, *optional*): Names of tasks.
        seed (`int`): Seed of the choice of wordings.

    Returns:
        `str`: 64 hexadecimal digits.
    """
    lengths = ("max_history_recommendations", "max_history_searches", "max_query_tokens", "max_text_tokens")
    content = [
        CORPUS_VERSION,
        {name: getattr(settings, name) for name in lengths},
        None if tasks is None else list(tasks),
        seed,
        asdict(vocabulary),
        split.fingerprint,
        catalog.content_hash,
        tokenizer_digest(tokenizer),
        {kind: [asdict(template) for template in templates] for kind, templates in TEMPLATES.items()},
    ]
    return json_digest(content)


def _cut_histories(split: Split, events: EventColumns, rows: np.ndarray, settings: CorpusSettings) -> Ragged:
    """Return the histories of training targets, cut to the settings."""
    limits = (settings.max_history_recommendations, settings.max_history_searches)
    is_written, is_search = ~events.is_shown, events.is_search
    kinds = ((is_written & ~is_search, limits[0]), (is_written & is_search, limits[1]))
    found = split.training_histories(target_rows=rows, max_of_kind=kinds)
    return events.cut(Ragged(found.values, found.offsets), *limits)


def _draw_templates(task: Task, count: int, seed: int, keys: np.ndarray | None = None) -> np.ndarray:
    """Choose the wordings of a task's rows, by their order or by their uint64 keys: int64 of shape `(count,)`."""
    number, choices = TASKS.index(task.name), len(TEMPLATES[task.kind])
    if keys is not None:
        return (hash_numbers(seed, number, keys) % np.uint64(choices)).astype(np.int64)
    # Its own generator for each task, so that leaving one task out changes nothing in the others.
    return np.random.default_rng([seed, number]).integers(choices, size=count)


def _write_task(
    task: Task,
    writer: InstructionWriter,
    rows: np.ndarray,
    templates: np.ndarray,
    histories: Ragged | None,
    source: pa.Table,
) -> Iterator[pa.RecordBatch]:
    """Write one task, some thousand rows at a time.

    Args:
        task ([`Task`]): The task.
        writer ([`InstructionWriter`]): Knows the events and items.
        rows (`np.ndarray`): int64 rows of `source`, one a target.
        templates (`np.ndarray`): int64 wording of each.
        histories (`Ragged`, *optional*): Event numbers, one row per target; none for a task about items.
        source (`pyarrow.Table`): The events, or the items for a task about items.
    """
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        stop = min(start + ROWS_AT_A_TIME, len(rows))
        chunk = rows[start:stop]
        user_id = pa.nulls(len(chunk), pa.string()) if histories is None else source["user_id"].take(chunk)
        own = None if histories is None else histories.slice(start, stop)
        queries = writer.query_segments[chunk] if task.kind == "nsip" else None
        inputs = writer.write_inputs(task, chunk, templates[start:stop], own, queries)
        yield pa.record_batch(
            [
                inputs.to_arrow(),
                writer.write_labels(task, chunk).to_arrow(),
                pa.array(np.full(stop - start, TASKS.index(task.name), dtype=np.int64)),
                one_array(user_id),
                one_array(source["item_id"].take(chunk)),
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


__all__ = ["CORPUS_FEATURES", "build_corpus", "corpus_fingerprint", "write_history_tasks", "write_item_tasks"]
