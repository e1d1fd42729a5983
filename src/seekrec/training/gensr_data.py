# SPDX-License-Identifier: Apache-2.0
"""Training requests of GenSR, and batches of them: what was asked, what was acted on, and items that were not."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from seekrec.catalog import Catalog
from seekrec.corpora.stream import list_item_queries
from seekrec.corpora.targets import report_questions
from seekrec.corpora.text import shared_encoder
from seekrec.embeddings import last_interactions
from seekrec.errors import ConfigurationError, DataError
from seekrec.events import Split, category_queries
from seekrec.events.columns import EventColumns
from seekrec.events.matching import HardMatches
from seekrec.events.negatives import NEGATIVE_KINDS, NegativeKind, NegativeSampler
from seekrec.models import GenSRProcessor
from seekrec.schema import BEHAVIORS, RECOMMENDATION, SEARCH
from seekrec.util.hashing import hash_numbers
from seekrec.util.parsing import parse_weights
from seekrec.util.ragged import Ragged


@dataclass
class RequestArguments:
    """What GenSR is asked in training, and the items beside the answer.

    Args:
        task_weights (`list[str]`):
            Shares of the tasks, as recommendation=1 search=2; a task left out is neither trained nor measured. By
            their numbers of requests if not given. An epoch has the same number of requests in any case.
        extra_requests (`list[str]`):
            What is asked beside the log's own requests. `recommend_searched_items`: a searched item also as a
            recommendation, without its query. `search_recommended_items`: a recommended item also as a search, by a
            query from its categories. `item_queries`: every item of the catalogue by the queries from its categories,
            without a history.
        num_unseen_events (`int`):
            Number of last events of each user that training asks for, and no others; the SASRec behind the
            collaborative view learns them only afterwards. With 0 all are asked for, and SASRec has seen them.
        negatives (`list[str]`): Negatives of a request, as kind=number: uniform, popularity, bm25.
        num_bm25_matches (`int`): Number of best matches of a query that bm25 negatives are drawn from.

    Raises:
        ConfigurationError: If `task_weights` or `negatives` name something unknown.
    """

    task_weights: list[str] = field(default_factory=list)
    extra_requests: list[Literal["recommend_searched_items", "search_recommended_items", "item_queries"]] = field(
        default_factory=list
    )
    num_unseen_events: int = 0
    negatives: list[str] = field(default_factory=lambda: ["uniform=4"])
    num_bm25_matches: int = 100

    def __post_init__(self) -> None:
        given = parse_weights(self.task_weights, "task_weights") if self.task_weights else {}
        if unknown := sorted(set(given) - set(BEHAVIORS)):
            raise ConfigurationError(
                f"`task_weights` names {unknown[0]!r}; the tasks are {' and '.join(BEHAVIORS)}, as in "
                "recommendation=1 search=2."
            )
        # Weights of the tasks that are trained; empty where they go by their numbers of requests.
        self.weights: dict[str, float] = {behavior: given[behavior] for behavior in BEHAVIORS if given.get(behavior)}
        self.negative_counts: dict[NegativeKind, int] = {}
        for name, number in parse_weights(self.negatives, "negatives").items():
            if name not in NEGATIVE_KINDS or number != int(number):
                raise ConfigurationError(
                    f"`negatives` has {name}={number:g}; write whole numbers of {', '.join(NEGATIVE_KINDS)}."
                )
            self.negative_counts[name] = int(number)


@dataclass(frozen=True, eq=False)
class TrainingRequests:
    """Every request that training asks, recommendations before searches.

    Args:
        events ([`EventColumns`]): The log's events.
        queries (`list[str]`): Distinct queries; the events' own come first.
        histories (`Ragged`): Event numbers of each request, oldest first, cut.
        behaviors (`np.ndarray`): int64 of shape `(n,)`: numbers into `BEHAVIORS`.
        query_numbers (`np.ndarray`): int64 of shape `(n,)`: numbers into `queries`, -1 for a recommendation.
        users (`np.ndarray`): int64 of shape `(n,)`: user rows; of a query that nobody asked, a number no user has.
        targets (`np.ndarray`): int64 of shape `(n,)`: rows of the catalogue.
    """

    events: EventColumns
    queries: list[str]
    histories: Ragged
    behaviors: np.ndarray
    query_numbers: np.ndarray
    users: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def count(self) -> dict[str, int]:
        """Count the requests of each behavior."""
        return {behavior: int((self.behaviors == number).sum()) for number, behavior in enumerate(BEHAVIORS)}


def training_requests(
    split: Split, catalog: Catalog, settings: RequestArguments, *, max_history: int, seed: int
) -> TrainingRequests:
    """Ask for the item of every training interaction after its history; with `item_queries` for every item, too.

    With `num_unseen_events` only the last interactions of each user are asked for, those that the recommender behind
    the collaborative view has not been trained on. Its vectors know the answer to the others, and a model that learns
    from them trusts those vectors too much.

    Args:
        split (`Split`): Only `Split.training_histories` are asked for.
        catalog (`Catalog`): Its items.
        settings ([`RequestArguments`]): What is asked.
        max_history (`int`): Maximum number of events of a history.
        seed (`int`): Seed of the choice of a query for items that were recommended.

    Returns:
        [`TrainingRequests`]: At least one.

    Raises:
        DataError: If there is none, or items are to be asked for by queries and no category gives one.
        ConfigurationError: If recommended items are to be searched for, but the log's queries are people's own.
    """
    events = EventColumns.from_table(split.log.events, catalog.id_map)
    # Items that were only shown fall out of a history, so it may be cut only after that.
    limit = None if split.keep_impressions else max_history
    found = split.training_histories(max_history=limit)
    rows = found.target_rows
    is_search = events.is_search[rows]
    histories = events.latest(Ragged(found.values, found.offsets), max_history)
    is_asked = np.ones(len(rows), dtype=bool)
    if settings.num_unseen_events:
        is_asked = np.isin(rows, last_interactions(split, settings.num_unseen_events))
    recommended = np.flatnonzero(is_asked & (~is_search | ("recommend_searched_items" in settings.extra_requests)))
    searched = np.flatnonzero(is_asked & is_search)
    queries, asked = list(events.queries), events.query[rows[searched]]
    if "search_recommended_items" in settings.extra_requests:
        if split.log.query_source != "category":
            raise ConfigurationError(
                "`extra_requests` has 'search_recommended_items', which makes queries from categories, but the log's "
                f"queries are {split.log.query_source}; leave it out."
            )
        queries, more, chosen = _queries_for(
            np.flatnonzero(is_asked & ~is_search), events.item[rows], queries, catalog, seed
        )
        searched, asked = np.concatenate([searched, more]), np.concatenate([asked, chosen])
    order = np.concatenate([recommended, searched])
    behaviors = np.repeat(
        [BEHAVIORS.index(RECOMMENDATION), BEHAVIORS.index(SEARCH)], [len(recommended), len(searched)]
    )
    if not len(order):
        raise DataError(
            f"The training events of {split.log.name!r} hold no interaction to ask for"
            + (f"; `num_unseen_events` is {settings.num_unseen_events}." if settings.num_unseen_events else ".")
        )
    # What `num_unseen_events` leaves out is meant to be.
    if not settings.num_unseen_events:
        report_questions(split, rows[order], behaviors)
    requests = TrainingRequests(
        events=events,
        queries=queries,
        histories=histories.take(order),
        behaviors=behaviors,
        query_numbers=np.concatenate([np.full(len(recommended), -1, dtype=np.int64), asked]),
        users=split.timeline.user[rows[order]],
        targets=events.item[rows[order]],
    )
    if "item_queries" not in settings.extra_requests:
        return requests
    return _add_item_queries(requests, catalog, first_user=int(split.timeline.user.max()) + 1)


def negative_sampler(
    split: Split, catalog: Catalog, requests: TrainingRequests, settings: RequestArguments, *, seed: int
) -> NegativeSampler:
    """Make the sampler of negatives: never an item the user acted on in training, or that is asked for.

    For `"bm25"` texts are the queries by number, then the titles of the items by row.
    """
    counts = settings.negative_counts
    timeline = split.timeline
    interactions = split.training_interactions()
    items = requests.events.item[interactions]
    matches = None
    if counts.get("bm25"):
        titles = [title or "" for title in catalog.items["title"].to_pylist()]
        matches = HardMatches(catalog.items).table([*requests.queries, *titles], settings.num_bm25_matches)
    return NegativeSampler(
        len(catalog),
        np.concatenate([timeline.user[interactions], requests.users]),
        np.concatenate([items, requests.targets]),
        counts,
        interactions=items,
        matches=matches,
        seed=seed,
    )


class GenSRCollator:
    """Makes batches for `GenSRForConditionalGeneration.forward` from codes of requests (see [`CodeSampler`]).

    Args:
        requests ([`TrainingRequests`]): What is asked.
        processor ([`GenSRProcessor`]): Writes the prompts.
        sampler ([`NegativeSampler`], *optional*): Draws the other candidates, where candidates are scored.
    """

    def __init__(self, requests: TrainingRequests, processor: GenSRProcessor, sampler: NegativeSampler | None) -> None:
        self.requests = requests
        self.processor = processor
        self.sampler = sampler
        encoder = shared_encoder(processor.tokenizer)
        tokens = encoder.encode(requests.queries, processor.config.max_query_tokens)
        self._query_tokens = tokens
        # What a request costs: the positions of its history, and the tokens of its query.
        queries = np.append(tokens.lengths, 0)[requests.query_numbers]
        self.lengths = requests.histories.lengths + queries

    def __call__(self, codes: list[int]) -> dict[str, Tensor]:
        """Make a batch."""
        keys = np.asarray(codes, dtype=np.int64)
        rows = keys % len(self.requests)
        asked = self.requests
        behaviors, targets = asked.behaviors[rows], asked.targets[rows]
        candidates = None
        if self.sampler is not None:
            texts = np.where(asked.query_numbers[rows] < 0, len(asked.queries) + targets, asked.query_numbers[rows])
            negatives = self.sampler.draw(asked.users[rows], keys, texts)
            candidates = np.concatenate([targets[:, None], negatives], axis=1)
        batch = self.processor.write_features(
            asked.events,
            self._query_tokens,
            asked.histories.take(rows),
            behaviors,
            asked.query_numbers[rows],
            self.processor.current_items()[1],
            candidates,
        )
        batch["user_ids"] = torch.from_numpy(asked.users[rows])
        if candidates is not None:
            labels = torch.zeros(candidates.shape, dtype=torch.long)
            labels[:, 0] = 1
            batch["candidate_labels"] = labels
        if self.processor.config.writes_identifiers:
            batch["identifier_inputs"], batch["identifier_labels"] = self._identifiers(behaviors, targets)
        return batch

    def _identifiers(self, behaviors: np.ndarray, targets: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return what the decoder reads and what it should write: int64 of shape `(batch, num_levels)` each."""
        catalog, vocabulary = self.processor.catalog, self.processor.vocabulary
        labels = np.empty((len(targets), catalog.num_levels), dtype=np.int64)
        inputs = np.empty_like(labels)
        for number, behavior in enumerate(BEHAVIORS):
            chosen = behaviors == number
            view = catalog.view_of(behavior)
            labels[chosen] = vocabulary.encode(catalog.codes[view][targets[chosen]], view)
            inputs[chosen, 0] = vocabulary.item_token_ids[behavior]
        inputs[:, 1:] = labels[:, :-1]
        return torch.from_numpy(inputs), torch.from_numpy(labels)


