# SPDX-License-Identifier: Apache-2.0
"""What the SynerGen recipe is made of: processor, model, batches and optimizer, each from its settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from seekrec.catalog import Catalog
from seekrec.corpora.training_windows import TrainingWindows, choose_session_ids, log_actions
from seekrec.embeddings import SASRecForNextItem
from seekrec.errors import ConfigurationError
from seekrec.evaluation import build_cases, choose_head, click_calibration, ranking_by
from seekrec.events import Split
from seekrec.events.negatives import SampledKind
from seekrec.models import SynerGenConfig, SynerGenForSearchAndRecommendation, SynerGenProcessor
from seekrec.recipes.synergen_arguments import SynerGenArguments
from seekrec.recipes.windows import WindowRecipe, make_windows
from seekrec.training.event_windows import WindowCollator, fusion_settings, make_window_collator
from seekrec.training.window_arguments import WindowArguments


def make_synergen_processor(split: Split, catalog: Catalog, settings: WindowArguments) -> SynerGenProcessor:
    """Make the processor that lays requests out as windows are; queries are embedded as items are."""
    return SynerGenProcessor(
        catalog,
        max_history=settings.max_history,
        actions=log_actions(split),
        session_ids=choose_session_ids(split, settings.session_ids),
        text_folding=settings.text_folding,
    )


def make_synergen_model(
    split: Split,
    catalog: Catalog,
    processor: SynerGenProcessor,
    settings: SynerGenArguments,
    windows: WindowArguments,
    sasrec: SASRecForNextItem | None = None,
) -> SynerGenForSearchAndRecommendation:
    """Make a model over a catalogue.

    Its easy negatives are the catalogue with `negatives: full`, else the other targets of a batch. Requests ask for
    the action that is most frequent in training. `sasrec` is what the settings may fuse with it.

    Raises:
        ConfigurationError: If the negatives are none of SynerGen's, or cannot be corrected for popularity.
    """
    windows, sizes = windows.for_catalog(len(catalog)), asdict(settings)
    drawn_kind(windows)
    if settings.rank_by == "validation":  # chosen when it is trained
        del sizes["rank_by"]
    width = catalog.embeddings["semantic"].shape[1]
    config = SynerGenConfig(
        num_items=len(catalog),
        text_size=width if sizes.pop("use_text") else 0,
        query_size=width,
        num_actions=max(1, len(processor.actions)),
        asked_action=_frequent_action(split, processor),
        max_history=windows.max_history,
        easy_negatives="full" if windows.negatives == "full" else "in_batch",
        correct_popularity=windows.correct_sampling,
        **fusion_settings(windows, sasrec),
        **sizes,
    )
    model = SynerGenForSearchAndRecommendation(config)
    model.set_catalog(catalog)
    if windows.start_from_sasrec:
        model.items.start_ids(catalog.embeddings["collaborative"])
    if windows.recommender_weight and sasrec is not None:
        model.set_recommender(sasrec)
    return model


def drawn_kind(settings: WindowArguments) -> SampledKind:
    """Give how items are drawn that stand beside a target as if shown and not clicked.

    Raises:
        ConfigurationError: If the negatives are none of SynerGen's, or cannot be corrected for popularity.
    """
    if settings.negatives == "hard":
        raise ConfigurationError(
            "`negatives` is 'hard', which SynerGen has not: its hard negatives are items that were shown; choose "
            "among full, uniform and popularity."
        )
    if settings.negatives == "popularity":
        if settings.correct_sampling and settings.popularity_power != 1:
            raise ConfigurationError(
                f"`popularity_power` is {settings.popularity_power} and `correct_sampling` is on; other targets of a "
                "batch come in proportion to their counts, so the power must be 1."
            )
        return "popularity"
    if settings.negatives == "uniform" and settings.correct_sampling:
        raise ConfigurationError(
            "`correct_sampling` needs `negatives: popularity`: other targets of a batch come by popularity; choose "
            "it, or switch the correction off."
        )
    return "uniform"


def make_synergen_collator(
    windows: TrainingWindows,
    catalog: Catalog,
    processor: SynerGenProcessor,
    settings: WindowArguments,
    model: SynerGenArguments,
    *,
    seed: int,
) -> WindowCollator:
    """Make what gives batches; items are drawn where the ranking loss or hard negatives need them."""
    settings = settings.for_catalog(len(catalog))
    is_drawn = model.ranking_weight or model.easy_weight < 1 or settings.correct_sampling
    kind = drawn_kind(settings) if is_drawn else None
    # They stand for items that were shown and not clicked.
    return make_window_collator(
        windows, catalog, processor.query_vectors, settings, kind=kind, spares_own=True, seed=seed
    )


def _frequent_action(split: Split, processor: SynerGenProcessor) -> int:
    """Give the number of the action that training events have most."""
    actions = split.log.events["action"].take(split.training_acts()).to_numpy(zero_copy_only=False)
    counts = [int(np.sum(actions == name)) for name in processor.actions]
    return 1 + int(np.argmax(counts)) if counts else 0


@dataclass
class SynerGenRecipe(WindowRecipe[SynerGenForSearchAndRecommendation, SynerGenProcessor]):
    """SynerGen: one decoder with a retrieval and a ranking head.

    Args:
        model ([`SynerGenArguments`]): The decoder and its losses.
    """

    model: SynerGenArguments
    name = "SynerGen"

    def make_processor(self) -> SynerGenProcessor:
        """Make the processor that lays requests out as windows are."""
        return make_synergen_processor(self.split, self.catalog, self.window)

    def make_windows(self) -> TrainingWindows:
        """Cut training into windows."""
        return make_windows(self.split, self.catalog, self.window, use_session_mask=self.model.use_session_mask)

    def make_model(self) -> SynerGenForSearchAndRecommendation:
        """Make the model with its start weights."""
        return make_synergen_model(
            self.split, self.catalog, self.processor, self.model, self.window, self.items.sasrec
        )

    def make_collator(self, windows: TrainingWindows) -> WindowCollator:
        """Make what gives batches, with negatives where a loss needs them."""
        return make_synergen_collator(
            windows, self.catalog, self.processor, self.window, self.model, seed=self.training.seed
        )

    def finish(self, model: SynerGenForSearchAndRecommendation) -> None:
        """Choose the head that ranks, where validation shall say which."""
        if model.ranking_head is not None and self.model.rank_by == "validation":
            validation = self.make_validation(self.evaluation.candidate_protocols or ("uniform",))
            choose_head(model, self.make_retriever(model), validation)

    def report(self, model: SynerGenForSearchAndRecommendation) -> None:
        """Print how well the probabilities of clicks are calibrated."""
        if model.ranking_head is None:
            return
        # As many negatives as in training, and drawn alike: the share of clicks that the model learnt.
        for behavior in self.behaviors:
            cases = build_cases(
                self.split,
                self.catalog.id_map,
                behavior=behavior,
                protocol=drawn_kind(self.window.for_catalog(len(self.catalog))),
                num_negatives=self.window.num_training_negatives,
                max_cases=self.evaluation.max_test_cases,
                seed=self.data.split_seed,
            )
            with ranking_by(model, "ranking"):
                error = click_calibration(self.make_retriever(model), cases, self.catalog.id_map)
            print(f"{behavior}: expected calibration error of click probabilities {error:.4f} ({len(cases)} cases)")


__all__ = [
    "SynerGenRecipe",
    "drawn_kind",
    "make_synergen_collator",
    "make_synergen_model",
    "make_synergen_processor",
]
