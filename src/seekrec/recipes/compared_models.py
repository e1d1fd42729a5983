# SPDX-License-Identifier: Apache-2.0
"""Load saved models for the table of another run, and check that they were not trained on its test."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoModel, AutoProcessor

from seekrec.catalog import Catalog
from seekrec.errors import CheckpointError, ConfigurationError
from seekrec.evaluation.report import ResultRow, read_results
from seekrec.evaluation.systems import ModelRetriever
from seekrec.events import Split
from seekrec.events.partitions import PartitionedSplit
from seekrec.models.checkpoint import refuse_no_model
from seekrec.models.processing import CatalogProcessor
from seekrec.recipes.record import EVERYTHING, read_refit
from seekrec.schema import BEHAVIORS
from seekrec.util.redaction import place_name

logger = logging.getLogger(__name__)


def load_processor(folder: str | Path, catalog: Catalog) -> CatalogProcessor:
    """Load the processor of a saved model; it embeds queries with the encoder of a catalogue if that is its own.

    Args:
        folder (`str` or `Path`): Model folder that a recipe wrote.
        catalog ([`Catalog`]): The catalogue of this run.
    """
    processor: CatalogProcessor = AutoProcessor.from_pretrained(folder)
    vectors, name = getattr(processor, "query_vectors", None), catalog.semantic_encoder_name
    if vectors is not None and name is not None and vectors.encoder_name == place_name(name):
        vectors.encoder_name, vectors.encoder_is_trusted = name, True  # the encoder of this run
    return processor


@dataclass(frozen=True)
class SavedModel:
    """A saved model for the table.

    Args:
        system ([`ModelRetriever`]): Answers what the model was tested on in its own run.
        searches_all (`bool`): Whether it ranked the whole catalogue there; otherwise it orders candidates alone.
    """

    system: ModelRetriever
    searches_all: bool


def check_folders(folders: Sequence[str]) -> None:
    """Refuse what cannot be the folders of saved models, without a look at what they were trained on.

    Args:
        folders (`Sequence[str]`): What `compare_with` names.

    Raises:
        ConfigurationError: If one is no folder of a model, or is named twice.
    """
    for folder in folders:
        if not Path(folder).is_dir():
            raise ConfigurationError(f"`compare_with` names {folder!r}, which is not a folder; name that of a model.")
        try:
            refuse_no_model(Path(folder))
        except CheckpointError as error:
            raise ConfigurationError(f"`compare_with` names {folder!r}. {error}") from error
    _places(folders)


def _places(folders: Sequence[str]) -> list[tuple[str, ...]]:
    places = [Path(folder).resolve().parent.parts for folder in folders]
    if len(set(places)) < len(places):
        raise ConfigurationError(f"`compare_with` is {list(folders)}, which names a run twice; name each once.")
    return places


def load_others(
    folders: Sequence[str], split: Split | PartitionedSplit, catalog: Catalog, num_beams: int
) -> dict[str, SavedModel]:
    """Load saved models for the table.

    Args:
        folders (`Sequence[str]`): Model folders that a recipe wrote.
        split (`Split` or [`PartitionedSplit`]): The split of the comparison.
        catalog ([`Catalog`]): Its items.
        num_beams (`int`): Beam width of models that write identifiers.

    Returns:
        `dict[str, SavedModel]`: By name in reports: family and folder of the run, and as many folders above it as tell
        two of one name apart.

    Raises:
        ConfigurationError: If a folder is named twice, or its model has other items or was trained on another split.
    """
    places = _places(folders)
    found = {}
    for folder, place in zip(folders, places, strict=True):
        alike = [other for other in places if other != place and other[-1:] == place[-1:]]
        depth = next(n for n in range(1, len(place) + 1) if all(other[-n:] != place[-n:] for other in alike))
        family, saved = _load_other(folder, split, catalog, num_beams)
        found[f"{family} ({'/'.join(place[-depth:])})"] = saved
    return found


def _load_other(
    folder: str, split: Split | PartitionedSplit, catalog: Catalog, num_beams: int
) -> tuple[str, SavedModel]:
    model = AutoModel.from_pretrained(folder).eval()
    if model.catalog.id_map.ids != catalog.id_map.ids:
        raise ConfigurationError(
            f"`compare_with` names {folder!r}, whose catalogue of {len(model.catalog)} items differs from this data "
            f"set's {len(catalog)} items, or has them in another order; name a model trained on the same log."
        )
    family = type(model).__name__.partition("For")[0]
    own = [row for row in read_tested(folder, split) if row.system in (family, "HSTU")]
    # Where nothing says what it was asked, it is asked all.
    behaviors = tuple(name for name in BEHAVIORS if not own or any(row.behavior == name for row in own))
    writes = hasattr(model.config, "codebook_size")
    system = ModelRetriever(
        model,
        load_processor(folder, catalog),
        num_beams=num_beams if writes else None,
        behaviors=behaviors,
    )
    return family, SavedModel(system, not own or any(row.protocol.startswith("full") for row in own))


def read_tested(folder: str | Path, split: Split | PartitionedSplit) -> list[ResultRow]:
    """Return the results of a saved model, none where there are none, and refuse one of another split.

    Args:
        folder (`str` or `Path`): Model folder that a recipe wrote.
        split (`Split` or [`PartitionedSplit`]): The split of the comparison.

    Raises:
        ConfigurationError: If it was trained on another split, or on all events, and may have learned from these test
            cases.
    """
    if read_refit(folder).get("learned_from") == EVERYTHING:
        raise ConfigurationError(
            f"`compare_with` names {str(folder)!r}, which was trained on all events of its log (`refit` "
            f"{EVERYTHING}), including these test cases; name a run without `refit`."
        )
    results = Path(folder) / "results.json"
    rows = read_results(results) if results.is_file() else []
    if not rows:
        logger.warning("%s has no results, so it is unknown whether it was trained on this split.", folder)
    elif split.fingerprint not in {row.split_fingerprint for row in rows}:
        raise ConfigurationError(
            f"`compare_with` names {str(folder)!r}, which was trained on another split ({rows[0].dataset}, "
            f"{rows[0].split_method}, {rows[0].split_protocol}, {rows[0].split_fingerprint[:12]}) than this one "
            f"({split.log.name}, {split.method}, {split.protocol}, {split.fingerprint[:12]}) and may have learned "
            "from these test cases; train it on this split."
        )
    return rows


__all__ = ["SavedModel", "check_folders", "load_others", "load_processor", "read_tested"]
