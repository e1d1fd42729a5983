# SPDX-License-Identifier: Apache-2.0
"""`pipeline("search-and-recommendation", model=...)`: from requests to ids, titles and scores, for every family.

Unlike other pipelines it hands whole batches to the processor, which pads them; so one call of `preprocess` takes a
list of requests. Importing this module registers the task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, cast

import numpy as np
from torch import Tensor
from transformers import AutoModel, BatchFeature, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from seekrec.errors import RequestError
from seekrec.generation.beam_search import per_request
from seekrec.models.answers import ExcludeSeen, Where
from seekrec.models.base import CatalogModel
from seekrec.models.views import Boost
from seekrec.schema import Request, ScoredItem, shown

Answer = dict[str, str | float | None]
TASK = "search-and-recommendation"


class SearchAndRecommendationPipeline(Pipeline):
    """Answer requests with items: recommendations without a query, search results with one.

    ```python
    import seekrec
    from transformers import pipeline

    answer = pipeline("search-and-recommendation", model="me/gensar-scientific")
    answer(seekrec.Request(history=events), top_k=5)
    answer("hard start kit", where=answer.model.catalog.where(categories="Lab & Scientific"))
    ```

    Options of a call, which can be given to `pipeline(...)` as defaults too:

    - `top_k` (`int`): Items for each request; if not given 10, or all of `candidates`; with a list of requests, a list
      of numbers.
    - `where` (`np.ndarray`, `torch.Tensor` or `list`, *optional*): Which items may be answered: a bool mask over the
      catalogue's rows or a list of item ids, for all requests; or, with a list of requests, a list with one of these
      for each.
    - `exclude_seen` (`bool`, *optional*): Leave out what the user acted on; if not given in recommendations alone;
      with a list of requests, a list of these.
    - `boost` (`np.ndarray` or `dict`, *optional*): Numbers that are added to the scores of items, as in `retrieve`: of
      all items, or of some by id, for all requests; or, with a list of requests, a line of numbers of all items for
      each.
    - `candidates` (`list[str]`, *optional*): Order these items instead of searching the catalogue; with a list of
      requests, a list of lists.
    - `batch_size` (`int`): Requests that the model answers at once, 16 if not given.
    """

    def _sanitize_parameters(
        self, **parameters: Any
    ) -> tuple[dict[str, object], dict[str, object], dict[str, object]]:
        unknown = sorted(parameters.keys() - {"top_k", "where", "exclude_seen", "boost", "candidates"})
        if unknown:
            raise RequestError(
                f"`{unknown[0]}` is an unknown option of this pipeline; use `top_k`, `where`, `exclude_seen`, "
                "`boost`, `candidates` or `batch_size`."
            )
        to_preprocess = {name: value for name, value in parameters.items() if name == "candidates"}
        to_forward = {name: value for name, value in parameters.items() if name != "candidates"}
        return to_preprocess, to_forward, {}

    def __call__(self, requests: object, *, batch_size: int | None = None, **options: Any) -> Any:  # type: ignore[override]
        """Answer one request or many.

        Args:
            requests ([`Request`], `str`, or an iterable of them): A text is a search without a history.
            batch_size (`int`, *optional*): Requests answered at once.
            options: See the class.

        Returns:
            `list[dict]` for one request: `item_id`, `title`, `score`, best first. `list[list[dict]]` for a list of
            requests; for any other iterable an iterator that reads ahead by one batch.

        Raises:
            RequestError: If an input is not a request, an option is unknown, a list of options does not fit, or two
                options contradict each other.
        """
        given = self._batch_size if batch_size is None else batch_size
        size = int(per_request("batch_size", 16 if given is None else given, 1)[0])
        to_preprocess, to_forward, _ = self._sanitize_parameters(**options)
        options = {**self._preprocess_params, **self._forward_params, **to_preprocess, **to_forward}
        asked = [requests] if isinstance(requests, (Request, str)) else requests
        # The keys of a mapping and the numbers of bytes are no requests.
        if isinstance(asked, (Mapping, bytes, bytearray)) or not isinstance(asked, Iterable):
            raise RequestError(
                f"{shown(requests)} is not a request; pass a seekrec.Request(query=..., history=[...]), a query, or a "
                "list of these."
            )
        if asked is not requests and options.get("candidates") is not None:
            options["candidates"] = [options["candidates"]]
        if isinstance(asked, Sequence):
            for name, values in options.items():
                if _is_per_request(name, values) and len(values) != len(asked):
                    raise RequestError(
                        f"`{name}` has {len(values)} entries for {len(asked)} requests; give one for each request."
                    )
            answers = list(self._answers(iter(asked), size, options))
            return answers if asked is requests else answers[0]
        if _is_per_request("boost", options.get("boost")):
            raise RequestError(
                f"`boost` has numbers for each request ({len(options['boost'])} rows), but the requests are not "
                "in a list; pass one set of numbers for all requests, or the requests in a list."
            )
        return self._answers(iter(asked), size, options)

    def _answers(self, requests: Iterator[object], size: int, options: dict[str, Any]) -> Iterator[list[Answer]]:
        start = 0
        while batch := list(islice(requests, size)):
            here = slice(start, start + len(batch))
            given = {name: value[here] if _is_per_request(name, value) else value for name, value in options.items()}
            yield from self.run_single(batch, {"candidates": given.pop("candidates", None)}, given, {})
            start += len(batch)

    def preprocess(  # type: ignore[override]
        self, requests: Sequence[object], candidates: Sequence[Sequence[str]] | None = None
    ) -> dict[str, object]:
        """Turn requests into the tensors of the processor."""
        asked = []
        for position, request in enumerate(requests):
            if not isinstance(request, (Request, str)):
                raise RequestError(
                    f"Entry {position} of the batch is {shown(request)}, not a request; pass a seekrec.Request or a "
                    "query."
                )
            asked.append(Request(query=request) if isinstance(request, str) else request)
        given = {} if candidates is None else {"candidates": candidates}
        processor = cast(Callable[..., object], self.processor)
        return {"features": processor(asked, **given), "ranks": candidates is not None}

    def _forward(  # type: ignore[override]
        self,
        inputs: dict[str, object],
        top_k: int | Sequence[int] | None = None,
        where: Where = None,
        exclude_seen: ExcludeSeen = None,
        boost: Boost = None,
    ) -> list[list[ScoredItem]]:
        model, features = cast(CatalogModel[Any], self.model), cast(BatchFeature, inputs["features"])
        if inputs["ranks"]:
            if where is not None:
                raise RequestError(
                    "`where` and `candidates` are both given; leave unwanted items out of `candidates`."
                )
            if boost is not None:
                raise RequestError(
                    "`boost` and `candidates` are both given, but `rank` takes no boosts; add yours to the scores of "
                    "its answer."
                )
            answers = model.rank(features)
            if top_k is None:
                return list(answers)
            counts = per_request("top_k", top_k, len(answers)).tolist()
            return [answer[:count] for answer, count in zip(answers, counts, strict=True)]
        wanted = 10 if top_k is None else top_k
        return list(model.retrieve(features, top_k=wanted, where=where, exclude_seen=exclude_seen, boost=boost))

    def postprocess(self, answers: list[list[ScoredItem]]) -> list[list[Answer]]:  # type: ignore[override]
        """Turn answers into plain dictionaries that can be written as JSON."""
        return [
            [{"item_id": item.item_id, "title": item.title, "score": float(item.score)} for item in answer]
            for answer in answers
        ]


def _is_per_request(name: str, value: Any) -> bool:
    """Return whether an option contains an entry for each request, and is not one for all."""
    if isinstance(value, (np.ndarray, Tensor)):
        return value.ndim > (1 if name in ("where", "boost") else 0)
    if not isinstance(value, Sequence) or isinstance(value, str):
        return False
    if name == "where":
        return any(not isinstance(entry, str) for entry in value)
    if name == "boost":
        return any(isinstance(line, (list, tuple)) or getattr(line, "ndim", 0) > 0 for line in value[:1])
    return True


# The flags are None in the base class, which a type checker takes for their only value.
for _part in ("processor", "tokenizer", "image_processor", "video_processor", "feature_extractor"):
    setattr(SearchAndRecommendationPipeline, f"_load_{_part}", _part == "processor")

PIPELINE_REGISTRY.register_pipeline(TASK, SearchAndRecommendationPipeline, pt_model=AutoModel, type="text")
