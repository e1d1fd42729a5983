# SPDX-License-Identifier: Apache-2.0
"""`pipeline("search-and-recommendation", model=...)`: requests in, ids, titles and scores out, for every family.

Unlike other pipelines it hands whole batches to the processor, which pads them; so one call of `preprocess` takes a
list of requests. Importing this module registers the task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, cast

import numpy as np
from transformers import AutoModel, BatchFeature, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from seekrec.errors import RequestError
from seekrec.generation.beam_search import per_request
from seekrec.models.answers import Where
from seekrec.models.base import CatalogModel
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
    - `where` (`np.ndarray` or `list`, *optional*): Which items may be answered: a bool mask over the catalogue's rows
      or a list of item ids, for all requests; or, with a list of requests, a list with one of these for each.
    - `exclude_seen` (`bool`, *optional*): Leave out what the user acted on; if not given in recommendations alone.
    - `candidates` (`list[str]`, *optional*): Order these items instead of searching the catalogue; with a list of
      requests, a list of lists.
    - `batch_size` (`int`): Requests that the model answers at once, 16 if not given.
    """

    def _sanitize_parameters(
        self, **parameters: Any
    ) -> tuple[dict[str, object], dict[str, object], dict[str, object]]:
        unknown = sorted(parameters.keys() - {"top_k", "where", "exclude_seen", "candidates"})
        if unknown:
            raise RequestError(
                f"`{unknown[0]}` is an unknown option of this pipeline; use `top_k`, `where`, `exclude_seen`, "
                "`candidates` or `batch_size`."
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
            RequestError: If an input is not a request, an option is unknown, or a list of options does not fit.
        """
        given = self._batch_size if batch_size is None else batch_size
        size = int(per_request("batch_size", 16 if given is None else given, 1)[0])
        to_preprocess, to_forward, _ = self._sanitize_parameters(**options)
        options = {**self._preprocess_params, **self._forward_params, **to_preprocess, **to_forward}
        if isinstance(requests, (Request, str)):
            if options.get("candidates") is not None:
                options["candidates"] = [options["candidates"]]
            return next(self._answers(iter([requests]), 1, options))
        if isinstance(requests, Sequence):
            for name in ("candidates", "where", "top_k"):
                values = options.get(name)
                if not isinstance(values, Sequence) or (name == "where" and not _is_per_request(values)):
                    continue
                if len(values) != len(requests):
                    raise RequestError(
                        f"`{name}` has {len(values)} entries for {len(requests)} requests; give one for each request."
                    )
            return list(self._answers(iter(requests), size, options))
        if isinstance(requests, Iterable):
            return self._answers(iter(requests), size, options)
        raise RequestError(f"{shown(requests)} is not a request; pass a seekrec.Request, a query, or a list of these.")

    def _answers(self, requests: Iterator[object], size: int, options: dict[str, Any]) -> Iterator[list[Answer]]:
        start = 0
        while batch := list(islice(requests, size)):
            here = slice(start, start + len(batch))
            candidates, where, top_k = (options.get(name) for name in ("candidates", "where", "top_k"))
            yield from self.run_single(
                batch,
                {"candidates": None if candidates is None else candidates[here]},
                {
                    "top_k": top_k[here] if isinstance(top_k, Sequence) else top_k,
                    "where": where[here] if where is not None and _is_per_request(where) else where,
                    "exclude_seen": options.get("exclude_seen"),
                },
                {},
            )
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
        exclude_seen: bool | None = None,
    ) -> list[list[ScoredItem]]:
        model, features = cast(CatalogModel[Any], self.model), cast(BatchFeature, inputs["features"])
        if inputs["ranks"]:
            if where is not None:
                raise RequestError(
                    "`where` and `candidates` are both given; leave unwanted items out of `candidates`."
                )
            answers = model.rank(features)
            if top_k is None:
                return list(answers)
            counts = per_request("top_k", top_k, len(answers)).tolist()
            return [answer[:count] for answer, count in zip(answers, counts, strict=True)]
        wanted = 10 if top_k is None else top_k
        return list(model.retrieve(features, top_k=wanted, where=where, exclude_seen=exclude_seen))

    def postprocess(self, answers: list[list[ScoredItem]]) -> list[list[Answer]]:  # type: ignore[override]
        """Turn answers into plain dictionaries that can be written as JSON."""
        return [
            [{"item_id": item.item_id, "title": item.title, "score": float(item.score)} for item in answer]
            for answer in answers
        ]


def _is_per_request(where: Iterable[object]) -> bool:
    """Return whether a list holds a mask or list for each request, not one mask or one list of ids for all."""
    return not isinstance(where, np.ndarray) and any(not isinstance(entry, str) for entry in where)


# The flags are None in the base class, which a type checker takes for their only value.
for _part in ("processor", "tokenizer", "image_processor", "video_processor", "feature_extractor"):
    setattr(SearchAndRecommendationPipeline, f"_load_{_part}", _part == "processor")

PIPELINE_REGISTRY.register_pipeline(TASK, SearchAndRecommendationPipeline, pt_model=AutoModel, type="text")
