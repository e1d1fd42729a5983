# SPDX-License-Identifier: Apache-2.0
"""`transformers.Trainer` with what a joint corpus needs: a mixture of tasks, and selection by ranking quality.

A validation loss in nats says little about the order of items, so `evaluate` ranks validation requests instead. The
evaluation itself is handed in: training knows no protocol.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedModel, Trainer
from transformers.trainer_utils import get_last_checkpoint

logger = logging.getLogger(__name__)

# Takes the model in evaluation mode, returns metrics by name (without the prefix `eval_`).
EvaluateModel = Callable[[PreTrainedModel], dict[str, float]]


class GenerativeTrainer(Trainer):
    """Identical to `Trainer` except: rows come in the order of a given sampler, and `evaluate` ranks.

    Args:
        sampler (`torch.utils.data.Sampler`): Row numbers of `train_dataset`, with `set_epoch`.
        evaluate_model (`Callable`): Scores a model on validation; see `EvaluateModel`.
        kwargs: As in `Trainer`.
    """

    def __init__(self, *, sampler: Sampler[int], evaluate_model: EvaluateModel | None = None, **kwargs: Any) -> None:
        # The stages before may have trained in this process in another precision; accelerate keeps the first for good.
        AcceleratorState._reset_state()
        # Trainer insists on a data set to evaluate on; `evaluate` ranks requests and does not read it.
        kwargs.setdefault("eval_dataset", kwargs.get("train_dataset"))
        super().__init__(**kwargs)
        self._sampler = sampler
        self._evaluate_model = evaluate_model

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[int]:
        return self._sampler

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Rank the validation requests; every process ranks them all, so all agree on the best checkpoint.

        Returns:
            `dict[str, float]`: Metrics with the prefix, `<prefix>_runtime` in seconds and `epoch`.
        """
        if self._evaluate_model is None:
            return {}
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        started = time.monotonic()
        # Beam search draws nothing, yet the order of numbers that dropout sees must not depend on being evaluated.
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            model.eval()
            metrics = self._evaluate_model(model)
        model.train(was_training)
        prefixed = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        prefixed[f"{metric_key_prefix}_runtime"] = time.monotonic() - started
        self.log(prefixed)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, prefixed)
        return prefixed


def find_checkpoint(output_dir: str | Path) -> str | None:
    """Give the newest whole checkpoint of a folder, or None.

    `Trainer` writes `trainer_state.json` last, so a checkpoint without it was cut short and is passed over.
    """
    folder = Path(output_dir)
    if not folder.is_dir():
        return None
    newest = get_last_checkpoint(str(folder))
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for checkpoint in checkpoints:
        if (checkpoint / "trainer_state.json").is_file():
            if str(checkpoint) != newest:
                logger.warning("%s was cut short; going on from %s.", newest, checkpoint)
            return str(checkpoint)
    return None


__all__ = ["EvaluateModel", "GenerativeTrainer", "find_checkpoint"]
