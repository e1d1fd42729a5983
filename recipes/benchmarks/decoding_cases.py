# SPDX-License-Identifier: Apache-2.0
"""The methods that `decoding.py` compares: a model with inputs, and the ways to search it.

Run as a script, it measures the memory of one of them in a fresh process.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import T5Config, T5ForConditionalGeneration

from seekrec.generation import BeamOutput, IdentifierTrie, TrieLogitsProcessor, beam_search, collect_items

TEXT_TOKENS = 32_128
NUM_LEVELS, CODEBOOK_SIZE = 4, 256
OFFSETS = [TEXT_TOKENS + CODEBOOK_SIZE * level for level in range(NUM_LEVELS)]
SHAPES: dict[str, dict[str, int]] = {
    "small": {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8},  # t5-small's
    "tiny": {"d_model": 128, "d_kv": 32, "d_ff": 512, "num_layers": 2, "num_heads": 4},
}


@dataclass
class Case:
    """One configuration: a model, its inputs and how it is searched."""

    shape: str
    threads: int
    beams: int
    model: T5ForConditionalGeneration
    input_ids: torch.Tensor

    @property
    def batch(self) -> int:
        """Requests."""
        return len(self.input_ids)

    @property
    def place(self) -> dict[str, Any]:
        """Fields that identify this configuration."""
        return {"shape": self.shape, "threads": self.threads, "batch": self.batch, "beams": self.beams}

    @property
    def prompt(self) -> dict[str, Any]:
        """What every contender reads."""
        return {"input_ids": self.input_ids, "attention_mask": torch.ones_like(self.input_ids)}

    @property
    def decoder_prefix(self) -> torch.Tensor:
        """The start token."""
        return torch.zeros((self.batch, 1), dtype=torch.int64)

    def own(self, trie: IdentifierTrie, norm: str = "level", masks: Any = None, model: Any = None) -> BeamOutput:
        """Search with this package."""
        return beam_search(
            model or self.model,
            **self.prompt,
            trie=trie,
            level_offsets=OFFSETS,
            decoder_prefix=self.decoder_prefix,
            num_beams=self.beams,
            norm=norm,
            masks=masks,
        )

    def generate(self, **constraint: Any) -> Any:
        """Search with `generate`; the decoder starts by itself."""
        return self.model.generate(
            **self.prompt,
            **constraint,
            num_beams=self.beams,
            num_return_sequences=self.beams,
            max_new_tokens=NUM_LEVELS,
            do_sample=False,
            length_penalty=0.0,
            eos_token_id=None,
            return_dict_in_generate=True,
            output_scores=True,
        )

    def generate_with_dict(self, root: dict[int, Any]) -> Any:
        """Search with `generate` and a nested dict that is looked up for each beam, the usual way."""

        def allowed(_: int, tokens: torch.Tensor) -> list[int]:
            node = root
            for token in tokens[1:].tolist():
                node = node[token]
            return list(node)

        return self.generate(prefix_allowed_tokens_fn=allowed)

    def generate_with_processor(self, trie: IdentifierTrie) -> BeamOutput:
        """With the processor of this package."""
        output = self.generate(logits_processor=[TrieLogitsProcessor(trie, OFFSETS, num_beams=self.beams)])
        options = {"trie": trie, "level_offsets": OFFSETS, "num_return_sequences": self.beams}
        return collect_items(output.sequences, output.sequences_scores, **options)

    @torch.no_grad()
    def encode(self) -> torch.Tensor:
        """Run the encoder alone."""
        states: torch.Tensor = self.model.get_encoder()(**self.prompt)[0]
        return states

    @torch.no_grad()
    def multiply(self, states: torch.Tensor) -> None:
        """Do the decoder's matrix products and nothing else: cross-attention once, then 1 + 3 K rows per request."""
        rows = [states.new_ones(self.batch * count, states.shape[-1]) for count in (1, *[self.beams] * 3)]
        for block in self.model.decoder.block:
            own, cross, feed = block.layer[0].SelfAttention, block.layer[1].EncDecAttention, block.layer[2]
            cross.k(states)
            cross.v(states)
            for inputs in rows:
                for layer in (own.q, own.k, own.v, cross.q):
                    projected = layer(inputs)
                own.o(projected)
                cross.o(projected)
                feed.DenseReluDense.wo(feed.DenseReluDense.wi(inputs))


def make_model(shape: str, seed: int) -> T5ForConditionalGeneration:
    """Build a model with random weights."""
    torch.manual_seed(seed)
    config = T5Config(vocab_size=OFFSETS[-1] + CODEBOOK_SIZE, decoder_start_token_id=0, **SHAPES[shape])
    return T5ForConditionalGeneration(config).eval()


def make_inputs(batch: int, length: int, seed: int) -> torch.Tensor:
    """Draw encoder inputs."""
    return torch.randint(2, TEXT_TOKENS, (batch, length), generator=torch.Generator().manual_seed(seed))


def make_codes(num_items: int, seed: int) -> np.ndarray:
    """Draw identifiers; some are drawn twice."""
    return np.random.default_rng(seed).integers(0, CODEBOOK_SIZE, (num_items, NUM_LEVELS), dtype=np.int32)


def make_dict(codes: np.ndarray) -> dict[int, Any]:
    """Build the nested dict of the usual implementation."""
    root: dict[int, Any] = {}
    for tokens in (codes + np.array(OFFSETS)).tolist():
        node = root
        for token in tokens:
            node = node.setdefault(token, {})
    return root


def peak_of_search(
    name: str, *, shape: str, threads: int, beams: int, batch: int, length: int, num_items: int, seed: int
) -> float:
    """Search once and return how far memory rose above model and catalogue, in MiB; Linux only."""
    torch.set_num_threads(threads)
    case = Case(shape, threads, beams, make_model(shape, seed), make_inputs(batch, length, seed))
    codes = make_codes(num_items, seed)
    if name == "generate_dict":
        search = partial(case.generate_with_dict, make_dict(codes))
    else:
        trie = IdentifierTrie.from_codes(codes, CODEBOOK_SIZE)
        search = partial(case.own, trie, "vocab" if name == "own_vocab" else "level")
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # from here on the peak counts again
    search()
    return resident("VmHWM") - before


def resident(name: str) -> float:
    """Read a line of the process' status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


if __name__ == "__main__":
    print(peak_of_search(sys.argv[1], **json.loads(sys.argv[2])))
