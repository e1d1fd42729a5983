# SPDX-License-Identifier: Apache-2.0
"""The way out: the pipeline, and cards for what is published."""

from seekrec.hub.pipeline import SearchAndRecommendationPipeline

__all__ = ["SearchAndRecommendationPipeline"]
