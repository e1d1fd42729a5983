# SPDX-License-Identifier: Apache-2.0
"""Find the best items by dot product: exactly, in blocks, under boolean masks; or by faiss with the same interface."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from seekrec.errors import MissingDependencyError, RequestError
from seekrec.models.answers import found_of
from seekrec.models.views import AddedScores
from seekrec.util.finite import check_finite

Backend = Literal["exact", "faiss"]

# Rows of items, and scores that others give them.
SpokenFor = tuple[np.ndarray, Tensor]

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
        shared_from (`int`, *optional*): Where processes that train together hold a stretch of the rows each: the first
            row of this one. They search together, for the same queries, and find the same.

    Raises:
        MissingDependencyError: If faiss is asked for and not installed.
    """

    def __init__(self, vectors: Tensor, backend: Backend = "exact", *, shared_from: int | None = None) -> None:
        self.vectors, self.backend, self.shared_from = vectors, backend, shared_from
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
        self,
        queries: Tensor,
        top_k: Sequence[int],
        allowed: Sequence[np.ndarray | None],
        added: AddedScores | None = None,
        spoken_for: SpokenFor | None = None,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Find the best items of each query.

        Args:
            queries (`torch.Tensor`): Vectors of queries, `(num_queries, size)`.
            top_k (`Sequence[int]`): Items wanted, for each query.
            allowed (`Sequence`): For each query a bool mask of shape `(num_items,)`, or `None` for all. The same
                object given several times is looked at once.
            added ([`AddedScores`], *optional*): What is added to dot products; all items are then scored, whatever
                the backend.
            spoken_for (`tuple`, *optional*): int64 rows of items, ascending, whose scores stand in for their products,
                and these: float32 of shape `(num_queries, num_rows)`. All items are then scored, too.

        Returns:
            `list[tuple[np.ndarray, np.ndarray]]`: For each query int64 rows and float32 scores, best first;
            fewer than `top_k` where fewer are allowed.

        Raises:
            RequestError: If a number of `top_k` is below 1.
            NotFiniteError: If queries or scores are not finite numbers.
        """
        if len(top_k) and min(top_k) < 1:
            raise RequestError(f"`top_k` is {min(top_k)}; ask for at least one item.")
        check_finite("The vectors of the queries", queries, "request", "check the weights and the query vectors")
        if self.shared_from is None:
            return self._search(queries, top_k, allowed, added, spoken_for)
        held = slice(self.shared_from, self.shared_from + len(self.vectors))
        masks = {id(mask): mask[held] for mask in allowed if mask is not None}
        own_masks = [None if mask is None else masks[id(mask)] for mask in allowed]
        own = self._search(queries, top_k, own_masks, added, spoken_for)
        return self._join([(rows + held.start, scores) for rows, scores in own], top_k, queries.device)

    @staticmethod
    def _join(
        own: Sequence[tuple[np.ndarray, np.ndarray]], top_k: Sequence[int], device: torch.device
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Find the best items of each query among the best of each process."""
        scores = torch.full((len(own), max(top_k, default=1)), float("-inf"), device=device)
        rows = torch.zeros(scores.shape, dtype=torch.long, device=device)
        for line, (found, values) in enumerate(own):
            rows[line, : len(found)], scores[line, : len(found)] = torch.from_numpy(found), torch.from_numpy(values)
        all_scores, all_rows = (
            [torch.empty_like(part) for _ in range(dist.get_world_size())] for part in (scores, rows)
        )
        dist.all_gather(all_scores, scores)
        dist.all_gather(all_rows, rows)
        best, place = torch.cat(all_scores, 1).sort(dim=1, descending=True, stable=True)
        joined = torch.cat(all_rows, 1).gather(1, place)
        return found_of(best, joined, top_k)

    def _search(
        self,
        queries: Tensor,
        top_k: Sequence[int],
        allowed: Sequence[np.ndarray | None],
        added: AddedScores | None,
        spoken_for: SpokenFor | None,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        if self._faiss is not None and added is None and spoken_for is None:
            return [
                self._search_faiss(self._faiss, query, k, mask)
                for query, k, mask in zip(queries, top_k, allowed, strict=True)
            ]
        num_queries, num_items = len(queries), len(self.vectors)
        most = min(max(top_k, default=1), num_items)
        begins = self.shared_from or 0

        if added is not None:

            def own_scores(begin: int, end: int) -> Tensor:
                products = (self.vectors[begin - begins : end - begins] @ queries.T).float()
                return _speak_for(products, spoken_for, begin)

            values, rows = added.best_sums(top_k, allowed, own_scores, range(begins, begins + num_items))
            rows = rows - begins
        else:
            values = queries.new_full((num_queries, 0), 0.0, dtype=torch.float32)
            rows = torch.zeros((num_queries, 0), dtype=torch.long, device=queries.device)
            size = max(1, _BLOCK_CELLS // max(1, num_queries))
            for begin in range(0, num_items, size):
                scores = (queries @ self.vectors[begin : begin + size].T).float()
                _speak_for(scores.T, spoken_for, begins + begin)
                self._hide(scores, allowed, begin)
                best, place = scores.topk(min(most, scores.shape[1]))
                values, rows = torch.cat([values, best], 1), torch.cat([rows, place + begin], 1)
                values, order = values.topk(min(most, values.shape[1]))
                rows = rows.gather(1, order)
        return found_of(values, rows, top_k)

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


def _speak_for(scores: Tensor, spoken_for: SpokenFor | None, begin: int) -> Tensor:
    """Put the scores of items that others speak for into those of a range of rows, `(num_items_of_range, any)`."""
    if spoken_for is not None:
        rows, values = spoken_for
        low, high = np.searchsorted(rows, [begin, begin + len(scores)])
        scores[torch.from_numpy(rows[low:high] - begin).to(scores.device)] = values[:, low:high].T
    return scores


__all__ = ["Backend", "ItemIndex", "SpokenFor"]
