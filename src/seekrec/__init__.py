# SPDX-License-Identifier: Apache-2.0
"""seekrec: one generative model that searches and recommends, trained from one log of searches and clicks.

Importing the package registers its models with transformers, for use with `AutoModel`, `AutoModelForSeq2SeqLM`,
`AutoProcessor` and `pipeline("search-and-recommendation")`.
"""

from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoProcessor

from seekrec.catalog import Catalog
from seekrec.errors import SeekrecError
from seekrec.events import EventLog, Split, read_movielens, read_sequences, read_tables, split_log
from seekrec.hub import SearchAndRecommendationPipeline
from seekrec.models import (
    GenSARConfig,
    GenSARForConditionalGeneration,
    GenSARProcessor,
    GenSRConfig,
    GenSRForConditionalGeneration,
    GenSRProcessor,
    IntSRConfig,
    IntSRForSearchAndRecommendation,
    IntSRProcessor,
    SynerGenConfig,
    SynerGenForSearchAndRecommendation,
    SynerGenProcessor,
)
from seekrec.schema import Event, Request, ScoredItem

__version__ = "0.1.0"

AutoConfig.register("gensar", GenSARConfig)
AutoModel.register(GenSARConfig, GenSARForConditionalGeneration)
AutoModelForSeq2SeqLM.register(GenSARConfig, GenSARForConditionalGeneration)
AutoProcessor.register(GenSARConfig, GenSARProcessor)
AutoConfig.register("gensr", GenSRConfig)
AutoModel.register(GenSRConfig, GenSRForConditionalGeneration)
AutoModelForSeq2SeqLM.register(GenSRConfig, GenSRForConditionalGeneration)
AutoProcessor.register(GenSRConfig, GenSRProcessor)
AutoConfig.register("intsr", IntSRConfig)
AutoModel.register(IntSRConfig, IntSRForSearchAndRecommendation)
AutoProcessor.register(IntSRConfig, IntSRProcessor)
AutoConfig.register("synergen", SynerGenConfig)
AutoModel.register(SynerGenConfig, SynerGenForSearchAndRecommendation)
AutoProcessor.register(SynerGenConfig, SynerGenProcessor)

__all__ = [
    "Catalog",
    "Event",
    "EventLog",
    "GenSARConfig",
    "GenSARForConditionalGeneration",
    "GenSARProcessor",
    "GenSRConfig",
    "GenSRForConditionalGeneration",
    "GenSRProcessor",
    "IntSRConfig",
    "IntSRForSearchAndRecommendation",
    "IntSRProcessor",
    "Request",
    "ScoredItem",
    "SearchAndRecommendationPipeline",
    "SynerGenConfig",
    "SynerGenForSearchAndRecommendation",
    "SynerGenProcessor",
    "SeekrecError",
    "Split",
    "read_movielens",
    "read_sequences",
    "read_tables",
    "split_log",
]
