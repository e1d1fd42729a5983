# SPDX-License-Identifier: Apache-2.0
"""GenSR: a T5 that reads two views of a history and says Yes or No to a candidate (Zhao et al. 2025, section 5).

Unusual here:

- Prompts are embeddings, not tokens: text, and vectors made from the two views (see `processing_gensr.py`).
- Candidates are scored together: histories are encoded once per request, items once per batch, and with
  `config.shared_prompt` everything before the candidate once per request.
- Without a candidate, the same model writes identifiers (section 6.3); the prompt then contains the whole history.

The file reads bottom-up: layers, one view of a history, the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BatchFeature
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils.generic import ModelOutput

from seekrec.catalog import Catalog
from seekrec.catalog.growth import predict_by_ridge
from seekrec.embeddings import FrozenSASRec, SASRecForNextItem
from seekrec.errors import CatalogError, RequestError
from seekrec.generation import Norm
from seekrec.models.answers import Found, Masks, without_rows
from seekrec.models.base import best_first
from seekrec.models.gensr.configuration_gensr import NUM_POSITIONS, NUM_VIEW_HEADS, VIEW_NAMES, GenSRConfig
from seekrec.models.gensr.processing_gensr import FIRST_VECTOR, PADDING
from seekrec.models.interface import GenerativeModel, GenerativeSnapshot
from seekrec.models.losses import level_loss, token_loss, view_contrast
from seekrec.models.shared_prompts import decode_first_token, encode_prefix, encode_suffixes
from seekrec.models.stream_states import StreamState
from seekrec.models.views import NUM_VIEWED, AddedScores
from seekrec.schema import BEHAVIORS, Behavior, ScoredItem, View
from seekrec.util.finite import check_finite, weights_key
from seekrec.util.ragged import Ragged

CandidateScore = Literal["logit", "probability", "vocabulary"]

# Prompt positions in one forward: enough to keep a core busy, few enough for their states to stay in its cache.
_MAX_POSITIONS = 8192

# What the model needs to encode the histories of a batch.
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
_CATALOG_TEXTS = "catalog_text_ids"


# ---- layers ----


class ViewLinear(nn.Linear):
    """Identical to `nn.Linear` except: it knows how its weights are initialized.

    transformers initializes modules of other packages only where the module itself contains the weights, not its
    parent.

    Args:
        size_in (`int`): Width of the input.
        size_out (`int`): Width of the output.
        start (`str`): `"spread"` keeps the length of vectors, `"small"` makes them a tenth as long, `"orthogonal"`
            keeps lengths and angles.
        seed (`int`, *optional*): Orthogonal layers with the same seed and size start equal.
        bias (`bool`): Whether to add a bias, which starts at zero.
    """

    def __init__(
        self,
        size_in: int,
        size_out: int,
        *,
        start: Literal["spread", "small", "orthogonal"] = "spread",
        seed: int | None = None,
        bias: bool = True,
    ) -> None:
        self.start, self.seed = start, seed
        super().__init__(size_in, size_out, bias=bias)

    def start_weights(self) -> None:
        """Initialize the weights."""
        if self.start == "orthogonal":
            generator = None
            if self.seed is not None and self.weight.device.type != "meta":
                generator = torch.Generator(self.weight.device).manual_seed(self.seed)
            init.orthogonal_(self.weight, generator=generator)
        else:
            init.normal_(self.weight, std=(0.1 if self.start == "small" else 1.0) * self.in_features**-0.5)
        if self.bias is not None:
            init.zeros_(self.bias)


class ViewEmbedding(nn.Embedding):
    """Identical to `nn.Embedding` except: it starts short alongside item vectors, whose entries are near 1."""

    def start_weights(self) -> None:
        """Initialize the weights."""
        init.normal_(self.weight, std=0.1)


class Scale(nn.Module):
    """A learned number that multiplies vectors.

    Args:
        value (`float`): The number at the start.
    """

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value
        self.weight = nn.Parameter(torch.empty(1))

    def start_weights(self) -> None:
        """Set the number."""
        init.constant_(self.weight, self.value)


class CollaborativeTable(nn.Module):
    """The frozen item embeddings of a recommender, one for each row of the catalogue.

    Items that were added to the catalogue later have rows behind these. They are predicted from texts, not learned.

    Args:
        num_items (`int`): Number of rows.
        size (`int`): Width of an embedding.
    """

    weight: Tensor
    # The later items that training reads; `retrieve` and `rank` pass those of their own catalogue.
    later: Tensor | None = None

    def __init__(self, num_items: int, size: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(num_items, size))

    def start_weights(self) -> None:
        """Draw rows that mean nothing; `set_collaborative_table` replaces them."""
        init.normal_(self.weight, std=1.0)

    def forward(self, rows: Tensor, later: Tensor | None = None) -> Tensor:
        """Look up vectors.

        Args:
            rows (`torch.LongTensor`): Rows of the catalogue, of any shape.
            later (`torch.Tensor` of shape `(num_later, size)`, *optional*): Vectors of the items behind the table's
                own; those of the catalogue that was set last if not given.

        Returns:
            `torch.Tensor`: Vectors of shape `(*rows.shape, size)`.
        """
        later = self.later if later is None else later
        if later is None or not len(later):
            return F.embedding(rows, self.weight)
        own = len(self.weight)
        known = F.embedding(rows.clamp_max(own - 1), self.weight)
        return torch.where((rows >= own)[..., None], later.to(known)[(rows - own).clamp_min(0)], known)


# ---- one view of a history, and what a candidate filters out of it (section 5.1) ----
#
# Each view has a space of its own: the collaborative one of the frozen table's width d, the semantic one of the
# generator's width d'. A position before every history, the *start*, belongs to both: an empty history has an answer
# too, and a candidate that resembles nothing in the history can say so, which a softmax over events alone cannot.


class HistoryEncoder(nn.Module):
    """One transformer layer over the events of a history (equations 5 and 6).

    Layer norm comes first in each half and residuals surround both, so the layer starts close to its input.

    Args:
        size (`int`): Width of the view.
        dropout (`float`): Dropout after attention and after the feed-forward layer.
    """

    def __init__(self, size: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(size)
        self.attention_input = ViewLinear(size, 3 * size)
        self.attention_output = ViewLinear(size, size, start="small")
        self.feed_forward_norm = nn.LayerNorm(size)
        self.expand = ViewLinear(size, 2 * size)
        self.contract = ViewLinear(2 * size, size, start="small")
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Encode histories.

        Args:
            states (`torch.Tensor` of shape `(batch, length, size)`): Vectors of the events.
            mask (`torch.BoolTensor` of shape `(batch, length)`): True for an event.

        Returns:
            `torch.Tensor`: Encoded events, of the shape of `states`.
        """
        batch, length, _ = states.shape
        projected = self.attention_input(self.attention_norm(states)).view(batch, length, 3, NUM_VIEW_HEADS, -1)
        query_states, key_states, value_states = projected.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(
            query_states, key_states, value_states, attn_mask=mask[:, None, None, :]
        )
        states = states + self.dropout(self.attention_output(attended.transpose(1, 2).flatten(2)))
        expanded = F.gelu(self.expand(self.feed_forward_norm(states)))
        return states + self.dropout(self.contract(expanded))


