# SPDX-License-Identifier: Apache-2.0
"""Training with `transformers.Trainer`: one Trainer, the batches of each family, and resumable trainings."""

from seekrec.training.event_windows import WindowCollator, make_window_optimizer, make_window_trainer
from seekrec.training.gensr_data import RequestArguments, training_requests
from seekrec.training.identifiers import train_dual_rqvae
from seekrec.training.lightgcn import train_lightgcn
from seekrec.training.sasrec import train_sasrec
from seekrec.training.trainer import GenerativeTrainer, train_once

__all__ = [
    "RequestArguments",
    "GenerativeTrainer",
    "WindowCollator",
    "make_window_optimizer",
    "make_window_trainer",
    "train_dual_rqvae",
    "train_lightgcn",
    "train_once",
    "train_sasrec",
    "training_requests",
]
