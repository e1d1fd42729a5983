# SPDX-License-Identifier: Apache-2.0
"""Search a trained model's catalogue for items by their titles, without a history. Prints JSON lines.

    python recipes/benchmarks/known_items.py --model runs/gensar-movielens-100k/model

People who know what they want type its name, which need not be in the log. A line for each system: BM25 over title,
description and categories; the model; the model without its `unsearched` view, and without any view. `first` and
`first_ten` are the shares of titles whose item ranks first, and among the first ten. Items that share their title with
another one are left out.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from transformers import AutoModel, AutoProcessor

from seekrec import Request
from seekrec.errors import ConfigurationError
from seekrec.evaluation import BM25
from seekrec.models.checkpoint import named_model
from seekrec.models.views import write_view_weights
from seekrec.util.command_line import one_line_errors
from seekrec.util.parsing import parse_arguments
from seekrec.util.text import fold_text

# Titles of one call.
_AT_ONCE = 32


@dataclass
class Arguments:
    """What is asked."""

    model: str = field(metadata={"help": "Folder of a trained model."})
    num_items: int = field(default=1_000, metadata={"help": "Items that are searched for, at most."})
    seed: int = field(default=0, metadata={"help": "Seed of their choice."})


def main(arguments: Arguments) -> None:
    """Ask all systems."""
    with named_model(arguments.model):
        model = AutoModel.from_pretrained(arguments.model).eval()
    catalog = model.catalog
    processor = AutoProcessor.from_pretrained(arguments.model)
    titles = [fold_text(title or "") for title in catalog.items["title"].to_pylist()]
    counts = Counter(titles)
    named = [row for row in np.flatnonzero(catalog.live).tolist() if titles[row] and counts[titles[row]] == 1]
    if not named:
        raise ConfigurationError(
            f"No item of {arguments.model} has a unique title, so there is nothing to search for."
        )
    chosen = np.random.default_rng(arguments.seed).permutation(named)[: arguments.num_items].tolist()
    wanted = catalog.id_map.convert_to_ids(chosen)
    queries = [str(title) for title in catalog.items["title"].take(chosen).to_pylist()]

    words = BM25(catalog.items)

    def by_words(some: Sequence[str]) -> list[list[str]]:
        scores = words.score_all([Request(query=query) for query in some])
        return [catalog.id_map.convert_to_ids(np.argsort(-line, kind="stable")[:10]) for line in scores]

    def by(answering: AutoModel) -> Callable[[Sequence[str]], list[list[str]]]:
        def ask(some: Sequence[str]) -> list[list[str]]:
            found = answering.retrieve(processor([Request(query=query) for query in some]), top_k=10)
            return [[item.item_id for item in answer] for answer in found]

        return ask

    report("BM25", by_words, queries, wanted)
    report("model", by(model), queries, wanted)
    weights = {task: {**own, "unsearched": 0.0} for task, own in model.view_weights.items()}
    model.config.view_weights = write_view_weights(weights)
    report("model without unsearched words", by(model), queries, wanted)
    if not model.finds_by_views:
        report("model without views", by(model.without_views()), queries, wanted)


def report(
    system: str, ask: Callable[[Sequence[str]], list[list[str]]], queries: Sequence[str], wanted: Sequence[str]
) -> None:
    """Print how often a system finds the items."""
    answers = [
        answer for begin in range(0, len(queries), _AT_ONCE) for answer in ask(queries[begin : begin + _AT_ONCE])
    ]
    first = sum(answer[:1] == [item_id] for answer, item_id in zip(answers, wanted, strict=True))
    first_ten = sum(item_id in answer for answer, item_id in zip(answers, wanted, strict=True))
    shares = {"first": round(first / len(wanted), 4), "first_ten": round(first_ten / len(wanted), 4)}
    print(json.dumps({"system": system, "titles": len(wanted), **shares}), flush=True)


if __name__ == "__main__":
    with one_line_errors(__file__):
        main(*parse_arguments((Arguments,), sys.argv[1:]))
