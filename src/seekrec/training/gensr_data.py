# SPDX-License-Identifier: Apache-2.0
"""Training requests of GenSR: the request, its target, and negatives."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from seekrec.catalog import Catalog
from seekrec.corpora.stream import list_item_queries
from seekrec.corpora.targets import report_questions
from seekrec.embeddings import last_interactions
from seekrec.errors import ConfigurationError, DataError
from seekrec.events import Split, category_queries
from seekrec.events.columns import EventColumns
from seekrec.events.log import QuerySource
from seekrec.events.matching import HardMatches
from seekrec.events.negatives import NEGATIVE_KINDS, NegativeKind
from seekrec.events.training_negatives import NegativeSampler, number_pairs
from seekrec.schema import BEHAVIORS, RECOMMENDATION, SEARCH
from seekrec.util.hashing import hash_numbers
from seekrec.util.parsing import parse_weights
from seekrec.util.ragged import Ragged


@dataclass
class RequestArguments:
    """What GenSR is asked in training, and the items alongside the answer.

    Args:
        task_weights (`list[str]`):
            Shares of the tasks, as recommendation=1 search=2; a task left out is neither trained nor measured. By
            their numbers of requests if not given. An epoch has the same number of requests in any case.
        extra_requests (`list[str]`):
            What is asked together with the log's own requests. `recommend_searched_items`: a searched item also as a
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
    check_requests(settings, split.log.query_source)
    events = EventColumns.from_table(split.log.events, catalog.id_map)
    questions = choose_questions(split, events, catalog, settings, seed=seed)
    if not len(questions):
        raise no_requests(split.log.name, settings)
    # What `num_unseen_events` leaves out is meant to be.
    if not settings.num_unseen_events:
        report_questions(split, questions.rows, questions.behaviors)
    requests = TrainingRequests(
        events=events,
        queries=questions.queries,
        histories=write_histories(split, events, split.training_targets(), max_history).take(questions.places),
        behaviors=questions.behaviors,
        query_numbers=questions.query_numbers,
        users=split.timeline.user[questions.rows],
        targets=events.item[questions.rows],
    )
    if "item_queries" not in settings.extra_requests:
        return requests
    return _add_item_queries(requests, catalog, first_user=int(split.timeline.user.max()) + 1)


def check_requests(settings: RequestArguments, query_source: QuerySource) -> None:
    """Refuse what a log's queries do not allow.

    Raises:
        ConfigurationError: If recommended items are to be searched for, but the log's queries are people's own.
    """
    if "search_recommended_items" in settings.extra_requests and query_source != "category":
        raise ConfigurationError(
            "`extra_requests` has 'search_recommended_items', which makes queries from categories, but the log's "
            f"queries are {query_source}; leave it out."
        )


def no_requests(name: str, settings: RequestArguments) -> DataError:
    """Return the error of a log without any request."""
    return DataError(
        f"The training events of {name!r} hold no interaction to ask for"
        + (f"; `num_unseen_events` is {settings.num_unseen_events}." if settings.num_unseen_events else ".")
    )


@dataclass(frozen=True, eq=False)
class Questions:
    """What training asks of events, recommendations before searches.

    Args:
        places (`np.ndarray`): int64 of shape `(n,)`: numbers into `Split.training_targets`.
        rows (`np.ndarray`): int64 of shape `(n,)`: rows of the log's events.
        behaviors (`np.ndarray`): int64 of shape `(n,)`: numbers into `BEHAVIORS`.
        query_numbers (`np.ndarray`): int64 of shape `(n,)`: numbers into `queries`, -1 for a recommendation.
        queries (`list[str]`): Distinct queries; the events' own come first.
    """

    places: np.ndarray
    rows: np.ndarray
    behaviors: np.ndarray
    query_numbers: np.ndarray
    queries: list[str]

    def __len__(self) -> int:
        return len(self.rows)


