# SPDX-License-Identifier: Apache-2.0
"""Configuration of LightGCN (He et al. 2020).

No `from __future__ import annotations` here: with types as strings, `strict` checks none of them.
"""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class LightGCNConfig(PreTrainedConfig):
    """Sizes of a LightGCN model over `num_users` users and `num_items` items.

    Args:
        num_users (`int`): Users of the graph; rows `0 ... num_users - 1`.
        num_items (`int`): Items of the catalogue; rows `0 ... num_items - 1`.
        num_edges (`int`): Distinct (user, item) pairs of the graph; the graph is saved with the weights.
        hidden_size (`int`): Width of the embeddings.
        num_propagations (`int`): Steps along the edges (K); the answer is the mean of the `K + 1` layers.
        l2_weight (`float`): Weight of the squared length of the embeddings a step trains (the paper's lambda).
        initializer_range (`float`): Standard deviation of the normal distribution of new embeddings.
        trained_epochs (`float`, *optional*): Epochs that the weights were trained for: those after which validation
            was best.

    Raises:
        StrictDataclassFieldValidationError: If a value has the wrong type.
        StrictDataclassClassValidationError: If a value is out of its range.
    """

    model_type = "lightgcn"

    num_users: int = 1
    num_items: int = 1
    num_edges: int = 0
    hidden_size: int = 64
    # GenSR's released table has two; the paper of LightGCN tried one to four and found three best on larger logs.
    num_propagations: int = 2
    l2_weight: float = 1e-4
    initializer_range: float = 0.1
    trained_epochs: float | None = None

    def validate_sizes(self) -> None:
        """Refuse sizes that no model can have; `strict` calls this.

        Raises:
            ValueError: If a size is too small or a weight is negative.
        """
        smallest = {"num_users": 1, "num_items": 1, "num_edges": 0, "hidden_size": 1, "num_propagations": 0}
        for name, bound in smallest.items():
            value = getattr(self, name)
            if value < bound:
                raise ValueError(f"`{name}` is {value}; it must be at least {bound}.")
        if self.l2_weight < 0:
            raise ValueError(f"`l2_weight` is {self.l2_weight}; it must not be negative.")
