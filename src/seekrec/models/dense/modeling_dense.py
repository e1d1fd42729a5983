# SPDX-License-Identifier: Apache-2.0
"""The base of IntSR and SynerGen: item vectors, histories that are encoded once, `retrieve` and `rank`.

Item vectors are computed in `item_tower.py`.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
import torch
import xxhash
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BatchFeature, PreTrainedModel
from transformers import initialization as init
from transformers.utils import SAFE_WEIGHTS_NAME

from seekrec.catalog import Catalog, item_periods
from seekrec.embeddings.row_shards import RowShards, row_shards, save_rows
from seekrec.errors import CatalogError, RequestError
from seekrec.models.answers import ExcludeSeen, Found, Masks, Where
from seekrec.models.base import CatalogModel, CatalogSnapshot, has_same_items
from seekrec.models.dense.configuration_dense import DenseConfig
from seekrec.models.dense.item_index import Backend, ItemIndex
from seekrec.models.dense.item_tower import ItemTexts, ItemTower, TextProjection
from seekrec.models.dense.read_events import ReadEvents
from seekrec.models.losses import seen_items
from seekrec.models.states import StatefulModel, check_num_requests, fill_below
from seekrec.models.views import AddedScores, Boost
from seekrec.schema import BEHAVIORS, RECOMMENDATION, ScoredItem
from seekrec.util.finite import check_finite, weights_key
from seekrec.util.ragged import Ragged

# Standard deviation of embeddings at the start.
INITIALIZER_RANGE = 0.02
LAYER_NORM_EPS = 1e-6
# From here on a chance is as good as sure, and only the order of logits counts.
_SURE = 15.0

# What a processor or a collator makes: tensors by name.
Inputs = Mapping[str, Tensor]


def latest_items(item_rows: Tensor, allowed: Tensor) -> Tensor:
    """Find the latest item that each question sees.

    Args:
        item_rows (`torch.LongTensor`): Items of the tokens, oldest first, `(batch, length)`; below 0 for none.
        allowed (`torch.BoolTensor`): What questions see, `(batch, num_questions, length)`.

    Returns:
        `torch.LongTensor`: Its column, counted from 1, `(batch, num_questions)`; 0 for none.
    """
    numbers = torch.arange(1, item_rows.shape[1] + 1, device=item_rows.device)
    seen = allowed & (item_rows >= 0)[:, None]
    return (seen * numbers).amax(-1) if len(numbers) else seen.sum(-1)


def seen_of_recommendations(item_rows: Tensor, allowed: Tensor, inputs: Inputs, is_asked: Tensor) -> Tensor:
    """Return the items that questions see, of searches none: `(num_asked, length)`; see [`seen_items`]."""
    recommends = inputs["question_behavior_ids"] == BEHAVIORS.index(RECOMMENDATION)
    return seen_items(item_rows, allowed & recommends[..., None], is_asked)


class LatestItem(nn.Module):
    """What a question begins with besides itself: the latest item that it sees, as the state of SASRec does.

    The vector is the tower's, brought to one length, times a learned gate for each kind of request. Items that follow
    each other are then alike from the first step on, where a question that begins as nothing must learn to copy.

    Args:
        hidden_size (`int`): Width of a vector.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.gates = nn.Parameter(torch.empty(len(BEHAVIORS), hidden_size))

    def start_weights(self) -> None:
        """Open the gate of recommendations; a search begins with its query alone."""
        init.zeros_(self.gates)
        init.ones_(self.gates[BEHAVIORS.index(RECOMMENDATION)])

    def forward(
        self, item_rows: Tensor, allowed: Tensor, behaviors: Tensor, items: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return the vectors to add.

        Args:
            item_rows (`torch.LongTensor`): Items of the tokens, oldest first, `(batch, length)`; below 0 for none.
            allowed (`torch.BoolTensor`): What questions see, `(batch, num_questions, length)`.
            behaviors (`torch.LongTensor`): Numbers into `BEHAVIORS`, `(batch, num_questions)`.
            items (`Callable`): Catalogue rows to vectors.

        Returns:
            `torch.Tensor`: Vectors `(batch, num_questions, hidden_size)`; zero for a question that sees no item.
        """
        rows = F.pad(item_rows, (1, 0), value=-1).gather(1, latest_items(item_rows, allowed))
        vectors = F.layer_norm(items(rows), (self.gates.shape[1],)) * self.gates[behaviors.clamp_min(0)]
        return vectors * (rows >= 0)[..., None]


class RetrievalLogit(nn.Module):
    """What a ranking head begins with: the score that retrieval gives a candidate.

    Retrieval compares a target with every item, a ranking head with the few that are drawn together with it. In units
    of its loss a score is a log-probability but for a number that all items share; so the factor starts at 1. No
    gradient reaches what the score is made of.

    Args:
        temperature (`float`): What the loss of retrieval divides scores by.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.factor = nn.Parameter(torch.empty(1))
        self.shift = nn.Parameter(torch.empty(1))

    @classmethod
    def from_config(cls, config: DenseConfig) -> Self | None:
        """Make what these settings ask for, if they do."""
        return cls(config.temperature) if config.ranks_with_retrieval else None

    def start_weights(self) -> None:
        """Take scores as they are."""
        init.ones_(self.factor)
        init.zeros_(self.shift)

    def forward(self, logits: Tensor, scores: Tensor, scales: Tensor | None = None) -> Tensor:
        """Return the logits of candidates, float32 in the shape given.

        Args:
            logits (`torch.Tensor`): What the ranking head says itself, `(batch, num_questions, num_candidates)`.
            scores (`torch.Tensor`): What retrieval says, before its temperature, in that shape.
            scales (`torch.Tensor`, *optional*): As validation chose them, `(batch, num_questions, 5)`: a factor of the
                one, one of the other below a knee and one above, the knee, and a shift. Both are added as they are if
                not given.
        """
        own: Tensor = logits.float()
        retrieved = self.factor * scores.detach().float() / self.temperature + self.shift
        if scales is None:
            return own + retrieved
        of_own, below, above, knee, shift = scales[..., None].unbind(-2)
        over = retrieved - knee
        return of_own * own + below * over.clamp_max(0) + above * over.clamp_min(0) + shift


class DenseSnapshot(CatalogSnapshot):
    """A catalogue, what it tells the tower, and what was made of both.

    Args:
        catalog ([`Catalog`]): The items that can be answered.
        texts ([`ItemTexts`]): Texts of the catalogue.
    """

    def __init__(self, catalog: Catalog, texts: ItemTexts) -> None:
        super().__init__(catalog)
        self.texts = texts

    # Read from the catalogue once, by numpy: `torch.compile` has nothing to gain here.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def periods(self, device: torch.device) -> tuple[Tensor, Tensor] | None:
        """Return when each item comes and goes, int64 seconds `(num_items,)`; `None` where all always are there."""

        def read() -> tuple[Tensor, Tensor] | None:
            start, end = item_periods(self.catalog.items)
            limits = np.iinfo(np.int64)
            if (start == limits.min).all() and (end == limits.max).all():
                return None
            return torch.tensor(start, device=device), torch.tensor(end, device=device)

        return self.value(("periods", device), read)


@dataclass(frozen=True, eq=False)
class CatalogItems:
    """What one call answers from: it holds its snapshot, so no other thread changes it.

    Args:
        tower ([`ItemTower`]): The weights that make item vectors.
        snapshot ([`DenseSnapshot`]): Read once, at the start of the call.
    """

    tower: ItemTower
    snapshot: DenseSnapshot

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the vectors of some items, as [`ItemTower`] does."""
        vectors: Tensor = self.tower(rows, self.snapshot.texts)
        return vectors

    def parts(self, rows: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return what the vectors of some items are made of, as [`ItemTower`] does."""
        return self.tower.parts(rows, self.snapshot.texts)

    @cached_property
    def vectors(self) -> Tensor:
        """The vectors of all items that this process holds, `(num_rows, hidden_size)`; made again with new weights."""

        def make() -> Tensor:
            found = self.tower.all(self.snapshot.texts).detach()
            check_finite("The item vectors", found, "row", "load weights and text vectors that are whole")
            return found

        return self.snapshot.value("vectors", make, weights_key([*self.tower.parameters(), *self.tower.buffers()]))

    def index(self, backend: Backend) -> ItemIndex:
        """Return the index of [`vectors`]."""
        vectors, ids = self.vectors, self.tower.ids
        first = ids.begin if isinstance(ids, RowShards) else None
        # The index contains its vectors, so no others have their id as long as it is kept.
        return self.snapshot.value(
            ("index", backend), lambda: ItemIndex(vectors, backend, shared_from=first), id(vectors)
        )


@dataclass(frozen=True)
class TokenPositions:
    """Where tokens stand; every tensor has the shape `(batch, length)`.

    Args:
        position (`torch.Tensor`): int64 number among the tokens of its row; of a question, how many tokens it sees.
        session (`torch.Tensor`): int64 session of the event.
        event (`torch.Tensor`): int64 number of the event it belongs to; of a question, of the event asked for.
        time (`torch.Tensor`): int64 seconds.
        item (`torch.Tensor`): int64 catalogue row of the item it brings; -1 for none.
        is_real (`torch.Tensor`): bool: False for padding, which nothing sees.
    """

    position: Tensor
    session: Tensor
    event: Tensor
    time: Tensor
    item: Tensor
    is_real: Tensor

    def append(self, other: Self) -> Self:
        """Put other tokens behind these."""
        names = [one.name for one in fields(self)]
        return replace(self, **{name: torch.cat([getattr(self, name), getattr(other, name)], dim=1) for name in names})

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Put the tokens of several batches of users into one batch."""
        fills = {"item": -1}
        columns = {
            one.name: fill_below([getattr(part, one.name) for part in parts], fills.get(one.name, 0))
            for one in fields(cls)
        }
        return cls(**columns)

    def select(self, rows: Tensor) -> Self:
        """Return the positions of some rows, in the order asked."""
        return replace(self, **{one.name: getattr(self, one.name)[rows] for one in fields(self)})


@dataclass(frozen=True)
class HistoryState:
    """A history that was read: what later tokens and questions need of it. Each row is one user.

    Args:
        positions ([`TokenPositions`]): Where its tokens stand, `(batch, length)`.
        keys (`tuple[torch.Tensor, ...]`): For each layer `(batch, num_heads, length, head_size)`.
        values (`tuple[torch.Tensor, ...]`): For each layer, as `keys`.
        num_events (`torch.Tensor`): int64 events read, `(batch,)`.
        events ([`ReadEvents`], *optional*): Those events; present in what a model returns to its callers.
    """

    positions: TokenPositions
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    num_events: Tensor
    events: ReadEvents | None

    def select(self, rows: Tensor) -> Self:
        """Return the states of some rows, in the order asked."""
        return replace(
            self,
            positions=self.positions.select(rows),
            keys=tuple(part[rows] for part in self.keys),
            values=tuple(part[rows] for part in self.values),
            num_events=self.num_events[rows],
            events=None if self.events is None else self.events.select(rows),
        )

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, which are most of it."""
        return sum(part.nbytes for part in (*self.keys, *self.values))

    def compact(self) -> Self:
        """Move padding to the end of each row and cut it off: a row that was picked keeps no other's length."""
        is_real, taken = self.positions.is_real, self
        if not bool(is_real.all()):
            kept = int(is_real.sum(1).max())
            taken = self.take_tokens((~is_real).byte().argsort(dim=1, stable=True)[:, :kept])
        return replace(taken, events=None if self.events is None else self.events.compact())

    def take_tokens(self, columns: Tensor) -> Self:
        """Return the state with some of the tokens of each row, int64 `(batch, num_kept)`."""

        def taken(part: Tensor) -> Tensor:
            return part.gather(2, columns[:, None, :, None].expand(-1, part.shape[1], -1, part.shape[3]))

        names = [one.name for one in fields(self.positions)]
        positions = replace(
            self.positions, **{name: getattr(self.positions, name).gather(1, columns) for name in names}
        )
        return replace(
            self,
            positions=positions,
            keys=tuple(taken(part) for part in self.keys),
            values=tuple(taken(part) for part in self.values),
        )

    def join(self, others: Sequence[Self]) -> Self:
        """Put the states of other users below these; nothing is read again."""
        states = [self, *others]
        events = [one.events for one in states if one.events is not None]
        return replace(
            self,
            positions=self.positions.join([one.positions for one in states]),
            keys=tuple(fill_below(parts) for parts in zip(*(one.keys for one in states), strict=True)),
            values=tuple(fill_below(parts) for parts in zip(*(one.values for one in states), strict=True)),
            num_events=torch.cat([one.num_events for one in states]),
            events=ReadEvents.join(events) if len(events) == len(states) else None,
        )


def _events_of(state: HistoryState) -> ReadEvents:
    """Return the events of a state that a caller passes.

    Raises:
        RequestError: If it is one that a model keeps none in.
    """
    if state.events is None:
        raise RequestError("`state` does not contain its events; pass one that `encode_history` returned.")
    return state.events


StateT = TypeVar("StateT", bound=HistoryState)


class DensePreTrainedModel(PreTrainedModel):
    """Loading, saving and the start values of weights that both families have."""

    config_class = DenseConfig
    config: DenseConfig
    base_model_prefix = "model"
    main_input_name = "history_item_rows"
    _input_embed_layer = "items"
    # What an earlier version kept among the weights; see `models/views/old.py`.
    _keys_to_ignore_on_load_unexpected = [r"^fusion\."]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Embedding, TextProjection)):
            init.normal_(module.weight, mean=0.0, std=INITIALIZER_RANGE)
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, mean=0.0, std=self._linear_spread(module))
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, (LatestItem, RetrievalLogit)):
            module.start_weights()

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        """Save weights and settings; where processes share rows of a table, all must call it and each writes its own.

        What they write is one file as any other.

        Args:
            save_directory (`str` or `Path`): The folder; all processes must be able to reach it.
            is_main_process (`bool`): Whether this process writes all that is not shared.
            *args: Further arguments of `PreTrainedModel.save_pretrained`.
            **kwargs: Further arguments of `PreTrainedModel.save_pretrained`.
        """
        tables = row_shards(self)
        if not tables:
            super().save_pretrained(save_directory, is_main_process, *args, **kwargs)
            return
        others = {name: value for name, value in self.state_dict().items() if name not in tables}
        if is_main_process:
            super().save_pretrained(save_directory, True, *args, **{**kwargs, "state_dict": dict(others)})
        rows = {name: (table, table.weight) for name, table in tables.items()}
        save_rows(Path(save_directory) / SAFE_WEIGHTS_NAME, rows, others)

    @abstractmethod
    def _linear_spread(self, layer: nn.Linear) -> float:
        """Return the standard deviation of a linear layer's weights at the start."""


