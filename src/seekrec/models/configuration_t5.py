# SPDX-License-Identifier: Apache-2.0
"""The settings that GenSAR and GenSR share: those of T5, and the position of identifiers in its vocabulary.

No `from __future__ import annotations` here: with types as strings, `strict` checks none of them.
"""

from typing import ClassVar

from huggingface_hub.dataclasses import strict
from transformers import T5Config

from seekrec.identifiers.levels import IdentifierLevels
from seekrec.models.repository import InPackage
from seekrec.models.views.weights import NO_VIEWS, read_view_weights
from seekrec.schema import View


# Identical to T5Config except: the fields below. As there, `tie_word_embeddings=False` at creation says that decoder
# states are not scaled (`scale_decoder_outputs`), nothing else.
@strict
class IdentifierT5Config(InPackage, IdentifierLevels, T5Config):
    """Configuration of a T5 that has tokens for identifiers, on top of [`IdentifierLevels`].

    Args:
        d_model (`int`): Without a backbone: width of the model.
        d_ff (`int`): Without a backbone: width of the feed-forward layers.
        num_layers (`int`): Without a backbone: number of layers of the encoder, and of the decoder.
        num_heads (`int`): Without a backbone: number of attention heads.
        dropout_rate (`float`): Without a backbone: dropout.
        views (`list[str]`): The identifiers that exist: `"semantic"`, `"collaborative"` or both.
        first_identifier_token_id (`int`):
            Token id of the first behavior token; the three behavior tokens and then every level's codes follow it
            without gaps.
        identifier_hash (`str`, *optional*):
            Hash of the identifiers that the model was trained for. A catalogue with another hash is refused.
        num_items (`int`):
            Items that the model was trained with, the first rows of the catalogue; 0 before it has one. Later items
            are scored together with the beams.
        table_hash (`str`, *optional*):
            Hash of the ids of these items, to whose rows vectors and views belong. A catalogue that begins otherwise
            is refused.
        view_weights (`list[str]`):
            Weights of what is added to answers, see [`Views`]: `search.lexical=0.5`, `recommendation.collaborative=1`;
            `validation` alone lets the recipe choose them, `none` is none. In no paper.
        views_hash (`str`, *optional*): Digest of the views that the model was saved with.
        untied_head (`bool`):
            Whether the output layer has weights of its own, as in T5 1.1, Flan-T5 and mT5, or those of the token
            embeddings.

    Raises:
        StrictDataclassFieldValidationError: If a value has the wrong type.
        StrictDataclassClassValidationError: If values contradict each other.
    """

    after_training: ClassVar[tuple[str, ...]] = ("view_weights",)
    fields_from_data: ClassVar[tuple[str, ...]] = (
        "num_shared_levels",
        "num_specific_levels",
        "codebook_size",
        "views",
        "first_identifier_token_id",
        "identifier_hash",
        "num_items",
        "table_hash",
        "views_hash",
        "untied_head",
    )
    fields_from_base: ClassVar[tuple[str, ...]] = ("d_model", "d_ff", "num_layers", "num_heads", "dropout_rate")

    views: list[View] | tuple[View, ...] = ("semantic", "collaborative")
    first_identifier_token_id: int = 32100
    identifier_hash: str | None = None
    num_items: int = 0
    table_hash: str | None = None
    untied_head: bool = False
    view_weights: list[str] | tuple[str, ...] = NO_VIEWS
    views_hash: str | None = None

    @property
    def num_identifier_tokens(self) -> int:
        """Behavior tokens and codes together."""
        return 3 + self.codebook_size * (self.num_shared_levels + len(self.views) * self.num_specific_levels)

    @property
    def writes_identifiers(self) -> bool:
        """Whether the model writes identifiers."""
        return True

    def validate_view_weights(self) -> None:
        """Check that the weights of views are numbers of views that there are."""
        read_view_weights(self.view_weights)

    def validate_identifiers(self) -> None:
        """Check that the identifier fields agree with each other."""
        if not self.writes_identifiers:
            return
        if self.num_shared_levels < 0 or self.num_specific_levels < 0 or self.num_levels < 1:
            raise ValueError(
                f"`num_shared_levels` is {self.num_shared_levels} and `num_specific_levels` is "
                f"{self.num_specific_levels}; an identifier needs at least one level."
            )
        if not self.views or len(set(self.views)) != len(self.views):
            raise ValueError(f"`views` is {list(self.views)}; use 'semantic', 'collaborative' or both, each once.")
        if self.codebook_size < 1:
            raise ValueError(f"`codebook_size` is {self.codebook_size}; it must be at least 1.")
        needed = self.first_identifier_token_id + self.num_identifier_tokens
        if self.identifier_hash is not None and needed > self.vocab_size:
            raise ValueError(
                f"`vocab_size` is {self.vocab_size}, but the identifier tokens end at {needed}; resize the token "
                "embeddings before setting `identifier_hash`."
            )


__all__ = ["IdentifierT5Config"]
