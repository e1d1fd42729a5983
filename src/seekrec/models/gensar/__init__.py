# SPDX-License-Identifier: Apache-2.0
"""GenSAR: T5 that reads an instruction and writes an item identifier."""

from seekrec.models.gensar.configuration_gensar import GenSARConfig
from seekrec.models.gensar.modeling_gensar import GenSARForConditionalGeneration
from seekrec.models.gensar.processing_gensar import GenSARProcessor

__all__ = ["GenSARConfig", "GenSARForConditionalGeneration", "GenSARProcessor"]