def choose_questions(
    split: Split,
    events: EventColumns,
    catalog: Catalog,
    settings: RequestArguments,
    *,
    seed: int,
    draw_keys: np.ndarray | None = None,
) -> Questions:
    """Choose which training interactions are asked for, and as what.

    Args:
        split (`Split`): The split; there may be nothing to ask.
        events ([`EventColumns`]): The events of its log.
        catalog (`Catalog`): Its items.
        settings ([`RequestArguments`]): What is asked.
        seed (`int`): Seed of the choice of a query for items that were recommended.
        draw_keys (`np.ndarray`, *optional*): uint64 key of each event of the log, which is a part of a larger one, to
            draw these queries by; by the order of the targets if not given.
    """
    rows = split.training_targets()
    is_search = events.is_search[rows]
    is_asked = np.ones(len(rows), dtype=bool)
    if settings.num_unseen_events:
        is_asked = np.isin(rows, last_interactions(split, settings.num_unseen_events))
    recommended = np.flatnonzero(is_asked & (~is_search | ("recommend_searched_items" in settings.extra_requests)))
    searched = np.flatnonzero(is_asked & is_search)
    queries, asked = list(events.queries), events.query[rows[searched]]
    if "search_recommended_items" in settings.extra_requests:
        places = np.flatnonzero(is_asked & ~is_search)
        draws = hash_numbers(seed, places if draw_keys is None else draw_keys[rows[places]])
        queries, is_kept, chosen = _queries_for(events.item[rows[places]], draws, queries, catalog)
        searched, asked = np.concatenate([searched, places[is_kept]]), np.concatenate([asked, chosen])
    order = np.concatenate([recommended, searched])
    numbers = [BEHAVIORS.index(RECOMMENDATION), BEHAVIORS.index(SEARCH)]
    return Questions(
        places=order,
        rows=rows[order],
        behaviors=np.repeat(numbers, [len(recommended), len(searched)]),
        query_numbers=np.concatenate([np.full(len(recommended), -1, dtype=np.int64), asked]),
        queries=queries,
    )


def write_histories(split: Split, events: EventColumns, rows: np.ndarray, max_history: int) -> Ragged:
    """Return the history of each of some training targets as event numbers, oldest first, cut."""
    # Items that were only shown fall out of a history, so it may be cut only after that.
    limit = None if split.keep_impressions else max_history
    found = split.training_histories(max_history=limit, target_rows=rows)
    return events.latest(Ragged(found.values, found.offsets), max_history)


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
    users = np.concatenate([timeline.user[interactions], requests.users])
    return NegativeSampler(
        len(catalog),
        number_pairs(users, np.concatenate([items, requests.targets]), len(catalog)),
        counts,
        interactions=items,
        matches=matches,
        seed=seed,
    )


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
    items: np.ndarray, draws: np.ndarray, queries: list[str], catalog: Catalog
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Choose a query of the categories for some items: all queries, which items have one, and its number for each."""
    texts: dict[str, int] = {}
    choices = Ragged.from_lists(
        [[texts.setdefault(query, len(texts)) for query in own] for own in category_queries(catalog.items)], np.int64
    )
    is_kept = choices.lengths[items] > 0
    items, draws = items[is_kept], draws[is_kept]
    place = (draws % choices.lengths[items].astype(np.uint64)).astype(np.int64)
    text = choices.values[choices.offsets[items] + place]
    # New ones are numbered as they come.
    found, first = np.unique(text, return_index=True)
    names, numbers = list(texts), {query: number for number, query in enumerate(queries)}
    number_of = np.zeros(len(texts), dtype=np.int64)
    for one in found[np.argsort(first)].tolist():
        number_of[one] = numbers.setdefault(names[one], len(numbers))
    return list(numbers), is_kept, number_of[text]


__all__ = [
    "RequestArguments",
    "TrainingRequests",
    "check_requests",
    "choose_questions",
    "negative_sampler",
    "no_requests",
    "training_requests",
    "write_histories",
]
