# SPDX-License-Identifier: Apache-2.0
"""The stages from a split to embeddings and a catalogue, shared by all families."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seekrec.catalog import Catalog
from seekrec.corpora.pseudo_queries import TextWriter, texts_to_read, writer_version
from seekrec.embeddings import SASRecForNextItem
from seekrec.embeddings.blocks import embed_in_blocks
from seekrec.embeddings.semantic import encoder_version, load_semantic_encoder
from seekrec.embeddings.timed import embed_in_time
from seekrec.events import Split
from seekrec.events.partitions import PartitionedSplit
from seekrec.events.partitions.engines import Engine
from seekrec.events.pool_texts import WRITTEN_KINDS
from seekrec.identifiers import (
    DualRQVAEConfig,
    IdentifierModel,
    IdentifierQualityReport,
    ResidualKMeans,
    ResidualKMeansConfig,
    assign_unique,
    identifier_quality,
    read_published_identifiers,
)
from seekrec.recipes.arguments import EmbeddingArguments, IdentifierArguments
from seekrec.recipes.collaborative import prepare_sasrec
from seekrec.recipes.stages import TRAINING_FOLDER, StageCache
from seekrec.schema import View, item_texts
from seekrec.training.budget import StageTime
from seekrec.training.identifiers import train_dual_rqvae
from seekrec.training.identity import content_digest
from seekrec.util.files import write_table
from seekrec.util.hashing import file_sha256
from seekrec.util.memory_maps import map_rows, row_blocks, write_rows_file

logger = logging.getLogger(__name__)

VECTORS_FILE = "vectors.npy"
QUALITY_FILE = "quality.json"
WRITTEN_FILE = "written.parquet"


@dataclass(frozen=True)
class ItemEmbeddings:
    """Vectors of the items, before they have identifiers.

    Args:
        semantic (`np.ndarray`): Vectors of their texts, float32 of shape `(num_items, dimension)`.
        sasrec ([`SASRecForNextItem`]): Holds the collaborative vectors.
        encoder (`str`, *optional*): Name or path of the text encoder; MiniLM from its wheel if not given.
    """

    semantic: np.ndarray
    sasrec: SASRecForNextItem
    encoder: str | None

    def vectors(self) -> dict[View, np.ndarray]:
        """Return both kinds, float32 of shape `(num_items, dimension)` each."""
        return {"semantic": self.semantic, "collaborative": self.sasrec.item_embeddings()}


@dataclass(frozen=True)
class PreparedItems:
    """Items with their embeddings and identifiers.

    Args:
        catalog ([`Catalog`]): Items, identifiers and embeddings.
        sasrec ([`SASRecForNextItem`]): The collaborative embedding, and a baseline.
        quality ([`IdentifierQualityReport`], *optional*): Quality of the identifiers, where they were learned.
    """

    catalog: Catalog
    sasrec: SASRecForNextItem
    quality: IdentifierQualityReport | None


def prepare_embeddings(
    split: Split,
    settings: EmbeddingArguments,
    cache: StageCache,
    *,
    seed: int,
    report_progress: bool = True,
    engine: Engine = "local",
    whole: PartitionedSplit | None = None,
) -> ItemEmbeddings:
    """Embed the texts of the items, and train SASRec.

    Args:
        split (`Split`): SASRec sees its training events only.
        settings ([`EmbeddingArguments`]): Encoder and SASRec.
        cache ([`StageCache`]): Finds what was done before.
        seed (`int`): Seed of SASRec.
        report_progress (`bool`): Show progress bars.
        engine (`str`): Where texts are embedded: on this machine, or on a Ray cluster.
        whole ([`PartitionedSplit`], *optional*): What SASRec is trained on, where `split` is one partition of it.
    """
    semantic = prepare_semantic(
        split.log.items, settings.semantic_encoder, cache, report_progress=report_progress, engine=engine
    )
    sasrec, _ = prepare_sasrec(split, settings, cache, seed=seed, whole=whole)
    return ItemEmbeddings(semantic, sasrec, settings.semantic_encoder)


def prepare_items(
    split: Split,
    embeddings: ItemEmbeddings,
    settings: IdentifierArguments,
    cache: StageCache,
    *,
    has_events: np.ndarray,
    published: str | None = None,
    seed: int,
) -> PreparedItems:
    """Learn the identifiers of the items and put them into a catalogue.

    Args:
        split (`Split`): Holds the items.
        embeddings ([`ItemEmbeddings`]): Vectors that the identifiers are learned from.
        settings ([`IdentifierArguments`]): Learner and levels.
        cache ([`StageCache`]): Finds what was done before.
        has_events (`np.ndarray`): bool of each item: training acts on it.
        published (`str`, *optional*): Folder of `*.index.json` files for the same items, to compare with.
        seed (`int`): Seed of the identifier learner.
    """
    items, vectors = split.log.items, embeddings.vectors()
    key = {
        "items": content_digest(items),
        "vectors": content_digest(vectors),
        "semantic_encoder": embeddings.encoder,
        "views": settings.identifier_views,
        "num_shared_levels": settings.num_shared_levels,
        "num_specific_levels": settings.num_specific_levels,
        "codebook_size": settings.codebook_size,
        "learner": settings.identifier_learner,
        "num_epochs": settings.identifier_num_epochs,
        "learning_rate": settings.identifier_learning_rate,
        "reduction": settings.identifier_reduction,
        "seed": seed,
        "published": {path.name: file_sha256(path) for path in _published_files(published)},
    }

    time = cache.make_time()

    def make(folder: Path) -> None:
        learnt, quality = learn_catalog(
            items,
            vectors,
            settings,
            semantic_encoder=embeddings.encoder,
            folder=folder / TRAINING_FOLDER,
            seed=seed,
            published=published,
            time=time,
        )
        learnt.save(folder / "catalog")
        quality.save(folder / QUALITY_FILE)

    def load(folder: Path) -> tuple[Catalog, IdentifierQualityReport]:
        catalog = Catalog.load(folder / "catalog", semantic_encoder=embeddings.encoder)
        return catalog, IdentifierQualityReport.load(folder / QUALITY_FILE)

    catalog, quality = cache.run(
        "identifiers",
        key,
        make,
        load,
        libraries=("torch", "transformers", "numpy", "scipy", "scikit-learn"),
        time=time,
    )
    # What SASRec has of an item without training events is where it began: nothing is learned from it.
    catalog = replace(catalog, is_predicted=catalog.is_predicted | ~has_events)
    logger.info("identifiers:\n%s", quality)
    return PreparedItems(catalog, embeddings.sasrec, quality)


def prepare_plain_items(
    split: Split, embeddings: ItemEmbeddings, *, atomic: bool, has_events: np.ndarray
) -> PreparedItems:
    """Put the items into a catalogue whose identifiers are not learned.

    Args:
        split (`Split`): Holds the items.
        embeddings ([`ItemEmbeddings`]): Vectors of the items, which the catalogue keeps.
        atomic (`bool`): Whether each item has an identifier of one unique code (BSR); without identifiers otherwise.
        has_events (`np.ndarray`): bool of each item: training acts on it.
    """
    items = split.log.items
    codes: dict[View, np.ndarray] = {"collaborative": np.arange(items.num_rows)[:, None]}
    catalog = Catalog.build(
        items,
        codes if atomic else None,
        num_shared_levels=1 if atomic else 0,
        codebook_size=items.num_rows if atomic else 0,
        embeddings=embeddings.vectors(),
        semantic_encoder_name=embeddings.encoder,
        is_predicted=~has_events,
    )
    return PreparedItems(catalog, embeddings.sasrec, None)


def prepare_semantic(
    items: pa.Table,
    encoder: str | None,
    cache: StageCache,
    *,
    report_progress: bool = True,
    engine: Engine = "local",
) -> np.ndarray:
    """Embed the text of the items, those for which there is time; see [`embed_in_time`].

    Returns:
        `np.ndarray`: float32 of shape `(num_items, dimension)`, unit length, mapped from the file of the stage.
    """
    texts = item_texts(items)
    # Nodes of a cluster embed all of them.
    time = cache.make_time() if engine == "local" else None

    def make(folder: Path) -> None:
        if time is not None:
            vectors, is_embedded = embed_in_time(
                texts, encoder=load_semantic_encoder(encoder), seconds_left=time.seconds_left
            )
            np.save(folder / VECTORS_FILE, vectors, allow_pickle=False)
            time.note_texts(is_embedded)
            return
        blocks = folder / TRAINING_FOLDER
        vectors = embed_in_blocks(texts, blocks, name_or_path=encoder, show_progress=report_progress, engine=engine)
        write_rows_file(folder / VECTORS_FILE, (block for _, block in row_blocks(vectors)), vectors.shape)

    return cache.run(
        "semantic",
        {"texts": content_digest(texts), "encoder": encoder_version(encoder)},
        make,
        lambda folder: map_rows(folder / VECTORS_FILE),
        libraries=("torch", "transformers", "sentence-transformers"),
        time=time,
    )


def prepare_written_queries(
    items: pa.Table, kinds: Sequence[str], cache: StageCache, *, seed: int, report_progress: bool = True
) -> dict[str, list[list[str]]]:
    """Let models write queries for the items, for those kinds of a query pool that name a model.

    Args:
        items (`pyarrow.Table`): Rows of `ITEM_FEATURES`.
        kinds (`Sequence[str]`): Kinds of the pool; of interest are `doc2query=MODEL` and `paraphrase=MODEL`.
        cache ([`StageCache`]): Keeps what was written.
        seed (`int`): Seed of what is written.
        report_progress (`bool`): Show a progress bar.

    Returns:
        `dict[str, list[list[str]]]`: By kind, the texts of each item.
    """
    found = {}
    for kind in kinds:
        name, _, model = kind.partition("=")
        if name not in WRITTEN_KINDS:
            continue
        texts = texts_to_read(items, name)

        def make(folder: Path, texts: list[str] = texts, model: str = model) -> None:
            written = TextWriter(model).write(texts, seed=seed, show_progress=report_progress)
            write_table(folder / WRITTEN_FILE, pa.table({"queries": pa.array(written, pa.list_(pa.string()))}))

        found[kind] = cache.run(
            name,
            {"texts": content_digest(texts), "model": writer_version(model), "seed": seed},
            make,
            lambda folder: pq.read_table(folder / WRITTEN_FILE)["queries"].to_pylist(),
            libraries=("torch", "transformers"),
        )
    return found


def learn_catalog(
    items: pa.Table,
    vectors: dict[View, np.ndarray],
    settings: IdentifierArguments,
    *,
    semantic_encoder: str | None,
    folder: Path,
    seed: int,
    published: str | Path | None = None,
    time: StageTime | None = None,
) -> tuple[Catalog, IdentifierQualityReport]:
    """Learn identifiers from item vectors, make them unique, build the catalogue and measure the identifiers.

    Args:
        items (`pyarrow.Table`): The items.
        vectors (`dict[str, np.ndarray]`): float32 of shape `(num_items, dimension)` for each view.
        settings ([`IdentifierArguments`]): Learner, views and levels.
        semantic_encoder (`str`, *optional*): Name or path of the text encoder.
        folder (`Path`): Folder of the learner's checkpoints.
        seed (`int`): Seed of the learner.
        published (`str` or `Path`, *optional*): Folder of `*.index.json` files for the same items in the same order.
        time ([`StageTime`], *optional*): What training them may take.

    Returns:
        `tuple[Catalog, IdentifierQualityReport]`: The catalogue; and of its identifiers, before and after they were
        made unique, collisions, code use, errors, and agreement with the items' category paths, where they have any.
    """
    sizes = {
        "views": list(settings.identifier_views),
        "semantic_size": vectors["semantic"].shape[1],
        "collaborative_size": vectors["collaborative"].shape[1],
        "num_shared_levels": settings.num_shared_levels,
        "num_specific_levels": settings.num_specific_levels,
        "codebook_size": settings.codebook_size,
    }
    semantic, collaborative = vectors["semantic"], vectors["collaborative"]
    if settings.identifier_learner == "residual_kmeans":
        learner: IdentifierModel = ResidualKMeans(ResidualKMeansConfig(**sizes)).fit(
            semantic, collaborative, seed=seed
        )
    else:
        learner = train_dual_rqvae(
            semantic,
            collaborative,
            DualRQVAEConfig(**sizes, reduction=settings.identifier_reduction),
            output_dir=folder,
            num_epochs=settings.identifier_num_epochs,
            learning_rate=settings.identifier_learning_rate,
            seed=seed,
            time=time,
        )
    encoded = learner.encode(semantic, collaborative)
    assigned = assign_unique(
        encoded.codes,
        encoded.costs,
        codebook_size=settings.codebook_size,
        num_shared_levels=settings.num_shared_levels,
    )
    catalog = Catalog.build(
        items,
        assigned.codes,
        num_shared_levels=settings.num_shared_levels,
        codebook_size=settings.codebook_size,
        embeddings={view: vectors[view] for view in ("semantic", "collaborative")},
        identifier_model=learner,
        semantic_encoder_name=semantic_encoder,
    )
    labels = [" > ".join(paths[0]) if paths else None for paths in catalog.items["categories"].to_pylist()]
    quality = identifier_quality(
        learner,
        encoded,
        assigned,
        vectors,
        labels=labels if any(labels) else None,
        published={
            path.name.removesuffix(".index.json"): read_published_identifiers(path)
            for path in _published_files(published)
        },
    )
    return catalog, quality


def _published_files(folder: str | Path | None) -> list[Path]:
    return sorted(Path(folder).glob("*.index.json")) if folder is not None else []


__all__ = [
    "ItemEmbeddings",
    "PreparedItems",
    "learn_catalog",
    "prepare_embeddings",
    "prepare_items",
    "prepare_plain_items",
    "prepare_semantic",
    "prepare_written_queries",
]
