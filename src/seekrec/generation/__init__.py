# SPDX-License-Identifier: Apache-2.0
"""Decode identifiers with an encoder-decoder: tries, masks, beam search, exact scores, and a trie for `generate`."""

from seekrec.generation.beam_search import BeamOutput, beam_search
from seekrec.generation.logits_process import TrieLogitsProcessor, collect_items
from seekrec.generation.masks import TrieMask
from seekrec.generation.packing import packed_linears
from seekrec.generation.scoring import score_candidates
from seekrec.generation.sessions import Norm
from seekrec.generation.trie import IdentifierTrie

__all__ = [
    "BeamOutput",
    "IdentifierTrie",
    "Norm",
    "TrieLogitsProcessor",
    "TrieMask",
    "beam_search",
    "collect_items",
    "packed_linears",
    "score_candidates",
]
