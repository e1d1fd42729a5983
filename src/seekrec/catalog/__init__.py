# SPDX-License-Identifier: Apache-2.0
"""Items with their identifiers and embeddings: what a model can answer, saved inside every checkpoint."""

from seekrec.catalog.catalog import Catalog
from seekrec.catalog.files import CATALOG_FILE, CATALOG_FOLDER
from seekrec.catalog.masks import item_periods

__all__ = ["CATALOG_FILE", "CATALOG_FOLDER", "Catalog", "item_periods"]
