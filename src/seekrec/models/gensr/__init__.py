# SPDX-License-Identifier: Apache-2.0
"""GenSR: T5 that reads two views of a history and says Yes or No to a candidate, or writes an identifier."""

from seekrec.models.gensr.configuration_gensr import GenSRConfig
from seekrec.models.gensr.modeling_gensr import GenSRForConditionalGeneration, GenSROutput
from seekrec.models.gensr.processing_gensr import GenSRProcessor

__all__ = ["GenSRConfig", "GenSRForConditionalGeneration", "GenSROutput", "GenSRProcessor"]
