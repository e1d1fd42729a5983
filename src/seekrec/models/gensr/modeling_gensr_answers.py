# SPDX-License-Identifier: Apache-2.0
"""How a GenSR model answers: `rank` by Yes and No, `retrieve` by identifiers or by the answer to every item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature
from transformers.modeling_outputs import BaseModelOutput

from seekrec.catalog.growth import predict_by_ridge
from seekrec.errors import CatalogError, RequestError
from seekrec.generation import Norm
from seekrec.models.answers import scored_items
from seekrec.models.gensr.modeling_gensr_prompts import Histories
from seekrec.models.interface import GenerativeRetrievalMixin, GenerativeSnapshot
from seekrec.models.snapshot import weights_key
from seekrec.schema import Behavior, ScoredItem, View
from seekrec.util.finite import check_finite
from seekrec.util.ragged import Ragged

CandidateScore = Literal["logit", "probability", "vocabulary"]

# Places of prompts in one pass: enough to keep a core busy, few enough for their states to stay near it.
_MAX_PLACES = 8192

_HISTORY_FEATURES = (
    "item_rows",
    "item_text_ids",
    "query_text_ids",
    "history_items",
    "history_queries",
    "history_behaviors",
    "history_mask",
    "asked_queries",
)


class GenSRSnapshot(GenerativeSnapshot):
    """A catalogue, its tries, and the collaborative vectors of items that came after the model's table."""

    def later_items(self, model: Any) -> Tensor:
        """Predict those vectors from the items' texts: as the table's own follow from theirs.

        Args:
            model ([`GenSRForConditionalGeneration`]): Has the table.

        Returns:
            `torch.Tensor`: `(num_later, collaborative_size)`, without a row where there is none or the view is not
            in the prompt.

        Raises:
            CatalogError: If the catalogue has no text vectors.
        """
        table: Tensor = model.collaborative_table.weight.detach()
        known, catalog = len(table), self.catalog
        if not 0 < known < len(catalog) or "collaborative" not in model.config.prompt_views:
            return table[:0]

        def predict() -> Tensor:
            if "semantic" not in catalog.embeddings:
                raise CatalogError(
                    f"The catalogue has {len(catalog) - known} new items but no semantic embeddings to predict their "
                    "collaborative vectors from; build it with `embeddings=`."
                )
            semantic = catalog.embeddings["semantic"]
            measured = table.float()
            check_finite("The collaborative table", measured, "row", "load one that is whole")
            pairs: dict[View, np.ndarray] = {"collaborative": measured.cpu().numpy(), "semantic": semantic[:known]}
            predicted = predict_by_ridge(pairs, catalog.live[:known], semantic[known:])
            return torch.as_tensor(predicted, dtype=torch.float32).to(table)

        return self.part("later", predict, weights_key([table]))


