# SPDX-License-Identifier: Apache-2.0
"""Pipeline and publishing: the transformers pipeline, model and dataset cards, and checks before an upload."""

from seekrec.hub.cards import (
    eval_results_yaml,
    render_adapter_card,
    render_dataset_card,
    render_model_card,
    result_tables,
)
from seekrec.hub.pipeline import SearchAndRecommendationPipeline
from seekrec.hub.publish import check_model_folder, copy_model, describe_model
from seekrec.hub.push import prepare_adapter, prepare_data_set, prepare_model

__all__ = [
    "SearchAndRecommendationPipeline",
    "check_model_folder",
    "copy_model",
    "describe_model",
    "eval_results_yaml",
    "prepare_adapter",
    "prepare_data_set",
    "prepare_model",
    "render_adapter_card",
    "render_dataset_card",
    "render_model_card",
    "result_tables",
]
