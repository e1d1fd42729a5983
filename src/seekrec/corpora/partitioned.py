# SPDX-License-Identifier: Apache-2.0
"""Windows and corpora of a log that is larger than memory: those of one partition at a time.

What is the same for the whole log (its actions, what its sessions mean) comes from the [`PartitionedSplit`], and draws
depend on user and event alone: together the partitions hold what would be made in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
from transformers import AutoTokenizer

from seekrec.catalog import Catalog
from seekrec.corpora.segments import CorpusSettings
from seekrec.corpora.stream import build_stream
from seekrec.corpora.tokens import IdentifierVocabulary
from seekrec.events.partitions.buckets import event_keys
from seekrec.events.partitions.engines import Engine, Job, run_partitions
from seekrec.events.partitions.splits import PartitionedSplit
from seekrec.util.files import write_table

CORPUS_FILE = "corpus.parquet"


@dataclass
class StreamLengths:
    """[`CorpusSettings`] as they stand in a job."""

    recommend_searched_items: bool
    max_history_recommendations: int
    max_history_searches: int
    max_query_tokens: int
    max_text_tokens: int


def write_streams(
    split: PartitionedSplit,
    catalog: str | Path,
    tokenizer: str | Path,
    vocabulary: IdentifierVocabulary,
    settings: CorpusSettings,
    folder: str | Path,
    *,
    shares: Mapping[str, float] | None = None,
    seed: int = 0,
    engine: Engine = "local",
    num_workers: int | None = None,
) -> list[Path]:
    """Write the corpus of [`build_stream`] as a Parquet file for each partition.

    Files that are there are not written again: use another folder for other settings.

    Args:
        split ([`PartitionedSplit`]): The split.
        catalog (`str` or `Path`): Folder of a saved [`Catalog`].
        tokenizer (`str` or `Path`): Folder of a saved tokenizer that has the tokens of the vocabulary.
        vocabulary ([`IdentifierVocabulary`]): The identifier tokens.
        settings ([`CorpusSettings`]): See [`build_stream`].
        folder (`str` or `Path`): Where to write.
        shares (`Mapping[str, float]`, *optional*): See [`build_stream`].
        seed (`int`): See [`build_stream`].
        engine (`str`): See [`run_partitions`].
        num_workers (`int`, *optional*): See [`run_partitions`].

    Returns:
        `list[Path]`: The files, in the order of the partitions.
    """
    lengths = {name: getattr(settings, name) for name in StreamLengths.__dataclass_fields__}
    jobs = [
        Job(
            output=str(Path(folder) / partition.folder),
            inputs=(str(split.folder), str(catalog), str(tokenizer)),
            settings={
                "partition": number,
                "lengths": lengths,
                "vocabulary": asdict(vocabulary),
                "shares": None if shares is None else dict(shares),
                "seed": seed,
            },
        )
        for number, partition in enumerate(split.log.partitions)
    ]
    run_partitions(write_stream, jobs, engine=engine, num_workers=num_workers)
    return [Path(job.output) / CORPUS_FILE for job in jobs]


def write_stream(job: Job, folder: Path) -> None:
    """Write the corpus of one partition: inputs are the folders of split, catalogue and tokenizer."""
    split_folder, catalog_folder, tokenizer_folder = job.inputs
    part = PartitionedSplit.load(split_folder).partition(job.settings["partition"])
    corpus = build_stream(
        part,
        Catalog.load(catalog_folder),
        AutoTokenizer.from_pretrained(tokenizer_folder),
        IdentifierVocabulary(**job.settings["vocabulary"]),
        StreamLengths(**job.settings["lengths"]),
        shares=job.settings["shares"],
        seed=job.settings["seed"],
        draw_keys=event_keys(part.log.events, part.timeline),
    )
    write_table(folder / CORPUS_FILE, pa.table(corpus.data.table))


__all__ = ["StreamLengths", "write_stream", "write_streams"]
