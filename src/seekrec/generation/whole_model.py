# SPDX-License-Identifier: Apache-2.0
"""Decode with any encoder-decoder, using only its `forward`; see `sessions.py` for the cost."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from seekrec.errors import ConfigurationError


class WholeModelSession:
    """A [`Session`] over a model that is called whole. States are logits here."""

    def __init__(self, model: PreTrainedModel, encoder_states: Tensor, attention_mask: Tensor | None) -> None:
        self._model = model
        self._states = encoder_states
        self._attention_mask = attention_mask
        self._cache: Any = None  # of whatever kind the model keeps
        self._cross: list[tuple[Tensor, Tensor]] = []  # keys and values of each layer, one row per request

    def start(self, prefix: Tensor) -> Tensor:
        """See [`Session.start`]; the states are the logits.

        Raises:
            ConfigurationError: If the model keeps no cache that beams could share.
        """
        logits = self._forward(prefix, self._states, self._attention_mask)
        if not hasattr(self._cache, "cross_attention_cache"):
            raise ConfigurationError(
                f"{type(self._model).__name__} returns a {type(self._cache).__name__}, but beam search needs an "
                "encoder-decoder cache; use a model whose `forward` supports `use_cache=True`, or `generate` with "
                "`TrieLogitsProcessor`."
            )
        self._cross = [(layer.keys, layer.values) for layer in self._cache.cross_attention_cache.layers]
        return logits

    def step(self, tokens: Tensor, parents: Tensor, requests: Tensor) -> Tensor:
        """See [`Session.step`]."""
        self._cache.self_attention_cache.reorder_cache(parents)
        for layer, (keys, values) in zip(self._cache.cross_attention_cache.layers, self._cross, strict=True):
            layer.keys, layer.values = keys[requests], values[requests]
        mask = None if self._attention_mask is None else self._attention_mask[requests]
        return self._forward(tokens[:, None], self._states[requests], mask)

    def block_logits(self, states: Tensor, first: int, size: int) -> Tensor:
        """See [`Session.block_logits`]."""
        return states[:, first : first + size]

    def log_partition(self, states: Tensor) -> Tensor:
        """See [`Session.log_partition`]."""
        return states.logsumexp(-1)

    def _forward(self, tokens: Tensor, encoder_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        output = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoder_states),
            attention_mask=attention_mask,
            decoder_input_ids=tokens,
            cache=self._cache,
            use_cache=True,
            return_dict=True,
        )
        if self._cache is None:
            self._cache = output.cache
        logits: Tensor = output.logits
        return logits[:, -1].float()
