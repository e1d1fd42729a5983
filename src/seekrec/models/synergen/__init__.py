# SPDX-License-Identifier: Apache-2.0
"""SynerGen: a decoder over events with retrieval and ranking tokens, on the clock's time."""

from seekrec.models.synergen.configuration_synergen import SynerGenConfig
from seekrec.models.synergen.modeling_synergen import SynerGenForSearchAndRecommendation, SynerGenModel
from seekrec.models.synergen.processing_synergen import SynerGenProcessor

__all__ = ["SynerGenConfig", "SynerGenForSearchAndRecommendation", "SynerGenModel", "SynerGenProcessor"]
