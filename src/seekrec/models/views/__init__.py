# SPDX-License-Identifier: Apache-2.0
"""What is added to the score of a model: views that it is saved with, and boosts of the caller."""

from seekrec.models.views.added import AddedScores
from seekrec.models.views.boosts import Boost, read_boost
from seekrec.models.views.catalog_views import CatalogViews, ViewRequests
from seekrec.models.views.lexical import LEXICAL_CHOICES, LexicalIndex, LexicalSettings
from seekrec.models.views.views import (
    ANSWER_VIEWS,
    VIEWS_FOLDER,
    ViewName,
    Views,
    ViewWeights,
    check_view_weights,
    weighed_views,
)

__all__ = [
    "ANSWER_VIEWS",
    "LEXICAL_CHOICES",
    "VIEWS_FOLDER",
    "AddedScores",
    "Boost",
    "CatalogViews",
    "LexicalIndex",
    "LexicalSettings",
    "ViewName",
    "ViewRequests",
    "ViewWeights",
    "Views",
    "check_view_weights",
    "read_boost",
    "weighed_views",
]
