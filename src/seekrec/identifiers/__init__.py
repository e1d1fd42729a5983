# SPDX-License-Identifier: Apache-2.0
"""Identifiers: learn codes from item vectors, make them unique in each view, and measure their quality."""

from seekrec.identifiers.assign import AssignmentResult, assign_unique, prefix_groups
from seekrec.identifiers.configuration_dual_rqvae import (
    VIEW_ORDER,
    DualRQVAEConfig,
    IdentifierConfig,
    ResidualKMeansConfig,
)
from seekrec.identifiers.modeling_dual_rqvae import DualRQVAEModel, DualRQVAEOutput
from seekrec.identifiers.modeling_identifier import IdentifierModel, check_vectors
from seekrec.identifiers.published import read_published_identifiers
from seekrec.identifiers.quality import (
    IdentifierQuality,
    IdentifierQualityReport,
    LevelQuality,
    ViewQuality,
    identifier_quality,
    label_agreement,
    measure_codes,
    relative_error,
)
from seekrec.identifiers.residual_codes import CodeCosts, EncodedItems, ResidualCodebooks
from seekrec.identifiers.residual_kmeans import ResidualKMeans

__all__ = [
    "VIEW_ORDER",
    "AssignmentResult",
    "CodeCosts",
    "DualRQVAEConfig",
    "DualRQVAEModel",
    "DualRQVAEOutput",
    "EncodedItems",
    "IdentifierConfig",
    "IdentifierModel",
    "IdentifierQuality",
    "IdentifierQualityReport",
    "LevelQuality",
    "ResidualCodebooks",
    "ResidualKMeans",
    "ResidualKMeansConfig",
    "ViewQuality",
    "assign_unique",
    "check_vectors",
    "identifier_quality",
    "label_agreement",
    "measure_codes",
    "prefix_groups",
    "read_published_identifiers",
    "relative_error",
]
