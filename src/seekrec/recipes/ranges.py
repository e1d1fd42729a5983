# SPDX-License-Identifier: Apache-2.0
"""The ranges of a recipe's numbers, checked before anything is read: what is out of them would fail or do nothing.

Numbers of a model's configuration are checked by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from seekrec.errors import ConfigurationError
from seekrec.util.settings import option_values


class Range(NamedTuple):
    """The numbers that a setting may be.

    Args:
        lowest (`float`): The lowest of them, or the bound below them.
        highest (`float`): The highest of them, or the bound above them.
        is_open (`bool`): Whether the lowest is a bound that the setting may not be.
        ends_before (`bool`): Whether the highest is a bound that the setting may not be.
        also (`float`, *optional*): A number outside that stands for something else.
    """

    lowest: float
    highest: float = math.inf
    is_open: bool = False
    ends_before: bool = False
    also: float | None = None

    def holds(self, value: float) -> bool:
        """Return whether a number is one of them."""
        above = value > self.lowest if self.is_open else value >= self.lowest
        below = value < self.highest if self.ends_before else value <= self.highest
        return (above and below) or value == self.also

    def __str__(self) -> str:
        text = f"above {self.lowest:.10g}" if self.is_open else f"of at least {self.lowest:.10g}"
        if self.highest < math.inf:
            text += f" and {'below' if self.ends_before else 'at most'} {self.highest:.10g}"
        return text if self.also is None else f"{text}, or {self.also:.10g} for none"


_POSITIVE, _COUNT, _FROM_ZERO = Range(0, is_open=True), Range(1), Range(0)
_DECAY = Range(0, 1, ends_before=True)
# NumPy takes no other seeds.
_SEED = Range(0, 2**32 - 1)
RANGES = {
    # Of the Trainer.
    **dict.fromkeys(("learning_rate", "num_train_epochs", "adam_epsilon"), _POSITIVE),
    **dict.fromkeys(("logging_steps", "eval_steps", "save_steps"), _POSITIVE),
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size"), _COUNT),
    **dict.fromkeys(("gradient_accumulation_steps", "eval_accumulation_steps", "save_total_limit"), _COUNT),
    **dict.fromkeys(("weight_decay", "warmup_steps", "max_grad_norm", "eval_delay"), _FROM_ZERO),
    **dict.fromkeys(("dataloader_num_workers", "neftune_noise_alpha"), _FROM_ZERO),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "label_smoothing_factor"), _DECAY),
    **dict.fromkeys(("seed", "data_seed"), _SEED),
    "max_steps": Range(1, also=-1),
    # Of the log, the stages, the training and the evaluation.
    "max_refused": Range(0, 1),
    "num_cold_items": _FROM_ZERO,
    **dict.fromkeys(("sasrec_hidden_size", "sasrec_num_epochs", "lightgcn_num_epochs"), _COUNT),
    **dict.fromkeys(("identifier_num_epochs", "codebook_size"), _COUNT),
    **dict.fromkeys(("num_shared_levels", "num_specific_levels", "lora_rank"), _FROM_ZERO),
    **dict.fromkeys(("identifier_learning_rate", "sparse_learning_rate", "max_minutes"), _POSITIVE),
    **dict.fromkeys(("tokenizer_vocab_size", "num_beams", "num_negatives"), _COUNT),
    **dict.fromkeys(("max_validation_cases", "max_test_cases"), _COUNT),
}


def check_ranges(groups: Sequence[object]) -> None:
    """Refuse a number that its setting cannot be.

    Args:
        groups (`Sequence`): The groups of a recipe's settings, `TrainingArguments` among them.

    Raises:
        ConfigurationError: Naming the setting, its value and its range.
    """
    for group in groups:
        values = option_values(group) if type(group).__module__.startswith("seekrec.") else vars(group)
        for name, value in values.items():
            allowed = RANGES.get(name)
            if allowed is None or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if not allowed.holds(value):
                raise ConfigurationError(f"`{name}` is {value:.10g}; give a number {allowed}.")


__all__ = ["RANGES", "Range", "check_ranges"]