class SoftFilter(nn.Module):
    """What a candidate picks out of a history: multi-head cross-attention, equations 7 and 8.

    Queries and keys start as the same orthogonal map, so attention starts as the similarity of candidate and event.

    Args:
        size (`int`): Width of the view.
        num_heads (`int`): Number of attention heads.
    """

    def __init__(self, size: int, num_heads: int = NUM_VIEW_HEADS) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_projection = ViewLinear(size, size, start="orthogonal", seed=0, bias=False)
        self.key_projection = ViewLinear(size, size, start="orthogonal", seed=0, bias=False)
        self.value_projection = ViewLinear(size, size, start="orthogonal", bias=False)
        self.output_projection = ViewLinear(size, size, start="orthogonal", bias=False)

    def forward(self, candidates: Tensor, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Filter histories by candidates.

        Args:
            candidates (`torch.Tensor` of shape `(batch, num_candidates, size)`): Vectors of the candidates.
            states (`torch.Tensor` of shape `(batch, length, size)`): The encoded histories.
            mask (`torch.BoolTensor` of shape `(batch, length)`): True for an event.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: Both of the shape of `candidates`. First the mean of the values that a
            candidate attends to, projected (equation 8). Then the candidate's query times the mean of the keys that it
            attends to: its sum over a head is the similarity that attention found, which a softmax over the history
            forgets.
        """
        query_states, key_states, value_states = (
            project(vectors).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for project, vectors in (
                (self.query_projection, candidates),
                (self.key_projection, states),
                (self.value_projection, states),
            )
        )
        scores = query_states @ key_states.transpose(2, 3) * query_states.shape[-1] ** -0.5
        weights = scores.masked_fill(~mask[:, None, None, :], float("-inf")).softmax(-1)
        # (batch, num_heads, num_candidates, length) with values, and with keys: one attention for both.
        filtered: Tensor = self.output_projection((weights @ value_states).transpose(1, 2).flatten(2))
        return filtered, (query_states * (weights @ key_states)).transpose(1, 2).flatten(2)

    def compare(self, candidates: Tensor, vectors: Tensor) -> Tensor:
        """Compare candidates with one vector per row: their queries times its key.

        Args:
            candidates (`torch.Tensor` of shape `(batch, num_candidates, size)`): Vectors of the candidates.
            vectors (`torch.Tensor` of shape `(batch, size)`): What the candidates of each row are compared with.

        Returns:
            `torch.Tensor`: Products of the shape of `candidates`; zero where the vector is.
        """
        agreement: Tensor = self.query_projection(candidates) * self.key_projection(vectors)[:, None]
        return agreement


class HistoryView(nn.Module):
    """One view: events to an encoded history, candidates to filtered histories, both to vectors of a prompt.

    Args:
        config ([`GenSRConfig`]): Dropout, filter and width of the prompt.
        size (`int`): Width of the view's space.
        reads_text (`bool`): Whether items are texts, and so are queries. Then every item vector is brought to the same
            length; not the collaborative ones, because a recommender tells by their length how popular an item is.
    """

    def __init__(self, config: GenSRConfig, size: int, *, reads_text: bool) -> None:
        super().__init__()
        self.item_norm = nn.LayerNorm(size) if reads_text else nn.Identity()
        self.start = ViewEmbedding(1, size)
        self.behavior_embedding = ViewEmbedding(2, size)
        self.position_embedding = ViewEmbedding(NUM_POSITIONS, size)
        self.encoder = HistoryEncoder(size, config.view_dropout_rate)
        self.filter = None if config.filtered_history == "mean" else SoftFilter(size)
        self.history_to_prompt = ViewLinear(size, config.d_model)
        self.item_to_prompt = ViewLinear(size, config.d_model)
        self.agreement_to_prompt = self.wanted_agreement_to_prompt = None
        if config.filtered_history in ("agreement", "recommender"):
            self.agreement_to_prompt = ViewLinear(size, config.d_model, bias=False)
            if reads_text or config.recommender is not None:
                self.wanted_agreement_to_prompt = ViewLinear(size, config.d_model, bias=False)
        # Brings vectors to the length of token embeddings, whose entries T5 draws with this standard deviation.
        self.scale = Scale(config.initializer_factor)

    def encode(self, events: Tensor, mask: Tensor, behaviors: Tensor) -> Tensor:
        """Encode histories.

        Args:
            events (`torch.Tensor` of shape `(batch, length, size)`): One vector per event, oldest first, padded on the
                right.
            mask (`torch.BoolTensor` of shape `(batch, 1 + length)`): True for the start and for an event.
            behaviors (`torch.LongTensor` of shape `(batch, length)`): Numbers into `BEHAVIORS`.

        Returns:
            `torch.Tensor`: Encoded events of shape `(batch, 1 + length, size)`, the start first.
        """
        states = events + self.behavior_embedding(behaviors)
        # The latest event has position 0; what is further back than there are positions shares the last.
        positions = mask.sum(1, keepdim=True) - 2 - torch.arange(events.shape[1], device=mask.device)
        states = states + self.position_embedding(positions.clamp(0, NUM_POSITIONS - 1))
        start = self.start.weight.expand(len(states), 1, -1).to(states.dtype)
        states = torch.cat([start, states], dim=1)
        encoded: Tensor = self.encoder(states, mask)
        return encoded

    def filtered_vectors(self, candidates: Tensor, states: Tensor, mask: Tensor, wanted: Tensor | None) -> Tensor:
        """Project what each candidate filters out of the history into the prompt.

        What these vectors hold `config.filtered_history` says.

        Args:
            candidates (`torch.Tensor` of shape `(batch, num_candidates, size)`): Vectors of items.
            states (`torch.Tensor` of shape `(batch, 1 + length, size)`): Histories from `encode`.
            mask (`torch.BoolTensor` of shape `(batch, 1 + length)`): True for the start and for an event.
            wanted (`torch.Tensor` of shape `(batch, size)`, *optional*): The query in a view of texts, zero without
                one; the recommender's state in a collaborative view.

        Returns:
            `torch.Tensor`: Vectors of shape `(batch, num_candidates, d_model)`.
        """
        if self.filter is None:
            projected = self.history_to_prompt(_masked_mean(states, mask)) * self.scale.weight
            return projected[:, None].expand(-1, candidates.shape[1], -1)
        filtered, agreement = self.filter(candidates, states, mask)
        projected = self.history_to_prompt(filtered)
        if self.agreement_to_prompt is not None:
            projected = projected + self.agreement_to_prompt(agreement)
        if self.wanted_agreement_to_prompt is not None and wanted is not None:
            projected = projected + self.wanted_agreement_to_prompt(self.filter.compare(candidates, wanted))
        scaled: Tensor = projected * self.scale.weight
        return scaled


@dataclass(frozen=True)
class EncodedHistories:
    """The views of a batch: each item once, and the encoded histories.

    Args:
        items (`dict[str, torch.Tensor]`): By view, vectors of the batch's items, `(U + 1, size)`; the last is zero.
        states (`dict[str, torch.Tensor]`): By view, encoded histories, `(batch, 1 + length, size)`.
        mask (`torch.BoolTensor` of shape `(batch, 1 + length)`): True for the start and for an event.
        wanted (`dict[str, torch.Tensor]`): By view, what is wanted now, `(batch, size)`: in the view of texts the
            query, zero if there is none; in the collaborative view the recommender's state after the history, if the
            model has a recommender.
    """

    items: dict[str, Tensor]
    states: dict[str, Tensor]
    mask: Tensor
    wanted: dict[str, Tensor]


def pool_tokens(embedding: nn.Embedding, token_ids: Tensor) -> Tensor:
    """Pool the token embeddings of texts to one vector each, about as long as one token's.

    Args:
        embedding (`nn.Embedding`): The token embeddings.
        token_ids (`torch.LongTensor` of shape `(num_texts, length)`): Tokens of the texts, -1 for padding.

    Returns:
        `torch.Tensor`: The sum over the root of the count, of shape `(num_texts, size)`; zero for an empty text.
    """
    embeddings = embedding(token_ids.clamp(min=0))
    weights = (token_ids >= 0).to(embeddings.dtype)
    total = torch.einsum("nld,nl->nd", embeddings, weights)
    return total / weights.sum(1, keepdim=True).clamp(min=1).sqrt()


def _masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Average over the positions that a mask allows: `(batch, length, size)` to `(batch, size)`; zero without any."""
    weights = mask.to(states.dtype)
    return torch.einsum("bld,bl->bd", states, weights) / weights.sum(1, keepdim=True).clamp(min=1)


# ---- the model ----


@dataclass
class GenSROutput(ModelOutput):
    """Scores and losses of a batch.

    Args:
        loss (`torch.FloatTensor`, *optional*): Equation 11 over the modes that have labels; present with labels.
        candidate_logits (`torch.FloatTensor` of shape `(batch, num_candidates)`, *optional*): logit(Yes) - logit(No);
            present with candidates.
        yes_no_loss (`torch.FloatTensor`, *optional*): Equation 12, in nats.
        identifier_loss (`torch.FloatTensor`, *optional*): The loss of writing identifiers, in nats a code, without its
            weight.
        contrast_loss (`torch.FloatTensor`, *optional*): Equation 10, in nats, without its weight.
    """

    loss: Tensor | None = None
    candidate_logits: Tensor | None = None
    yes_no_loss: Tensor | None = None
    identifier_loss: Tensor | None = None
    contrast_loss: Tensor | None = None


class GenSRForConditionalGeneration(GenerativeModel[GenerativeSnapshot]):
    """GenSR: T5 with two views of the history in its prompt, and a catalogue to search and recommend from.

    ```python
    model = GenSRForConditionalGeneration.from_pretrained("me/gensr-scientific")
    processor = AutoProcessor.from_pretrained("me/gensr-scientific")
    model.rank(processor([Request(history=events)], candidates=[["B00A", "B00B"]]))
    ```

    Args:
        config ([`GenSRConfig`]): Sizes of T5, of the views and of the identifiers.
    """

    config: GenSRConfig
    # By name, those that enter the prompt.
    history_views: Mapping[View, HistoryView]
    # Annotations are text here, so transformers cannot read the class from the one above.
    config_class = GenSRConfig
    # The loss is a mean over rows, whatever their labels: Trainer divides by the number of micro-batches itself.
    accepts_loss_kwargs = False

    def __init__(self, config: GenSRConfig) -> None:
        super().__init__(config)
        sizes = {"collaborative": config.collaborative_size, "semantic": config.d_model}
        views: dict[str, nn.Module] = {
            view: HistoryView(config, sizes[view], reads_text=view == "semantic") for view in config.prompt_views
        }
        self.history_views = cast("Mapping[View, HistoryView]", nn.ModuleDict(views))
        self.collaborative_table = CollaborativeTable(config.num_items, config.collaborative_size)
        self.recommender = None
        if config.recommender is not None:
            # The table contains its items.
            self.recommender = FrozenSASRec(config.recommender)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # Only modules that hold weights themselves come here: see `ViewLinear`.
        if isinstance(module, (ViewLinear, ViewEmbedding, Scale, CollaborativeTable)):
            module.start_weights()

    @classmethod
    def from_t5(cls, name_or_path: str, **settings: object) -> Self:
        """Load the weights of a checkpoint, as [`T5Backbone`] does; the views are new.

        Args:
            name_or_path (`str`): For example `google/flan-t5-base`.
            settings: Fields of [`GenSRConfig`] that are not T5's.

        Returns:
            The model, without a catalogue and a collaborative table.
        """
        model = super().from_t5(name_or_path, **settings)
        spread = float(model.shared.weight.detach().float().std())
        for view in model.history_views.values():
            nn.init.constant_(view.scale.weight, spread)
        return model

    @property
    def modules_outside_t5(self) -> list[str]:
        """Names of the modules that no T5 checkpoint has."""
        return [f"history_views.{name}" for name in self.history_views]

    # ---- the recommender and the catalogue ----

    @torch.no_grad()
    def set_collaborative_table(self, vectors: np.ndarray | Tensor) -> None:
        """Take the item embeddings of a recommender; they are scaled to entries of mean square 1.

        Args:
            vectors (`np.ndarray` or `torch.Tensor` of shape `(num_items, collaborative_size)`): Floats, by row of the
                catalogue.

        Raises:
            ValueError: If the shape does not fit.
        """
        values = torch.as_tensor(vectors, dtype=torch.float32)
        if values.ndim != 2 or values.shape[1] != self.config.collaborative_size or not len(values):
            raise ValueError(
                f"`vectors` has shape {tuple(values.shape)}; give one row per item and `collaborative_size` "
                f"{self.config.collaborative_size} columns."
            )
        scale = values.square().mean().sqrt().clamp_min(1e-12)
        table = CollaborativeTable(len(values), values.shape[1])
        table.weight.copy_(values / scale)
        self.collaborative_table = table.to(device=self.device, dtype=self.dtype)
        self.config.table_scale = float(scale)
        self.config.num_items = len(values)

    @torch.no_grad()
    def set_recommender(self, recommender: SASRecForNextItem) -> None:
        """Take a SASRec: its item embeddings as the collaborative table, its layers for the state after a history.

        Args:
            recommender ([`SASRecForNextItem`]): A SASRec with the sizes of `config.recommender`, over the items of the
                catalogue.

        Raises:
            ValueError: If the model was made without a recommender, or for one of other sizes.
        """
        if self.recommender is None:
            raise ValueError("`config.recommender` is None; make the model with the settings of the recommender.")
        self.recommender.take(recommender)
        self.set_collaborative_table(recommender.item_embeddings())

    def set_catalog(self, catalog: Catalog) -> None:
        """Answer from this catalogue from now on; later items get a collaborative vector predicted from their text.

        See [`GenerativeModel`].

        Raises:
            CatalogError: If the identifiers or the items are not those of the model, or a new item's vector cannot be
                predicted.
        """
        super().set_catalog(catalog)
        self.collaborative_table.later = self._later_items(self.current_snapshot())

    def _make_snapshot(self, catalog: Catalog) -> GenerativeSnapshot:
        snapshot = GenerativeSnapshot(catalog)
        # Before it is set: what cannot be predicted leaves the model as it was.
        self._later_items(snapshot)
        return snapshot

    def _later_items(self, snapshot: GenerativeSnapshot) -> Tensor:
        """Predict the collaborative vectors of items that came after the table, from their texts.

        Returns:
            `torch.Tensor`: `(num_later, collaborative_size)`; no row where there is no such item, or the view is not
            in the prompt.

        Raises:
            CatalogError: If the catalogue has no text vectors.
        """
        table = self.collaborative_table.weight.detach()
        known, catalog = len(table), snapshot.catalog
        if not 0 < known < snapshot.num_items or "collaborative" not in self.config.prompt_views:
            return table[:0]

        def predict() -> Tensor:
            if "semantic" not in catalog.embeddings:
                raise CatalogError(
                    f"The catalogue has {snapshot.num_items - known} new items, but no semantic embeddings to predict "
                    "their collaborative vectors from; build it with `embeddings=`."
                )
            semantic = catalog.embeddings["semantic"]
            measured = table.float()
            check_finite("The collaborative table", measured, "row", "load one that is whole")
            pairs: dict[View, np.ndarray] = {"collaborative": measured.cpu().numpy(), "semantic": semantic[:known]}
            predicted = predict_by_ridge(pairs, catalog.live[:known], semantic[known:])
            return torch.as_tensor(predicted, dtype=torch.float32).to(table)

        return snapshot.value("later", predict, weights_key([table]))

    # ---- from features to prompts ----

    def encode_histories(
        self, features: Mapping[str, Tensor], snapshot: GenerativeSnapshot | None = None
    ) -> EncodedHistories:
        """Embed the batch's items and encode its histories in each view (equations 5 and 6).

        Args:
            features (`Mapping[str, torch.Tensor]`): Output of [`GenSRProcessor`].
            snapshot ([`GenerativeSnapshot`], *optional*): The catalogue that the items are from; the one that was set
                last if not given.

        Raises:
            RequestError: If a feature is missing, or names an item that the catalogue does not have.
        """
        _check_features(features, *_HISTORY_FEATURES)
        later_items = None
        if snapshot is not None:
            snapshot.check_rows("item_rows", features["item_rows"])
            later_items = self._later_items(snapshot)
        history_items = features["history_items"]
        mask = F.pad(features["history_mask"], (1, 0), value=True)
        items: dict[str, Tensor] = {}
        states: dict[str, Tensor] = {}
        wanted: dict[str, Tensor] = {}
        for name, view in self.history_views.items():
            if name == "semantic":
                # With a row of zeros, which index -1 finds.
                items[name] = F.pad(view.item_norm(pool_tokens(self.shared, features["item_text_ids"])), (0, 0, 0, 1))
                events = items[name][history_items]
                # What was searched for is part of what the event says.
                queries = F.pad(view.item_norm(pool_tokens(self.shared, features["query_text_ids"])), (0, 0, 0, 1))
                events = events + queries[features["history_queries"]]
                wanted[name] = queries[features["asked_queries"]]
            else:
                table = self.collaborative_table(features["item_rows"], later_items)
                items[name] = F.pad(view.item_norm(table), (0, 0, 0, 1))
                events = items[name][history_items]
                if self.recommender is not None:
                    wanted[name] = self._recommender_state(self.recommender, events, history_items >= 0)
            states[name] = view.encode(events, mask, features["history_behaviors"])
        return EncodedHistories(items, states, mask, wanted)

    def _recommender_state(self, recommender: FrozenSASRec, events: Tensor, has_item: Tensor) -> Tensor:
        """Return the recommender's state after each history: `(batch, length, size)` to `(batch, size)`."""
        positions = torch.arange(1, has_item.shape[1] + 1, device=has_item.device)
        latest = F.pad(positions * has_item, (1, 0)).amax(1)
        states = recommender.states(events * self.config.table_scale, has_item)
        return states[torch.arange(len(states), device=states.device), latest]

    def _event_bank(self, histories: EncodedHistories) -> Tensor:
        """Return every event of every view as a vector of a prompt: `(batch, 1, 2 * (1 + length), d_model)`."""
        parts = [self.shared.weight.new_zeros(*histories.mask.shape, self.config.d_model)] * len(VIEW_NAMES)
        for name, view in self.history_views.items():
            parts[VIEW_NAMES.index(name)] = view.history_to_prompt(histories.states[name]) * view.scale.weight
        return torch.cat(parts, dim=1)[:, None]

    def _fill(self, layout: Tensor, bank: Tensor) -> Tensor:
        """Turn layouts into embeddings, with vectors from one bank, or one for each candidate.

        Args:
            layout (`torch.LongTensor` of shape `(batch, length)`): Tokens and numbers of vectors.
            bank (`torch.Tensor` of shape `(batch, num_banks, num_vectors, d_model)`): The vectors.

        Returns:
            `torch.Tensor`: Embeddings of shape `(batch, num_banks, length, d_model)`.
        """
        tokens: Tensor = self.shared(layout.clamp(min=0))[:, None]  # (batch, 1, length, d_model)
        is_vector = (layout <= FIRST_VECTOR)[:, None, :, None]
        positions = (FIRST_VECTOR - layout).clamp(min=0)[:, None, :, None]
        vectors = bank.gather(2, positions.expand(-1, bank.shape[1], -1, bank.shape[-1]))
        return torch.where(is_vector, vectors.to(tokens.dtype), tokens)

    # ---- candidates ----

    def candidate_logits(
        self, histories: EncodedHistories, prompt_layout: Tensor, suffix_layout: Tensor, candidates: Tensor
    ) -> Tensor:
        """Compute for each candidate how the model would answer.

        Args:
            histories ([`EncodedHistories`]): The encoded batch.
            prompt_layout (`torch.LongTensor` of shape `(batch, length)`): What comes before the candidate, padded on
                the left.
            suffix_layout (`torch.LongTensor` of shape `(batch, length)`): What comes with it, padded on the right.
            candidates (`torch.LongTensor` of shape `(batch, num_candidates)`): Positions among the batch's items.

        Returns:
            `torch.Tensor`: Logits of the first token, `(batch, num_candidates, vocab_size)`; with `loss_norm="level"`
            those of No and Yes alone, `(batch, num_candidates, 2)`.
        """
        prefix, prefix_mask = self._fill(prompt_layout, self._event_bank(histories))[:, 0], prompt_layout != PADDING
        # The vectors of each candidate as in `SUFFIX_VECTORS`.
        zeros = self.shared.weight.new_zeros(*candidates.shape, self.config.d_model)
        filtered, items = [zeros] * len(VIEW_NAMES), [zeros] * len(VIEW_NAMES)
        for name, view in self.history_views.items():
            vectors, place = histories.items[name], VIEW_NAMES.index(name)
            filtered[place] = view.filtered_vectors(
                vectors[candidates], histories.states[name], histories.mask, histories.wanted.get(name)
            )
            # Projected once for each item of the batch, not once for each candidate.
            items[place] = (view.item_to_prompt(vectors) * view.scale.weight)[candidates]
        suffix = self._fill(suffix_layout, torch.stack([*filtered, *items], dim=2))
        suffix_mask = suffix_layout != PADDING
        batch, num_candidates, _, width = suffix.shape
        if self.config.shared_prompt:
            encoded = encode_prefix(self.encoder, prefix, prefix_mask)
            states = encode_suffixes(self.encoder, encoded, suffix, suffix_mask)
            start = self.shared(torch.tensor(self.config.decoder_start_token_id, device=states.device))
            decoded = decode_first_token(self.decoder, encoded, states, suffix_mask, start)
        else:
            repeated = prefix[:, None].expand(-1, num_candidates, -1, -1)
            embeds = torch.cat([repeated, suffix], dim=2).flatten(0, 1)
            mask = torch.cat([prefix_mask, suffix_mask], dim=1).long().repeat_interleave(num_candidates, dim=0)
            states = self.encoder(inputs_embeds=embeds, attention_mask=mask)[0]
            start = torch.full((len(states), 1), self.config.decoder_start_token_id, device=states.device)
            decoded = self.decoder(
                input_ids=start, encoder_hidden_states=states, encoder_attention_mask=mask, use_cache=False
            )[0].view(batch, num_candidates, width)
        if self.config.scale_decoder_outputs:
            decoded = decoded * self.model_dim**-0.5
        if self.config.loss_norm == "level":
            answers = self.lm_head.weight[[self.config.no_token_id, self.config.yes_token_id]]
            return F.linear(decoded, answers).float()
        logits: Tensor = self.lm_head(decoded).float()
        return logits

    def yes_minus_no(self, logits: Tensor) -> Tensor:
        """Return the score of candidates, logit(Yes) - logit(No), from the output of `candidate_logits`."""
        if self.config.loss_norm == "level":
            return logits[..., 1] - logits[..., 0]
        return logits[..., self.config.yes_token_id] - logits[..., self.config.no_token_id]

    @torch.no_grad()
    def score_candidates(
        self, inputs: BatchFeature, score: CandidateScore = "logit", snapshot: GenerativeSnapshot | None = None
    ) -> list[np.ndarray]:
        """Score the candidates of each request, as [`rank`] does, in the order they were given.

        Histories are encoded once. Requests are scored in groups of similar prompt length, so that little is padded.

        Args:
            inputs ([`~transformers.BatchFeature`]): Output of `processor(requests, candidates=...)`.
            score (`str`): As in [`rank`].
            snapshot ([`GenerativeSnapshot`], *optional*): What to answer from; the current one if not given.

        Returns:
            `list[np.ndarray]`: For each request float32 of shape `(num_candidates,)`.

        Raises:
            RequestError: If `score` is unknown.
        """
        snapshot = self.current_snapshot() if snapshot is None else snapshot
        if score not in ("logit", "probability", "vocabulary"):
            raise RequestError(f"`score` is {score!r}; use 'logit', 'probability' or 'vocabulary'.")
        if score == "vocabulary" and self.config.loss_norm == "level":
            raise RequestError(
                "`score` is 'vocabulary', but the model compares Yes and No alone (`loss_norm` is 'level'); use "
                "'probability'."
            )
        features = {name: value.to(self.device) for name, value in inputs.items()}
        _check_features(features, "candidate_items", "prompt_layout", "suffix_layout")
        histories = self.encode_histories(features, snapshot)
        candidates = features["candidate_items"]
        counts = (candidates >= 0).sum(1)
        lengths = (features["prompt_layout"] != PADDING).sum(1)
        suffixes = (features["suffix_layout"] != PADDING).sum(1)
        # What a candidate costs: its suffix, and its own copy of the prefix where that is not shared.
        costs = suffixes if self.config.shared_prompt else suffixes + lengths
        # By task, then by length, then by number of candidates.
        order = np.lexsort([values.cpu().numpy() for values in (counts, lengths, features["behavior_ids"])])
        # Requests of one task together, as many as fit, without those that have no candidate.
        positions, tasks = (counts * costs).tolist(), features["behavior_ids"].tolist()
        groups: list[list[int]] = []
        most = 0
        for row in order.tolist():
            if positions[row]:
                most = max(most, positions[row])
                if not groups or tasks[groups[-1][0]] != tasks[row] or most * (len(groups[-1]) + 1) > _MAX_POSITIONS:
                    groups.append([])
                    most = positions[row]
                groups[-1].append(row)
        answers: list[np.ndarray] = [np.zeros(0, np.float32)] * len(candidates)
        for group in groups:
            rows = torch.tensor(group, device=self.device)
            width, length, after = (int(values[rows].max()) for values in (counts, lengths, suffixes))
            step = max(1, _MAX_POSITIONS // (len(rows) * int(costs[rows].max())))
            states = {name: vectors[rows] for name, vectors in histories.states.items()}
            wanted = {name: vectors[rows] for name, vectors in histories.wanted.items()}
            chosen = EncodedHistories(histories.items, states, histories.mask[rows], wanted)
            prompts = features["prompt_layout"][rows][:, -length:]
            scores = []
            for start in range(0, width, step):
                logits = self.candidate_logits(
                    chosen,
                    prompts,
                    features["suffix_layout"][rows][:, :after],
                    candidates[rows][:, start : start + step],
                )
                if score == "vocabulary":
                    scores.append(logits.softmax(-1)[..., self.config.yes_token_id])
                else:
                    difference = self.yes_minus_no(logits)
                    scores.append(difference.sigmoid() if score == "probability" else difference)
            for row, line in zip(group, torch.cat(scores, dim=1).float().cpu().numpy(), strict=True):
                answers[row] = line[: int(counts[row])]
        return answers

    @torch.no_grad()
    def rank(
        self,
        inputs: BatchFeature,
        *,
        norm: Norm | None = None,
        state: StreamState | None = None,
        score: CandidateScore = "logit",
    ) -> list[list[ScoredItem]]:
        """Order the candidates given to the processor by how likely the answer to each is Yes.

        A model that was not trained for that (`yes_no_loss` none) orders them by the log-probability of their
        identifiers.

        Args:
            inputs ([`~transformers.BatchFeature`]): Output of `processor(requests, candidates=...)`.
            norm (`str`, *optional*): As in [`retrieve`]; only for identifiers.
            state (*optional*): Refused: a prompt contains the history of its request.
            score (`str`): The score of an item: `"logit"`, logit(Yes) - logit(No), any number; `"probability"`, the
                softmax of the two, which orders items in the same way; `"vocabulary"`, the probability of Yes among
                all tokens, as in the released code.

        Returns:
            `list[list[ScoredItem]]`: For each request its candidates, best first.

        Raises:
            RequestError: If the inputs contain no candidates, `score` is unknown, or a state is given.
        """
        if state is not None:
            inputs = self._ask_behind(inputs, state)
        if self.config.yes_no_loss == "none":
            return super().rank(inputs, norm=norm)
        return self._rank(
            inputs,
            inputs["behavior_ids"].tolist(),
            lambda snapshot, _: self.score_candidates(inputs, score, snapshot),
            reads_views=score == "logit",
        )

    # ---- the whole catalogue ----

    def encode_retrieval_prompts(self, histories: EncodedHistories, layout: Tensor) -> tuple[Tensor, Tensor]:
        """Encode the prompts that ask for an identifier.

        Args:
            histories ([`EncodedHistories`]): The encoded batch.
            layout (`torch.LongTensor` of shape `(batch, length)`): The prompts, padded on the left.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: Encoder states `(batch, length, d_model)`, and a mask `(batch,
            length)`, int64, 0 for padding.
        """
        mask = (layout != PADDING).long()
        embeds = self._fill(layout, self._event_bank(histories))[:, 0]
        states: Tensor = self.encoder(inputs_embeds=embeds, attention_mask=mask)[0]
        return states, mask

    def decoder_prefix(self, behavior: Behavior, num_rows: int) -> Tensor:
        """Return what the decoder reads before an identifier: the behavior token, in place of its start token."""
        return super().decoder_prefix(behavior, num_rows)[:, 1:]

    def _encode(self, snapshot: GenerativeSnapshot, inputs: BatchFeature) -> tuple[Tensor, Tensor]:
        """Encode the prompts that ask for an identifier; see [`GenerativeModel`]."""
        features = {name: value.to(self.device) for name, value in inputs.items()}
        return self.encode_retrieval_prompts(self.encode_histories(features, snapshot), _retrieval_layout(features))

    def _find(
        self,
        snapshot: GenerativeSnapshot,
        inputs: BatchFeature,
        top_k: np.ndarray,
        allowed: Masks,
        num_beams: int | Sequence[int],
        norm: Norm | None,
        added: AddedScores | None,
        exact: bool,
    ) -> list[Found]:
        """Find identifiers, or order items by the answers to them, as `config.retrieve_by` says.

        With inputs that were made with an older or a newer catalogue, the items that both have are asked about.
        """
        if self.config.retrieve_by == "identifier":
            if not self.config.identifier_weight:
                raise RequestError(
                    "The model was not trained to write identifiers (`identifier_weight` is 0), so it cannot search "
                    "the whole catalogue with them; call `rank` with candidates, or train it with `retrieve_by` "
                    "'answer' or 'views'."
                )
            return super()._find(snapshot, inputs, top_k, allowed, num_beams, norm, added, exact)
        num_known = len(_catalog_texts(inputs))
        if num_known < snapshot.num_items:
            allowed = without_rows(allowed, np.arange(num_known, snapshot.num_items), snapshot.catalog)
        if self.config.retrieve_by == "views":
            added = self._what_finds(inputs, added)
            counts = [max(NUM_VIEWED, int(count)) for count in top_k]
            rows = added.best(counts, allowed)
            new = snapshot.new_rows(self.config.num_items)
            if len(new):
                rows = _with_best_new(rows, new, counts, allowed, added)
        else:
            rows = [np.arange(snapshot.num_items) if mask is None else np.flatnonzero(mask) for mask in allowed]
        scores = self._ask(snapshot, inputs, rows)
        if added is not None:
            scores = [own + more for own, more in zip(scores, added.at(rows), strict=True)]
        ordered = best_first(rows, scores)
        return [(found[:count], values[:count]) for (found, values), count in zip(ordered, top_k, strict=True)]

    def _what_finds(self, inputs: BatchFeature, added: AddedScores | None) -> AddedScores:
        """Return the scores by which views find items, or say which task has none."""
        weights = {} if self.views is None else self.view_weights
        asked = {BEHAVIORS[number] for number in inputs["behavior_ids"].tolist()}
        tasks = sorted(asked if added is None else asked - weights.keys())
        if added is None or tasks:
            raise RequestError(
                f"`retrieve_by` is 'views', but no view of the model has a weight in {' or '.join(tasks)} "
                f"(`view_weights` is {list(self.config.view_weights)}), so it cannot search the whole catalogue; call "
                "`rank` with candidates, or set views (`set_views`) and weights for that task."
            )
        return added

    def _ask(self, snapshot: GenerativeSnapshot, inputs: BatchFeature, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Score some items of the catalogue for each request: logit(Yes) - logit(No)."""
        texts, asked = _catalog_texts(inputs), Ragged.from_arrays(rows)
        read = inputs["item_rows"].cpu().numpy()
        # The items of the histories and those asked about, each once; -1, for none, finds the last place.
        named, places = np.unique(np.concatenate([read, asked.values]), return_inverse=True)
        of_history = torch.from_numpy(np.append(places[: len(read)], -1))
        features = {name: value for name, value in inputs.items() if name != _CATALOG_TEXTS}
        features["item_rows"] = torch.from_numpy(named)
        features["item_text_ids"] = texts[features["item_rows"].to(texts.device)].long()
        features["history_items"] = of_history[inputs["history_items"].cpu()]
        features["candidate_items"] = torch.from_numpy(Ragged(places[len(read) :], asked.offsets).pad(-1, width=1))
        return self.score_candidates(BatchFeature(features), snapshot=snapshot)

    @property
    def finds_by_views(self) -> bool:
        """Whether `retrieve` scores what views rank best, and nothing else."""
        return self.config.retrieve_by == "views"

    @torch.no_grad()
    def score_items(self, inputs: BatchFeature, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Score items as `retrieve` does, with nothing added; see the base."""
        if self.config.retrieve_by == "identifier":
            return super().score_items(inputs, rows)
        return self._ask(self.current_snapshot(), inputs, rows)

    # ---- training ----

    def forward(
        self,
        candidate_items: Tensor | None = None,
        candidate_labels: Tensor | None = None,
        identifier_inputs: Tensor | None = None,
        identifier_labels: Tensor | None = None,
        user_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        encoder_outputs: BaseModelOutput | None = None,
        **features: Any,
    ) -> Any:
        """Score candidates and compute the losses; without `item_rows` this is T5's own `forward`.

        Args:
            candidate_items (`torch.LongTensor` of shape `(batch, num_candidates)`, *optional*): Positions among the
                batch's items.
            candidate_labels (`torch.LongTensor` of shape `(batch, num_candidates)`, *optional*):
                1 for Yes, 0 for No; -100 is ignored.
            identifier_inputs (`torch.LongTensor` of shape `(batch, num_levels)`, *optional*): The behavior token, then
                all codes but the last, as tokens.
            identifier_labels (`torch.LongTensor` of shape `(batch, num_levels)`, *optional*): The codes, as tokens.
            user_ids (`torch.LongTensor` of shape `(batch,)`, *optional*): Numbers of the users, for the contrastive
                loss: rows of one user are not set apart.
            attention_mask (`torch.LongTensor`, *optional*): Argument of T5's own `forward`, as are the next two.
            decoder_input_ids (`torch.LongTensor`, *optional*): What is written so far.
            encoder_outputs (`BaseModelOutput`, *optional*): Prompts that `encode_retrieval_prompts` encoded.
            features: Output of [`GenSRProcessor`], see there; or other arguments of T5's own `forward`.

        Returns:
            [`GenSROutput`]: The scores, and the losses that the batch has labels for.
        """
        if "item_rows" not in features:
            return super().forward(
                attention_mask=attention_mask,
                decoder_input_ids=decoder_input_ids,
                encoder_outputs=encoder_outputs,
                **features,
            )
        histories = self.encode_histories(features)
        output = GenSROutput()
        total: Tensor | None = None
        if candidate_items is not None and self.config.yes_no_loss != "none":
            _check_features(features, "prompt_layout", "suffix_layout")
            logits = self.candidate_logits(
                histories, features["prompt_layout"], features["suffix_layout"], candidate_items
            )
            output["candidate_logits"] = self.yes_minus_no(logits)
            if candidate_labels is not None:
                total = output["yes_no_loss"] = self._yes_no_loss(logits, candidate_labels)
        if identifier_labels is not None and self.config.identifier_weight:
            states, mask = self.encode_retrieval_prompts(histories, _retrieval_layout(features))
            output["identifier_loss"] = self._identifier_loss(states, mask, identifier_inputs, identifier_labels)
            weighted = self.config.identifier_weight * output["identifier_loss"]
            total = weighted if total is None else total + weighted
        if total is not None and self.config.contrast_weight:
            output["contrast_loss"] = self._contrast_loss(histories, user_ids)
            total = total + self.config.contrast_weight * output["contrast_loss"]
        if total is not None:
            output["loss"] = total
        return output

    def _yes_no_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.config.yes_no_loss == "listwise":
            scores = self.yes_minus_no(logits).masked_fill(labels == -100, float("-inf"))
            return -scores.log_softmax(-1)[labels == 1].mean()
        numbers = (0, 1) if self.config.loss_norm == "level" else (self.config.no_token_id, self.config.yes_token_id)
        answers = torch.where(labels == 1, numbers[1], numbers[0]).masked_fill(labels == -100, -100)
        return token_loss(logits.flatten(0, 1), answers.flatten(), None)

    def _identifier_loss(self, states: Tensor, mask: Tensor, inputs: Tensor | None, labels: Tensor) -> Tensor:
        hidden = self.decoder(
            input_ids=inputs, encoder_hidden_states=states, encoder_attention_mask=mask, use_cache=False
        )[0]
        if self.config.scale_decoder_outputs:
            hidden = hidden * self.model_dim**-0.5
        if self.config.loss_norm == "level":
            return level_loss(hidden.flatten(0, 1), labels.flatten(), self.lm_head.weight, self.config, None)
        return token_loss(self.lm_head(hidden).flatten(0, 1), labels.flatten(), None)

    def _contrast_loss(self, histories: EncodedHistories, users: Tensor | None) -> Tensor:
        has_history = histories.mask[:, 1:].any(1)
        mask = histories.mask[has_history, 1:]
        vectors = [
            view.history_to_prompt(_masked_mean(histories.states[name][has_history, 1:], mask))
            for name, view in self.history_views.items()
        ]
        known = None if users is None else users[has_history]
        return view_contrast(vectors[0], vectors[1], self.config.contrast_temperature, known)


def _check_features(features: Mapping[str, Tensor], *names: str) -> None:
    missing = [name for name in names if name not in features]
    if missing:
        raise RequestError(f"The batch has no {', '.join(map(repr, missing))}; make it with the model's processor.")


def _retrieval_layout(features: Mapping[str, Tensor]) -> Tensor:
    """Return the prompts for writing identifiers; they are left out where they equal those of candidates."""
    return features["retrieval_layout" if "retrieval_layout" in features else "prompt_layout"]


def _with_best_new(
    found: Sequence[np.ndarray], new: np.ndarray, counts: Sequence[int], allowed: Masks, added: AddedScores
) -> list[np.ndarray]:
    """Ask about the best of the new items, too: of so many rows as large a share as they are of all items.

    What views say of a new item is a mean of what they say of others, which lies below their best.

    Args:
        found (`Sequence[np.ndarray]`): int64 rows of the catalogue that were found for each request.
        new (`np.ndarray`): int64 rows of the new items, at least one, ascending.
        counts (`Sequence[int]`): Rows wanted of all items, for each request.
        allowed (`list`): bool of shape `(num_items,)` for each request; `None` allows every item.
        added ([`AddedScores`]): What items are found by.
    """
    held = range(int(new[0]), added.num_items)
    is_new = np.zeros(len(held), bool)
    is_new[new - held.start] = True
    masks = {id(mask): is_new if mask is None else is_new & mask[held.start :] for mask in allowed}
    wanted = [-(-count * len(new) // added.num_items) for count in counts]
    more = added.best(wanted, [masks[id(mask)] for mask in allowed], held)
    return [np.concatenate([own, rows[~np.isin(rows, own)]]) for own, rows in zip(found, more, strict=True)]


def _catalog_texts(inputs: BatchFeature) -> Tensor:
    """Return the token ids of the texts of all items of the catalogue that inputs were made with."""
    if _CATALOG_TEXTS not in inputs:
        raise RequestError(
            "The inputs contain no texts of the catalogue's items, which the model has to score; make them with the "
            "model's own processor, without candidates."
        )
    texts: Tensor = inputs[_CATALOG_TEXTS]
    return texts


__all__ = ["CandidateScore", "EncodedHistories", "GenSRForConditionalGeneration", "GenSROutput"]
