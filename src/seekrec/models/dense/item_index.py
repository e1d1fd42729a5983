# SPDX-License-Identifier: Apache-2.0
"""The best items by dot product: exact, in blocks, under boolean masks; faiss behind the same call."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from seekrec.errors import MissingDependencyError, RequestError
from seekrec.util.finite import check_finite

Backend = Literal["exact", "faiss"]

# Scores held at a time: 16 million floats take 64 MB.
_BLOCK_CELLS = 16_000_000


class _FlatIndex(Protocol):
    def add(self, vectors: np.ndarray, /) -> None: ...

    def search(self, queries: np.ndarray, count: int, /, **options: object) -> tuple[np.ndarray, np.ndarray]: ...


class ItemIndex:
    """Item vectors that can be searched.

    Args:
        vectors (`torch.Tensor`): float of shape `(num_items, size)`; not copied.
        backend (`str`): `"exact"`, or `"faiss"` for its flat index on the CPU, which returns the same answers.

    Raises:
        MissingDependencyError: If faiss is asked for and not installed.
    """

    def __init__(self, vectors: Tensor, backend: Backend = "exact") -> None:
        self.vectors, self.backend = vectors, backend
        self._faiss: _FlatIndex | None = None
        if backend == "faiss":
            try:
                # Imported so, because what its annotations say is C++; its Python layer takes arrays and keywords.
                faiss = importlib.import_module("faiss")
            except ImportError as error:
                raise MissingDependencyError(
                    "The index 'faiss' needs faiss; run `pip install faiss-cpu` (the extra `faiss`), or use the "
                    "index 'exact'."
                ) from error
            self._faiss = faiss.IndexFlatIP(vectors.shape[1])
            self._faiss.add(vectors.float().cpu().numpy())

    @torch.no_grad()
    def search(
        self, queries: Tensor, top_k: Sequence[int], allowed: Sequence[np.ndarray | None]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Find the best items of each query.

        Args:
            queries (`torch.Tensor`): Vectors of queries, `(num_queries, size)`.
            top_k (`Sequence[int]`): Items wanted, for each query.
            allowed (`Sequence`): For each query a bool mask of shape `(num_items,)`, or `None` for all. The same
                object given several times is looked at once.

        Returns:
            `list[tuple[np.ndarray, np.ndarray]]`: For each query int64 rows and float32 dot products, best first;
            fewer than `top_k` where fewer are allowed.

        Raises:
            RequestError: If a number of `top_k` is below 1.
            NotFiniteError: If queries or scores are not finite numbers.
        """
        if len(top_k) and min(top_k) < 1:
            raise RequestError(f"`top_k` is {min(top_k)}; ask for at least one item.")
        check_finite("The vectors of the queries", queries, "request", "check the weights and the query vectors")
        if self._faiss is not None:
            return [
                self._search_faiss(self._faiss, query, k, mask)
                for query, k, mask in zip(queries, top_k, allowed, strict=True)
            ]
        num_queries, num_items = len(queries), len(self.vectors)
        most = min(max(top_k, default=1), num_items)
        values = queries.new_full((num_queries, 0), 0.0, dtype=torch.float32)
        rows = torch.zeros((num_queries, 0), dtype=torch.long, device=queries.device)
        size = max(1, _BLOCK_CELLS // max(1, num_queries))
        for begin in range(0, num_items, size):
            scores = (queries @ self.vectors[begin : begin + size].T).float()
            self._hide(scores, allowed, begin)
            best, place = scores.topk(min(most, scores.shape[1]))
            values, rows = torch.cat([values, best], 1), torch.cat([rows, place + begin], 1)
            values, order = values.topk(min(most, values.shape[1]))
            rows = rows.gather(1, order)
        found, kept = rows.cpu().numpy(), values.cpu().numpy()
        check_finite("The scores", kept[kept != float("-inf")], "entry", "a product is too large for the data type")
        answers = []
        for line, (k, scores_line) in enumerate(zip(top_k, kept, strict=True)):
            count = min(k, int(np.isfinite(scores_line).sum()))
            answers.append((found[line, :count], scores_line[:count]))
        return answers

    @staticmethod
    def _hide(scores: Tensor, allowed: Sequence[np.ndarray | None], begin: int) -> None:
        end = begin + scores.shape[1]
        lines: dict[int, tuple[np.ndarray, list[int]]] = {}
        for line, mask in enumerate(allowed):
            if mask is not None:
                lines.setdefault(id(mask), (mask, []))[1].append(line)
        for mask, own in lines.values():
            hidden = torch.from_numpy(~mask[begin:end]).to(scores.device)
            if len(own) == len(scores):
                scores.masked_fill_(hidden, float("-inf"))
            else:
                numbers = torch.tensor(own, device=scores.device)
                scores[numbers] = scores[numbers].masked_fill(hidden, float("-inf"))

    def _search_faiss(
        self, index: _FlatIndex, query: Tensor, top_k: int, mask: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        faiss = importlib.import_module("faiss")
        options = {}
        if mask is not None:
            bits = np.packbits(mask, bitorder="little")
            options["params"] = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
        count = min(top_k, len(self.vectors))
        scores, rows = index.search(query[None].float().cpu().numpy(), count, **options)
        kept = rows[0] >= 0
        return rows[0][kept].astype(np.int64), scores[0][kept]


__all__ = ["Backend", "ItemIndex"]
