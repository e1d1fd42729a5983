# SPDX-License-Identifier: Apache-2.0
"""How a GenSR model answers: `rank` by Yes and No, `retrieve` by identifiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature
from transformers.modeling_outputs import BaseModelOutput

from seekrec.errors import RequestError
from seekrec.generation import Norm
from seekrec.models.answers import Where, scored_items
from seekrec.models.interface import GenerativeRetrievalMixin
from seekrec.schema import Behavior, ScoredItem, View

CandidateScore = Literal["logit", "probability", "vocabulary"]

# Candidates of one pass: enough to keep a core busy, few enough for their states to stay near it.
_MAX_CANDIDATES = 2048

_HISTORY_FEATURES = (
    "item_rows",
    "item_text_ids",
    "query_text_ids",
    "history_items",
    "history_queries",
    "history_behaviors",
    "history_mask",
)


# Identical to GenerativeRetrievalMixin except: prompts are embeddings, and candidates are asked for one by one.
class GenSRAnswersMixin(GenerativeRetrievalMixin):
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
        if "candidate_rows" not in inputs:
            raise RequestError("The inputs hold no candidates; call `processor(requests, candidates=[[...], ...])`.")
        if not self.config.yes_no_weight:  # type: ignore[attr-defined]
            return super().rank(inputs, norm=norm)
        scores = self.score_candidates(inputs, score)
        answers = []
        for rows, values in zip(inputs["candidate_rows"].cpu().numpy(), scores, strict=True):
            rows = rows[rows >= 0]
            order = np.argsort(-values, kind="stable")
            answers.append(scored_items(self.catalog, rows[order], values[order]))
        return answers

    @torch.no_grad()
    def score_candidates(self, inputs: BatchFeature, score: CandidateScore = "logit") -> list[np.ndarray]:
        """Score the candidates of each request, as [`rank`], in the order they were given.

        Histories are encoded once. Requests go through in groups of like prompt length, so that little is padded.

        Returns:
            `list[np.ndarray]`: For each request float32 of shape `(num_candidates,)`.

        Raises:
            RequestError: If `score` is unknown.
        """
        if score not in ("logit", "probability", "vocabulary"):
            raise RequestError(f"`score` is {score!r}; use 'logit', 'probability' or 'vocabulary'.")
        model: Any = self
        features = {name: value.to(model.device) for name, value in inputs.items()}
        histories = model.encode_histories(*(features[name] for name in _HISTORY_FEATURES))
        candidates = features["candidate_items"]
        counts = (candidates >= 0).sum(1)
        lengths = (features["prompt_layout"] != -1).sum(1)
        # By task, then by length, then by number of candidates.
        order = np.lexsort([values.cpu().numpy() for values in (counts, lengths, features["behavior_ids"])])
        answers: list[np.ndarray] = [np.zeros(0, np.float32)] * len(candidates)
        for rows in self._groups(order, counts, features["behavior_ids"]):
            width, length = int(counts[rows].max()), int(lengths[rows].max())
            if not width:
                continue
            suffix = features["suffix_layout"][rows]
            logits = model.candidate_logits(
                histories.take(rows),
                features["prompt_layout"][rows][:, -length:],
                suffix[:, : int((suffix != -1).sum(1).max())],
                candidates[rows][:, :width],
            )
            values = self._candidate_values(logits, score)
            for row, line in zip(rows.tolist(), values.float().cpu().numpy(), strict=True):
                answers[row] = line[: int(counts[row])]
        return answers

    @torch.no_grad()
    def retrieve(
        self,
        inputs: BatchFeature,
        *,
        top_k: int | Sequence[int] = 10,
        where: Where = None,
        num_beams: int | Sequence[int] | None = None,
        norm: Norm | None = None,
    ) -> list[list[ScoredItem]]:
        """Find the best items of the whole catalogue, by beam search over their identifiers.

        Arguments, result and errors are those of [`GenerativeRetrievalMixin.retrieve`], and:

        Raises:
            RequestError: If the model was not trained to write identifiers.
        """
        if not self.config.identifier_weight:  # type: ignore[attr-defined]
            raise RequestError(
                "The model was not trained to write identifiers (`identifier_weight` is 0), so it cannot search the "
                "whole catalogue; give it candidates and call `rank`."
            )
        return super().retrieve(inputs, top_k=top_k, where=where, num_beams=num_beams, norm=norm)

    def decoder_prefix(self, behavior: Behavior, num_rows: int) -> Tensor:
        """What the decoder reads before an identifier: the behavior token, in place of its start token."""
        return super().decoder_prefix(behavior, num_rows)[:, 1:]

    def _prompt(self, inputs: BatchFeature) -> tuple[dict[str, Any], list[View]]:
        model: Any = self
        features = {name: value.to(model.device) for name, value in inputs.items()}
        histories = model.encode_histories(*(features[name] for name in _HISTORY_FEATURES))
        states, mask = model.encode_retrieval_prompts(
            histories, features.get("retrieval_layout", features.get("prompt_layout"))
        )
        text = BatchFeature({"behavior_ids": inputs["behavior_ids"], "input_ids": mask, "attention_mask": mask})
        prompt, views = super()._prompt(text)
        return {**prompt, "input_ids": None, "encoder_outputs": BaseModelOutput(last_hidden_state=states)}, views

    def _candidate_values(self, logits: Tensor, score: CandidateScore) -> Tensor:
        config: Any = self.config  # type: ignore[attr-defined]
        if score == "vocabulary":
            if config.loss_norm == "level":
                raise RequestError(
                    "`score` is 'vocabulary', but the model compares Yes and No alone (`loss_norm` is 'level'); use "
                    "'probability'."
                )
            return logits.softmax(-1)[..., config.yes_token_id]
        difference: Tensor = self.yes_minus_no(logits)  # type: ignore[attr-defined]
        return difference.sigmoid() if score == "probability" else difference

    @staticmethod
    def _groups(order: np.ndarray, counts: Tensor, behaviors: Tensor) -> list[Tensor]:
        """Cut ordered requests of one task into groups of at most `_MAX_CANDIDATES` candidates."""
        groups: list[list[int]] = []
        most = 0
        for row in order.tolist():
            most = max(most, int(counts[row]))
            is_new = not groups or behaviors[groups[-1][0]] != behaviors[row]
            if is_new or most * (len(groups[-1]) + 1) > _MAX_CANDIDATES:
                groups.append([])
                most = int(counts[row])
            groups[-1].append(row)
        return [torch.tensor(rows, device=counts.device) for rows in groups]


__all__ = ["CandidateScore", "GenSRAnswersMixin"]