# Identical to GenerativeRetrievalMixin except: prompts are embeddings, and candidates are asked for one by one.
class GenSRAnswersMixin(GenerativeRetrievalMixin[GenSRSnapshot]):
    """`retrieve` and `rank` of [`GenSRForConditionalGeneration`]."""

    @torch.no_grad()
    def rank(
        self, inputs: BatchFeature, *, norm: Norm | None = None, score: CandidateScore = "logit"
    ) -> list[list[ScoredItem]]:
        """Order the candidates given to the processor by how likely the answer to each is Yes.

        A model that was not trained for that (`yes_no_weight` 0) orders them by the log-probability of their
        identifiers.

        Args:
            inputs ([`~transformers.BatchFeature`]): Made by `processor(requests, candidates=...)`.
            norm (`str`, *optional*): As in [`retrieve`]; only for identifiers.
            score (`str`): What the items say: `"logit"`, logit(Yes) - logit(No), any number; `"probability"`, the
                softmax of the two, which gives the same order; `"vocabulary"`, the probability of Yes among all
                tokens, as the released code has it.

        Returns:
            `list[list[ScoredItem]]`: For each request its candidates, best first.

        Raises:
            RequestError: If the inputs hold no candidates, or `score` is unknown.
        """
        if not self.config.yes_no_weight:  # type: ignore[attr-defined]
            return super().rank(inputs, norm=norm)
        snapshot = self.current_snapshot()
        candidates = self._candidates(snapshot, inputs)
        answers = []
        for rows, values in zip(candidates, self.score_candidates(inputs, score, snapshot), strict=True):
            order = np.argsort(-values, kind="stable")
            answers.append(scored_items(snapshot.catalog, rows[order], values[order]))
        return answers

    @torch.no_grad()
    def score_candidates(
        self, inputs: BatchFeature, score: CandidateScore = "logit", snapshot: GenSRSnapshot | None = None
    ) -> list[np.ndarray]:
        """Score the candidates of each request, as [`rank`], in the order they were given.

        Histories are encoded once. Requests go through in groups of like prompt length, so that little is padded.

        Args:
            inputs ([`~transformers.BatchFeature`]): Made by `processor(requests, candidates=...)`.
            score (`str`): As in [`rank`].
            snapshot ([`GenSRSnapshot`], *optional*): What is answered from; that of now if not given.

        Returns:
            `list[np.ndarray]`: For each request float32 of shape `(num_candidates,)`.

        Raises:
            RequestError: If `score` is unknown.
            NotFiniteError: If a score is no number.
        """
        model: Any = self
        snapshot = self.current_snapshot() if snapshot is None else snapshot
        if score not in ("logit", "probability", "vocabulary"):
            raise RequestError(f"`score` is {score!r}; use 'logit', 'probability' or 'vocabulary'.")
        if score == "vocabulary" and model.config.loss_norm == "level":
            raise RequestError(
                "`score` is 'vocabulary', but the model compares Yes and No alone (`loss_norm` is 'level'); use "
                "'probability'."
            )
        features = {name: value.to(model.device) for name, value in inputs.items()}
        histories = self._encode_histories(snapshot, features)
        candidates = features["candidate_items"]
        counts = (candidates >= 0).sum(1)
        lengths = (features["prompt_layout"] != -1).sum(1)
        # By task, then by length, then by number of candidates.
        order = np.lexsort([values.cpu().numpy() for values in (counts, lengths, features["behavior_ids"])])
        answers: list[np.ndarray] = [np.zeros(0, np.float32)] * len(candidates)
        # What a candidate costs: its suffix, and its own copy of the prefix where that is not shared.
        suffixes = (features["suffix_layout"] != -1).sum(1)
        places = suffixes if model.config.shared_prompt else suffixes + lengths
        for rows in _groups(order, counts * places, features["behavior_ids"]):
            width, length, after = (int(values[rows].max()) for values in (counts, lengths, suffixes))
            step = max(1, _MAX_PLACES // (len(rows) * int(places[rows].max())))
            chosen, prompts = histories.take(rows), features["prompt_layout"][rows][:, -length:]
            parts = [
                model.candidate_logits(
                    chosen,
                    prompts,
                    features["suffix_layout"][rows][:, :after],
                    candidates[rows][:, start : start + step],
                )
                for start in range(0, width, step)
            ]
            for row, line in zip(rows.tolist(), self._candidate_values(parts, score), strict=True):
                answers[row] = line[: int(counts[row])]
                check_finite("The scores", answers[row], "candidate", "check the weights of the model")
        return answers

    def _find(
        self,
        snapshot: GenSRSnapshot,
        inputs: BatchFeature,
        top_k: np.ndarray,
        allowed: Sequence[np.ndarray | None],
        num_beams: int | Sequence[int],
        norm: Norm | None,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """With `config.retrieve_by="answer"` ask about every item allowed; else find identifiers."""
        config: Any = self.config  # type: ignore[attr-defined]
        if config.retrieve_by == "answer":
            return self._ask_all(snapshot, inputs, top_k, allowed)
        if not config.identifier_weight:
            raise RequestError(
                "The model was not trained to write identifiers (`identifier_weight` is 0), so it cannot search the "
                "whole catalogue by them; give it candidates and call `rank`, or train it with `retrieve_by` 'answer'."
            )
        return super()._find(snapshot, inputs, top_k, allowed, num_beams, norm)

    def _ask_all(
        self,
        snapshot: GenSRSnapshot,
        inputs: BatchFeature,
        top_k: np.ndarray,
        allowed: Sequence[np.ndarray | None],
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Score all items that each request allows: rows of the catalogue and logit(Yes) - logit(No), best first.

        Inputs that were made with an older or a newer catalogue are asked about the items that both have.
        """
        named = inputs["item_rows"].cpu().numpy()[: len(snapshot.catalog)]
        if not np.array_equal(named, np.arange(len(named))):
            raise RequestError(
                f"The inputs name {len(named)} of {len(snapshot.catalog)} items, but the model asks about all of "
                "them; make them by the model's own processor, without candidates."
            )
        snapshot.check_rows("history_items", inputs["history_items"])
        inputs = BatchFeature(
            {**inputs, **{name: inputs[name][: len(named)] for name in ("item_rows", "item_text_ids")}}
        )
        asked_for = [named if mask is None else np.flatnonzero(mask[: len(named)]) for mask in allowed]
        places = Ragged.from_arrays(asked_for).pad(-1, width=1)
        # The batch holds every item in the order of the catalogue, so a row is its own place.
        asked = BatchFeature({**inputs, "candidate_items": torch.from_numpy(places)})
        found = []
        scored = self.score_candidates(asked, snapshot=snapshot)
        for rows, scores, count in zip(asked_for, scored, top_k, strict=True):
            order = np.argsort(-scores, kind="stable")[:count]
            found.append((rows[order], scores[order]))
        return found

    def decoder_prefix(self, behavior: Behavior, num_rows: int) -> Tensor:
        """What the decoder reads before an identifier: the behavior token, in place of its start token."""
        return super().decoder_prefix(behavior, num_rows)[:, 1:]

    def _encode_histories(self, snapshot: GenSRSnapshot, features: dict[str, Tensor]) -> Histories:
        """Encode the histories of a batch with what the snapshot knows of its items."""
        model: Any = self
        snapshot.check_rows("item_rows", features["item_rows"])
        later = snapshot.later_items(model)
        histories: Histories = model.encode_histories(
            *(features[name] for name in _HISTORY_FEATURES), later_items=later
        )
        return histories

    def _prompt(self, snapshot: GenSRSnapshot, inputs: BatchFeature) -> tuple[dict[str, Any], list[View]]:
        model: Any = self
        features = {name: value.to(model.device) for name, value in inputs.items()}
        histories = self._encode_histories(snapshot, features)
        states, mask = model.encode_retrieval_prompts(
            histories, features.get("retrieval_layout", features.get("prompt_layout"))
        )
        text = BatchFeature({"behavior_ids": inputs["behavior_ids"], "input_ids": mask, "attention_mask": mask})
        prompt, views = super()._prompt(snapshot, text)
        return {**prompt, "input_ids": None, "encoder_outputs": BaseModelOutput(last_hidden_state=states)}, views

    def _candidate_values(self, parts: list[Tensor], score: CandidateScore) -> np.ndarray:
        """Turn the logits of blocks of candidates into scores: float32 of shape (requests, candidates)."""
        model: Any = self
        values = []
        for logits in parts:
            if score == "vocabulary":
                values.append(logits.softmax(-1)[..., model.config.yes_token_id])
            else:
                difference = model.yes_minus_no(logits)
                values.append(difference.sigmoid() if score == "probability" else difference)
        scores: np.ndarray = torch.cat(values, dim=1).float().cpu().numpy()
        return scores


def _groups(order: np.ndarray, places: Tensor, behaviors: Tensor) -> list[Tensor]:
    """Cut ordered requests of one task into groups of at most `_MAX_PLACES` places; those without any fall out."""
    costs, tasks = places.tolist(), behaviors.tolist()
    groups: list[list[int]] = []
    most = 0
    for row in order.tolist():
        if not costs[row]:
            continue
        most = max(most, costs[row])
        if not groups or tasks[groups[-1][0]] != tasks[row] or most * (len(groups[-1]) + 1) > _MAX_PLACES:
            groups.append([])
            most = costs[row]
        groups[-1].append(row)
    return [torch.tensor(rows, device=places.device) for rows in groups]


__all__ = ["CandidateScore", "GenSRAnswersMixin", "GenSRSnapshot"]
