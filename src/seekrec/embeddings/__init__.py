# SPDX-License-Identifier: Apache-2.0
"""Item vectors: semantic ones from text, collaborative ones from what users did."""

from seekrec.embeddings.configuration_sasrec import SASRecConfig
from seekrec.embeddings.modeling_sasrec import SASRecCollator, SASRecForNextItem, SASRecModel, SASRecOutput
from seekrec.embeddings.sequences import sasrec_sequences

__all__ = ["SASRecCollator", "SASRecConfig", "SASRecForNextItem", "SASRecModel", "SASRecOutput", "sasrec_sequences"]
