# SPDX-License-Identifier: Apache-2.0
"""Configuration of SASRec (Kang and McAuley 2018).

No `from __future__ import annotations` here: with types as strings, `strict` checks none of them.
"""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class SASRecConfig(PreTrainedConfig):
    """Sizes of a SASRec model over `num_items` items.

    Args:
        num_items (`int`): Items of the catalogue; rows `0 ... num_items - 1`.
        hidden_size (`int`): Width of an item embedding and of every layer.
        num_hidden_layers (`int`): Transformer blocks.
        num_attention_heads (`int`): Attention heads; must divide `hidden_size`.
        intermediate_size (`int`, *optional*): Width of the feed-forward layer; `None` means `4 * hidden_size`.
        max_history (`int`): Tokens that the model sees: the last `max_history` of the start token and the items.
        embedding_dropout (`float`): Dropout after the sum of item and position embedding.
        dropout (`float`): Dropout inside a block, after attention and after the feed-forward layer.
        attention_dropout (`float`): Dropout of attention weights.
        layer_norm_eps (`float`): Added to the variance in layer norms.
        initializer_range (`float`): Standard deviation of the normal distribution of new weights.
        num_sampled_negatives (`int`): In training a target is compared with so many items, drawn uniformly for all of
            a batch; 0 for every item.
        trained_epochs (`float`, *optional*): Epochs that the weights were trained for: those after which validation
            was best.

    Raises:
        StrictDataclassFieldValidationError: If a value has the wrong type.
        StrictDataclassClassValidationError: If a value is out of its range.
    """

    model_type = "sasrec"

    num_items: int = 1
    hidden_size: int = 64
    num_hidden_layers: int = 2
    # The paper uses one head; two cost no more.
    num_attention_heads: int = 2
    intermediate_size: int | None = None
    max_history: int = 50
    # The best of the settings tried on validation of Amazon Scientific (40 epochs, learning rate 1e-3).
    embedding_dropout: float = 0.5
    dropout: float = 0.3
    attention_dropout: float = 0.0
    layer_norm_eps: float = 1e-8
    initializer_range: float = 0.02
    num_sampled_negatives: int = 0
    trained_epochs: float | None = None
    pad_token_id: int | None = 0

    def __post_init__(self, **kwargs: object) -> None:
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        super().__post_init__(**kwargs)

    @property
    def start_token_id(self) -> int:
        """The token before a user's first item: an empty history has an answer too."""
        return self.num_items + 1

    def validate_sizes(self) -> None:
        """Refuse sizes that no model can have; `strict` calls this.

        Raises:
            ValueError: If a size is not positive, a dropout is outside [0, 1) or the heads do not divide the width.
        """
        for name in ("num_items", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_history"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"`{name}` is {value}; it must be at least 1.")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`hidden_size` is {self.hidden_size}, which {self.num_attention_heads} heads do not divide; change "
                "`hidden_size` or `num_attention_heads`."
            )
        if self.num_sampled_negatives < 0:
            raise ValueError(f"`num_sampled_negatives` is {self.num_sampled_negatives}; it must be at least 0.")
        for name in ("embedding_dropout", "dropout", "attention_dropout"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"`{name}` is {value}; it must be at least 0 and below 1.")
