# SPDX-License-Identifier: Apache-2.0
"""The settings of a server, for the command line and for Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Never, cast

from seekrec.errors import ConfigurationError

# The environment variable with the token that admin routes ask for: what stands on a command line is seen by all.
TOKEN_VARIABLE = "SEEKREC_TOKEN"


@dataclass(frozen=True)
class ServingSettings:
    """How a server serves.

    Args:
        store (`str`): Where events and changes of the catalogue are kept, a URL of SQLAlchemy.
        models (`str`, *optional*): Folder of the models that `POST /admin/model` may name, each in a folder of its own
            (or its `model/` folder).
        beside (`Sequence[str]`): Models of that folder that are loaded from the start: questions may name one, and it
            takes over at once.
        examples (`str`, *optional*): File of users' histories, `examples.json` alongside a trained model: they are
            kept as if they had been sent, and the page offers these users.
        text_encoder (`str`, *optional*): Path or name of the text encoder of new items and queries, where the model
            only names one.
        token (`str`, *optional*): What `Authorization: Bearer` must hold. Without one all may ask, and admin routes
            are off.
        batch_wait_ms (`float`): How long the first request of a batch waits for others, in milliseconds.
        max_batch (`int`): Requests that the model answers at once.
        max_queue (`int`): Requests that wait at most; further ones get 429.
        timeout_s (`float`): How long a request may wait for the model, the reading of its history included, and how
            long the model may take for it, in seconds. One that is expected to wait for half of it gets 429 at once.
        histories_mb (`int`): Megabytes of memory for users' histories.
        states_mb (`int`): Megabytes of memory for what the model made of users' histories, where its family can
            continue from there; 0 to read them again each time.
        poll_s (`float`): How often a process looks for what others changed, in seconds.
    """

    store: str = "sqlite:///seekrec.sqlite"
    models: str | None = None
    beside: tuple[str, ...] = ()
    examples: str | None = None
    text_encoder: str | None = None
    token: str | None = field(default=None, repr=False)
    batch_wait_ms: float = 5.0
    max_batch: int = 32
    max_queue: int = 256
    timeout_s: float = 30.0
    histories_mb: int = 64
    states_mb: int = 512
    poll_s: float = 0.25

    def __post_init__(self) -> None:
        object.__setattr__(self, "beside", tuple(self.beside or ()))
        for name, least in (
            ("max_batch", 1),
            ("max_queue", 1),
            ("histories_mb", 0),
            ("batch_wait_ms", 0),
            ("states_mb", 0),
        ):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or value < least:
                raise ConfigurationError(f"`{name}` is {value!r}; give a number from {least} up.")
        for name in ("timeout_s", "poll_s"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or value <= 0:
                raise ConfigurationError(f"`{name}` is {value!r}; give seconds, more than 0.")
        if self.token is not None and not self.token.strip():
            raise ConfigurationError("`token` is empty; set a secret, or leave it out.")

    @classmethod
    def with_options(cls, settings: ServingSettings | None, options: Mapping[str, object]) -> ServingSettings:
        """Return settings with some of them changed.

        Raises:
            ConfigurationError: If an option is unknown or out of its range.
        """
        names = [one.name for one in fields(cls)]
        unknown = sorted(options.keys() - set(names))
        if unknown:
            raise ConfigurationError(f"`{unknown[0]}` is an unknown option of a server; use {', '.join(names)}.")
        given = {} if settings is None else {name: getattr(settings, name) for name in names}
        # Values of a wrong type are refused when the settings are made.
        return cls(**cast("dict[str, Never]", {**given, **options}))


__all__ = ["TOKEN_VARIABLE", "ServingSettings"]
