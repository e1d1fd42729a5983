# SPDX-License-Identifier: Apache-2.0
"""IntSR: a decoder over events with placeholders for what is asked."""

from seekrec.models.intsr.configuration_intsr import IntSRConfig
from seekrec.models.intsr.modeling_intsr import IntSRForSearchAndRecommendation, IntSRModel
from seekrec.models.intsr.processing_intsr import IntSRProcessor

__all__ = ["IntSRConfig", "IntSRForSearchAndRecommendation", "IntSRModel", "IntSRProcessor"]
