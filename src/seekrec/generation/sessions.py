# SPDX-License-Identifier: Apache-2.0
"""One batch of requests being decoded: encoder states once, then rows of prefixes that branch.

Beam search and candidate scoring both grow prefixes. A row is one prefix; each step gives a new set of rows, every one
the child of a row of the step before, in any number per request. The first step has one row a request.

Unusual here: encoder states and their keys and values are never repeated for the rows of a request. In cross-attention
every position asks the same keys, so the rows of one request become the positions of one sequence: `(rows, 1, d)` is
seen as `(requests, rows per request, d)`, goes through the model's own cross-attention, and back. Only a layer whose
inside is known can be called so; see [`open_session`] for what happens with the others.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from transformers import (
    BartForConditionalGeneration,
    DynamicCache,
    EncoderDecoderCache,
    MT5ForConditionalGeneration,
    PreTrainedModel,
    T5ForConditionalGeneration,
)
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.bart.modeling_bart import BartDecoder, BartDecoderLayer
from transformers.models.mt5.modeling_mt5 import MT5Block, MT5Stack
from transformers.models.t5.modeling_t5 import T5Block, T5Stack

from seekrec.errors import ConfigurationError
from seekrec.generation.packing import is_plain_linear

# Logits that exist at one time while the whole vocabulary is summed: 64 MiB in float32.
_MAX_LOGITS = 2**24


class Session(Protocol):
    """A batch being decoded. `B` requests, `R` rows, vocabulary `V`."""

    def start(self, prefix: Tensor) -> Tensor:
        """Feed what precedes the identifier.

        Args:
            prefix (`torch.Tensor`): int64 token ids of shape `(B, P)`.

        Returns:
            `torch.Tensor`: States after the last token, shape `(B, d)`; row `b` belongs to request `b`.
        """

    def step(self, tokens: Tensor, parents: Tensor, requests: Tensor) -> Tensor:
        """Feed one token a row.

        Args:
            tokens (`torch.Tensor`): int64 token ids of shape `(R,)`.
            parents (`torch.Tensor`): int64 of shape `(R,)`, the row of the step before that each row continues.
            requests (`torch.Tensor`): int64 of shape `(R,)`, rising: the request of each row.

        Returns:
            `torch.Tensor`: States of shape `(R, d)`.
        """

    def block_logits(self, states: Tensor, first: int, size: int) -> Tensor:
        """Return the logits of the tokens `first` up to `first + size`: float32 of shape `(R, size)`."""

    def log_partition(self, states: Tensor) -> Tensor:
        """Return the logarithm of the sum of exponentiated logits over the vocabulary: float32 of shape `(R,)`."""


def open_session(model: PreTrainedModel, encoder_states: Tensor, attention_mask: Tensor | None) -> Session:
    """Start decoding for a batch.

    T5, mT5 and BART decoders are called layer by layer, with cross-attention shared by the rows of a request. Every
    other encoder-decoder is called whole, with its cross-attention cache repeated for every row: as correct, slower.

    Args:
        model (`transformers.PreTrainedModel`): Encoder-decoder with a language-modelling head.
        encoder_states (`torch.Tensor`): Output of the encoder, `(B, S, d)`.
        attention_mask (`torch.Tensor`, *optional*): 1 where the encoder input is real, shape `(B, S)`.

    Returns:
        `Session`: Ready for `start`.
    """
    for session in (T5Session, BartSession):
        if session.supports(model):
            return session(model, encoder_states, attention_mask)
    return WholeModelSession(model, encoder_states, attention_mask)


class _LayeredSession:
    """What T5 and BART share: the first step by the model's own decoder, later ones layer by layer."""

    def __init__(self, model: PreTrainedModel, encoder_states: Tensor, attention_mask: Tensor | None) -> None:
        self._decoder = model.get_decoder()
        self._head = model.get_output_embeddings()
        self._states = encoder_states
        self._attention_mask = attention_mask
        # Given here, because the decoder would copy its configuration several times to make one.
        self._cache: Any = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self._rows = _Rows(len(encoder_states), None)
        self._logits_bias: Tensor | None = None  # added to what the head computes, shape (1, V)
        # Added to the scores of cross-attention, shape (B or 1, 1, 1, S).
        if attention_mask is None or bool(attention_mask.all()):
            self._cross_bias = encoder_states.new_zeros(1, 1, 1, encoder_states.shape[1])
        else:
            lowest = torch.finfo(encoder_states.dtype).min
            self._cross_bias = encoder_states.new_zeros(attention_mask.shape).masked_fill_(attention_mask == 0, lowest)
            self._cross_bias = self._cross_bias[:, None, None, :]

    def start(self, prefix: Tensor) -> Tensor:
        output = self._decoder(
            input_ids=prefix,
            encoder_hidden_states=self._states,
            encoder_attention_mask=self._attention_mask,
            cache=self._cache,
            use_cache=True,
        )
        return self._scale(output.last_hidden_state[:, -1])

    def step(self, tokens: Tensor, parents: Tensor, requests: Tensor) -> Tensor:
        self._cache.self_attention_cache.reorder_cache(parents)
        self._rows = _Rows(len(self._states), requests)
        return self._scale(self._run_layers(tokens[:, None])[:, 0])

    def block_logits(self, states: Tensor, first: int, size: int) -> Tensor:
        if not is_plain_linear(self._head):  # an adapter or a quantised head computes more than its weight says
            return self._all_logits(states)[:, first : first + size]
        bias = None if self._head.bias is None else self._head.bias[first : first + size]
        logits = nn.functional.linear(states, self._head.weight[first : first + size], bias)
        return (logits if self._logits_bias is None else logits + self._logits_bias[:, first : first + size]).float()

    def log_partition(self, states: Tensor) -> Tensor:
        rows_at_once = max(1, _MAX_LOGITS // vocabulary_size(self._head))
        return torch.cat([self._all_logits(part).logsumexp(-1) for part in states.split(rows_at_once)])

    def _all_logits(self, states: Tensor) -> Tensor:
        logits: Tensor = self._head(states)
        return (logits if self._logits_bias is None else logits + self._logits_bias).float()

    def _run_layers(self, tokens: Tensor) -> Tensor:
        raise NotImplementedError

    def _scale(self, states: Tensor) -> Tensor:
        return states


class T5Session(_LayeredSession):
    """T5 and mT5."""

    def __init__(self, model: PreTrainedModel, encoder_states: Tensor, attention_mask: Tensor | None) -> None:
        super().__init__(model, encoder_states, attention_mask)
        # T5 1.0 scales what the head reads, T5 1.1 and mT5 do not; the configuration of T5 says which.
        self._factor = model.config.d_model**-0.5 if getattr(model.config, "scale_decoder_outputs", False) else None

    @staticmethod
    def supports(model: nn.Module) -> bool:
        """Return whether the decoder is T5's own, layer by layer."""
        if not isinstance(model, (T5ForConditionalGeneration, MT5ForConditionalGeneration)):
            return False
        decoder = model.get_decoder()
        known = type(decoder) in (T5Stack, MT5Stack) and all(
            type(block) in (T5Block, MT5Block) for block in decoder.block
        )
        return known and _can_call_layers(decoder, decoder.block)

    def _run_layers(self, tokens: Tensor) -> Tensor:
        # As T5Block.forward, but for the two lines that fold rows into positions around cross-attention.
        hidden = self._decoder.embed_tokens(tokens)
        bias = None  # relative positions; the first layer computes them for all
        for block in self._decoder.block:
            hidden, bias, _ = block.layer[0](hidden, position_bias=bias, cache=self._cache)
            hidden = self._rows.fold(_clamp(hidden))
            # The mask goes in as the position bias, which T5 would otherwise fill with zeros for every head.
            hidden, _, _ = block.layer[1](
                hidden, key_value_states=self._states, position_bias=self._cross_bias, cache=self._cache
            )
            hidden = self._rows.unfold(_clamp(hidden))
            hidden = _clamp(block.layer[-1](hidden))
        return self._decoder.final_layer_norm(hidden)

    def _scale(self, states: Tensor) -> Tensor:
        return states if self._factor is None else states * self._factor


class BartSession(_LayeredSession):
    """BART."""

    def __init__(self, model: PreTrainedModel, encoder_states: Tensor, attention_mask: Tensor | None) -> None:
        super().__init__(model, encoder_states, attention_mask)
        self._logits_bias = model.get_buffer("final_logits_bias")

    @staticmethod
    def supports(model: nn.Module) -> bool:
        """Return whether the decoder is BART's own, layer by layer."""
        if not isinstance(model, BartForConditionalGeneration):
            return False
        decoder = model.get_decoder()
        known = type(decoder) is BartDecoder and all(type(layer) is BartDecoderLayer for layer in decoder.layers)
        return known and _can_call_layers(decoder, decoder.layers)

    def _run_layers(self, tokens: Tensor) -> Tensor:
        # As BartDecoderLayer.forward in evaluation mode, but for folding rows into positions around cross-attention.
        decoder = self._decoder
        hidden = decoder.embed_tokens(tokens)
        hidden = hidden + decoder.embed_positions(tokens, self._cache.get_seq_length()).to(hidden.device)
        hidden = decoder.layernorm_embedding(hidden)
        for layer in decoder.layers:
            attended, _ = layer.self_attn(hidden, cache=self._cache)
            hidden = self._rows.fold(layer.self_attn_layer_norm(hidden + attended))
            attended, _ = layer.encoder_attn(
                hidden, key_value_states=self._states, attention_mask=self._cross_bias, cache=self._cache
            )
            hidden = self._rows.unfold(layer.encoder_attn_layer_norm(hidden + attended))
            hidden = layer.final_layer_norm(hidden + layer.fc2(layer.activation_fn(layer.fc1(hidden))))
        return hidden


class WholeModelSession:
    """An encoder-decoder of another kind, by its `forward` alone. States are logits here."""

    def __init__(self, model: PreTrainedModel, encoder_states: Tensor, attention_mask: Tensor | None) -> None:
        self._model = model
        self._states = encoder_states
        self._attention_mask = attention_mask
        self._cache: Any = None  # of whatever kind the model keeps
        self._cross: list[tuple[Tensor, Tensor]] = []  # keys and values of each layer, one row a request

    def start(self, prefix: Tensor) -> Tensor:
        """See [`Session.start`]; the states are the logits.

        Raises:
            ConfigurationError: If the model keeps no cache that beams could share.
        """
        logits = self._forward(prefix, self._states, self._attention_mask)
        if not hasattr(self._cache, "cross_attention_cache"):
            raise ConfigurationError(
                f"{type(self._model).__name__} keeps a {type(self._cache).__name__} where beams need an "
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


class _Rows:
    """Folds rows `(R, 1, d)` into one sequence a request `(B, K, d)`, and back.

    Where requests have different numbers of rows, `K` is the largest and the rest is zeros.
    """

    def __init__(self, num_requests: int, requests: Tensor | None) -> None:
        self._num_requests = num_requests
        self._slots: Tensor | None = None
        if requests is None:
            return
        counts = torch.bincount(requests, minlength=num_requests)
        self._width = int(counts.max())
        if len(requests) < self._width * num_requests:
            first = torch.cumsum(counts, 0) - counts
            within = torch.arange(len(requests), device=requests.device) - first[requests]
            self._slots = requests * self._width + within

    def fold(self, hidden: Tensor) -> Tensor:
        size = hidden.shape[-1]
        if self._slots is not None:
            padded = hidden.new_zeros(self._num_requests * self._width, size)
            hidden = padded.index_copy_(0, self._slots, hidden[:, 0])
        return hidden.view(self._num_requests, -1, size)

    def unfold(self, hidden: Tensor) -> Tensor:
        hidden = hidden.reshape(-1, 1, hidden.shape[-1])
        return hidden if self._slots is None else hidden[self._slots]


def _can_call_layers(decoder: PreTrainedModel, layers: nn.ModuleList) -> bool:
    """Return whether skipping the forward of decoder and layers skips nothing that matters."""
    is_wrapped = any(hasattr(module, "_hf_hook") for module in (decoder, *layers))  # accelerate's offloading
    return not is_wrapped and decoder.config._attn_implementation in ("eager", "sdpa")


def _clamp(hidden: Tensor) -> Tensor:
    """Keep float16 finite, as T5Block does."""
    if hidden.dtype != torch.float16:
        return hidden
    limit = torch.finfo(torch.float16).max
    return hidden.clamp(-limit, limit) if not bool(hidden.isinf().any()) else hidden.clamp(1000 - limit, limit - 1000)


def vocabulary_size(head: nn.Module) -> int:
    """Count the tokens that a head computes logits for."""
    # Below an adapter, whose own `weight` is merged at every access.
    weight = cast(Tensor, getattr(head, "original_module", head).weight)
    return len(weight)


def unwrap(model: nn.Module) -> PreTrainedModel:
    """Take the model out of a `peft` wrapper; its adapted layers stay in place.

    Raises:
        ConfigurationError: If the adapter lives in the wrapper (prompt tuning), the model is in training mode, or it
            is not an encoder-decoder with a head.
    """
    base: object = model
    get_base_model = getattr(model, "get_base_model", None)
    if callable(get_base_model):
        if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
            raise ConfigurationError(
                f"`model` is a {type(model).__name__} with a prompt-learning adapter, whose tokens live outside the "
                "model; use an adapter of the weights, such as LoRA."
            )
        base = get_base_model()
    if (
        not isinstance(base, PreTrainedModel)
        or not getattr(base.config, "is_encoder_decoder", False)
        or base.get_output_embeddings() is None
    ):
        raise ConfigurationError(
            f"`model` is a {type(base).__name__}; pass an encoder-decoder with a language-modelling head, such as "
            "T5ForConditionalGeneration."
        )
    if base.training:
        raise ConfigurationError(
            "`model` is in training mode, where dropout changes every score; call `model.eval()`."
        )
    return base
