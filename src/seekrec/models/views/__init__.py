# SPDX-License-Identifier: Apache-2.0
"""Scores added to those of a model: views, which are saved with it, and boosts, which the caller gives."""

from seekrec.models.views.added import AddedScores
from seekrec.models.views.boosts import Boost, read_boost
from seekrec.models.views.catalog_views import CatalogViews, ViewRequests
from seekrec.models.views.lexical import LEXICAL_CHOICES, LexicalIndex, LexicalSettings
from seekrec.models.views.model import NUM_VIEWED, ViewedModel
from seekrec.models.views.saved import load_views
from seekrec.models.views.unsearched import UnsearchedWords
from seekrec.models.views.views import Views
from seekrec.models.views.weights import (
    ANSWER_VIEWS,
    BY_VALIDATION,
    NO_VIEWS,
    ViewName,
    ViewWeights,
    read_view_weights,
    used_views,
    write_view_weights,
)

__all__ = [
    "ANSWER_VIEWS",
    "BY_VALIDATION",
    "LEXICAL_CHOICES",
    "NO_VIEWS",
    "NUM_VIEWED",
    "AddedScores",
    "Boost",
    "CatalogViews",
    "LexicalIndex",
    "LexicalSettings",
    "UnsearchedWords",
    "ViewName",
    "ViewRequests",
    "ViewWeights",
    "ViewedModel",
    "Views",
    "load_views",
    "read_boost",
    "read_view_weights",
    "used_views",
    "write_view_weights",
]
