# SPDX-License-Identifier: Apache-2.0
"""Expand the prefixes that beam search dropped, until none can lead to a better sum than those found.

The beams of [`beam_search`] are chosen by score plus bound, so they nearly always find the best items already; this is
certain if no dropped prefix has a key above the sum of the last item requested. Such prefixes are expanded: their
codes are decoded again, since their states were not kept. The best are expanded first, in rounds, because each round
improves the known sums, and the rest can be skipped.

Their number depends on the model: a trained one leaves few, one with nearly uniform probabilities leaves almost all.
So there is a limit, and an error is raised if the answer is not certain by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from seekrec.errors import SearchLimitError
from seekrec.generation.bounds import Bounds, find_parents
from seekrec.generation.sessions import Norm, Prompt, Session, open_session
from seekrec.generation.trie import IdentifierTrie

# Prefixes of a request that are expanded in a round. One costs a few searches; smaller ones are not much cheaper.
_ROUND = 256
# Rounds of one call.
MOST_ROUNDS = 100

# int64 rows of items and their sums, best first.
Sums = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Dropped:
    """What the beams of one level left, by request.

    Args:
        keys (`torch.Tensor`): float32 `(B, n)`, score plus bound; minus infinity for what was kept or is none.
        scores (`torch.Tensor`): float32 `(B, n)`, log-probabilities.
        nodes (`torch.Tensor`): int64 `(B, n)`.
    """

    keys: Tensor
    scores: Tensor
    nodes: Tensor


@dataclass
class _Prefixes:
    """Prefixes of several requests, in no order: arrays of one length.

    Args:
        requests (`np.ndarray`): int64 place among the requests.
        depths (`np.ndarray`): int64 number of codes.
        nodes (`np.ndarray`): int64 node of that depth.
        scores (`np.ndarray`): float32 log-probability.
        keys (`np.ndarray`): float32 log-probability plus bound.
    """

    requests: np.ndarray
    depths: np.ndarray
    nodes: np.ndarray
    scores: np.ndarray
    keys: np.ndarray

    def take(self, chosen: np.ndarray) -> _Prefixes:
        return _Prefixes(*(part[chosen] for part in self._parts()))

    def join(self, others: Sequence[_Prefixes]) -> _Prefixes:
        columns = zip(*(one._parts() for one in (self, *others)), strict=True)
        return _Prefixes(*(np.concatenate(parts) for parts in columns))

    def _parts(self) -> tuple[np.ndarray, ...]:
        return self.requests, self.depths, self.nodes, self.scores, self.keys


class ExactSearch:
    """The search behind those requests of a batch that share a trie.

    Args:
        model (`PreTrainedModel`): The model.
        prompt ([`Prompt`]): The whole batch.
        trie ([`IdentifierTrie`]): The trie.
        offsets (`Sequence[int]`): Token id of code 0 of each level.
        positions (`Sequence[int]`): Places of the requests in the batch.
        bounds ([`Bounds`]): What is added, for these requests.
        norm (`str`): As in [`beam_search`].
        wanted (`np.ndarray`): int64 items wanted, by member.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prompt: Prompt,
        trie: IdentifierTrie,
        offsets: Sequence[int],
        positions: Sequence[int],
        bounds: Bounds,
        norm: Norm,
        wanted: np.ndarray,
    ) -> None:
        self.model, self.prompt, self.trie, self.offsets = model, prompt, trie, offsets
        self.bounds, self.norm, self.wanted = bounds, norm, wanted
        self.device = prompt.states.device
        self.members = torch.tensor(positions, device=self.device)

    def finish(self, found: Sequence[Sums], dropped: Sequence[Dropped] | None) -> list[Sums]:
        """Return the best sums of each member, best first.

        Args:
            found (`Sequence`): What the beams found: item rows and log-probabilities, by member.
            dropped (`Sequence[Dropped]`, *optional*): What they left, by level; without it nothing is looked at again.

        Raises:
            SearchLimitError: If after `MOST_ROUNDS` rounds prefixes are left that may hide a better sum.
        """
        items = torch.from_numpy(np.concatenate([rows for rows, _ in found])).to(self.device)
        lengths = torch.tensor([len(rows) for rows, _ in found])
        added = self._of_items(torch.arange(len(found)).repeat_interleave(lengths).to(items), items)
        parts = zip(found, np.split(added, lengths.cumsum(0)[:-1].numpy()), strict=True)
        sums = [
            self._merge(member, (rows[:0], scores[:0]), rows, scores + own)
            for member, ((rows, scores), own) in enumerate(parts)
        ]
        if not dropped:
            return sums
        waiting = self._waiting(dropped, self._least(sums))
        for _ in range(MOST_ROUNDS):
            if not len(waiting.keys):
                return sums
            chosen = _best_of_each(waiting, _ROUND)
            more, left = self._expand(waiting.take(chosen), self._least(sums))
            for member, rows, totals in more:
                sums[member] = self._merge(member, sums[member], rows, totals)
            waiting = waiting.take(~chosen).join([left])
            waiting = waiting.take(waiting.keys > self._least(sums)[waiting.requests])
        if len(waiting.keys):
            counts = np.bincount(waiting.requests)
            raise SearchLimitError(
                f"After {MOST_ROUNDS} rounds of {_ROUND} prefixes a request, the best items are not certain: "
                f"{counts.max()} more prefixes of one request ({counts.sum()} of all) may lead to better ones, "
                "because the model finds very many about equally likely. Search without `exact`, with more "
                "`num_beams`, or among fewer items with `where`."
            )
        return sums

    def _least(self, sums: Sequence[Sums]) -> np.ndarray:
        """Return what a sum must exceed to be among those wanted, by member."""
        return np.array(
            [
                totals[count - 1] if len(totals) >= count else -np.inf
                for (_, totals), count in zip(sums, self.wanted.tolist(), strict=True)
            ],
            dtype=np.float32,
        )

    def _of_items(self, lines: Tensor, rows: Tensor) -> np.ndarray:
        values: np.ndarray = self.bounds.of_items(lines, rows).cpu().numpy()
        return values

    def _merge(self, member: int, known: Sums, rows: np.ndarray, totals: np.ndarray) -> Sums:
        rows, totals = np.concatenate([known[0], rows]), np.concatenate([known[1], totals])
        order = np.lexsort((rows, -totals))
        order = order[totals[order] > -np.inf][: self.wanted[member]]
        return rows[order], totals[order]

    def _waiting(self, dropped: Sequence[Dropped], least: np.ndarray) -> _Prefixes:
        """Collect the dropped prefixes that may hide a better sum."""
        parts = []
        limit = torch.from_numpy(least).to(self.device)[:, None]
        for level, left in enumerate(dropped):
            keys = left.keys[self.members]
            requests, places = (keys > limit).nonzero(as_tuple=True)
            columns = (part[self.members][requests, places] for part in (left.nodes, left.scores, left.keys))
            nodes, scores, chosen = (column.cpu().numpy() for column in columns)
            depths = np.full(len(nodes), level + 1, np.int64)
            parts.append(_Prefixes(requests.cpu().numpy(), depths, nodes, scores, chosen))
        return parts[0].join(parts[1:])

    def _expand(
        self, chosen: _Prefixes, least: np.ndarray
    ) -> tuple[list[tuple[int, np.ndarray, np.ndarray]], _Prefixes]:
        """Read chosen prefixes again and continue below them, the best of each level, down to the items.

        Returns:
            `tuple`: Sums found, as `(member, rows, totals)`, and prefixes that were not expanded.
        """
        num_levels = self.trie.num_levels
        none = np.zeros(len(chosen.keys), bool)
        # Leaves need no reading: they have all their codes.
        is_leaf = chosen.depths == num_levels
        sums, pending, left = self._items_of(chosen.take(is_leaf)), chosen.take(~is_leaf), chosen.take(none)
        if not len(pending.keys):
            return sums, left
        members = np.unique(pending.requests)
        paths = self._paths(pending)
        places = self.members[torch.from_numpy(members).to(self.device)]
        mask = None if self.prompt.attention_mask is None else self.prompt.attention_mask[places]
        session = open_session(self.model, self.prompt.states[places], mask)
        states = session.start(self.prompt.decoder_prefix[places])
        # The rows of `states`: a request, by its place in `members`, and a node of the depth reached, in this order.
        rows = np.arange(len(members))
        growing = chosen.take(none)
        for level in range(num_levels):
            growing = growing.join([pending.take(pending.depths == level)])
            if len(growing.keys):
                width = self.trie.num_nodes(level)
                at = np.searchsorted(rows, np.searchsorted(members, growing.requests) * width + growing.nodes)
                children = self._children(session, states[torch.from_numpy(at).to(self.device)], level, growing)
                children = children.take(children.keys > least[children.requests])
                if level + 1 == num_levels:
                    return sums + self._items_of(children), left
                best = _best_of_each(children, _ROUND)
                left, growing = left.join([children.take(~best)]), children.take(best)
            # What the next step reads: what grows, and the way to what waits there or further down.
            deeper = pending.depths > level
            requests = np.concatenate([growing.requests, pending.requests[deeper]])
            below = np.concatenate([growing.nodes, paths[level + 1][deeper]])
            if not len(requests):
                return sums, left
            width = self.trie.num_nodes(level + 1)
            next_rows = np.unique(np.searchsorted(members, requests) * width + below)
            owners, nodes = torch.from_numpy(np.stack([next_rows // width, next_rows % width])).to(self.device)
            above = owners * self.trie.num_nodes(level) + find_parents(self.trie.families[level], nodes)
            parents = torch.searchsorted(torch.from_numpy(rows).to(self.device), above)
            tokens = self.trie.codes[level][nodes].long() + self.offsets[level]
            states, rows = session.step(tokens, parents, owners), next_rows
        raise AssertionError("unreachable: the last level returns")

    def _children(self, session: Session, states: Tensor, level: int, parents: _Prefixes) -> _Prefixes:
        """Return the children of prefixes, of which `states` has a row each."""
        partition = session.log_partition(states) if self.norm == "vocab" else None
        first, size = self.offsets[level], self.trie.codebook_sizes[level]
        logits = session.block_logits(states, first, size)
        log_probs = logits.log_softmax(-1) if partition is None else logits - partition[:, None]
        nodes, scores, requests = (
            torch.from_numpy(part).to(self.device) for part in (parents.nodes, parents.scores, parents.requests)
        )
        children = self.trie.children(level, nodes)
        scores = scores[:, None] + log_probs.gather(1, children.codes)
        scores = torch.where(children.is_real, scores, float("-inf"))
        keys = self.bounds.keys(level + 1, requests, scores[:, None], children.nodes[:, None])[:, 0]
        owners = requests[:, None].expand_as(keys)
        columns = [part[children.is_real].cpu().numpy() for part in (owners, children.nodes, scores, keys)]
        return _Prefixes(columns[0], np.full(len(columns[0]), level + 1, np.int64), *columns[1:])

    def _paths(self, prefixes: _Prefixes) -> list[np.ndarray]:
        """Return for each depth the node that leads to each prefix; -1 below it."""
        nodes = np.full(len(prefixes.nodes), -1, np.int64)
        paths = [nodes] * (self.trie.num_levels + 1)
        for depth in range(self.trie.num_levels - 1, -1, -1):
            begins = prefixes.depths == depth
            above = find_parents(self.trie.families[depth], torch.from_numpy(nodes.clip(min=0)).to(self.device))
            nodes = np.where(begins, prefixes.nodes, np.where(nodes < 0, -1, above.cpu().numpy()))
            paths[depth] = nodes
        return paths

    def _items_of(self, leaves: _Prefixes) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Replace leaves by their items: `(member, rows, sums)`."""
        rows, source = self.trie.expand_leaves(torch.from_numpy(leaves.nodes).to(self.device))
        owners = torch.from_numpy(leaves.requests).to(self.device)[source]
        totals = leaves.scores[source.cpu().numpy()] + self._of_items(owners, rows)
        found, members = rows.cpu().numpy(), owners.cpu().numpy()
        return [
            (member, found[members == member], totals[members == member]) for member in np.unique(members).tolist()
        ]


def _best_of_each(prefixes: _Prefixes, count: int) -> np.ndarray:
    """Mark the `count` best prefixes of each request: bool."""
    order = np.lexsort((-prefixes.keys, prefixes.requests))
    requests = prefixes.requests[order]
    rank = np.arange(len(order)) - np.searchsorted(requests, requests)
    marked = np.zeros(len(order), bool)
    marked[order[rank < count]] = True
    return marked


__all__ = ["MOST_ROUNDS", "Dropped", "ExactSearch"]