def _add_item_queries(requests: TrainingRequests, catalog: Catalog, *, first_user: int) -> TrainingRequests:
    """Append a request for every item by its categories' queries; item `i` belongs to user `first_user + i`."""
    numbers = {query: number for number, query in enumerate(requests.queries)}
    pairs = [(row, numbers.setdefault(query, len(numbers))) for row, query in list_item_queries(catalog)]
    items, asked = np.array(pairs, dtype=np.int64).T
    nothing = Ragged(np.empty(0, dtype=np.int64), np.zeros(len(items) + 1, dtype=np.int64))
    return replace(
        requests,
        queries=list(numbers),
        histories=Ragged.stack([requests.histories, nothing]),
        behaviors=np.concatenate([requests.behaviors, np.full(len(items), BEHAVIORS.index(SEARCH))]),
        query_numbers=np.concatenate([requests.query_numbers, asked]),
        users=np.concatenate([requests.users, first_user + items]),
        targets=np.concatenate([requests.targets, items]),
    )


def _queries_for(
    rows: np.ndarray, items: np.ndarray, queries: list[str], catalog: Catalog, seed: int
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Choose a query of the categories for some rows: all queries, the rows that have one, and its number for each."""
    numbers = {query: number for number, query in enumerate(queries)}
    choices = category_queries(catalog.items)
    draws = hash_numbers(seed, rows)
    kept, chosen = [], []
    for row, draw in zip(rows.tolist(), draws.tolist(), strict=True):
        of_item = choices[items[row]]
        if of_item:
            kept.append(row)
            chosen.append(numbers.setdefault(of_item[draw % len(of_item)], len(numbers)))
    return list(numbers), np.array(kept, dtype=np.int64), np.array(chosen, dtype=np.int64)


__all__ = ["GenSRCollator", "RequestArguments", "TrainingRequests", "negative_sampler", "training_requests"]
