# SPDX-License-Identifier: Apache-2.0
"""What the IntSR recipe is made of: windows, processor, model and Trainer, each from its settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from seekrec.catalog import Catalog
from seekrec.corpora.training_windows import (
    TrainingWindows,
    choose_session_ids,
    log_actions,
    log_geohashes,
)
from seekrec.embeddings import SASRecForNextItem
from seekrec.errors import ConfigurationError
from seekrec.events import Split
from seekrec.events.negatives import SampledKind
from seekrec.models import IntSRConfig, IntSRForSearchAndRecommendation, IntSRProcessor
from seekrec.recipes.intsr_arguments import IntSRArguments
from seekrec.recipes.windows import WindowRecipe, make_windows
from seekrec.schema import RECOMMENDATION, Behavior
from seekrec.training.event_windows import WindowCollator, fusion_settings, make_window_collator
from seekrec.training.window_arguments import WindowArguments


def make_intsr_processor(
    split: Split, catalog: Catalog, settings: WindowArguments, model: IntSRArguments
) -> IntSRProcessor:
    """Make the processor that lays requests out as windows are; queries are embedded as items are.

    Raises:
        ConfigurationError: If the scenario shall hold a geohash of no character.
        DataError: If the scenario shall hold a geohash and training has none.
    """
    geohashes: list[str] = []
    if "geohash" in model.scenario_features:
        if not 1 <= model.geohash_precision <= 12:
            raise ConfigurationError(f"`geohash_precision` is {model.geohash_precision}; give a number from 1 to 12.")
        geohashes = log_geohashes(split, model.geohash_precision)
    return IntSRProcessor(
        catalog,
        max_history=settings.max_history,
        actions=log_actions(split),
        geohashes=geohashes,
        session_ids=choose_session_ids(split, settings.session_ids),
        text_folding=settings.text_folding,
    )


def make_intsr_model(
    catalog: Catalog,
    processor: IntSRProcessor,
    settings: IntSRArguments,
    windows: WindowArguments,
    sasrec: SASRecForNextItem | None = None,
) -> IntSRForSearchAndRecommendation:
    """Make a model over a catalogue, with the SASRec that the settings may fuse with it."""
    windows, sizes = windows.for_catalog(len(catalog)), asdict(settings)
    del sizes["geohash_precision"]
    width = catalog.embeddings["semantic"].shape[1]
    config = IntSRConfig(
        num_items=len(catalog),
        text_size=width if sizes.pop("use_text") else 0,
        query_size=width,
        num_actions=max(1, len(processor.actions)),
        num_geohashes=len(processor.geohashes),
        max_history=windows.max_history,
        max_position_distance=4 * windows.max_history,
        negatives={"uniform": "sampled", "popularity": "sampled"}.get(windows.negatives, windows.negatives),
        num_hard_negatives=windows.num_training_negatives,
        align_candidates=windows.align_candidates,
        correct_sampling=windows.correct_sampling,
        **fusion_settings(windows, sasrec),
        **sizes,
    )
    model = IntSRForSearchAndRecommendation(config)
    model.set_catalog(catalog)
    if windows.start_from_sasrec:
        model.items.start_ids(catalog.embeddings["collaborative"])
    if windows.recommender_weight and sasrec is not None:
        model.set_recommender(sasrec)
    return model


def make_intsr_collator(
    windows: TrainingWindows,
    catalog: Catalog,
    processor: IntSRProcessor,
    settings: WindowArguments,
    *,
    ranks: bool,
    seed: int,
) -> WindowCollator:
    """Make what gives batches: with negatives where the retrieval or the ranking loss needs them."""
    settings = settings.for_catalog(len(catalog))
    kind: SampledKind | None = "uniform" if ranks or settings.negatives == "uniform" else None
    if settings.negatives == "popularity":
        kind = "popularity"
    return make_window_collator(windows, catalog, processor.query_vectors, settings, kind=kind, seed=seed)


@dataclass
class IntSRRecipe(WindowRecipe[IntSRForSearchAndRecommendation, IntSRProcessor]):
    """IntSR, or plain HSTU.

    Args:
        model ([`IntSRArguments`]): The decoder.
    """

    model: IntSRArguments

    @property
    def name(self) -> str:
        """IntSR, or HSTU without placeholders."""
        return "IntSR" if self.model.use_placeholders else "HSTU"

    @property
    def behaviors(self) -> tuple[Behavior, ...]:
        """What the model is trained and asked for. Plain HSTU reads no query: it is asked for recommendations."""
        return super().behaviors if self.model.use_placeholders else (RECOMMENDATION,)

    def make_processor(self) -> IntSRProcessor:
        """Make the processor that lays requests out as windows are."""
        return make_intsr_processor(self.split, self.catalog, self.window, self.model)

    def make_windows(self) -> TrainingWindows:
        """Cut training into windows."""
        return make_windows(
            self.split,
            self.catalog,
            self.window,
            geohashes=self.processor.geohashes,
            use_session_mask=self.model.use_session_mask,
        )

    def make_model(self) -> IntSRForSearchAndRecommendation:
        """Make the model with its start weights."""
        return make_intsr_model(self.catalog, self.processor, self.model, self.window, self.items.sasrec)

    def make_collator(self, windows: TrainingWindows) -> WindowCollator:
        """Make what gives batches, with negatives where a loss needs them."""
        return make_intsr_collator(
            windows,
            self.catalog,
            self.processor,
            self.window,
            ranks=self.model.ranking_weight > 0,
            seed=self.training.seed,
        )


__all__ = ["IntSRRecipe", "make_intsr_collator", "make_intsr_model", "make_intsr_processor"]
