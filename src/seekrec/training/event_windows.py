# SPDX-License-Identifier: Apache-2.0
"""Batches of training windows for the families that compare vectors, and their Trainer.

Random draws for a window (queries from the pool, negatives) depend on the seed, the epoch and the window alone; see
`events/training_negatives.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import TrainingArguments

from seekrec.catalog import Catalog, item_periods
from seekrec.corpora.training_windows import TrainingWindows
from seekrec.corpora.window_shards import WindowShards
from seekrec.events.pool_texts import ITEM_TEXT, LOGGED, check_pool_kinds, pool_texts
from seekrec.events.training_negatives import ItemNegatives, SampledKind
from seekrec.models.dense import DenseModel, QueryVectors
from seekrec.models.words import NO_WORD, item_word_keys, text_word_keys
from seekrec.schema import BEHAVIORS, SEARCH
from seekrec.training.budget import StageTime
from seekrec.training.coded_rows import CodedRows, sample_rows
from seekrec.training.row_adamw import make_adamw, share_rows, use_row_gradients
from seekrec.training.trainer import EvaluateModel, GenerativeTrainer
from seekrec.util.constants import LABEL_PADDING
from seekrec.util.hashing import hash_fractions, hash_numbers
from seekrec.util.ragged import Ragged, join_rows

# More questions than a window has: added to the key of a question, it is the key of the one asked together with it.
_ADDED = 2048
# Arrays of a batch that have a column for each question, besides those whose names begin so.
_OF_QUESTIONS = ("labels", "shown_item_rows")


class QueryPool:
    """Queries that could have led to an item, as vectors (IntSR, section 3.2).

    Args:
        pool (`Ragged`): By catalogue row: numbers of vectors.
        vectors (`np.ndarray`): float32 of shape `(num_texts, dimension)`.
        items (`np.ndarray`, *optional*): The same of shape `(num_items, dimension)`; their numbers follow. They are
            those of the catalogue, which there is no second copy of.
        words (`Ragged`, *optional*): Hashes of the words of all texts, where they are read.
    """

    def __init__(
        self, pool: Ragged, vectors: np.ndarray, items: np.ndarray | None = None, words: Ragged | None = None
    ) -> None:
        self.pool, self.vectors, self.items, self.words = pool, vectors, items, words

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """Return the vectors of some numbers, float32 of shape `(len(numbers), dimension)`."""
        if self.items is None:
            return self.vectors[numbers]
        is_item = numbers >= len(self.vectors)
        taken = np.empty((len(numbers), self.items.shape[1]), np.float32)
        taken[is_item] = self.items[numbers[is_item] - len(self.vectors)]
        if not is_item.all():
            taken[~is_item] = self.vectors[numbers[~is_item]]
        return taken

    @classmethod
    def build(
        cls,
        windows: TrainingWindows | WindowShards,
        catalog: Catalog,
        query_vectors: QueryVectors,
        kinds: Sequence[str],
        written: Mapping[str, Sequence[Sequence[str]]] | None = None,
        *,
        reads_words: bool = False,
        time: StageTime | None = None,
    ) -> QueryPool:
        """Gather the pool.

        Args:
            windows ([`TrainingWindows`]): Windows with the searches that are known.
            catalog ([`Catalog`]): The items.
            query_vectors ([`QueryVectors`]): Embeds the texts and keeps them.
            kinds (`Sequence[str]`): `"logged"`: what users typed before they took the item; `"item_text"`: its own
                title and description; and those of [`~seekrec.events.pool_texts`].
            written (`Mapping`, *optional*): Texts of each item for the kinds that a model writes.
            reads_words (`bool`): Whether queries are read by their words too.
            time ([`StageTime`], *optional*): What embedding them may take. Texts for which there is none have vectors
                here, made of their words, and `query_vectors` embeds them when they are asked.

        Raises:
            ConfigurationError: If a kind is unknown, or one that a model writes was not written.
        """
        check_pool_kinds(kinds)
        texts = {text: number for number, text in enumerate(windows.queries)}
        parts = []
        if LOGGED in kinds:
            pairs = windows.searched_pairs()
            counts = np.bincount(pairs[:, 0], minlength=len(catalog))
            parts.append(Ragged.from_lengths(pairs[:, 1], counts))
        for kind in kinds:
            if kind not in (LOGGED, ITEM_TEXT):
                of_items = written[kind] if written and kind in written else pool_texts(catalog.items, kind)
                rows = [[texts.setdefault(text, len(texts)) for text in of_item] for of_item in of_items]
                parts.append(Ragged.from_lists(rows, np.int64))
        if time is None:
            query_vectors.add(list(texts))
            vectors = query_vectors.encode(list(texts))
        else:
            vectors, is_embedded = query_vectors.add_in_time(list(texts), time.seconds_left)
            time.note_texts(is_embedded)
        items = None
        if ITEM_TEXT in kinds:
            parts.append(Ragged.from_matrix(len(texts) + np.arange(len(catalog))[:, None]))
            items = catalog.embeddings["semantic"]
        words = None
        if reads_words:
            of_texts = [text_word_keys(list(texts))]
            if ITEM_TEXT in kinds:
                of_texts.append(item_word_keys(catalog.items, ("title", "description")))
            words = Ragged.stack(of_texts)
        empty = Ragged(np.empty(0, dtype=np.int64), np.zeros(len(catalog) + 1, dtype=np.int64))
        return cls(join_rows(parts) if parts else empty, vectors, items, words)


class WindowCollator:
    """Turns codes of windows (`epoch * num_windows + window`) into batches.

    A negative code, `-1 - code`, is that window without its questions: it fills up a batch and teaches nothing.

    Args:
        windows ([`TrainingWindows`]): What is learned from.
        pool ([`QueryPool`]): Vectors of all queries in the windows, and what else may be asked for.
        pool_probability (`float`): How often a recommendation question gets a query from the pool of its target and
            becomes a search (beta of IntSR section 3.2).
        pool_adds (`bool`): That search is asked together with the recommendation, not in its place.
        negatives ([`ItemNegatives`], *optional*): Negatives of each question.
        seed (`int`): Seed of the pool's draws.
    """

    def __init__(
        self,
        windows: TrainingWindows | WindowShards,
        pool: QueryPool,
        *,
        pool_probability: float = 0.0,
        pool_adds: bool = False,
        negatives: ItemNegatives | None = None,
        seed: int = 0,
    ) -> None:
        self.windows, self.pool, self.negatives = windows, pool, negatives
        self.pool_probability, self.pool_adds, self.seed = pool_probability, pool_adds, seed

    def __call__(self, codes: Sequence[int]) -> dict[str, Tensor]:
        """Collate; the names are those of [`TrainingWindows.batch`], and some more.

        Returns:
            `dict[str, torch.Tensor]`: `query_vectors`, float32 `(num_queries, dimension)`, to which the query rows
            point; where queries are read by words `query_words`, int64 `(num_queries, most_words)`, hashes of them;
            with negatives `negative_rows` `(num_windows, most_questions, count)`, -1 for none, and `negative_log_q` of
            the same shape, `label_log_q` `(num_windows, most_questions)` and `shown_log_q` of the shape of
            `shown_item_rows`, the logarithm of how likely each is drawn, but for a number of the question.
        """
        numbers = np.asarray(codes, dtype=np.int64)
        is_silent = numbers < 0
        numbers = np.where(is_silent, -1 - numbers, numbers)
        batch = self.windows.batch(numbers % len(self.windows))
        batch["labels"][is_silent] = LABEL_PADDING
        keys = numbers[:, None] * (2 * _ADDED) + np.arange(batch["labels"].shape[1])
        if self.pool_probability:
            keys = self._ask_from_pool(batch, keys)
        named = np.concatenate([batch["history_query_rows"].ravel(), batch["question_query_rows"].ravel()])
        used = np.unique(named[named >= 0])
        for name in ("history_query_rows", "question_query_rows"):
            rows = batch[name]
            batch[name] = np.where(rows >= 0, np.searchsorted(used, rows), -1)
        batch["query_vectors"] = self.pool.take(used) if len(used) else np.zeros((0, 0), dtype=np.float32)
        if self.pool.words is not None:
            batch["query_words"] = self.pool.words.take(used).pad(NO_WORD)
        if self.negatives is not None:
            labels = batch["labels"]
            users = np.broadcast_to(self.windows.user_rows(numbers % len(self.windows))[:, None], labels.shape)
            drawn = self.negatives.draw(keys, labels, batch["question_timestamps"], users)
            batch["negative_rows"] = np.where((labels >= 0)[..., None], drawn, -1)
            for name, rows in (("negative", drawn), ("label", labels), ("shown", batch["shown_item_rows"])):
                batch[f"{name}_log_q"] = self.negatives.log_q[np.maximum(rows, 0)]
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in batch.items()}

    def _ask_from_pool(self, batch: dict[str, np.ndarray], keys: np.ndarray) -> np.ndarray:
        """Make searches from some recommendations, replacing or adding to them; return the keys of all questions."""
        labels, pool = np.maximum(batch["labels"], 0), self.pool.pool
        lengths = pool.lengths[labels]
        is_filled = (hash_fractions(self.seed, keys, 1) < self.pool_probability) & (lengths > 0)
        is_filled &= (batch["labels"] >= 0) & (batch["question_behavior_ids"] != BEHAVIORS.index(SEARCH))
        place = (hash_numbers(self.seed, keys, 2) % np.maximum(lengths, 1).astype(np.uint64)).astype(np.int64)
        rows = pool.values[(pool.offsets[labels] + place)[is_filled]]
        if self.pool_adds:
            # The chosen ones once more, as columns behind all questions; what fills the rows up has no label.
            order = np.argsort(~is_filled, axis=1, kind="stable")[:, : int(is_filled.sum(1).max(initial=0))]
            is_added = np.take_along_axis(is_filled, order, axis=1)
            before = keys.shape[1]
            for name in [name for name in batch if name.startswith("question_") or name in _OF_QUESTIONS]:
                index = order.reshape(*order.shape, *[1] * (batch[name].ndim - 2))
                batch[name] = np.concatenate([batch[name], np.take_along_axis(batch[name], index, axis=1)], axis=1)
            batch["labels"][:, before:][~is_added] = LABEL_PADDING
            keys = np.concatenate([keys, np.take_along_axis(keys, order, axis=1) + _ADDED], axis=1)
            is_filled = np.concatenate([np.zeros_like(is_filled), is_added], axis=1)
        batch["question_query_rows"][is_filled] = rows
        batch["question_behavior_ids"][is_filled] = BEHAVIORS.index(SEARCH)
        return keys


def target_counts(windows: TrainingWindows | WindowShards, num_items: int) -> np.ndarray:
    """Count how often each item is asked for without a query, or at all if only searches are asked.

    Returns:
        `np.ndarray`: int64 of shape `(num_items,)`.
    """
    counts = windows.question_counts(num_items)
    searched = counts[BEHAVIORS.index(SEARCH)]
    others = counts.sum(0) - searched
    return others if others.any() else searched


def make_negatives(
    windows: TrainingWindows | WindowShards,
    catalog: Catalog,
    kind: SampledKind,
    count: int,
    *,
    is_aligned: bool = True,
    spares_own: bool = False,
    seed: int = 0,
) -> ItemNegatives:
    """Make [`ItemNegatives`] from windows and a catalogue.

    With `is_aligned` they keep to items available at the time. A draw by popularity may be the target, as its
    correction asks. With `spares_own` no other item that the user acted on is drawn. That is for what stands for items
    that were shown and not clicked. What stands for all items must contain the user's own, for the full softmax holds
    them.
    """
    return ItemNegatives(
        target_counts(windows, len(catalog)),
        count,
        kind,
        periods=item_periods(catalog.items) if is_aligned else None,
        acts=windows.acted_pairs(len(catalog)) if spares_own else None,
        draws_target=kind == "popularity",
        seed=seed,
    )


def make_window_trainer(
    model: DenseModel,
    collator: WindowCollator,
    arguments: TrainingArguments,
    *,
    table_learning_rate: float | None,
    evaluate_model: EvaluateModel | None,
) -> GenerativeTrainer:
    """Put a model and windows into a Trainer whose batches contain windows of like length.

    Args:
        model ([`DenseModel`]): Takes the collator's batch.
        collator ([`WindowCollator`]): Makes the batches.
        arguments (`TrainingArguments`): `remove_unused_columns` is switched off.
        table_learning_rate (`float`, *optional*): Learning rate of embeddings; see [`make_window_optimizer`].
        evaluate_model (`Callable`, *optional*): Ranks validation.

    Returns:
        [`GenerativeTrainer`]: Ready to train.
    """
    arguments.remove_unused_columns = False
    arguments.label_names = ["labels"]
    windows = collator.windows
    if isinstance(windows, WindowShards):
        sampler = sample_rows(windows, arguments)
    else:
        sampler = sample_rows({"windows": len(windows)}, arguments, lengths=windows.windows.lengths)
    return GenerativeTrainer(
        model=model,
        args=arguments,
        train_dataset=CodedRows(len(windows)),
        data_collator=collator,
        sampler=sampler,
        evaluate_model=evaluate_model,
        optimizers=(make_window_optimizer(model, arguments, table_learning_rate=table_learning_rate), None),
    )


def make_window_optimizer(
    model: DenseModel, training: TrainingArguments, *, table_learning_rate: float | None = None
) -> torch.optim.AdamW:
    """Make AdamW with two learning rates: one for the embeddings of items and actions, and one for the rest.

    An item is met seldom, so with the learning rate of the others it learns too little from each meeting. Embeddings
    of items are updated by rows where there are many (`row_adamw`), and of several processes each holds some of them,
    unless each is compared with every question.

    Args:
        model ([`DenseModel`]): The model to train.
        training (`TrainingArguments`): The learning rate of the rest, and what AdamW takes.
        table_learning_rate (`float`, *optional*): Learning rate of the embeddings; that of the rest if not given.
    """
    if (
        model.items.ids is not None
        and not model.compares_all_items
        and not use_row_gradients(model.items.ids, training)
    ):
        share_rows(model, model.items.ids, training)
    tables = [model.items.ids, model.items.words, model.action_embedding]
    rate = training.learning_rate if table_learning_rate is None else table_learning_rate
    return make_adamw(model, [table for table in tables if table is not None], training, table_rate=rate)


__all__ = [
    "QueryPool",
    "WindowCollator",
    "make_negatives",
    "make_window_optimizer",
    "make_window_trainer",
    "target_counts",
]
