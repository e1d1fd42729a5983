# SPDX-License-Identifier: Apache-2.0
"""Serving and publishing: the pipeline, model and dataset cards, and checks before an upload."""

from seekrec.hub.cards import eval_results_yaml, render_dataset_card, render_model_card, result_tables
from seekrec.hub.pipeline import SearchAndRecommendationPipeline
from seekrec.hub.publish import check_model_folder, copy_model, describe_model

__all__ = [
    "SearchAndRecommendationPipeline",
    "check_model_folder",
    "copy_model",
    "describe_model",
    "eval_results_yaml",
    "render_dataset_card",
    "render_model_card",
    "result_tables",
]
