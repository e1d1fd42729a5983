# SPDX-License-Identifier: Apache-2.0
"""The settings of a GenSR model: those of T5, of the two views, and the position of identifiers in the vocabulary.

No `from __future__ import annotations` here: with types as strings, `strict` checks none of them.
"""

from typing import ClassVar, Literal

from huggingface_hub.dataclasses import strict

from seekrec.models.configuration_t5 import IdentifierT5Config
from seekrec.models.views.weights import BY_VALIDATION, read_view_weights
from seekrec.schema import View

VIEW_NAMES: tuple[View, ...] = ("collaborative", "semantic")

# Attention heads of a view's encoder and of its soft filter, as in the released code.
NUM_VIEW_HEADS = 2
# Positions of a history, counted from its end, that the views tell apart. The released code makes a table of positions
# and does not use it, so its encoder cannot tell the order of a history, which equations 5 and 6 are there for.
NUM_POSITIONS = 32


@strict
class GenSRConfig(IdentifierT5Config):
    """Configuration of [`GenSRForConditionalGeneration`].

    Args:
        prompt_views (`list[str]`): Views that enter the prompt: `"collaborative"`, `"semantic"` or both.
        filtered_history (`str`): What represents the history alongside a candidate, one vector per view. `"mean"`: the
            mean of its events. `"picked"`: what the candidate picks out by attention (equations 7-8). `"agreement"`:
            also where the candidate agrees with what it picks out and, in the semantic view, with the query.
            `"recommender"`: also, in the collaborative view, where the candidate agrees with the state of SASRec after
            the history.
        history_in_prompt (`str`): The part of a history that enters the prompt of a candidate: `"filtered"`, one
            vector a view; `"whole"`, every event of each view; `"both"`.
        query_as_event (`bool`): Whether the query is also the last event of the history, in both views.
        shared_prompt (`bool`): Whether what comes before the candidate in a prompt does not attend to it, so that it
            is computed once for all candidates of a request.
        item_text_fields (`list[str]`): Fields that make up the text of an item, in order.
        max_item_tokens (`int`): Maximum number of tokens of an item's text.
        max_query_tokens (`int`): Maximum number of tokens of a query.
        max_history (`int`): Maximum number of events read from a history, the latest.
        view_dropout_rate (`float`): Dropout in the views.
        yes_no_loss (`str`): How it learns to answer candidates: `"token"`, the negative log-likelihood of Yes or No
            (equation 12); `"listwise"`, that of the positive among the candidates of its request; `"none"`, not at
            all.
        identifier_weight (`float`): Weight of the loss of writing identifiers (section 6.3); with 0 it writes none.
        retrieve_by (`str`): How the whole catalogue is searched: `"identifier"`, by the identifiers that the model
            writes; `"answer"`, by its answer to each item: exact, and as slow as there are items; `"views"`, by its
            answers to the items that its views, as `view_weights` weighs them, rank best.
        contrast_weight (`float`): Weight of the contrastive loss of equation 10 (beta of equation 11).
        contrast_temperature (`float`): Temperature of the contrastive loss (tau of equation 10).
        loss_norm (`str`): What Yes, No and codes compete with in the loss: `"vocab"`, all tokens (the paper), or
            `"level"`, only each other, which is all that answers compare.
        wording (`str`): The words of a prompt; the recipe chooses by what is trained. `"sentence"`, prompts that a
            pretrained model understands; `"compact"`, the same with all words before all vectors, where
            `shared_prompt` pays for them once; `"short"`, a word or two, for a model from scratch.
        collaborative_size (`int`): Width of the collaborative table (d of the paper).
        table_scale (`float`): Factor that turns the collaborative table back into the recommender's own embeddings.
        recommender (`dict`, *optional*): With `filtered_history="recommender"`: sizes of the [`SASRecConfig`] whose
            table is the collaborative one. Its layers are part of the model, frozen; `set_recommender` brings them.
        yes_token_id (`int`): Token of a candidate that the user acts on.
        no_token_id (`int`): Token of one that the user does not act on.

    Raises:
        StrictDataclassFieldValidationError: If a value has the wrong type.
        StrictDataclassClassValidationError: If values contradict each other.
    """

    model_type = "gensr"
    after_training: ClassVar[tuple[str, ...]] = (*IdentifierT5Config.after_training, "retrieve_by")
    fields_from_data: ClassVar[tuple[str, ...]] = (
        *IdentifierT5Config.fields_from_data,
        "wording",
        "collaborative_size",
        "table_scale",
        "recommender",
        "yes_token_id",
        "no_token_id",
    )

    # One view alone is an ablation of figure 5.
    prompt_views: list[View] | tuple[View, ...] = VIEW_NAMES
    # Attention weighs events by their similarity with the candidate and then forgets it: a candidate like nothing in
    # the history still gets a mean of it, and one like an old event looks like one that answers the query. A large
    # generator may compare vectors by itself; a small one does not learn to in hours. And the table is what a
    # recommender has learned of items; what it has learned of their order is in its layers, and one layer over the
    # table does not learn it again.
    filtered_history: Literal["mean", "picked", "agreement", "recommender"] = "picked"
    # Equation 9 writes the matrices C_u and S_u; the released code inserts one filtered vector of each, as figure 2
    # draws it. Four vectors keep a prompt short, which is what scoring many candidates costs.
    history_in_prompt: Literal["filtered", "whole", "both"] = "filtered"
    # The paper's views know nothing of the query, so a candidate cannot filter by it. As the last event, it can: the
    # similarity of candidate and query is then an attention weight, which a small model need not learn to compute.
    query_as_event: bool = False
    # T5's encoder looks both ways, so nothing of a prompt could be shared by candidates. The paper pays for that.
    shared_prompt: bool = False
    item_text_fields: (
        list[Literal["title", "description", "categories"]] | tuple[Literal["title", "description", "categories"], ...]
    ) = ("title",)
    max_item_tokens: int = 10
    max_query_tokens: int = 32
    max_history: int = 20
    view_dropout_rate: float = 0.1
    yes_no_loss: Literal["token", "listwise", "none"] = "token"
    identifier_weight: float = 0.0
    # A model that learns to say Yes needs fewer steps than one that learns to write; a small catalogue can be asked
    # about whole.
    retrieve_by: Literal["identifier", "answer", "views"] = "identifier"
    # The released training script's; the paper tunes it from 0.001 to 0.3.
    contrast_weight: float = 0.01
    contrast_temperature: float = 0.07
    loss_norm: Literal["vocab", "level"] = "vocab"
    wording: Literal["sentence", "compact", "short"] = "sentence"
    collaborative_size: int = 64
    table_scale: float = 1.0
    recommender: dict[str, int | float] | None = None
    yes_token_id: int = 2163
    no_token_id: int = 465

    def __post_init__(self, **kwargs: object) -> None:
        if "soft_filter" in kwargs:
            # A checkpoint of an older version, which had switches in place of `filtered_history`.
            agrees, filters = kwargs.pop("agreement_in_prompt", False), kwargs.pop("soft_filter")
            agreement: Literal["agreement", "recommender"] = "agreement" if self.recommender is None else "recommender"
            self.filtered_history = "mean" if not filters else agreement if agrees else "picked"
            kwargs.pop("train_collaborative_table", None)  # the table is the same, trained or not
            for name, value in (("view_num_heads", NUM_VIEW_HEADS), ("view_positions", NUM_POSITIONS)):
                if kwargs.pop(name, value) != value:
                    raise ValueError(
                        f"The checkpoint's `{name}` is not {value}; load it with the version that wrote it."
                    )
        # Of an older version, too. Beside 0, the weight matters in training alone.
        if not kwargs.pop("yes_no_weight", 1.0):
            self.yes_no_loss = "none"
        super().__post_init__(**kwargs)

    @property
    def scores_candidates(self) -> bool:
        """Whether the model says Yes or No."""
        return self.yes_no_loss != "none"

    @property
    def writes_identifiers(self) -> bool:
        """Whether the model writes identifiers."""
        return self.identifier_weight > 0

    def validate_views(self) -> None:
        """Check what enters the prompt."""
        if not self.prompt_views or len(set(self.prompt_views)) != len(self.prompt_views):
            raise ValueError(
                f"`prompt_views` is {list(self.prompt_views)}; use 'collaborative', 'semantic' or both, each once."
            )
        if len(self.prompt_views) < 2 and self.contrast_weight:
            raise ValueError(
                f"`contrast_weight` is {self.contrast_weight}, but `prompt_views` is {list(self.prompt_views)}: the "
                "contrastive loss aligns two views; set the weight to 0."
            )
        for name, size in (("d_model", self.d_model), ("collaborative_size", self.collaborative_size)):
            if size % NUM_VIEW_HEADS:
                raise ValueError(
                    f"`{name}` is {size}; it must be a multiple of {NUM_VIEW_HEADS}, the number of heads per view."
                )
        if not self.item_text_fields:
            raise ValueError("`item_text_fields` is empty; use some of title, description, categories.")
        for name in ("max_item_tokens", "max_query_tokens", "max_history"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be at least 1.")

    def validate_recommender(self) -> None:
        """Check that the recommender fits the collaborative view."""
        if self.filtered_history == "recommender" and "collaborative" not in self.prompt_views:
            raise ValueError(
                "`filtered_history` is 'recommender', which needs the collaborative view in `prompt_views`; use "
                "'agreement'."
            )
        if self.recommender is None:
            return
        if self.filtered_history != "recommender":
            raise ValueError(f"`recommender` is given, but `filtered_history` is {self.filtered_history!r}.")
        size, longest = self.recommender.get("hidden_size"), self.recommender.get("max_history", 0)
        if size != self.collaborative_size:
            raise ValueError(
                f"`recommender` has `hidden_size` {size}, but `collaborative_size` is {self.collaborative_size}; the "
                "table is the recommender's own."
            )
        # A start token comes before the history, and a query behind it has no item.
        if longest < self.max_history + 1:
            raise ValueError(
                f"`recommender` has `max_history` {longest}, but has to read {self.max_history} events and a start "
                "token; lower `max_history` of the model."
            )

    def validate_retrieval(self) -> None:
        """Check that there are views where they find items."""
        asks_validation = list(self.view_weights) == [BY_VALIDATION]
        if self.retrieve_by == "views" and not (asks_validation or read_view_weights(self.view_weights)):
            raise ValueError(
                "`retrieve_by` is 'views', but `view_weights` is empty; write 'validation', or numbers such as "
                "search.lexical=0.5 and recommendation.collaborative=1."
            )

    def validate_losses(self) -> None:
        """Check the weights of the losses."""
        for name in ("identifier_weight", "contrast_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must not be negative.")
        if not self.scores_candidates and not self.writes_identifiers:
            raise ValueError("`yes_no_loss` is 'none' and `identifier_weight` 0; train at least one mode.")
        if self.retrieve_by != "identifier" and not self.scores_candidates:
            raise ValueError(
                f"`retrieve_by` is {self.retrieve_by!r}, but `yes_no_loss` is 'none': the model cannot score "
                "candidates."
            )
        if self.contrast_temperature <= 0:
            raise ValueError(f"`contrast_temperature` is {self.contrast_temperature}; it must be positive.")
        if self.yes_token_id == self.no_token_id:
            raise ValueError(f"`yes_token_id` and `no_token_id` are both {self.yes_token_id}; they must differ.")


__all__ = ["NUM_POSITIONS", "NUM_VIEW_HEADS", "VIEW_NAMES", "GenSRConfig"]
