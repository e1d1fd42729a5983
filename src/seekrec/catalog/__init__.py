# SPDX-License-Identifier: Apache-2.0
"""Catalogues: the items that a model can return, with identifiers and embeddings, saved in every checkpoint."""

from seekrec.catalog.catalog import Catalog
from seekrec.catalog.files import CATALOG_FILE, CATALOG_FOLDER
from seekrec.catalog.masks import item_periods

__all__ = ["CATALOG_FILE", "CATALOG_FOLDER", "Catalog", "item_periods"]
