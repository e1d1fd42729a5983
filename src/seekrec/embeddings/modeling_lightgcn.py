# SPDX-License-Identifier: Apache-2.0
"""LightGCN: embeddings of users and items, smoothed along the interaction graph (He et al. 2020).

With the matrix `A` of the graph, `a_ui = 1 / sqrt(degree(u) degree(i))` for each pair, layer 0 is learned and

    users(k) = A items(k - 1)        items(k) = A' users(k - 1)        answer = mean of the layers 0 ... K

A score is the dot product of a user's and an item's answer. The graph is saved with the weights, as the embeddings are
meaningless without it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils.generic import ModelOutput

from seekrec.embeddings.configuration_lightgcn import LightGCNConfig
from seekrec.errors import DataError, RequestError


@dataclass
class LightGCNOutput(ModelOutput):
    """What [`LightGCNModel`] returns.

    Args:
        loss (`torch.FloatTensor`, *optional*): Mean over the pairs, in nats; present when items are given.
        user_embeddings (`torch.FloatTensor` of shape `(num_users, hidden_size)`): The answer for users.
        item_embeddings (`torch.FloatTensor` of shape `(num_items, hidden_size)`): The answer for items.
    """

    loss: Tensor | None = None
    user_embeddings: Tensor | None = None
    item_embeddings: Tensor | None = None


class LightGCNModel(PreTrainedModel):
    """LightGCN over a fixed graph.

    Args:
        config ([`LightGCNConfig`]): Sizes.
    """

    # No `from __future__ import annotations` in this file: transformers reads the class from this annotation.
    config: LightGCNConfig
    base_model_prefix = "model"
    main_input_name = "user_rows"
    edge_users: Tensor
    edge_items: Tensor

    def __init__(self, config: LightGCNConfig) -> None:
        super().__init__(config)
        self.user_embedding = nn.Embedding(config.num_users, config.hidden_size)
        self.item_embedding = nn.Embedding(config.num_items, config.hidden_size)
        self.register_buffer("edge_users", torch.zeros(config.num_edges, dtype=torch.int64))
        self.register_buffer("edge_items", torch.zeros(config.num_edges, dtype=torch.int64))
        self._adjacency: Tensor | None = None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)

    def set_graph(self, users: np.ndarray, items: np.ndarray) -> None:
        """Set who acted on what.

        Args:
            users (`np.ndarray`): int64 user rows of shape `(num_edges,)`.
            items (`np.ndarray`): int64 item rows of the same shape; no pair twice.

        Raises:
            DataError: If the number of pairs is not the configuration's, a row is out of range or a pair occurs twice.
        """
        if users.shape != (self.config.num_edges,) or items.shape != users.shape:
            raise DataError(
                f"`users` has shape {users.shape}, `items` {items.shape}; the configuration says "
                f"`num_edges={self.config.num_edges}`."
            )
        for name, rows, limit in (
            ("users", users, self.config.num_users),
            ("items", items, self.config.num_items),
        ):
            if len(rows) and not 0 <= rows.min() <= rows.max() < limit:
                raise DataError(f"`{name}` contains rows {rows.min()}..{rows.max()}; the model knows 0..{limit - 1}.")
        num_distinct = len(np.unique(users * np.int64(self.config.num_items) + items))
        if num_distinct != len(users):
            raise DataError(f"{len(users) - num_distinct} of {len(users)} pairs occur twice; pass each pair once.")
        self.edge_users.copy_(torch.from_numpy(users))
        self.edge_items.copy_(torch.from_numpy(items))
        self._adjacency = None

    def layers(self) -> list[Tensor]:
        """Propagate.

        Returns:
            `list[torch.Tensor]`: `num_propagations + 1` layers of shape `(num_users + num_items, hidden_size)`, users
            first.
        """
        layers = [torch.cat([self.user_embedding.weight, self.item_embedding.weight])]
        # Sparse products have no half precision on a CPU.
        with torch.autocast(layers[0].device.type, enabled=False):
            for _ in range(self.config.num_propagations):
                layers.append(torch.sparse.mm(self._matrix(), layers[-1]))
        return layers

    def forward(
        self,
        user_rows: Tensor | None = None,
        item_rows: Tensor | None = None,
        negative_rows: Tensor | None = None,
    ) -> LightGCNOutput:
        """Propagate and, with items, return how well they are distinguished from their negatives.

        Args:
            user_rows (`torch.Tensor`, *optional*): int64 of shape `(batch,)`.
            item_rows (`torch.Tensor`, *optional*): int64 of shape `(batch,)`: what each user acted on.
            negative_rows (`torch.Tensor`, *optional*): int64 of shape `(batch, num_negatives)`.

        Returns:
            [`LightGCNOutput`]: The embeddings and, if rows are given, the loss.
        """
        everyone = torch.stack(self.layers()).mean(0)
        users, items = everyone.split([self.config.num_users, self.config.num_items])
        if user_rows is None or item_rows is None or negative_rows is None:
            return LightGCNOutput(user_embeddings=users, item_embeddings=items)
        asking = users[user_rows]  # (batch, hidden_size)
        wanted = (asking * items[item_rows]).sum(-1)  # (batch,)
        others = torch.einsum("bd,bnd->bn", asking, items[negative_rows])  # (batch, num_negatives)
        loss = -F.logsigmoid(wanted[:, None] - others).mean()
        lengths = self.user_embedding(user_rows).square().sum() + self.item_embedding(item_rows).square().sum()
        lengths = lengths + self.item_embedding(negative_rows).square().sum() / negative_rows.shape[1]
        loss = loss + self.config.l2_weight * lengths / (2 * len(user_rows))
        return LightGCNOutput(loss=loss, user_embeddings=users, item_embeddings=items)

    @torch.no_grad()
    def score(self, histories: Sequence[np.ndarray], user_rows: np.ndarray | None = None) -> Tensor:
        """Score every item for each user.

        Args:
            histories (`Sequence[np.ndarray]`): Item rows each user acted on, in any order; may be empty.
            user_rows (`np.ndarray`, *optional*): int64 of shape `(len(histories),)`: the user of each history where it
                is one of the graph, -1 where not; a user of the graph needs no history.

        Returns:
            `torch.Tensor`: float32 of shape `(len(histories), num_items)`, on the CPU. A user that the graph does not
            hold is placed by its items alone: propagation gives its layers 1 to K, and layer 0 is taken as zero.

        Raises:
            RequestError: If a row is not one of the model's.
        """
        layers = self.layers()
        users, items = torch.stack(layers).mean(0).split([self.config.num_users, self.config.num_items])
        known = np.full(len(histories), -1) if user_rows is None else np.asarray(user_rows)
        if len(known) and (known.max() >= self.config.num_users or known.min() < -1):
            raise RequestError(
                f"`user_rows` contains {known.min()}..{known.max()}; the model knows 0..{self.config.num_users - 1}, "
                "and -1 is nobody."
            )
        # What an edge of weight 1 / sqrt(degree of the item) would carry over: (num_items, hidden_size).
        degrees = torch.bincount(self.edge_items, minlength=self.config.num_items).clamp(min=1)
        passed = torch.stack([layer[self.config.num_users :] for layer in layers[:-1]] or [items * 0]).sum(0)
        passed = passed / degrees[:, None].sqrt() / len(layers)
        asking = users.new_zeros(len(histories), users.shape[1])
        for number, (history, user) in enumerate(zip(histories, known.tolist(), strict=True)):
            if user >= 0:
                asking[number] = users[user]
                continue
            rows = np.unique(history)
            if len(rows) and not 0 <= rows[0] <= rows[-1] < self.config.num_items:
                raise RequestError(
                    f"A history contains item rows {rows[0]}..{rows[-1]}, but the model knows "
                    f"0..{self.config.num_items - 1}; use the catalogue that the model was trained on."
                )
            if len(rows):
                asking[number] = passed[torch.from_numpy(rows).to(passed.device)].sum(0) / len(rows) ** 0.5
        return (asking @ items.T).float().cpu()

    @torch.no_grad()
    def item_embeddings(self) -> np.ndarray:
        """Return a copy of the items' answers, float32 of shape `(num_items, hidden_size)`, in row order."""
        items = self().item_embeddings
        return np.array(items.float().cpu().numpy())

    def _matrix(self) -> Tensor:
        """The symmetric normalised adjacency matrix, sparse `(num_users + num_items,) * 2`; built at first use."""
        if self._adjacency is None or self._adjacency.device != self.edge_users.device:
            users, items = self.edge_users, self.edge_items + self.config.num_users
            size = self.config.num_users + self.config.num_items
            degrees = torch.bincount(torch.cat([users, items]), minlength=size).float()
            weights = (degrees[users] * degrees[items]).rsqrt()
            indices = torch.stack([torch.cat([users, items]), torch.cat([items, users])])
            self._adjacency = torch.sparse_coo_tensor(
                indices, torch.cat([weights, weights]), (size, size), check_invariants=False
            ).coalesce()
        return self._adjacency
