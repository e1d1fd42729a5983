# SPDX-License-Identifier: Apache-2.0
"""The state of decoding one batch of requests: encoder states, and rows of prefixes that branch.

Beam search and candidate scoring both grow prefixes. A row is one prefix; each step gives a new set of rows, every one
the child of a row of the step before, in any number per request. The first step has one row per request.

Unusual here: encoder states and their keys and values are never repeated for the rows of a request. In cross-attention
every position asks the same keys, so the rows of one request become the positions of one sequence: `(rows, 1, d)` is
seen as `(requests, rows per request, d)`, goes through the model's own cross-attention, and back. This needs a layer
with known internals; see [`open_session`] for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, cast, get_args

import numpy as np
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

from seekrec.errors import ConfigurationError, RequestError
from seekrec.generation.packing import PackedLinear
from seekrec.generation.whole_model import WholeModelSession

# "vocab": probability among all tokens, as `generate` has it. "level": among the codes of the level, which is cheaper.
Norm = Literal["vocab", "level"]
# Logits that exist at one time while the whole vocabulary is summed: 64 MiB in float32.
_MAX_LOGITS = 2**24


class Prompt(NamedTuple):
    """An encoded batch and what the decoder reads before the identifier.

    Args:
        states (`torch.Tensor`): Output of the encoder, `(B, S, d)`.
        attention_mask (`torch.Tensor`, *optional*): 1 where the input is real, `(B, S)`.
        decoder_prefix (`torch.Tensor`): int64 token ids of shape `(B, P)`.
    """

    states: Tensor
    attention_mask: Tensor | None
    decoder_prefix: Tensor


def check_prompt(
    model: nn.Module,
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    decoder_prefix: Tensor,
    encoder_outputs: BaseModelOutput | None,
    norm: str,
) -> tuple[PreTrainedModel, int]:
    """Check the model, the arguments that describe the batch, and the normalisation.

    Returns:
        `tuple`: The model, taken out of a `peft` wrapper (its adapted layers stay in place), and the number of
        requests.

    Raises:
        RequestError: If shapes contradict each other, or neither or both of `input_ids` and `encoder_outputs` are
            given.
        ConfigurationError: If the adapter lives in the wrapper (prompt tuning), the model is in training mode or not
            an encoder-decoder with a head, or `norm` is not one of `Norm`.
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
    if input_ids is not None and encoder_outputs is None:
        name, source = "input_ids", input_ids
    elif encoder_outputs is not None and input_ids is None:
        name, source = "encoder_outputs", encoder_outputs[0]
    else:
        raise RequestError("Pass either `input_ids` or `encoder_outputs`, not both and not neither.")
    if input_ids is not None and input_ids.ndim != 2:
        raise RequestError(f"`input_ids` has shape {tuple(input_ids.shape)}; pass (batch, length).")
    if attention_mask is not None and attention_mask.shape != source.shape[:2]:
        raise RequestError(
            f"`attention_mask` has shape {tuple(attention_mask.shape)}, `{name}` {tuple(source.shape)}; batch and "
            "length must agree."
        )
    if decoder_prefix.ndim != 2 or decoder_prefix.shape[1] == 0 or len(decoder_prefix) != len(source):
        raise RequestError(
            f"`decoder_prefix` has shape {tuple(decoder_prefix.shape)} for {len(source)} requests; pass (batch, "
            "length) with at least the decoder's start token."
        )
    if norm not in get_args(Norm):
        raise ConfigurationError(f"`norm` is {norm!r}; use one of {', '.join(get_args(Norm))}.")
    return base, len(source)


def encode(
    model: PreTrainedModel,
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    decoder_prefix: Tensor,
    encoder_outputs: BaseModelOutput | None,
    requests: Tensor,
) -> Prompt:
    """Run the encoder for some requests.

    Args:
        model (`PreTrainedModel`): From [`check_prompt`], which has checked the others too.
        input_ids (`torch.Tensor`, *optional*): int64 of shape `(B, S)`.
        attention_mask (`torch.Tensor`, *optional*): 1 where the input is real, `(B, S)`.
        decoder_prefix (`torch.Tensor`): int64 of shape `(B, P)`.
        encoder_outputs (`BaseModelOutput`, *optional*): Output of the encoder in place of `input_ids`.
        requests (`torch.Tensor`): int64, rising: the requests to encode.

    Returns:
        `Prompt`: With one row for each of `requests`.
    """
    mask = None if attention_mask is None else attention_mask[requests.to(attention_mask.device)]
    prefix = decoder_prefix[requests.to(decoder_prefix.device)]
    if encoder_outputs is not None:
        states = encoder_outputs[0]
        states = states[requests.to(states.device)]
    else:
        chosen = None if input_ids is None else input_ids[requests.to(input_ids.device)]
        states = model.get_encoder()(input_ids=chosen, attention_mask=mask)[0]
    return Prompt(states, mask, prefix.to(states.device))


