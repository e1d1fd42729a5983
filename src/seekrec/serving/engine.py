# SPDX-License-Identifier: Apache-2.0
"""A loaded model that answers a batch of questions, each as if it were alone."""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Protocol, TypedDict, cast

import numpy as np
from scipy.special import expit
from transformers import AutoModel, AutoProcessor, BatchFeature

from seekrec.catalog import Catalog
from seekrec.errors import RequestError, SeekrecError, UnknownItemError
from seekrec.generation import packed_linears
from seekrec.models.base import CatalogModel, CatalogSnapshot
from seekrec.models.checkpoint import named_model
from seekrec.models.manifest import manifest_file
from seekrec.models.processing import CatalogProcessor
from seekrec.models.states import State
from seekrec.schema import Event, Request, ScoredItem
from seekrec.serving.filters import allowed_rows
from seekrec.serving.histories import KeptHistory
from seekrec.serving.logs import logger
from seekrec.serving.messages import Where
from seekrec.serving.metrics import Metrics
from seekrec.serving.states import StateModel, StateProcessor, UserStates, keeps_states
from seekrec.util.hashing import json_digest

# A path or the name of a repository, or a model and its processor.
AnyModel = CatalogModel[CatalogSnapshot]
ModelSource = str | Path | tuple[AnyModel, CatalogProcessor]

# Characters of a digest that name a version.
_VERSION_LENGTH = 12
# Packing stays if the self-test takes at most this share of the time without.
_PACKING_GAIN = 0.95
_TRIALS = 3
_TRIAL_QUERY = "a"


class _Processor(Protocol):
    """How a processor is called."""

    def __call__(
        self, requests: Sequence[Request], candidates: Sequence[Sequence[str]] | None = None
    ) -> BatchFeature: ...


class _RetrieveOptions(TypedDict):
    """What a model is asked together with its inputs."""

    top_k: list[int]
    where: list[np.ndarray | None]
    exclude_seen: list[bool | None]
    boost: np.ndarray | None


class _Suggester(Protocol):
    """How a model that writes queries is asked."""

    def suggest_queries(
        self, requests: Sequence[Request], *, processor: object, num_queries: int, state: State | None = None
    ) -> list[list[str]]: ...


@dataclass(frozen=True, eq=False)
class Question:
    """One question of a batch.

    Args:
        request ([`Request`]): What is asked, without a history.
        history (`Sequence[Event]`): The user's events, oldest first.
        kept ([`KeptHistory`], *optional*): The same, where the store has all of them.
        top_k (`int`): Items, or queries, wanted.
        where ([`Where`], *optional*): Which items may be answered.
        exclude_seen (`bool`, *optional*): Leave out what the user acted on.
        boosts (`dict`, *optional*): Numbers added to scores, by item id.
        candidates (`list[str]`, *optional*): Items to order, in place of a search.
        writes_queries (`bool`): Whether queries are asked for, not items.
        model (`str`, *optional*): Name of the model that is asked; that which answers if none is named.
    """

    request: Request = field(default_factory=Request)
    history: Sequence[Event] = ()
    kept: KeptHistory | None = None
    top_k: int = 10
    where: Where | None = None
    exclude_seen: bool | None = None
    boosts: dict[str, float] | None = None
    candidates: list[str] | None = None
    writes_queries: bool = False
    model: str | None = None

    @property
    def whole(self) -> Request:
        """What is asked, with the history."""
        return replace(self.request, history=self.history)


@dataclass(frozen=True, eq=False)
class Answered:
    """An answer, and what it was made from.

    Args:
        model ([`LoadedModel`]): The model.
        processor ([`CatalogProcessor`]): What read the question; the model may have another one by now.
        catalog_version (`int`): The version of its catalogue.
        items (`list[ScoredItem]`): Best first; empty where queries were asked for.
        queries (`list[str]`): Best first.
        probabilities (`list`): Of an act with each item, where the model says one.
    """

    model: LoadedModel
    processor: CatalogProcessor
    catalog_version: int
    items: list[ScoredItem]
    queries: list[str]
    probabilities: list[float | None]


