# SPDX-License-Identifier: Apache-2.0
"""The settings of a GenSR model: T5's, those of the two views, and how identifiers stand in the vocabulary.

No `from __future__ import annotations` here: with types as strings, `strict` checks none of them.
"""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import T5Config

VIEW_NAMES = ("collaborative", "semantic")


# Identical to T5Config except: the fields below. As there, `tie_word_embeddings=False` at creation says that decoder
# states are not scaled (`scale_decoder_outputs`), nothing else.
@strict
class GenSRConfig(T5Config):
    """Configuration of [`GenSRForConditionalGeneration`].

    Args:
        untied_head (`bool`): The output layer is one of its own, as in T5 1.1, Flan-T5 and mT5; otherwise it is the
            token embeddings.
        num_items (`int`): Rows of the collaborative table; 0 until `set_collaborative_table` is called.
        collaborative_size (`int`): Width of the collaborative table (d of the paper).
        train_collaborative_table (`bool`): Train the table with the rest; frozen in the paper.
        view_num_heads (`int`): Attention heads of a view's encoder and of its soft filter.
        view_dropout_rate (`float`): Dropout in the views.
        view_positions (`int`): Places of a history, counted from its end, that the views tell apart; 0 for none.
        prompt_views (`list[str]`): Views that enter the prompt: `"collaborative"`, `"semantic"` or both.
        soft_filter (`bool`): Weigh the history by the candidate (equations 7-8); the mean of the history if not.
        agreement_in_prompt (`bool`): The filtered vector of a view also says where the candidate agrees with what it
            picked out, and that of the semantic view where it agrees with the query; off in the paper.
        recommender (`dict`, *optional*): Settings of a [`SASRecConfig`] if the collaborative table is a SASRec's and
            the filtered vector of that view shall also say where the candidate agrees with the state that this SASRec
            has after the history. Its layers are part of the model then, frozen; `set_recommender` brings them.
        table_scale (`float`): The collaborative table times this is as the recommender has it.
        history_in_prompt (`str`): What of a history enters the prompt of a candidate: `"filtered"`, one vector a view;
            `"whole"`, every event of each view; `"both"`.
        query_as_event (`bool`): What is searched for now also stands as the last event of the history, in both views.
        shared_prompt (`bool`): What stands before the candidate in a prompt does not attend to it, so it is computed
            once for all candidates of a request.
        yes_token_id (`int`): The token of a candidate that the user acts on.
        no_token_id (`int`): The token of another.
        yes_no_loss (`str`): `"token"`, the negative log-likelihood of Yes or No (equation 12), or `"listwise"`, that
            of the positive among the candidates of its request.
        yes_no_weight (`float`): Weight of that loss; 0: the model does not score candidates.
        identifier_weight (`float`): Weight of the loss of writing identifiers (section 6.3); 0: it writes none.
        retrieve_by (`str`): What `retrieve` goes by: `"identifier"`, those that the model writes; `"answer"`, what it
            answers to each item of the catalogue: exact, and as many candidates as there are items.
        contrast_weight (`float`): Weight of the contrastive loss of equation 10 (beta of equation 11).
        contrast_temperature (`float`): tau of equation 10.
        loss_norm (`str`): What Yes, No and codes compete with in the loss: `"vocab"`, all tokens (the paper), or
            `"level"`, each other alone, which is all that answers compare.
        wording (`str`): `"sentence"`, prompts that a pretrained model understands; `"compact"`, the same with all
            words before all vectors, where `shared_prompt` pays for them once; `"short"`, a word or two, for a model
            from scratch.
        item_text_fields (`list[str]`): What describes an item: `"title"`, `"description"`, `"categories"`, in order.
        max_item_tokens (`int`): Tokens kept of an item's text.
        max_query_tokens (`int`): Tokens kept of a query.
        max_history (`int`): Latest events kept of a history.
        first_identifier_token_id (`int`): Token id of the first behavior token; see [`GenSARConfig`].
        num_shared_levels (`int`): Levels that both identifiers of an item share.
        num_specific_levels (`int`): Levels of each identifier's own.
        codebook_size (`int`): Codes a level.
        views (`list[str]`): The identifiers that exist.
        identifier_hash (`str`, *optional*): Of the catalogue the model was trained for.
        table_hash (`str`, *optional*): Of the item ids that the rows of the collaborative table belong to.

    Raises:
        StrictDataclassFieldValidationError: If a value has the wrong type.
        StrictDataclassClassValidationError: If values contradict each other.
    """

    model_type = "gensr"

    untied_head: bool = False
    num_items: int = 0
    collaborative_size: int = 64
    train_collaborative_table: bool = False
    view_num_heads: int = 2
    view_dropout_rate: float = 0.1
    # The released code makes a table of positions and does not use it, so its encoder cannot tell the order of a
    # history, which equations 5 and 6 are there for.
    view_positions: int = 32
    # One view alone is an ablation of figure 5.
    prompt_views: list[str] | tuple[str, ...] = VIEW_NAMES
    soft_filter: bool = True
    # Attention weighs events by their similarity with the candidate and then forgets it: a candidate like nothing in
    # the history still gets a mean of it, and one like an old event looks like one that answers the query. A large
    # generator may compare vectors by itself; a small one does not learn to in hours.
    agreement_in_prompt: bool = False
    # The table is what a recommender has learnt of items; what it has learnt of their order is in its layers, and one
    # layer over the table does not learn it again.
    recommender: dict[str, Any] | None = None
    table_scale: float = 1.0
    # Equation 9 writes the matrices C_u and S_u; the released code inserts one filtered vector of each, as figure 2
    # draws it. Four vectors keep a prompt short, which is what scoring many candidates costs.
    history_in_prompt: Literal["filtered", "whole", "both"] = "filtered"
    # The paper's views know nothing of the query, so a candidate cannot filter by it. As the last event, it can: the
    # similarity of candidate and query is then an attention weight, which a small model need not learn to compute.
    query_as_event: bool = False
    # T5's encoder looks both ways, so nothing of a prompt could be shared by candidates. The paper pays for that.
    shared_prompt: bool = False
    yes_token_id: int = 2163
    no_token_id: int = 465
    yes_no_loss: Literal["token", "listwise"] = "token"
    yes_no_weight: float = 1.0
    identifier_weight: float = 0.0
    # A model that learns to say Yes needs fewer steps than one that learns to write; a small catalogue can be asked
    # about whole.
    retrieve_by: Literal["identifier", "answer"] = "identifier"
    # The released training script's; the paper tunes it from 0.001 to 0.3.
    contrast_weight: float = 0.01
    contrast_temperature: float = 0.07
    loss_norm: Literal["vocab", "level"] = "vocab"
    wording: Literal["sentence", "compact", "short"] = "sentence"
    item_text_fields: list[str] | tuple[str, ...] = ("title",)
    max_item_tokens: int = 10
    max_query_tokens: int = 32
    max_history: int = 20
    first_identifier_token_id: int = 32100
    num_shared_levels: int = 2
    num_specific_levels: int = 2
    codebook_size: int = 256
    views: list[str] | tuple[str, ...] = ("semantic", "collaborative")
    identifier_hash: str | None = None
    table_hash: str | None = None

    @property
    def num_levels(self) -> int:
        """Codes in an identifier."""
        return self.num_shared_levels + self.num_specific_levels

    @property
    def num_identifier_tokens(self) -> int:
        """Behavior tokens and codes together."""
        return 3 + self.codebook_size * (self.num_shared_levels + len(self.views) * self.num_specific_levels)

    def validate_views(self) -> None:
        """Check what enters the prompt."""
        unknown = set(self.prompt_views) - set(VIEW_NAMES)
        if unknown or not self.prompt_views or len(set(self.prompt_views)) != len(self.prompt_views):
            raise ValueError(
                f"`prompt_views` is {list(self.prompt_views)}; use 'collaborative', 'semantic' or both, each once."
            )
        if self.agreement_in_prompt and not self.soft_filter:
            raise ValueError("`agreement_in_prompt` needs `soft_filter`: without it candidates pick nothing out.")
        if self.recommender is not None:
            self._validate_recommender(self.recommender)
        if len(self.prompt_views) < 2 and self.contrast_weight:
            raise ValueError(
                f"`contrast_weight` is {self.contrast_weight}, but `prompt_views` is {list(self.prompt_views)}: the "
                "contrast aligns two views; set the weight to 0."
            )
        for name, size in (("d_model", self.d_model), ("collaborative_size", self.collaborative_size)):
            if size % self.view_num_heads:
                raise ValueError(f"`{name}` is {size}, which `view_num_heads` {self.view_num_heads} does not divide.")
        fields = set(self.item_text_fields) - {"title", "description", "categories"}
        if fields or not self.item_text_fields:
            raise ValueError(
                f"`item_text_fields` is {list(self.item_text_fields)}; use some of title, description, categories."
            )
        for name in ("max_item_tokens", "max_query_tokens", "max_history"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be at least 1.")

    def _validate_recommender(self, recommender: dict[str, Any]) -> None:
        if not self.agreement_in_prompt or "collaborative" not in self.prompt_views:
            raise ValueError("`recommender` needs `agreement_in_prompt` and the collaborative view in `prompt_views`.")
        size, longest = recommender.get("hidden_size"), recommender.get("max_history", 0)
        if size != self.collaborative_size:
            raise ValueError(
                f"`recommender` has `hidden_size` {size}, but `collaborative_size` is {self.collaborative_size}; the "
                "table is the recommender's own."
            )
        # A start token stands before the history, and a query behind it has no item.
        if longest < self.max_history + 1:
            raise ValueError(
                f"`recommender` has `max_history` {longest}, but reads {self.max_history} events and a start; lower "
                "`max_history` of the model."
            )

    def validate_losses(self) -> None:
        """Check the weights of the losses."""
        for name in ("yes_no_weight", "identifier_weight", "contrast_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must not be negative.")
        if not self.yes_no_weight and not self.identifier_weight:
            raise ValueError("`yes_no_weight` and `identifier_weight` are both 0; train one mode at least.")
        if self.retrieve_by == "answer" and not self.yes_no_weight:
            raise ValueError("`retrieve_by` is 'answer', but `yes_no_weight` is 0: the model answers no candidates.")
        if self.contrast_temperature <= 0:
            raise ValueError(f"`contrast_temperature` is {self.contrast_temperature}; it must be positive.")
        if self.yes_token_id == self.no_token_id:
            raise ValueError(f"`yes_token_id` and `no_token_id` are both {self.yes_token_id}; they must differ.")

    def validate_identifiers(self) -> None:
        """Check that the identifier fields agree with each other."""
        levels = (self.num_shared_levels, self.num_specific_levels)
        if min(levels) < 0 or (self.identifier_weight and (sum(levels) < 1 or not self.views)):
            raise ValueError(
                f"`num_shared_levels` is {levels[0]}, `num_specific_levels` {levels[1]}, `views` {list(self.views)}; "
                "an identifier needs at least one level and one view."
            )
        needed = self.first_identifier_token_id + self.num_identifier_tokens
        if self.identifier_weight and self.identifier_hash is not None and needed > self.vocab_size:
            raise ValueError(
                f"`vocab_size` is {self.vocab_size}, but the identifier tokens end at {needed}; resize the token "
                "embeddings before setting `identifier_hash`."
            )


__all__ = ["VIEW_NAMES", "GenSRConfig"]
