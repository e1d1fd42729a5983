# SPDX-License-Identifier: Apache-2.0
"""The data of a run whose log is larger than memory: partitions, their split, and a sample for what needs a log.

Validation, examples and the notes of the log are taken from a sample of the users of all partitions, an ordinary
[`Split`]; training and test read all partitions, one after the other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from seekrec.catalog import Catalog
from seekrec.corpora.partitioned import CorpusLengths, CorpusShards, write_corpus_shards
from seekrec.corpora.segments import CorpusSettings
from seekrec.corpora.shards import SHARDS_VERSION
from seekrec.corpora.text import tokenizer_digest
from seekrec.corpora.tokens import IdentifierVocabulary
from seekrec.corpora.window_shards import WindowShards, write_window_shards
from seekrec.errors import DataError
from seekrec.evaluation.protocols import RankingProtocol, build_cases
from seekrec.events import ColdStart, Split
from seekrec.events.partitions import PartitionedLog, PartitionedSplit, audit_partitions, split_partitions
from seekrec.events.partitions.derived import construct_searches, hold_out_partitioned, partitioned_cold_start
from seekrec.events.partitions.engines import Engine
from seekrec.events.partitions.sampled import read_sample
from seekrec.events.partitions.training_facts import TrainingFacts, gather_training_facts
from seekrec.events.split import LearnedAlso
from seekrec.models import GenSRProcessor
from seekrec.models.dense import DenseConfig
from seekrec.recipes.arguments import SPLIT_SEED, DataArguments, EvaluationArguments
from seekrec.recipes.stages import StageCache
from seekrec.schema import BEHAVIORS, Behavior
from seekrec.training.gensr_data import RequestArguments
from seekrec.training.gensr_shards import RequestShards, request_key, write_request_shards

logger = logging.getLogger(__name__)

_FACTS_VERSION = 2


@dataclass(frozen=True)
class PartitionedData:
    """The split of a partitioned log, and what is known of all its training events.

    Args:
        split ([`PartitionedSplit`]): The split.
        facts ([`TrainingFacts`]): Facts of its training events.
        sample (`Split`): A sample of the users, about as large as the largest partition.
        held_out (`tuple`, *optional*): Where items are held out, the split of the log with them, and the folder of
            the log without them.
    """

    split: PartitionedSplit
    facts: TrainingFacts
    sample: Split
    held_out: tuple[PartitionedSplit, Path] | None = None

    def training_queries(self) -> Mapping[str, int]:
        """Return the queries of training, and how often each was typed."""
        return dict(zip(self.facts.queries.to_pylist(), self.facts.query_counts.tolist(), strict=True))

    def geohashes(self) -> list[str]:
        """Return the areas that two training events share; see [`~seekrec.corpora.training_windows.log_geohashes`].

        Raises:
            DataError: If there are none.
        """
        found = [name for name, count in self.facts.geohash_counts.items() if count > 1]
        if not found:
            raise DataError(
                f"No two training events of {self.split.log.name!r} share a geohash; leave 'geohash' out of "
                "`scenario_features`."
            )
        return found

    def num_cases(self) -> dict[str, dict[str, int]]:
        """Count the questions by behavior: those of validation in the sample, those of the test in all partitions."""
        return {**self.sample.num_cases(), "test": self.split.counts.num_cases["test"]}

    def time_reads(
        self,
        catalog: Catalog,
        settings: EvaluationArguments,
        only_candidates: Collection[str] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> float:
        """Time reading the largest partition for its test; return the seconds of all, as often as a test reads them.

        Args:
            catalog ([`Catalog`]): Its items.
            settings ([`EvaluationArguments`]): Protocols and baselines of the test. A case of each protocol is built,
                so that what is made once of a partition is made.
            only_candidates (`Collection[str]`): Systems that are asked in the second of two readings.
            clock (`Callable`): Returns seconds.
        """
        protocols: tuple[RankingProtocol, ...] = ("full", *settings.candidate_protocols)
        # Those who ask for held-out items, and the baselines that count all acts or searches, read all of them, too.
        readings = 1 + bool(only_candidates and len(protocols) > 1) + (self.held_out is not None)
        if settings.has_baselines:
            readings += len({"query_log", "item_knn"}.intersection(settings.more_baselines))
            # Forms of queries are asked of a few searches, which stand in all of them.
            readings += 1
        # Lists, and the query log that tells which queries are new.
        readings += 2 * settings.measures
        sizes = [partition.num_events for partition in self.split.log.partitions]
        started = clock()
        part = self.split.partition(int(np.argmax(sizes)))
        for behavior in BEHAVIORS:
            if part.targets("test", behavior):
                for protocol in protocols:
                    build_cases(
                        part,
                        catalog.id_map,
                        behavior=behavior,
                        protocol=protocol,
                        num_negatives=1,
                        seed=SPLIT_SEED,
                        chosen=np.arange(1),
                        counts=self.facts.counts,
                    )
        return readings * (clock() - started) * sum(sizes) / max(1, max(sizes))

    def cold_start(self) -> ColdStart:
        """Return the new items and who asks for them.

        Those that are held out, with all questions for them; else those without training events, with the questions
        of the sample.
        """
        if self.held_out is not None:
            return partitioned_cold_start(*self.held_out)
        items = self.split.log.items.filter(~self.facts.has_acts)
        return ColdStart(self.sample, items, held_out=False)


def prepare_partitions(
    log: PartitionedLog, data: DataArguments, cache: StageCache, *, geohash_length: int = 0
) -> PartitionedData:
    """Split and audit a partitioned log, and gather the facts of its training events.

    As in memory, a log without searches gets those that the settings ask for, and with `num_cold_items` some items
    leave it first.

    Args:
        log ([`PartitionedLog`]): The log.
        data ([`DataArguments`]): The split.
        cache ([`StageCache`]): Finds what was done before.
        geohash_length (`int`): Characters of the geohashes that are counted.

    Raises:
        ConfigurationError: If more items are to be held out than the test looks for.
        DataError: If the log cannot be used.
        LeakageError: If a strict split leaks.
    """
    if log.query_source == "none" and data.construction in ("split", "copy"):
        log = _with_searches(log, data.construction, cache, data.engine)
    for note in log.notes:
        logger.info("%s: %s", log.name, note)
    split, held_out = _split_once(log, data, cache), None
    if data.num_cold_items:
        log, folder = _hold_out(split, data, cache)
        held_out = (split, folder)
        logger.info("%s: %s", log.name, log.notes[-1])
        split = _split_once(log, data, cache)
    logger.info("audit of the split:\n%s", audit_partitions(split))

    return PartitionedData(split, *_gather_facts(split, cache, data.engine, geohash_length), held_out)


def learn_partitions(
    parts: PartitionedData, data: DataArguments, cache: StageCache, also: LearnedAlso, *, geohash_length: int = 0
) -> PartitionedData:
    """Return the same log split so that training has what was held out, too.

    Args:
        parts ([`PartitionedData`]): The log, as [`prepare_partitions`] made it.
        data ([`DataArguments`]): The split.
        cache ([`StageCache`]): Finds what was done before.
        also (`str`): See [`~seekrec.events.splits.learn_held_out`].
        geohash_length (`int`): As for [`prepare_partitions`].
    """
    split = _split_once(parts.split.log, data, cache, also)
    return PartitionedData(split, *_gather_facts(split, cache, data.engine, geohash_length), parts.held_out)


def _gather_facts(
    split: PartitionedSplit, cache: StageCache, engine: Engine, geohash_length: int
) -> tuple[TrainingFacts, Split]:
    log = split.log

    def load(folder: Path) -> tuple[TrainingFacts, Split]:
        facts = gather_training_facts(split, folder, geohash_length=geohash_length)
        return facts, read_sample(split, [folder / partition.folder for partition in log.partitions])

    return cache.run(
        "facts",
        {
            "split": split.fingerprint,
            "files": log.digest,
            "geohash_length": geohash_length,
            "version": _FACTS_VERSION,
        },
        lambda folder: gather_training_facts(split, folder, geohash_length=geohash_length, engine=engine),
        load,
        libraries=("pyarrow",),
    )


def _with_searches(
    log: PartitionedLog, construction: Literal["split", "copy"], cache: StageCache, engine: Engine
) -> PartitionedLog:
    key = {"log": log.fingerprint, "files": log.digest, "construction": construction, "seed": SPLIT_SEED}

    def make(folder: Path) -> None:
        construct_searches(log, folder / "log", construction=construction, seed=SPLIT_SEED, engine=engine)

    return cache.run("searches", key, make, lambda folder: PartitionedLog.load(folder / "log"), libraries=("numpy",))


def _hold_out(split: PartitionedSplit, data: DataArguments, cache: StageCache) -> tuple[PartitionedLog, Path]:
    """Return the log without the items that are held out, and the folder that names them."""
    key = {
        "split": split.fingerprint,
        "files": split.log.digest,
        "num_items": data.num_cold_items,
        "seed": SPLIT_SEED,
    }

    def make(folder: Path) -> None:
        hold_out_partitioned(split, data.num_cold_items, folder / "log", seed=SPLIT_SEED, engine=data.engine)

    folder = cache.run("held-out", key, make, lambda folder: folder / "log", libraries=("numpy",))
    return PartitionedLog.load(folder), folder


def _split_once(
    log: PartitionedLog, data: DataArguments, cache: StageCache, also: LearnedAlso | None = None
) -> PartitionedSplit:
    key: dict[str, object] = {
        "log": log.fingerprint,
        "files": log.digest,
        "name": log.name,
        "method": data.split_method,
        "protocol": data.protocol,
        "seed": SPLIT_SEED,
        **({} if also is None else {"also": also}),
    }

    def make(folder: Path) -> None:
        split_partitions(
            log,
            folder / "split",
            method=data.split_method,
            protocol=data.protocol,
            seed=SPLIT_SEED,
            also=also,
            engine=data.engine,
        )

    return cache.run(
        "split", key, make, lambda folder: PartitionedSplit.load(folder / "split", log=log), libraries=("numpy",)
    )


def prepare_window_shards(
    data: PartitionedData,
    cache: StageCache,
    config: DenseConfig,
    *,
    behaviors: Sequence[Behavior],
    geohashes: Sequence[str],
    recommend_searched_items: bool,
    use_session_mask: bool,
    engine: Engine,
) -> WindowShards:
    """Write the windows of all partitions; see [`write_window_shards`].

    Args:
        data ([`PartitionedData`]): The split.
        cache ([`StageCache`]): Finds what was done before.
        config ([`DenseConfig`]): The length of a history, and what `session_id` means.
        behaviors (`Sequence[str]`): See [`write_window_shards`], like all that follow.
        geohashes (`Sequence[str]`): Places.
        recommend_searched_items (`bool`): Whether searched items are recommendations too.
        use_session_mask (`bool`): Whether the events of a session are hidden from its questions.
        engine (`str`): Where windows are made.
    """
    settings: dict[str, Any] = {
        "behaviors": list(behaviors),
        "geohashes": list(geohashes),
        "max_history": config.max_history,
        "recommend_searched_items": recommend_searched_items,
        "session_ids": config.session_ids,
        "use_session_mask": use_session_mask,
    }

    def make(folder: Path) -> None:
        write_window_shards(data.split, folder, data.facts, engine=engine, **settings)

    return cache.run("windows", _shards_key(data, settings), make, WindowShards, libraries=("pyarrow",))


def prepare_corpus_shards(
    data: PartitionedData,
    cache: StageCache,
    catalog: Catalog,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: IdentifierVocabulary,
    settings: CorpusSettings,
    *,
    shares: Mapping[str, float],
    tasks: Sequence[str],
    item_queries: bool,
    seed: int,
    engine: Engine,
) -> CorpusShards:
    """Write the corpora of all partitions; see [`write_corpus_shards`].

    Args:
        data ([`PartitionedData`]): The split.
        cache ([`StageCache`]): Finds what was done before.
        catalog ([`Catalog`]): See [`write_corpus_shards`], like all that follow.
        tokenizer (`PreTrainedTokenizerBase`): The tokenizer.
        vocabulary ([`IdentifierVocabulary`]): The identifier tokens.
        settings ([`CorpusSettings`]): Maximum lengths.
        shares (`Mapping[str, float]`): Tasks of the stream.
        tasks (`Sequence[str]`): Tasks of instructions.
        item_queries (`bool`): Whether items are asked for by their categories.
        seed (`int`): Seed of the draws.
        engine (`str`): Where corpora are written.
    """
    asked: dict[str, Any] = {"shares": dict(shares), "tasks": list(tasks), "item_queries": item_queries, "seed": seed}
    shared = (catalog, tokenizer, vocabulary, settings)
    key = {
        "catalogue": catalog.content_hash,
        "tokenizer": tokenizer_digest(tokenizer),
        "lengths": {name: getattr(settings, name) for name in CorpusLengths.__dataclass_fields__},
        **asked,
    }

    def make(folder: Path) -> None:
        write_corpus_shards(data.split, *shared, folder, engine=engine, **asked)

    return cache.run("corpus", _shards_key(data, key), make, CorpusShards, libraries=("pyarrow", "tokenizers"))


def prepare_request_shards(
    data: PartitionedData,
    cache: StageCache,
    processor: GenSRProcessor,
    settings: RequestArguments,
    *,
    seed: int,
    engine: Engine,
) -> RequestShards:
    """Write GenSR's training requests of all partitions; see [`write_request_shards`].

    Args:
        data ([`PartitionedData`]): The split.
        cache ([`StageCache`]): Finds what was done before.
        processor ([`GenSRProcessor`]): See [`write_request_shards`], like all that follow.
        settings ([`RequestArguments`]): What is asked.
        seed (`int`): Seed of the draws.
        engine (`str`): Where requests are written.
    """
    key = {"seed": seed, **request_key(processor, settings)}

    def make(folder: Path) -> None:
        write_request_shards(data.split, processor, data.facts, settings, folder, seed=seed, engine=engine)

    return cache.run("requests", _shards_key(data, key), make, RequestShards, libraries=("pyarrow", "tokenizers"))


def _shards_key(data: PartitionedData, settings: Mapping[str, object]) -> dict[str, object]:
    """Return what shards depend on: the split, the form of shards, and what was asked."""
    return {
        "split": data.split.fingerprint,
        "files": data.split.log.digest,
        "version": SHARDS_VERSION,
        **settings,
    }


__all__ = [
    "PartitionedData",
    "prepare_corpus_shards",
    "prepare_partitions",
    "prepare_request_shards",
    "prepare_window_shards",
]
