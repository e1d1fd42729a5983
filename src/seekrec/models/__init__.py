# SPDX-License-Identifier: Apache-2.0
"""The model families: each has a configuration, a model with `retrieve` and `rank`, and a processor."""

from seekrec.models.gensar import GenSARConfig, GenSARForConditionalGeneration, GenSARProcessor
from seekrec.models.gensr import GenSRConfig, GenSRForConditionalGeneration, GenSROutput, GenSRProcessor
from seekrec.models.intsr import IntSRConfig, IntSRForSearchAndRecommendation, IntSRModel, IntSRProcessor
from seekrec.models.manifest import save_checkpoint
from seekrec.models.synergen import (
    SynerGenConfig,
    SynerGenForSearchAndRecommendation,
    SynerGenModel,
    SynerGenProcessor,
)

__all__ = [
    "GenSARConfig",
    "GenSARForConditionalGeneration",
    "GenSARProcessor",
    "GenSRConfig",
    "GenSRForConditionalGeneration",
    "GenSROutput",
    "GenSRProcessor",
    "IntSRConfig",
    "IntSRForSearchAndRecommendation",
    "IntSRModel",
    "IntSRProcessor",
    "SynerGenConfig",
    "SynerGenForSearchAndRecommendation",
    "SynerGenModel",
    "SynerGenProcessor",
    "save_checkpoint",
]