class LoadedModel:
    """A model and its processor, with one catalogue at a time. One thread uses it.

    Args:
        name (`str`): What it is called.
        version (`str`): Digest of its weights and settings.
        model ([`CatalogModel`]): The model.
        processor ([`CatalogProcessor`]): Its processor.
    """

    def __init__(self, name: str, version: str, model: AnyModel, processor: CatalogProcessor) -> None:
        self.name, self.version, self.model, self.processor = name, version, model.eval(), processor
        self._served = (model.catalog, 0)
        self._packing = ExitStack()
        self._states: UserStates | None = None

    @classmethod
    def load(cls, source: ModelSource, text_encoder: str | None = None) -> LoadedModel:
        """Load a model.

        Args:
            source (`str`, `Path` or `tuple`): Folder or repository, or a model and its processor.
            text_encoder (`str`, *optional*): Path or name of the encoder of new texts.

        Raises:
            SeekrecError: If the folder is not a whole checkpoint.
        """
        if isinstance(source, tuple):
            model, processor = source
            # What is only in memory has no manifest: its catalogue and settings name it.
            version = json_digest([model.config.to_diff_dict(), model.catalog.content_hash])
            return cls(model.config.model_type, version[:_VERSION_LENGTH], model, processor)
        encoder = {} if text_encoder is None else {"text_encoder": text_encoder}
        with named_model(source):
            model = AutoModel.from_pretrained(str(source))
        if not isinstance(model, CatalogModel):
            raise RequestError(f"{source} contains a {type(model).__name__}, which can neither search nor recommend.")
        processor = AutoProcessor.from_pretrained(str(source), **(encoder if not model.can_generate() else {}))
        if text_encoder is not None:
            catalog = replace(model.catalog, semantic_encoder_name=text_encoder, encoder_is_trusted=True)
            model.set_catalog(catalog)
            processor.set_catalog(catalog)
        path = Path(source)
        manifest = path / manifest_file("model")
        saved = json.loads(manifest.read_text("utf-8")) if manifest.is_file() else model.config.to_diff_dict()
        name = path.parent.name if path.name == "model" and path.parent.name else path.name
        return cls(name, json_digest([saved, model.catalog.content_hash])[:_VERSION_LENGTH], model, processor)

    @property
    def family(self) -> str:
        """The kind of model: gensar, gensr, intsr or synergen."""
        return str(self.model.config.model_type)

    @property
    def served(self) -> tuple[Catalog, int]:
        """The items that are answered from, and their version: what any thread may read as one."""
        return self._served

    @property
    def catalog(self) -> Catalog:
        """The items that are answered from."""
        return self._served[0]

    @property
    def catalog_version(self) -> int:
        """The version of the catalogue."""
        return self._served[1]

    def keep_states(self, max_bytes: int, metrics: Metrics | None = None) -> None:
        """Keep what the model makes of users' histories, if its family can."""
        if max_bytes and keeps_states(self.model):
            self._states = UserStates(self.model, cast(StateProcessor, self.processor), max_bytes, metrics)

    @property
    def tasks(self) -> list[str]:
        """What it can be asked."""
        tasks = ["recommend", "search", "rank"]
        return [*tasks, "suggest"] if self.writes_queries else tasks

    @property
    def writes_queries(self) -> bool:
        """Whether the model writes queries itself."""
        return "nsqp" in getattr(self.model.config, "trained_tasks", ())

    def prepare_catalog(self, catalog: Catalog, version: int) -> Callable[[], None]:
        """Make what answers from another catalogue need, while the model answers from its own.

        Args:
            catalog ([`Catalog`]): The items from then on.
            version (`int`): Their version.

        Returns:
            `Callable`: Call it between two batches; from then on the model answers from the other catalogue.
        """
        # The copies share all weights, and have a catalogue of their own.
        model, processor = copy.copy(self.model), copy.copy(self.processor)
        model.set_catalog(catalog)
        processor.set_catalog(catalog)
        # What is made at the first answer is made now.
        for query in (None, _TRIAL_QUERY):
            with suppress(SeekrecError):  # a model may lack an encoder of queries, or be made to rank alone
                model.retrieve(cast(_Processor, processor)([Request(query=query)]), top_k=1)

        def take_up() -> None:
            has_grown = len(catalog) > len(self.catalog)
            self.model, self.processor = model, processor
            self._served = (catalog, version)
            if self._states is not None:
                self._states.use(cast(StateModel, model), cast(StateProcessor, processor), has_grown)

        return take_up

    def pack(self) -> float | None:
        """Pack linear layers if a trial is faster with them.

        Returns:
            `float`, *optional*: The share of the time that a batch takes now; `None` where nothing is packed.
        """
        requests = [Question(), Question(Request(query=_TRIAL_QUERY))]

        def seconds() -> float:
            taken = []
            for _ in range(_TRIALS):
                start = perf_counter()
                self.answer(requests)
                taken.append(perf_counter() - start)
            return min(taken)

        for said in self.answer(requests):
            if isinstance(said, SeekrecError):  # as one that lacks its text encoder, which nobody may notice for long
                logger.warning("the model cannot answer some requests: %s", said)
        before = seconds()
        with ExitStack() as trial:
            if not trial.enter_context(packed_linears(self.model)):
                return None
            share = seconds() / before
            if share > _PACKING_GAIN:
                return None
            self._packing = trial.pop_all()
        return share

    def close(self) -> None:
        """Give back what packing took."""
        self._packing.close()

    def answer(self, questions: Sequence[Question]) -> list[Answered | SeekrecError]:
        """Answer a batch, all from one catalogue.

        Args:
            questions (`Sequence[Question]`): Of any kinds.

        Returns:
            `list`: For each question its answer, or why there is none.
        """
        found: dict[int, Answered | SeekrecError] = {}
        groups: dict[tuple[str, object], list[int]] = defaultdict(list)
        for number, one in enumerate(questions):
            groups[self._kind(one)].append(number)
        asks = {"suggest": self._suggest, "rank": self._rank, "retrieve": self._retrieve}
        for (kind, _), numbers in groups.items():
            answers = self._ask_together([questions[number] for number in numbers], asks[kind])
            found |= dict(zip(numbers, answers, strict=True))
        return [found[number] for number in range(len(questions))]

    def _kind(self, question: Question) -> tuple[str, object]:
        """Return what is asked, and what else must be the same for all that are asked at once."""
        has_state = self._states is not None and question.kept is not None
        if question.writes_queries:
            return "suggest", (question.top_k, has_state)  # as many beams
        return "retrieve" if question.candidates is None else "rank", has_state

    def _ask_together(
        self, questions: Sequence[Question], ask: Callable[[Sequence[Question]], list[Answered]]
    ) -> list[Answered | SeekrecError]:
        """Ask at once; where one of them cannot be answered, one by one, so that the others are."""
        try:
            return list(ask(questions))
        except SeekrecError as error:
            if len(questions) == 1:
                return [error]
        return [self._ask_together([one], ask)[0] for one in questions]

    def _retrieve(self, questions: Sequence[Question]) -> list[Answered]:
        state = self._state(questions)
        inputs = self._read([one.whole if state is None else one.request for one in questions])
        options = _RetrieveOptions(
            top_k=[one.top_k for one in questions],
            where=[None if one.where is None else allowed_rows(one.where, self.catalog) for one in questions],
            exclude_seen=[one.exclude_seen for one in questions],
            boost=_boosts(questions, self.catalog),
        )
        if state is None:
            found = self.model.retrieve(inputs, **options)
        else:
            found = cast(StateModel, self.model).retrieve(inputs, state=state, **options)
        return [self._answered(items) for items in found]

    def _rank(self, questions: Sequence[Question]) -> list[Answered]:
        state, candidates = self._state(questions), [one.candidates or [] for one in questions]
        if state is None:
            found = self.model.rank(self._read([one.whole for one in questions], candidates))
        else:
            inputs = self._read([one.request for one in questions], candidates)
            found = cast(StateModel, self.model).rank(inputs, state=state)
        return [self._answered(items, probabilities=self._probabilities(items)) for items in found]

    def _suggest(self, questions: Sequence[Question]) -> list[Answered]:
        state = self._state(questions)
        requests = [one.whole if state is None else one.request for one in questions]
        found = cast(_Suggester, self.model).suggest_queries(
            requests, processor=self.processor, num_queries=questions[0].top_k, state=state
        )
        return [self._answered([], queries=lines) for lines in found]

    def _state(self, questions: Sequence[Question]) -> State | None:
        """Return what the model made of the histories, of questions that are of one kind."""
        kept = [one.kept for one in questions if one.kept is not None]
        if self._states is None or len(kept) < len(questions):
            return None
        return self._states.read(kept, self.catalog)

    def _read(self, requests: Sequence[Request], candidates: Sequence[Sequence[str]] | None = None) -> BatchFeature:
        return cast(_Processor, self.processor)(requests, candidates)

    def _probabilities(self, items: Sequence[ScoredItem]) -> list[float | None]:
        """Return the probability of an act with each item that was ranked, where the scores say one."""
        model = self.model
        if getattr(model, "judges_candidates", False):
            return [one.score for one in items]
        if getattr(model.config, "yes_no_loss", "none") != "none" and model.views is None:
            return [float(expit(one.score)) for one in items]  # scores are logit(Yes) - logit(No)
        return [None] * len(items)

    def _answered(
        self, items: list[ScoredItem], *, queries: Sequence[str] = (), probabilities: Sequence[float | None] = ()
    ) -> Answered:
        chances = list(probabilities) or [None] * len(items)
        return Answered(self, self.processor, self.catalog_version, items, list(queries), chances)


def _boosts(questions: Sequence[Question], catalog: Catalog) -> np.ndarray | None:
    """Return the boosts of a batch, float32 `(num_questions, num_items)`; `None` where there is none."""
    if not any(one.boosts for one in questions):
        return None
    values = np.zeros((len(questions), len(catalog)), np.float32)
    for line, one in zip(values, questions, strict=True):
        if one.boosts:
            try:
                rows = catalog.id_map.convert_to_rows(one.boosts)
            except UnknownItemError as error:
                raise RequestError(f"`boosts` cannot be used: {error}") from error
            line[rows] = list(one.boosts.values())
    return values


__all__ = ["Answered", "LoadedModel", "ModelSource", "Question"]