def check_level_offsets(
    level_offsets: np.ndarray | Tensor | Sequence[int],
    codebook_sizes: Sequence[int],
    model: PreTrainedModel,
) -> tuple[int, ...]:
    """Check the token blocks of the levels against the model's vocabulary.

    Args:
        level_offsets (`np.ndarray`): Integers of shape `(L,)`: the token id of code 0 of each level.
        codebook_sizes (`Sequence[int]`): Codes per level.
        model (`PreTrainedModel`): The model.

    Returns:
        `tuple[int, ...]`: The offsets.

    Raises:
        ConfigurationError: If their number is not that of the levels, or a block ends beyond the vocabulary.
    """
    offsets = tuple(int(offset) for offset in level_offsets)
    if len(offsets) != len(codebook_sizes):
        raise ConfigurationError(
            f"`level_offsets` has {len(offsets)} entries for identifiers of {len(codebook_sizes)} levels; pass one "
            "for each."
        )
    head = model.get_output_embeddings()
    # Below an adapter, whose own `weight` is merged at every access.
    vocabulary = len(cast(Tensor, getattr(head, "original_module", head).weight))
    for level, (offset, size) in enumerate(zip(offsets, codebook_sizes, strict=True)):
        if offset < 0 or offset + size > vocabulary:
            raise ConfigurationError(
                f"The tokens of level {level} are {offset}..{offset + size - 1} (`level_offsets`), the model's "
                f"vocabulary has {vocabulary} tokens; resize the model's embeddings or correct the offsets."
            )
    return offsets


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
        """Feed one token per row.

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
    decoder = model.get_decoder()
    for kind in (T5Session, BartSession):
        if not isinstance(model, kind.models):
            continue
        layers = getattr(decoder, kind.layers)
        # Skipping the forward of decoder and layers must skip nothing that matters, such as accelerate's offloading.
        is_plain = not any(hasattr(module, "_hf_hook") for module in (decoder, *layers))
        is_known = {type(decoder), *map(type, layers)} <= kind.parts
        if is_plain and is_known and decoder.config._attn_implementation in ("eager", "sdpa"):
            return kind(model, encoder_states, attention_mask)
    return WholeModelSession(model, encoder_states, attention_mask)


class _LayeredSession:
    """What T5 and BART share: the first step by the model's own decoder, later ones layer by layer."""

    models: ClassVar[tuple[type[PreTrainedModel], ...]]
    # The classes of the decoder and of its layers, and the attribute that contains the layers.
    parts: ClassVar[set[type[nn.Module]]]
    layers: ClassVar[str]

    def __init__(self, model: PreTrainedModel, encoder_states: Tensor, attention_mask: Tensor | None) -> None:
        self._decoder = model.get_decoder()
        self._head = model.get_output_embeddings()
        self._states = encoder_states
        self._attention_mask = attention_mask
        # Given here, because the decoder would copy its configuration several times to make one.
        self._cache: Any = EncoderDecoderCache(DynamicCache(), DynamicCache())
        # Rows of a request, and where each stands among those of all requests; `None` where all have as many.
        self._width = 1
        self._slots: Tensor | None = None
        # T5 1.0 scales what the head reads, T5 1.1 and mT5 do not; the configuration of T5 says which.
        self._factor = model.config.d_model**-0.5 if getattr(model.config, "scale_decoder_outputs", False) else 1.0
        # BART adds it to what the head computes, shape (1, V).
        self._logits_bias: Tensor | None = getattr(model, "final_logits_bias", None)
        # An adapter or a quantised head computes more than its weight says; a packed one does not.
        self._head_is_plain = type(self._head) in (nn.Linear, PackedLinear) and not (
            self._head._forward_hooks or self._head._forward_pre_hooks
        )
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
        states: Tensor = output.last_hidden_state[:, -1] * self._factor
        return states

    def step(self, tokens: Tensor, parents: Tensor, requests: Tensor) -> Tensor:
        self._cache.self_attention_cache.reorder_cache(parents)
        num_requests = len(self._states)
        counts = torch.bincount(requests, minlength=num_requests)
        self._width, self._slots = int(counts.max()), None
        if len(requests) < self._width * num_requests:
            first = torch.cumsum(counts, 0) - counts
            within = torch.arange(len(requests), device=requests.device) - first[requests]
            self._slots = requests * self._width + within
        return self._run_layers(tokens[:, None])[:, 0] * self._factor

    def block_logits(self, states: Tensor, first: int, size: int) -> Tensor:
        block = slice(first, first + size)
        if self._head_is_plain:
            bias = None if self._head.bias is None else self._head.bias[block]
            logits = nn.functional.linear(states, self._head.weight[block], bias)
        else:
            logits = self._head(states)[:, block]
        return (logits if self._logits_bias is None else logits + self._logits_bias[:, block]).float()

    def log_partition(self, states: Tensor) -> Tensor:
        sums = []
        for part in states.split(max(1, _MAX_LOGITS // self._decoder.config.vocab_size)):
            logits = self._head(part)
            logits = logits if self._logits_bias is None else logits + self._logits_bias
            sums.append(logits.float().logsumexp(-1))
        return torch.cat(sums)

    def _attend(self, attention: Callable[..., tuple[Tensor, ...]], hidden: Tensor, **bias: Tensor) -> Tensor:
        """Let rows `(R, 1, d)` attend to their request's encoder states, as one sequence per request `(B, K, d)`.

        Where requests have different numbers of rows, `K` is the largest and the rest is zeros.
        """
        num_requests, size = len(self._states), hidden.shape[-1]
        if self._slots is not None:
            padded = hidden.new_zeros(num_requests * self._width, size)
            hidden = padded.index_copy_(0, self._slots, hidden[:, 0])
        rows = hidden.view(num_requests, -1, size)
        attended = attention(rows, key_value_states=self._states, cache=self._cache, **bias)[0].reshape(-1, 1, size)
        return attended if self._slots is None else attended[self._slots]

    def _run_layers(self, tokens: Tensor) -> Tensor:
        raise NotImplementedError


class T5Session(_LayeredSession):
    """T5 and mT5."""

    models = (T5ForConditionalGeneration, MT5ForConditionalGeneration)
    parts: ClassVar[set[type[nn.Module]]] = {T5Stack, MT5Stack, T5Block, MT5Block}
    layers = "block"

    def _run_layers(self, tokens: Tensor) -> Tensor:
        # As T5Block.forward, but for `_attend`. The mask goes in as the position bias of cross-attention, which T5
        # would otherwise fill with zeros for every head.
        hidden = self._decoder.embed_tokens(tokens)
        bias = None  # relative positions; the first layer computes them for all
        for block in self._decoder.block:
            for number, layer in enumerate(block.layer):
                if number == 0:
                    hidden, bias, _ = layer(hidden, position_bias=bias, cache=self._cache)
                elif number == 1:
                    hidden = self._attend(layer, hidden, position_bias=self._cross_bias)
                else:
                    hidden = layer(hidden)
                if hidden.dtype == torch.float16:  # kept finite
                    limit = torch.finfo(torch.float16).max - (1000 if bool(hidden.isinf().any()) else 0)
                    hidden = hidden.clamp(-limit, limit)
        return self._decoder.final_layer_norm(hidden)


class BartSession(_LayeredSession):
    """BART."""

    models = (BartForConditionalGeneration,)
    parts: ClassVar[set[type[nn.Module]]] = {BartDecoder, BartDecoderLayer}
    layers = "layers"

    def _run_layers(self, tokens: Tensor) -> Tensor:
        # As BartDecoderLayer.forward in evaluation mode, but for `_attend`.
        decoder = self._decoder
        hidden = decoder.embed_tokens(tokens)
        hidden = hidden + decoder.embed_positions(tokens, self._cache.get_seq_length()).to(hidden.device)
        hidden = decoder.layernorm_embedding(hidden)
        for layer in decoder.layers:
            attended, _ = layer.self_attn(hidden, cache=self._cache)
            hidden = layer.self_attn_layer_norm(hidden + attended)
            attended = self._attend(layer.encoder_attn, hidden, attention_mask=self._cross_bias)
            hidden = layer.encoder_attn_layer_norm(hidden + attended)
            hidden = layer.final_layer_norm(hidden + layer.fc2(layer.activation_fn(layer.fc1(hidden))))
        return hidden
