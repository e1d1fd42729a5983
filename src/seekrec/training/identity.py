# SPDX-License-Identifier: Apache-2.0
"""The identity of a training: settings, data and starting weights. A folder belongs to one training.

`identity.json` in a Trainer's folder says which. A run that starts another training there first renames the folder to
`trainer-<hash>`; when the old settings return, so does the folder. A training with more epochs resumes from what is
there if all else is the same; so does one with another number of processes, if a step reads as many rows.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase, TrainingArguments

from seekrec.corpora.shards import Shards
from seekrec.corpora.text import tokenizer_digest
from seekrec.embeddings.row_shards import RowShards, row_shards
from seekrec.training.checkpoints import list_checkpoints
from seekrec.util.files import write_json
from seekrec.util.hashing import table_digest
from seekrec.util.settings import option_values

logger = logging.getLogger(__name__)

IDENTITY_FILE = "identity.json"
# Raised when this package trains other weights with the same settings and inputs.
TRAINING_VERSION = 2
_ROWS_AT_ONCE = 10_000

# Settings of the Trainer that leave the weights as they are. What is not named is taken for one that changes them; a
# class of ours names its own in `after_training`.
_HARMLESS_BEGINNINGS = (
    *("logging_", "log_", "report_to", "hub_", "push_to_hub", "ddp_"),
    *("dataloader_num", "dataloader_p", "dataloader_m"),
)
_HARMLESS = {
    *("output_dir", "disable_tqdm", "run_name", "project", "save_total_limit", "save_on_each_node", "use_cpu"),
    "debug",
    *("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "skip_memory_metrics", "local_rank"),
    *("resume_from_checkpoint", "do_train", "do_eval", "do_predict", "include_num_input_tokens_seen"),
    *("torch_empty_cache_steps", "per_device_eval_batch_size", "eval_accumulation_steps", "remove_unused_columns"),
    *("label_names", "save_only_model", "enable_jit_checkpoint", "restore_callback_states_from_checkpoint"),
}
# Their product is the rows that are read at once, however many processes read them.
_OF_A_STEP = ("num_processes", "per_device_train_batch_size")
# The length is compared by itself: a training may be made longer.
_LENGTHS = ("num_train_epochs", "max_steps")


@dataclass(frozen=True)
class Identity:
    """Which training a folder belongs to.

    Args:
        settings (`dict`): Settings that the weights depend on, as JSON values.
        contents (`dict`): A SHA-256 of everything else they depend on, by name.
        length (`dict`): `num_train_epochs` and `max_steps`.
        origins (`dict`): Settings that led to the contents; they tell people why those differ.
    """

    settings: dict[str, object]
    contents: dict[str, str]
    length: dict[str, float]
    origins: dict[str, object]

    def name(self) -> str:
        """Return 12 hexadecimal digits that differ where the training does."""
        text = json.dumps([self.settings, self.contents, self.length], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def goes_on_from(self, other: Identity) -> bool:
        """Return whether this is that training, or the same with more epochs or other processes."""
        if (_per_step(self.settings), self.contents) != (_per_step(other.settings), other.contents):
            return False
        return self.length == other.length or (
            self.length["max_steps"] <= 0
            and other.length["max_steps"] <= 0
            and self.length["num_train_epochs"] > other.length["num_train_epochs"]
        )

    def differences(self, other: Identity) -> list[str]:
        """Return what another training has otherwise, for people: `"`seed` was 1 and is 2"`."""
        found = []
        for mine, theirs in (
            (self.settings | self.length, other.settings | other.length),
            (self.origins, other.origins),
        ):
            found += [
                f"`{name}` was {theirs.get(name)!r} and is {mine.get(name)!r}"
                for name in sorted({*mine, *theirs})
                if mine.get(name) != theirs.get(name)
            ]
        names = sorted({*self.contents, *other.contents})
        return found + [f"{name} differs" for name in names if self.contents.get(name) != other.contents.get(name)]

    def write(self, folder: Path) -> None:
        """Write `identity.json` into a folder."""
        write_json(folder / IDENTITY_FILE, vars(self), sort_keys=True)

    @classmethod
    def read(cls, folder: Path) -> Identity | None:
        """Read what `write` wrote; `None` where there is none that can be read."""
        try:
            content = json.loads((folder / IDENTITY_FILE).read_text(encoding="utf-8"))
            found = cls(**{field.name: dict(content[field.name]) for field in fields(cls)})
            found.length["max_steps"], found.length["num_train_epochs"]
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return found


def training_identity(
    model: nn.Module,
    arguments: TrainingArguments,
    settings: Sequence[object],
    contents: Mapping[str, object],
    *,
    origins: Sequence[object] = (),
) -> Identity:
    """Return which training this is.

    Args:
        model (`torch.nn.Module`): Model before the first step; so a changed checkpoint that it starts from counts.
        arguments (`TrainingArguments`): Settings of the Trainer.
        settings (`Sequence`):
            Groups of settings that the weights depend on, but for those that a group names in `after_training`.
        contents (`Mapping`): What it is trained and validated on: see [`content_digest`].
        origins (`Sequence`):
            Dataclasses of settings whose effect is in the contents: the same log from another folder is the same log.

    Returns:
        [`Identity`]: The same for the same training in another process, folder or minute.
    """
    kept = {
        name: _as_json(value)
        for part in settings
        for name, value in option_values(part).items()
        if name not in getattr(part, "after_training", ())
    }
    kept |= {
        name: _as_json(value)
        for name, value in arguments.to_dict().items()
        if name not in _HARMLESS
        and name not in _LENGTHS
        and not name.startswith(_HARMLESS_BEGINNINGS)
        and not name.endswith("_token")
    }
    kept["num_processes"] = arguments.world_size
    digests = {name: content_digest(value) for name, value in contents.items()}
    return Identity(
        settings=kept | {"training_version": TRAINING_VERSION},
        contents=digests | {"the model before training": content_digest(model)},
        length={"num_train_epochs": float(arguments.num_train_epochs), "max_steps": float(arguments.max_steps)},
        origins={name: _as_json(value) for part in origins for name, value in option_values(part).items()},
    )


def claim_folder(folder: Path, identity: Identity) -> None:
    """Claim a folder for a training: rename that of another training, and restore an earlier one of this training."""
    own = folder.with_name(f"{folder.name}-{identity.name()}")
    before = Identity.read(folder)
    if before is not None and identity.goes_on_from(before) and (before == identity or not own.is_dir()):
        was, now = (one.settings.get("num_processes") for one in (before, identity))
        if was != now:
            logger.info("%s: resuming with %s processes (was %s).", folder, now, was)
        if before.length != identity.length:
            logger.info(
                "%s: resuming; the number of epochs goes from %g to %g.",
                folder,
                before.length["num_train_epochs"],
                identity.length["num_train_epochs"],
            )
    elif folder.is_dir() and any(folder.iterdir()):
        _set_aside(folder, before, identity)
    if own.is_dir() and not folder.is_dir():
        own.rename(folder)
        logger.info("Found an earlier training with these settings: %s is now %s.", own, folder)
    if not folder.is_dir():
        logger.info("%s: training starts from scratch.", folder)
    folder.mkdir(parents=True, exist_ok=True)
    identity.write(folder)


def content_digest(content: object) -> str:
    """Compute a SHA-256 of a content: tables, shards, arrays, modules, tokenizers, dataclasses, containers of these.

    Returns:
        `str`: 64 hexadecimal digits.

    Raises:
        TypeError: For a kind of content that is not known.
    """
    digest = hashlib.sha256()
    _feed(digest, content)
    return digest.hexdigest()


def _set_aside(folder: Path, before: Identity | None, identity: Identity) -> None:
    if not list_checkpoints(folder):
        shutil.rmtree(folder)
        return
    place = folder.with_name(f"{folder.name}-{'unknown' if before is None else before.name()}")
    number = 1
    while place.exists():
        number += 1
        place = place.with_name(f"{place.name.partition('.')[0]}.{number}")
    folder.rename(place)
    reason = "it does not say which" if before is None else "; ".join(identity.differences(before))
    logger.warning(
        "%s contained another training (%s). It was moved to %s, which you may delete.",
        folder,
        reason,
        place,
    )


def _per_step(settings: Mapping[str, object]) -> dict[str, object]:
    """Return settings with the rows of a step in place of what they are a product of."""
    factors = [value for name in _OF_A_STEP if isinstance(value := settings.get(name), int)]
    return {name: value for name, value in settings.items() if name not in _OF_A_STEP} | {"step": math.prod(factors)}


def _as_json(value: object) -> object:
    return json.loads(json.dumps(value, default=str))


def _feed(digest: hashlib._Hash, content: object) -> None:
    # A table is its weight, wherever its rows lie.
    digest.update(f"{'Tensor' if isinstance(content, RowShards) else type(content).__name__}:".encode())
    if content is None or isinstance(content, (bool, int, float, str, Enum)):
        digest.update(f"{content!r};".encode())
    elif isinstance(content, np.ndarray):
        digest.update(f"{content.dtype.str}{content.shape};".encode())
        digest.update(np.ascontiguousarray(content).reshape(-1).view(np.uint8).data)
    elif isinstance(content, torch.Tensor):
        digest.update(f"{content.dtype}{tuple(content.shape)};".encode())
        digest.update(_tensor_bytes(content))
    elif isinstance(content, RowShards):
        digest.update(f"{content.weight.dtype}{(content.num_rows, content.embedding_dim)};".encode())
        for block in content.blocks():
            digest.update(_tensor_bytes(block))
    elif isinstance(content, Shards):
        _feed(digest, content.fingerprint)
    elif isinstance(content, pa.Table):
        digest.update(table_digest(content).encode())
    elif isinstance(content, Dataset):
        for batch in content.with_format("arrow").iter(_ROWS_AT_ONCE):
            digest.update(table_digest(batch).encode())
    elif isinstance(content, PreTrainedTokenizerBase):
        _feed(digest, tokenizer_digest(content))
    elif isinstance(content, nn.Module):
        config = getattr(content, "config", None)
        own = {} if config is None else config.to_dict()
        # Where it came from and who wrote it, which is not what it is.
        own = {name: _as_json(value) for name, value in own.items() if name not in ("transformers_version",)}
        after = getattr(config, "after_training", ())
        own = {name: value for name, value in own.items() if not name.startswith("_") and name not in after}
        _feed(digest, json.dumps(own, sort_keys=True))
        # Of tables whose rows lie in several processes, all rows.
        _feed(digest, content.state_dict() | row_shards(content))
    elif isinstance(content, Mapping):
        for name in sorted(content):
            _feed(digest, name)
            _feed(digest, content[name])
        digest.update(b"};")
    elif is_dataclass(content) and not isinstance(content, type):
        _feed(digest, {field.name: getattr(content, field.name) for field in fields(content)})
    elif isinstance(content, Sequence):
        for part in content:
            _feed(digest, part)
        digest.update(b"];")
    else:
        raise TypeError(f"Cannot compute a digest of a {type(content).__name__}.")


def _tensor_bytes(tensor: torch.Tensor) -> memoryview:
    array: np.ndarray = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return array.data


__all__ = ["Identity", "claim_folder", "content_digest", "training_identity"]
