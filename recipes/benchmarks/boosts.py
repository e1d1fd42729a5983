# SPDX-License-Identifier: Apache-2.0
"""Measure the cost of boosts (numbers added to scores), in beam search over identifiers and in exact answers.

    python recipes/benchmarks/boosts.py
    python recipes/benchmarks/boosts.py --quick

`beams`: a search with boosts for all items, shared by all requests or separate for each, against one without. Weights
    and identifiers are random. `exact`: random catalogues, whose best sums are compared with a full sort of all items;
    the cost of an exact answer in a large one, by how peaked the model's distribution is; and the cost for a GenSAR
    whose encoder orders all items. Prints JSON lines; ratios are of medians of runs that took turns, in processor
    time. `target` is the upper limit, `holds` whether it was met, `floor` the ratio if every number is read once and
    nothing else is done.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from unittest.mock import patch

import numpy as np
import torch
from decoding_cases import CODEBOOK_SIZE, NUM_LEVELS, OFFSETS, make_codes, make_inputs, make_model
from serving_price import make_pair, make_requests, make_shop
from transformers import T5ForConditionalGeneration
from turns import time_in_turns

from seekrec.errors import SearchLimitError
from seekrec.generation import IdentifierTrie, beam_search, score_candidates
from seekrec.models.gensar import modeling_gensar
from seekrec.util.command_line import one_line_errors
from seekrec.util.parsing import parse_arguments

MOST_OF_ADDED = 1.15


@dataclass
class Arguments:
    """What is measured."""

    shapes: list[str] = field(default_factory=lambda: ["small", "tiny"], metadata={"help": "Shapes of the model."})
    batches: list[int] = field(default_factory=lambda: [1, 16], metadata={"help": "Requests in a batch."})
    num_beams: int = field(default=20, metadata={"help": "Beams of a request."})
    num_items: int = field(default=800_000, metadata={"help": "Items whose identifiers are searched."})
    num_exact: int = field(default=200, metadata={"help": "Random catalogues that are searched exactly."})
    repeats: int = field(default=7, metadata={"help": "Runs of each contender."})
    seed: int = field(default=0, metadata={"help": "Seed of all draws."})
    quick: bool = field(default=False, metadata={"help": "Everything once, small, in seconds; targets mean nothing."})

    def __post_init__(self) -> None:
        if self.quick:
            self.shapes, self.batches, self.num_items = ["tiny"], [2], 20_000
            self.num_exact, self.repeats = 3, 1


def prompt_of(model: T5ForConditionalGeneration, batch: int, seed: int) -> dict[str, object]:
    """Return what a search reads, alongside the trie."""
    ids = make_inputs(batch, 64, seed)
    prefix = torch.full((batch, 1), model.config.decoder_start_token_id)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_prefix": prefix, "norm": "level"}


def measure_beams(arguments: Arguments) -> None:
    """Time searches with and without numbers of items."""
    trie = IdentifierTrie.from_codes(make_codes(arguments.num_items, arguments.seed), CODEBOOK_SIZE)
    rng = np.random.default_rng(arguments.seed)
    for shape in arguments.shapes:
        model = make_model(shape, arguments.seed)
        for batch in arguments.batches:
            own = rng.normal(size=(batch, arguments.num_items)).astype(np.float32)
            settings = {"trie": trie, "level_offsets": OFFSETS, "num_beams": arguments.num_beams, "top_k": 10}
            settings |= prompt_of(model, batch, arguments.seed)

            def run(added: np.ndarray | None, model=model, settings=settings) -> object:
                return beam_search(model, **settings, added=added)

            contenders = {"none": None, "shared": own[0]}
            if batch > 1:  # one line is shared by all
                contenders["each"] = own
            runs = {name: lambda added=added: run(added) for name, added in contenders.items()}
            found = time_in_turns(runs | {"read": lambda own=own: own.max(1)}, arguments.repeats, time.process_time)
            for name in list(contenders)[1:]:
                ratio = found[name] / found["none"]
                line = {"what": f"beams: numbers {name} / none", "shape": shape, "batch": batch}
                line |= {"items": arguments.num_items, "milliseconds": round(1e3 * found["none"] / batch, 2)}
                line |= {"value": round(ratio, 3)}
                line |= {"target": MOST_OF_ADDED, "holds": ratio <= MOST_OF_ADDED}
                if name == "each":
                    line["floor"] = round(1 + found["read"] / found["none"], 3)
                print(json.dumps(line), flush=True)


def count_exact(arguments: Arguments) -> None:
    """Compare the best sums of random catalogues with those of all items."""
    model, equal, lost = make_model("tiny", arguments.seed), 0, 0
    for number in range(arguments.num_exact):
        rng = np.random.default_rng(number)
        codes = rng.integers(0, rng.integers(2, 9), (int(rng.integers(5, 400)), NUM_LEVELS))
        added = (rng.normal(size=len(codes)) * rng.choice([0.1, 1.0, 5.0])).astype(np.float32)
        prompt = prompt_of(model, 1, number)
        scores = score_candidates(model, **prompt, codes=[codes], level_offsets=OFFSETS, codebook_size=CODEBOOK_SIZE)[
            0
        ]
        best = np.sort(scores + added)[::-1][:10]
        trie = IdentifierTrie.from_codes(codes, CODEBOOK_SIZE)
        for exact in (True, False):
            found = beam_search(
                model,
                **prompt,
                trie=trie,
                level_offsets=OFFSETS,
                num_beams=10,
                top_k=10,
                added=added,
                exact=exact,
            ).scores[0]
            is_equal = len(found) == len(best) and bool(np.allclose(found, best, atol=1e-3))
            equal += exact and is_equal
            lost += not exact and not is_equal
    line = {"what": "exact: catalogues whose best ten sums are those of all items", "value": equal}
    line |= {"catalogues": arguments.num_exact, "holds": equal == arguments.num_exact}
    print(json.dumps(line | {"ten steered beams alone": arguments.num_exact - lost}), flush=True)


def measure_exact(arguments: Arguments) -> None:
    """Time exact searches of the large catalogue by models that hold few and many codes likely."""
    trie = IdentifierTrie.from_codes(make_codes(arguments.num_items, arguments.seed), CODEBOOK_SIZE)
    added = np.random.default_rng(arguments.seed).normal(size=arguments.num_items).astype(np.float32)
    prompt = prompt_of(make_model("tiny", arguments.seed), 1, arguments.seed)
    settings = {"trie": trie, "level_offsets": OFFSETS, "num_beams": arguments.num_beams, "top_k": 10} | prompt
    for scale in (1, 3, 4, 8):
        model = make_model("tiny", arguments.seed)
        head = model.lm_head.weight.detach()
        # A head of its own: its rows are not the embeddings of tokens.
        model.lm_head.weight = torch.nn.Parameter(scale * head)
        logits = model(input_ids=prompt["input_ids"], decoder_input_ids=prompt["decoder_prefix"]).logits[0, -1]
        codes = logits[OFFSETS[0] : OFFSETS[0] + CODEBOOK_SIZE].log_softmax(-1)
        line: dict[str, object] = {"what": "exact: against beams", "items": arguments.num_items}
        line |= {"nats of the first code": round(-float((codes.exp() * codes).sum()), 2)}
        begin = time.process_time()
        try:
            beam_search(model, **settings, added=added, exact=True)
            line["ends"] = True
        except SearchLimitError:
            line["ends"] = False
        line["milliseconds"] = round(1e3 * (time.process_time() - begin))
        beams = time_in_turns(
            {"beams": lambda model=model: beam_search(model, **settings, added=added)},
            arguments.repeats,
            time.process_time,
        )
        print(json.dumps(line | {"milliseconds of beams": round(1e3 * beams["beams"], 1)}), flush=True)


def measure_next_item(arguments: Arguments) -> None:
    """Time exact answers of a GenSAR whose encoder orders all items, the bare product, and answers of its beams."""
    shop = make_shop(arguments.num_items, arguments.seed, has_views=False)
    model, processor = make_pair("gensar", shop, arguments.seed)
    rng, vectors = np.random.default_rng(arguments.seed), torch.randn(arguments.num_items, model.config.d_model)
    for batch in arguments.batches:
        own = rng.normal(size=(batch, arguments.num_items)).astype(np.float32)
        inputs = processor(make_requests(shop, "recommendation", batch, arguments.seed))
        contenders = {
            "milliseconds": partial(model.retrieve, inputs, exact=True),
            "with numbers": partial(model.retrieve, inputs, exact=True, boost=own),
            "of the product": partial(torch.matmul, vectors, torch.randn(model.config.d_model, batch)),
            "of beams with numbers": partial(model.retrieve, inputs, boost=own),
        }
        # In a small catalogue a boost has all items scored; here it is the beams that are timed.
        with patch.object(modeling_gensar, "_MOST_SCORED", 0):
            found = time_in_turns(contenders, arguments.repeats, time.process_time)
        line = {"what": "exact: next item", "items": arguments.num_items, "batch": batch}
        line |= {name: round(1e3 * seconds / batch, 1) for name, seconds in found.items()}
        print(json.dumps(line), flush=True)


def main(argv: list[str]) -> None:
    """Run all."""
    (arguments,) = parse_arguments([Arguments], argv)
    torch.set_num_threads(1)
    with torch.no_grad():
        measure_beams(arguments)
        count_exact(arguments)
        measure_exact(arguments)
        measure_next_item(arguments)


if __name__ == "__main__":
    with one_line_errors("boosts.py"):
        main(sys.argv[1:])
