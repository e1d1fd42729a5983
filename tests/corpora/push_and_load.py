# SPDX-License-Identifier: Apache-2.0
"""Run in a process of its own, which knows the test Hub from the start: push corpora, load them back, compare."""

from __future__ import annotations

import sys

from music_shop import CODEBOOK_SIZE, CODES, LINES, make_log, make_tokenizer

from seekrec.catalog import Catalog
from seekrec.corpora import build_corpus, load_corpus, push_corpus
from seekrec.errors import DataError
from seekrec.events import split_log
from seekrec.models import GenSARConfig


def report(line: str) -> None:
    sys.stdout.write(line + "\n")


def main() -> None:
    log = make_log(LINES)
    catalog = Catalog.build(log.items, CODES, num_shared_levels=2, codebook_size=CODEBOOK_SIZE)
    tools = (split_log(log), catalog, *make_tokenizer())
    tasks = ("nrip", "nsip")
    parts = {
        part: build_corpus(*tools, GenSARConfig(), tasks=tasks, seed=seed)
        for seed, part in enumerate(("train", "validation"))
    }
    push_corpus(parts, "me/corpus")
    for part, corpus in parts.items():
        loaded = load_corpus("me/corpus", part)
        for name, rows in corpus.items():
            same = loaded[name].features == rows.features and loaded[name].to_list() == rows.to_list()
            report(f"{part} {name} {len(rows)} {same}")
    try:
        load_corpus("me/corpus", "test")
    except DataError as error:
        report(str(error))


if __name__ == "__main__":
    main()