class Decoder(Protocol[StateT]):
    """What a family has under `model`: item vectors, and layers that read events behind a state or from the start."""

    items: ItemTower

    def __call__(self, inputs: Inputs, state: StateT | None, items: CatalogItems) -> StateT:
        """Read the `history_*` tensors; return the state after them."""


class DenseRetrieval(CatalogModel[DenseSnapshot], StatefulModel[StateT], DensePreTrainedModel):
    """`retrieve` by dot product with item vectors, `rank` by a head of the family.

    Histories are read once: their states are asked about, grow, are joined and saved.

    Set `item_index` to `"faiss"` to search with faiss; the answers are the same. A family defines what is abstract
    here, and names the class of its configuration.
    """

    keeps_states = True
    chosen_fields: ClassVar[tuple[str, ...]] = ("view_weights", "ranking_scales")

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if cls.config_class is DenseConfig:
            raise TypeError(f"{cls.__name__} has no `config_class` of its own; name a subclass of DenseConfig.")

    model: Decoder[StateT]
    # What the ranking head begins with, if it does.
    retrieval_logit: RetrievalLogit | None
    item_index: Backend = "exact"

    @property
    def items(self) -> ItemTower:
        """Items to vectors."""
        return self.model.items

    @property
    @abstractmethod
    def action_embedding(self) -> nn.Embedding:
        """The vectors of actions."""

    @property
    @abstractmethod
    def compares_all_items(self) -> bool:
        """Whether a step of training reads the vector of every item."""

    @property
    def score_unit(self) -> float:
        """What one unit of log-probability is in the model's scores: training divides them by the temperature."""
        return self.config.temperature

    @property
    @abstractmethod
    def judges_candidates(self) -> bool:
        """Whether a head judges the candidates of [`rank`]."""

    @abstractmethod
    def encode_questions(
        self, inputs: Inputs, *, state: StateT | None = None, items: CatalogItems | None = None
    ) -> Tensor:
        """Compute the vector of each question, `(batch, num_questions, size)`; its dot products rank items.

        Args:
            inputs (`dict[str, torch.Tensor]`): What the processor made of requests, or a batch of training windows.
            state ([`HistoryState`], *optional*): A history that was read, in place of the one in `inputs`.
            items ([`CatalogItems`], *optional*): What to answer from; that of now if not given.
        """

    @abstractmethod
    def score_candidates(
        self,
        inputs: Inputs,
        *,
        state: StateT | None = None,
        items: CatalogItems | None = None,
        added: Tensor | None = None,
    ) -> Tensor:
        """Score each candidate, in the shape of `inputs["candidate_rows"]`: the probability of an act.

        It is float64, where sure candidates still differ. Without a head for that, the score that [`retrieve`] gives,
        float32. A head that begins with that score takes `added`, what views add to it, in the same shape.
        """

    def judge_candidates(
        self,
        logits: Tensor,
        questions: Callable[[], Tensor],
        inputs: Inputs,
        items: CatalogItems,
        added: Tensor | None,
    ) -> Tensor:
        """Return the probabilities of candidates from what the ranking head says itself.

        Args:
            logits (`torch.Tensor`): What it says, `(batch, num_questions, num_candidates)`.
            questions (`Callable`): Returns the vectors of questions; for a head that begins with retrieval.
            inputs (`dict[str, torch.Tensor]`): Has `candidate_rows`.
            items ([`CatalogItems`]): What is answered from.
            added (`torch.Tensor`, *optional*): As in [`score_candidates`].
        """
        if self.retrieval_logit is not None:
            scores = self.answer_scores(questions(), inputs["candidate_rows"], items, inputs["question_behavior_ids"])
            scores = scores if added is None else scores + added
            chosen = self.config.ranking_scales
            scales = torch.tensor(chosen, device=scores.device).view(-1, 5) if chosen else None
            behaviors = inputs["question_behavior_ids"].clamp_min(0)
            logits = self.retrieval_logit(logits, scores, None if scales is None else scales[behaviors])
        # In float64 the sigmoid of 37 is 1, and views add hundreds where all words of a query are an item's: sure
        # candidates would be equal, in no order. Beyond some logit its logarithm counts: chances move by 1e-6.
        sure = logits.double()
        beyond = (sure.abs() - _SURE).clamp_min(0)
        return torch.sigmoid(sure.clamp(-_SURE, _SURE) + sure.sign() * beyond.log1p())

    def current_items(self, inputs: object = None) -> CatalogItems:
        """Return what a call that begins now answers from; see [`current_snapshot`]."""
        return CatalogItems(self.model.items, self.current_snapshot(inputs))

    @torch.no_grad()
    def encode_history(self, inputs: Inputs) -> StateT:
        """Read the histories of requests once; see [`StatefulModel`]."""
        items = self.current_items(inputs)
        return self._read_all(ReadEvents.from_inputs(inputs).to(self.device), items)

    @torch.no_grad()
    def extend(self, state: StateT, inputs: Inputs) -> StateT:
        """Read further events behind histories; see [`StatefulModel`].

        Only the new events are read, unless older ones fall out of `max_history` or a page view continues that other
        events stand after: what those saw would be another, so all are read again.
        """
        known = _events_of(state)
        items = self.current_items(inputs)
        new = ReadEvents.from_inputs(inputs).to(self.device)
        events = known.append(new)
        if int(events.lengths.max()) > self.config.max_history:
            return self._read_all(events.latest(self.config.max_history), items)
        before = known.columns["history_mask"]
        numbers = (one.columns["history_session_ids"][:, : before.shape[1]] for one in (known, events))
        is_same = torch.equal(*(torch.where(before, number, 0) for number in numbers))
        if not is_same or not before.shape[1]:
            return self._read_all(events, items)
        # The new events with the numbers that their sessions have among all.
        mask = new.columns["history_mask"]
        columns = (known.lengths[:, None] + mask.long().cumsum(1) - 1).clamp_min(0)
        session = events.columns["history_session_ids"].gather(1, columns)
        read = self._read({**new.inputs, "history_session_ids": session}, state, items)
        return replace(read, events=events)

    def save_state(self, state: StateT, path: str | Path) -> None:
        """Write rows of the catalogue, vectors of queries and digests of page views; see [`StatefulModel`]."""
        _events_of(state).save(path)

    @torch.no_grad()
    def load_state(self, path: str | Path) -> StateT:
        """Read what [`save_state`] wrote; see [`StatefulModel`]."""
        return self._read_all(ReadEvents.load(path).to(self.device), self.current_items())

    def with_state(
        self, inputs: Inputs, state: StateT | None, items: CatalogItems
    ) -> tuple[dict[str, Tensor], StateT]:
        """Bring inputs to the device; read their history, or put questions about a state behind its last event.

        A question about a page view that the state contains events of is asked as within it.

        Raises:
            RequestError: If the state is of another number of users than the requests.
        """
        moved = {name: value.to(self.device) for name, value in inputs.items()}
        if state is None:
            items.snapshot.check_rows("history_item_rows", moved["history_item_rows"])
            read: StateT = self.model(moved, None, items)
            return moved, read
        shape, events = moved["question_events"], self.check_state(state, len(moved["question_events"]))
        items.snapshot.check_rows("state", state.positions.item)
        keys = moved.get("question_session_keys")
        keys = torch.full_like(shape, -1) if keys is None else keys
        events, session = events.ask_within(keys[:, 0])
        if events is not state.events:
            state = replace(self._read(events.inputs, None, items), events=events)
        times = torch.maximum(moved["question_timestamps"], events.last("history_timestamps", 0)[:, None])
        return {
            **moved,
            "question_events": events.lengths[:, None].expand_as(shape),
            "question_session_ids": session[:, None].expand_as(shape),
            "question_timestamps": times,
        }, state

    @staticmethod
    def check_state(state: HistoryState, num_requests: int) -> ReadEvents:
        """Return the events of a state that is asked about.

        Raises:
            RequestError: If it is of another number of users than the requests.
        """
        events = _events_of(state)
        check_num_requests(len(events), num_requests)
        return events

    def _read_all(self, events: ReadEvents, items: CatalogItems) -> StateT:
        return replace(self._read(events.inputs, None, items), events=events)

    def _read(self, inputs: Inputs, state: StateT | None, items: CatalogItems) -> StateT:
        items.snapshot.check_rows("history_item_rows", inputs["history_item_rows"])
        read: StateT = self.model(inputs, state, items)
        return read

    def answer_scores(self, questions: Tensor, rows: Tensor, items: CatalogItems, behavior_ids: Tensor) -> Tensor:
        """Score candidates as [`retrieve`] scores items, without views: float32 of the shape of `rows`.

        Args:
            questions (`torch.Tensor`): Vectors of questions, `(batch, num_questions, size)`.
            rows (`torch.LongTensor`): Catalogue rows, `(batch, num_questions, num_candidates)`; below 0 for none.
            items ([`CatalogItems`]): What is answered from.
            behavior_ids (`torch.LongTensor`): Numbers into `BEHAVIORS`, `(batch, num_questions)`.
        """
        scores = self._products(questions, rows, items)
        new = self._new_items(items)
        if not len(new):
            return scores
        asked = rows.cpu().numpy()
        is_new = np.isin(asked, new)
        if is_new.any():
            places = torch.from_numpy(np.searchsorted(new, asked).clip(max=len(new) - 1)).to(rows.device)
            of_new = self._score_new(questions, items, behavior_ids)
            scores = torch.where(torch.from_numpy(is_new).to(rows.device), of_new.gather(-1, places), scores)
        return scores

    def _new_items(self, items: CatalogItems) -> np.ndarray:
        """Return the rows of items that training knows no event of, where others can speak for them.

        Without id embeddings all items are compared by their texts alone, and none is new.
        """
        num_trained, none = self.config.num_items, np.empty(0, dtype=np.int64)
        new = none if self.items.ids is None else items.snapshot.new_rows(num_trained)
        return new if len(new) and items.snapshot.text_neighbors(num_trained, RECOMMENDATION) is not None else none

    def _score_new(self, questions: Tensor, items: CatalogItems, behavior_ids: Tensor) -> Tensor:
        """Score the new items by those that are like them, float32 `(batch, num_questions, num_new)`."""
        num_trained, numbers = self.config.num_items, behavior_ids.clamp_min(0)
        scored = questions.new_zeros(*numbers.shape, len(self._new_items(items)), dtype=torch.float32)
        for number, behavior in enumerate(BEHAVIORS):
            is_asked = numbers == number
            neighbors = items.snapshot.text_neighbors(num_trained, behavior) if bool(is_asked.any()) else None
            if neighbors is None:
                continue
            vectors = self._item_vectors(torch.from_numpy(neighbors.rows).to(questions.device), items)
            known = (questions[is_asked] @ vectors.to(questions.dtype).T).detach().float().cpu().numpy()
            check_finite("The scores", known, "request", "check the weights of the model and its data type")
            scored[is_asked] = torch.from_numpy(neighbors.score(known)).to(questions.device)
        return scored

    def _products(self, questions: Tensor, rows: Tensor, items: CatalogItems) -> Tensor:
        vectors = self._item_vectors(rows.clamp_min(0), items)
        return torch.einsum("bqs,bqcs->bqc", questions, vectors.to(questions.dtype)).float()

    @staticmethod
    def _item_vectors(rows: Tensor, items: CatalogItems) -> Tensor:
        vectors: Tensor = items(rows) if isinstance(items.tower.ids, RowShards) else items.vectors[rows]
        return vectors

    def _viewed_history(self, inputs: BatchFeature) -> Tensor:
        """Return what the model itself reads, and a state holds."""
        rows: Tensor = inputs["history_item_rows"]
        return rows

    def _query_vectors(self, inputs: BatchFeature, queries: Sequence[str]) -> Tensor:
        """Return the text vectors of queries, which the processor looked up; see the base."""
        vectors: Tensor = inputs["query_vectors"]
        return vectors[inputs["question_query_rows"][:, 0].clamp_min(0)]

    def _check_catalog(self, catalog: Catalog) -> None:
        num_items = self.config.num_items
        if len(catalog) < num_items:
            raise CatalogError(
                f"The catalogue has {len(catalog)} items, the model was made for {num_items}; use the one "
                "saved with the model, or one grown from it by `add_items`."
            )
        expected = self.config.items_hash
        if expected is not None and (found := catalog.items_hash(num_items)) != expected:
            raise CatalogError(
                f"The catalogue's first {num_items} items have hash {found[:12]}, the model was trained for "
                f"{expected[:12]}; use the catalogue saved with the model, or one grown from it by "
                "`add_items`."
            )
        vectors = self._text_vectors(catalog)
        if self.config.text_size:
            width = None if vectors is None else vectors.shape[1]
            if vectors is None or width != self.config.text_size:
                raise CatalogError(
                    f"The catalogue has text vectors of width {width} under embeddings['semantic'], the model reads "
                    f"{self.config.text_size}; embed the items with the encoder that the model was trained with."
                )
        expected = self.config.texts_hash
        if expected is not None and (vectors is None or _vectors_hash(vectors[:num_items]) != expected):
            raise CatalogError(
                f"The catalogue's first {num_items} items match the model, but their text vectors differ from those "
                "it was trained with; use the catalogue saved with the model, or one grown from it by `add_items`."
            )

    def _make_snapshot(self, catalog: Catalog) -> DenseSnapshot:
        old = self._snapshot
        if old is None or len(old.catalog) != len(catalog) or not has_same_items(old.catalog, catalog):
            return DenseSnapshot(catalog, self.items.read_texts(catalog.items, self._text_vectors(catalog)))
        # After `remove_items` the vectors are the same array: what was made of them stays.
        snapshot, num_trained = DenseSnapshot(catalog, old.texts), self.config.num_items
        kept = ["vectors", ("index", self.item_index)]
        # Views speak for the new items that can be answered.
        if np.array_equal(old.new_rows(num_trained), snapshot.new_rows(num_trained)):
            kept.append("views")
        snapshot.take_values(old, kept)
        return snapshot

    def _keep(self, snapshot: DenseSnapshot) -> None:
        catalog, num_items = snapshot.catalog, self.config.num_items
        if self.config.items_hash is None:
            self.config.items_hash = catalog.items_hash(num_items)
        vectors = self._text_vectors(catalog)
        if self.config.texts_hash is None and vectors is not None:
            self.config.texts_hash = _vectors_hash(vectors[:num_items])
        self.items.texts = snapshot.texts  # what training reads

    def _text_vectors(self, catalog: Catalog) -> np.ndarray | None:
        return catalog.embeddings.get("semantic") if self.config.text_size else None

    def available_items(self, timestamps: Tensor) -> Tensor | None:
        """Return which items were available at each time (IntSR, equation 15).

        Args:
            timestamps (`torch.LongTensor`): Seconds, of shape `(num_questions,)`.

        Returns:
            `torch.BoolTensor`, *optional*: Of shape `(num_questions, num_items)`; `None` where all items always are.
        """
        periods = self.current_snapshot().periods(timestamps.device)
        if periods is None:
            return None
        start, end = periods
        is_there: Tensor = (start <= timestamps[:, None]) & (timestamps[:, None] < end)
        return is_there

    @torch.no_grad()
    def retrieve(
        self,
        inputs: BatchFeature,
        *,
        top_k: int | Sequence[int] = 10,
        where: Where = None,
        state: StateT | None = None,
        exclude_seen: ExcludeSeen = None,
        boost: Boost = None,
    ) -> list[list[ScoredItem]]:
        """Find the best items of the whole catalogue; exact.

        Items of which training knows no event are scored by those like them: `TextNeighbors`.

        Several threads may call this while another sets a catalogue: see [`set_catalog`]. Weights may change
        between calls, not during one.

        Args:
            inputs ([`~transformers.BatchFeature`]): What the processor made of the requests.
            top_k (`int` or `Sequence[int]`): Items wanted, for all requests or for each.
            where (`np.ndarray`, `torch.Tensor` or `list`, *optional*):
                Items allowed: a boolean mask over the catalogue's rows or a list of ids, for all requests, or a list
                with one of these (or None) for each request. Removed items are never allowed.
            state (*optional*): A cached history of each request, in place of the one in `inputs`.
            exclude_seen (`bool` or `Sequence`, *optional*):
                Leave out what users acted on, all of the request's history and of the state, for all requests or for
                each; if not given in recommendations and not in searches.
            boost (`np.ndarray` or `dict`, *optional*):
                Numbers of the caller's that are added to scores: of all items, for all requests or for each, or of
                some items by id. Items are compared by the sum.

        Returns:
            `list[list[ScoredItem]]`: For each request at most `top_k` distinct items, best first, with the similarity
            that the model was trained on, and what views and boost add to it. Fewer where fewer are allowed.

        Raises:
            RequestError: If `top_k` is below 1, or one of the arguments does not fit the requests.
            NotFiniteError: If the model computes something that is not a finite number.
        """
        behaviors = inputs["question_behavior_ids"][:, 0].tolist()
        events = None if state is None else self.check_state(state, len(behaviors))
        return self._retrieve(
            inputs,
            behaviors,
            top_k,
            where,
            exclude_seen,
            boost,
            lambda snapshot, wanted, allowed, added: self._search(
                snapshot, inputs, state, wanted.tolist(), allowed, added
            ),
            None if events is None else events.seen_rows.cpu().numpy(),
            None if events is None else events.columns["history_item_rows"],
        )

    @torch.no_grad()
    def score_items(self, inputs: BatchFeature, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Score items as [`retrieve`] does, with nothing added; see the base."""
        items = self.current_items()
        asked = torch.from_numpy(Ragged.from_arrays(rows).pad(-1)).to(self.device)[:, None]
        questions, behavior_ids = self.encode_questions(inputs, items=items), inputs["question_behavior_ids"]
        scores = self.answer_scores(questions, asked, items, behavior_ids.to(self.device))[:, 0]
        return [line[: len(own)] for line, own in zip(scores.cpu().numpy(), rows, strict=True)]

    def _search(
        self,
        snapshot: DenseSnapshot,
        inputs: BatchFeature,
        state: StateT | None,
        wanted: list[int],
        allowed: Masks,
        added: AddedScores | None,
    ) -> list[Found]:
        """Find the items whose vectors are nearest to the questions, and new items by their neighbours."""
        items = CatalogItems(self.model.items, snapshot)
        questions = self.encode_questions(inputs, state=state, items=items)[:, 0]
        new, spoken_for = self._new_items(items), None
        if len(new):
            behavior_ids = inputs["question_behavior_ids"].to(self.device)
            spoken_for = new, self._score_new(questions[:, None], items, behavior_ids)[:, 0]
        return items.index(self.item_index).search(questions, wanted, allowed, added, spoken_for)

    @torch.no_grad()
    def rank(self, inputs: BatchFeature, *, state: StateT | None = None) -> list[list[ScoredItem]]:
        """Order the candidates given to the processor.

        Args:
            inputs ([`~transformers.BatchFeature`]): Made by `processor(requests, candidates=...)`.
            state (*optional*): As in [`retrieve`].

        Returns:
            `list[list[ScoredItem]]`: For each request its candidates, best first, with the probability of an act, or
            the score that [`retrieve`] gives where no head judges candidates. Views are added to that score, and to
            what a head begins with that reads it; one that does not knows no views.

        Raises:
            RequestError: If the inputs contain no candidates.
            NotFiniteError: If the model computes something that is not a finite number.
        """

        def score(snapshot: DenseSnapshot, rows: list[np.ndarray]) -> list[np.ndarray]:
            items = CatalogItems(self.model.items, snapshot)
            is_candidate = inputs["candidate_rows"][:, 0].cpu().numpy() >= 0
            more = added = None
            if self.judges_candidates and self.retrieval_logit is not None and self._views is not None:
                more = self._added(snapshot, inputs, behaviors, history, None)
            if more is not None:
                table = np.zeros(is_candidate.shape, np.float32)
                table[is_candidate] = np.concatenate(more.at(rows))
                added = torch.from_numpy(table)[:, None].to(self.device)
            scores = self.score_candidates(inputs, state=state, items=items, added=added)[:, 0].cpu().numpy()
            return [line[kept] for line, kept in zip(scores, is_candidate, strict=True)]

        behaviors = inputs["question_behavior_ids"][:, 0].tolist()
        events = None if state is None else self.check_state(state, len(behaviors))
        history = None if events is None else events.columns["history_item_rows"]
        return self._rank(inputs, behaviors, score, reads_views=not self.judges_candidates, history=history)


# A model of either family.
DenseModel = DenseRetrieval[Any]


def _vectors_hash(vectors: np.ndarray) -> str:
    """Compute a digest of item vectors: what the weights that read them belong to."""
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(vectors).data)


__all__ = [
    "INITIALIZER_RANGE",
    "LAYER_NORM_EPS",
    "CatalogItems",
    "DenseModel",
    "DensePreTrainedModel",
    "DenseRetrieval",
    "DenseSnapshot",
    "HistoryState",
    "Inputs",
    "LatestItem",
    "RetrievalLogit",
    "StateT",
    "TokenPositions",
    "latest_items",
    "seen_of_recommendations",
]
