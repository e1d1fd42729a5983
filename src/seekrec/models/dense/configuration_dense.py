# SPDX-License-Identifier: Apache-2.0
"""The settings that IntSR and SynerGen share.

No `from __future__ import annotations` here: with types as strings, `strict` checks none of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import ClassVar, Literal, Self

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from seekrec.embeddings.softmax import LARGE_CATALOG
from seekrec.models.repository import InPackage
from seekrec.models.views.weights import NO_VIEWS, read_view_weights
from seekrec.schema import BEHAVIORS
from seekrec.util.settings import option_values


@strict
class DenseConfig(InPackage, PreTrainedConfig):
    """Configuration that [`IntSRConfig`] and [`SynerGenConfig`] share.

    The data it is made for:

    Args:
        num_items (`int`): Items that training knows; 0 as long as it is not known.
        num_words (`int`): Words that are learned, see [`~seekrec.models.words.WordEmbedding`].
        num_categories (`int`): Names of categories that are read.
        text_size (`int`): Width of the items' text vectors; 0 where they are not read.
        query_size (`int`): Width of query vectors, and of those of categories.
        num_actions (`int`): Actions that the model distinguishes; one more stands for all others.
        items_hash (`str`, *optional*): Hash of the ids of the items. A catalogue that begins otherwise is refused.
        texts_hash (`str`, *optional*): Hash of the text vectors of the items.
        views_hash (`str`, *optional*): Digest of the views that the model was saved with.
        ranking_scales (`list[float]`): With `ranks_with_retrieval`, chosen on validation, five numbers for each task
            in turn: a factor of what the ranking head says, one of the score of `retrieve` as far as it is below a
            knee and one as far as it is above, the knee, and a shift; as trained if empty.

    The items and the decoder:

    Args:
        item_reading (`list[str]`): What an item's vector is the sum of: `vector`, learned for each item; `text`, its
            frozen text vector, projected; `categories`, the frozen vectors of its categories' names, projected, which
            titles and descriptions do not say; `words`, learned for each word of title, description and categories.
        query_reading (`list[str]`): What is read of a query: `text`, its frozen vector, projected; `words`, learned,
            and the same words that items have; `none`: queries are not read.
        max_history (`int`): Maximum number of latest events read of a history.
        session_ids (`str`): What `session_id` of events means: `page_view`, whose events do not see each other, or
            `visit`, which changes nothing; `auto`, a guess by the training events.
        hidden_size (`int`): Width of the decoder.
        num_hidden_layers (`int`): Number of layers.
        num_attention_heads (`int`): Number of heads.
        dropout (`float` or `list[float]`): Dropout on the output of each layer and on the tokens: one number for both,
            or one for each.
        starts_from_latest_item (`bool`): Whether a question that retrieves begins with the vector of the latest item
            it sees, as the state of SASRec does. Off in both papers.

    What is learned, and what is added to answers:

    Args:
        negatives (`str`): What a target is compared with: `full`, every item of the catalogue; `uniform` or
            `popularity`, items drawn so (by popularity, the log-probability of being drawn is taken off
            similarities); `hard`, the most similar items at that moment (IntSR alone); `auto`, full up to 50,000
            items, then popularity.
        num_training_negatives (`int`): Number of negatives of a question, unless full.
        temperature (`float`): tau, divides similarities in the loss.
        seen_compete (`bool`): Whether a recommendation is compared with the items that its question sees too, as in
            both papers; SynerGen's targets of a batch always are. Off suits answers that leave out what the user
            knows: who returns to the same items is then not learned as a dislike of what is like them.
        ranking_weight (`float`): Weight of the ranking loss on candidates, 1 in SynerGen's paper; 0 for no ranking
            head (its table 4), and `rank` orders by retrieval.
        ranks_with_retrieval (`bool`): Whether the ranking head begins with what retrieval says of a candidate: its
            logit is what it says itself, and the score of `retrieve` times a learned factor, and a learned shift. The
            ranking loss does not move that score. After training, validation scales both for each task, such that
            `rank` answers with the chance of an act and orders no worse than `retrieve`. Off in both papers.
        view_weights (`list[str]`): Weights of what is added to answers, see [`Views`]: `search.lexical=0.5`,
            `recommendation.collaborative=1`; `validation` alone lets the recipe choose them, `none` is none. In
            neither paper.

    Raises:
        StrictDataclassClassValidationError: If a number is out of range, or settings contradict each other.
    """

    after_training: ClassVar[tuple[str, ...]] = ("view_weights",)
    fields_from_data: ClassVar[tuple[str, ...]] = (
        *("num_items", "num_words", "num_categories", "text_size", "query_size", "num_actions"),
        *("items_hash", "texts_hash", "views_hash", "ranking_scales"),
    )
    # What earlier versions could set, and the one value that there is now.
    fixed_settings: ClassVar[dict[str, object]] = {
        "similarity": "dot",
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-6,
    }

    # What another setting contains today.
    renamed_settings: ClassVar[dict[str, str]] = {"embedding_dropout": "dropout", "item_parts": "item_reading"}

    num_items: int = 0
    num_words: int = 0
    num_categories: int = 0
    text_size: int = 384
    query_size: int = 384
    num_actions: int = 1
    items_hash: str | None = None
    texts_hash: str | None = None
    views_hash: str | None = None
    ranking_scales: list[float] = field(default_factory=list)

    item_reading: list[Literal["vector", "text", "categories", "words"]] = field(
        default_factory=lambda: ["vector", "text"]
    )
    query_reading: list[Literal["text", "words", "none"]] = field(default_factory=lambda: ["text"])
    max_history: int = 50
    session_ids: Literal["auto", "page_view", "visit"] = "auto"
    hidden_size: int = 64
    num_hidden_layers: int = 2
    num_attention_heads: int = 2
    dropout: float | list[float] = 0.2
    starts_from_latest_item: bool = False

    negatives: Literal["auto", "full", "uniform", "popularity", "hard"] = "auto"
    num_training_negatives: int = 20
    temperature: float = 1.0
    seen_compete: bool = True
    ranking_weight: float = 0.0
    ranks_with_retrieval: bool = False
    view_weights: list[str] | tuple[str, ...] = NO_VIEWS

    def __post_init__(self, **kwargs: object) -> None:
        for name, today in self.renamed_settings.items():
            if name in kwargs:
                raise ValueError(f"`{name}` is no longer a separate setting; it is part of `{today}`.")
        if isinstance(self.dropout, list) and len(set(self.dropout)) == 1:
            self.dropout = self.dropout[0]
        if self.query_reading == ["none"]:
            self.query_reading = []
        if "text" not in self.item_reading:
            self.text_size = 0
        if self.negatives == "auto" and self.num_items:
            self.negatives = "full" if self.num_items <= LARGE_CATALOG else "popularity"
        super().__post_init__(**kwargs)

    @property
    def reads_words(self) -> bool:
        """Whether words are learned, of items or queries."""
        return "words" in self.item_reading or "words" in self.query_reading

    @property
    def layer_dropout(self) -> float:
        """Dropout on the output of each layer."""
        return self.dropout[0] if isinstance(self.dropout, list) else self.dropout

    @property
    def token_dropout(self) -> float:
        """Dropout on the tokens."""
        return self.dropout[-1] if isinstance(self.dropout, list) else self.dropout

    @property
    def drawn_negatives(self) -> Literal["uniform", "popularity"] | None:
        """How items are drawn that a loss compares with a target; None where no loss needs them."""
        raise NotImplementedError

    def with_data(self, **found: object) -> Self:
        """Return these settings with the fields that data decide.

        Args:
            found: Fields named in `fields_from_data`, and options that data decide where they are `auto`.
        """
        make: Callable[..., Self] = type(self)
        return make(**{**option_values(self), **found})

    @classmethod
    def from_dict(cls, config_dict: dict[str, object], **kwargs: object) -> Self:
        """Make a configuration from saved settings, those of earlier versions among them.

        Raises:
            ValueError: If an earlier version set what can no longer be set.
        """
        settings = dict(config_dict)
        cls._drop_fixed(settings, cls.fixed_settings)
        parts = settings.pop("item_parts", "both" if settings.pop("use_ids", True) else "text")
        settings.setdefault("item_reading", {"ids": ["vector"], "text": ["text"]}.get(str(parts), ["vector", "text"]))
        if "embedding_dropout" in settings:
            settings["dropout"] = [settings.get("dropout", cls.dropout), settings.pop("embedding_dropout")]
        fused = {
            "collaborative": settings.pop("recommender_weight", 0.0),
            "semantic": settings.pop("text_weight", 0.0),
        }
        settings.pop("recommender", None)
        if any(fused.values()):
            settings["view_weights"] = [f"recommendation.{name}={weight}" for name, weight in fused.items() if weight]
        scales = settings.get("ranking_scales")
        if isinstance(scales, list) and len(scales) == 3 * len(BEHAVIORS):
            # One factor of the score of `retrieve`, wherever it is.
            tasks = zip(scales[::3], scales[1::3], scales[2::3], strict=True)
            settings["ranking_scales"] = [
                number for own, score, shift in tasks for number in (own, score, score, 0.0, shift)
            ]
        settings = cls._upgrade(settings)
        # Follows from `negatives`; read by training alone.
        settings.pop("correct_sampling", None)
        made: Self = super().from_dict(settings, **kwargs)
        return made

    @staticmethod
    def _drop_fixed(settings: dict[str, object], fixed: Mapping[str, object]) -> None:
        """Take out what is no longer a setting; refuse a value other than that of today."""
        for name, value in fixed.items():
            if (saved := settings.pop(name, value)) != value:
                raise ValueError(
                    f"`{name}` is {saved!r} in the saved configuration, but only {value!r} is supported today; load "
                    "the model with the version that trained it."
                )

    @classmethod
    def _upgrade(cls, settings: dict[str, object]) -> dict[str, object]:
        """Return saved settings under the names of today."""
        return settings

    def validate_sizes(self) -> None:
        """Check that numbers are within range."""
        self._check_at_least(1, "hidden_size", "num_hidden_layers", "num_attention_heads", "max_history", "query_size")
        self._check_at_least(1, "num_actions", "num_training_negatives")
        self._check_at_least(0, "num_items", "num_words", "num_categories", "text_size", "ranking_weight")
        rates = self.dropout if isinstance(self.dropout, list) else [self.dropout]
        if len(rates) not in (1, 2) or not all(0 <= rate < 1 for rate in rates):
            raise ValueError(
                f"`dropout` is {self.dropout}; give a number from 0 up and below 1, or two: of layers and of tokens."
            )
        if not self.temperature > 0:
            raise ValueError(f"`temperature` is {self.temperature}; it must be above 0.")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`hidden_size` is {self.hidden_size}, which {self.num_attention_heads} heads do not divide; change "
                "`hidden_size` or `num_attention_heads`."
            )

    def validate_ranking(self) -> None:
        """Check that there is a ranking head where a setting needs one, and the shape of what scales it."""
        if len(self.ranking_scales) not in (0, 5 * len(BEHAVIORS)):
            raise ValueError(
                f"`ranking_scales` has {len(self.ranking_scales)} numbers; give none, or five for each task."
            )
        if self.ranks_with_retrieval and not self.ranking_weight:
            raise ValueError(
                "`ranks_with_retrieval` is on and `ranking_weight` 0, so there is no ranking head; give it a weight "
                "or switch the other off."
            )

    def validate_items(self) -> None:
        """Check that items have vectors, and that the weights of views are numbers of views that there are."""
        read_view_weights(self.view_weights)
        for name in ("item_reading", "query_reading"):
            named = getattr(self, name)
            if len(set(named)) < len(named) or "none" in named:
                raise ValueError(f"`{name}` is {', '.join(named)}; name each once, and 'none' alone.")
        if not self.item_reading or (self.item_reading == ["text"] and not self.text_size):
            raise ValueError(
                f"`item_reading` is {', '.join(self.item_reading) or 'empty'} and `text_size` {self.text_size}, so "
                "items would have no vectors; change one."
            )

    def _check_at_least(self, least: int, *names: str) -> None:
        for name in names:
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be at least {least}.")


__all__ = ["DenseConfig"]
