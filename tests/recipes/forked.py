"""What the process that runs are forked from imports once; see `tiny_runs.fork_server`."""

import gc

import sentence_transformers  # noqa: F401
import transformers

import seekrec.recipes  # noqa: F401

# Made when first asked for, so that every fork would import it again.
_ = transformers.Trainer, transformers.TrainingArguments
# Spare what was imported from the garbage collections of every fork; Trainer asks for one per run.
gc.collect()
gc.freeze()
