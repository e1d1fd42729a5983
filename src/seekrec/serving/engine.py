# SPDX-License-Identifier: Apache-2.0
"""A loaded model, and the answers to a batch of questions, each as if it were alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Protocol, cast

import numpy as np
from transformers import AutoModel, AutoProcessor, BatchFeature

from seekrec.catalog import Catalog
from seekrec.errors import RequestError, SeekrecError
from seekrec.generation import packed_linears
from seekrec.models.base import CatalogModel, CatalogSnapshot
from seekrec.models.manifest import manifest_file
from seekrec.models.processing import CatalogProcessor
from seekrec.schema import Request, ScoredItem
from seekrec.serving.filters import allowed_rows
from seekrec.serving.messages import Where
from seekrec.util.hashing import json_digest

# A path or the name of a repository, or a model and its processor.
AnyModel = CatalogModel[CatalogSnapshot]
ModelSource = str | Path | tuple[AnyModel, CatalogProcessor]

# Characters of a digest that name a version.
_VERSION_LENGTH = 12
# Packing stays if the self-test takes at most this share of the time without.
_PACKING_GAIN = 0.95
_TRIALS = 3


class _Processor(Protocol):
    """How a processor is called."""

    def __call__(
        self, requests: Sequence[Request], candidates: Sequence[Sequence[str]] | None = None
    ) -> BatchFeature: ...


class _Retriever(Protocol):
    """How a model is asked."""

    def retrieve(
        self,
        inputs: BatchFeature,
        *,
        top_k: Sequence[int],
        where: Sequence[np.ndarray | None],
        exclude_seen: bool | None,
        boost: np.ndarray | None,
    ) -> list[list[ScoredItem]]: ...


class _Suggester(Protocol):
    """How a model that writes queries is asked."""

    def suggest_queries(
        self, requests: Sequence[Request], *, processor: object, num_queries: int
    ) -> list[list[str]]: ...


@dataclass(frozen=True, eq=False)
class Question:
    """One question of a batch.

    Args:
        request ([`Request`]): History, and query of a search.
        top_k (`int`): Items, or queries, wanted.
        where ([`Where`], *optional*): Which items may be answered.
        exclude_seen (`bool`, *optional*): Leave out what the user acted on.
        boosts (`dict`, *optional*): Numbers added to scores, by item id.
        candidates (`list[str]`, *optional*): Items to order, in place of a search.
        writes_queries (`bool`): Whether queries are asked for, not items.
    """

    request: Request
    top_k: int = 10
    where: Where | None = None
    exclude_seen: bool | None = None
    boosts: dict[str, float] | None = None
    candidates: list[str] | None = None
    writes_queries: bool = False


@dataclass(frozen=True, eq=False)
class Answered:
    """An answer, and what it was made from.

    Args:
        model ([`LoadedModel`]): The model.
        catalog_version (`int`): The version of its catalogue.
        items (`list[ScoredItem]`): Best first; empty where queries were asked for.
        queries (`list[str]`): Best first.
    """

    model: LoadedModel
    catalog_version: int
    items: list[ScoredItem]
    queries: list[str]


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
        self.catalog_version = 0
        self._packing = ExitStack()

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
        model = AutoModel.from_pretrained(str(source))
        if not isinstance(model, CatalogModel):
            raise RequestError(f"{source} holds a {type(model).__name__}, which does not search or recommend.")
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
    def catalog(self) -> Catalog:
        """The items that are answered from."""
        return self.model.catalog

    @property
    def tasks(self) -> list[str]:
        """What it can be asked."""
        tasks = ["recommend", "search", "rank"]
        return [*tasks, "suggest"] if self.writes_queries else tasks

    @property
    def writes_queries(self) -> bool:
        """Whether the model writes queries itself."""
        return "nsqp" in getattr(self.model.config, "trained_tasks", ())

    def set_catalog(self, catalog: Catalog, version: int) -> None:
        """Answer from this catalogue from now on; only between two batches."""
        self.model.set_catalog(catalog)
        self.processor.set_catalog(catalog)
        self.catalog_version = version

    def pack(self) -> float | None:
        """Pack linear layers if a trial is faster with them.

        Returns:
            `float`, *optional*: The share of the time that a batch takes now; `None` where nothing is packed.
        """
        requests = [Question(Request()), Question(Request(query="a"))]

        def seconds() -> float:
            taken = []
            for _ in range(_TRIALS):
                start = perf_counter()
                self.answer(requests)
                taken.append(perf_counter() - start)
            return min(taken)

        self.answer(requests)
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
        found: list[Answered | SeekrecError | None] = [None] * len(questions)
        kinds: list[tuple[Callable[[Question], bool], Callable[[Sequence[Question]], list[Answered]]]] = [
            (lambda one: one.writes_queries, self._suggest),
            (lambda one: one.candidates is not None, self._rank),
            (lambda one: one.candidates is None and not one.writes_queries, self._retrieve),
        ]
        for is_kind, ask in kinds:
            chosen = [number for number, one in enumerate(questions) if is_kind(one)]
            if not chosen:
                continue
            answers = self._ask_together([questions[number] for number in chosen], ask)
            for number, answer in zip(chosen, answers, strict=True):
                found[number] = answer
        return cast("list[Answered | SeekrecError]", found)

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
        catalog = self.catalog
        inputs = self._read([one.request for one in questions])
        masks = [None if one.where is None else allowed_rows(one.where, catalog) for one in questions]
        # What users have seen is left out of masks here: `exclude_seen` is one for a whole batch.
        answers: dict[int, list[ScoredItem]] = {}
        for exclude_seen in (None, False, True):
            chosen = [number for number, one in enumerate(questions) if one.exclude_seen is exclude_seen]
            if not chosen:
                continue
            own = inputs if len(chosen) == len(questions) else self._read([questions[n].request for n in chosen])
            found = cast(_Retriever, self.model).retrieve(
                own,
                top_k=[questions[number].top_k for number in chosen],
                where=[masks[number] for number in chosen],
                exclude_seen=exclude_seen,
                boost=_boosts([questions[number] for number in chosen], catalog),
            )
            answers |= dict(zip(chosen, found, strict=True))
        return [self._answered(answers[number]) for number in range(len(questions))]

    def _rank(self, questions: Sequence[Question]) -> list[Answered]:
        candidates = [one.candidates or [] for one in questions]
        inputs = cast(_Processor, self.processor)([one.request for one in questions], candidates)
        return [self._answered(items) for items in self.model.rank(inputs)]

    def _suggest(self, questions: Sequence[Question]) -> list[Answered]:
        model, most = cast(_Suggester, self.model), max(one.top_k for one in questions)
        found = model.suggest_queries([one.request for one in questions], processor=self.processor, num_queries=most)
        return [self._answered([], lines[: one.top_k]) for one, lines in zip(questions, found, strict=True)]

    def _read(self, requests: Sequence[Request]) -> BatchFeature:
        return cast(_Processor, self.processor)(requests)

    def _answered(self, items: list[ScoredItem], queries: Sequence[str] = ()) -> Answered:
        return Answered(self, self.catalog_version, items, list(queries))


def _boosts(questions: Sequence[Question], catalog: Catalog) -> np.ndarray | None:
    """Return the boosts of a batch, float32 `(num_questions, num_items)`; `None` where there is none."""
    if not any(one.boosts for one in questions):
        return None
    values = np.zeros((len(questions), len(catalog)), np.float32)
    for line, one in zip(values, questions, strict=True):
        if one.boosts:
            line[catalog.id_map.convert_to_rows(one.boosts)] = list(one.boosts.values())
    return values


__all__ = ["Answered", "LoadedModel", "ModelSource", "Question"]
