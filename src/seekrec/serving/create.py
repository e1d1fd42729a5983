# SPDX-License-Identifier: Apache-2.0
"""Make the application, if the libraries that it needs are installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seekrec.errors import MissingDependencyError
from seekrec.serving.settings import ServingSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from seekrec.serving.engine import ModelSource


def create_app(model: ModelSource, *, settings: ServingSettings | None = None, **options: object) -> FastAPI:
    """Make the application that answers from a model.

    ```python
    app = create_app("runs/intsr/model", store="sqlite:///shop.sqlite")
    ```

    Args:
        model (`str`, `Path` or `tuple`): Folder of a model or name of a Hub repository, or a model and its processor.
        settings ([`ServingSettings`], *optional*): How it serves; the defaults if not given.
        options: Fields of [`ServingSettings`] by name, in place of those in `settings`.

    Returns:
        `fastapi.FastAPI`: An ASGI application. The model is loaded and the store opened when it starts.

    Raises:
        ConfigurationError: If an option is unknown or out of its range.
        MissingDependencyError: If the libraries of the server are not installed.
    """
    try:
        from seekrec.serving.app import make_app
    except ImportError as error:
        if isinstance(error, MissingDependencyError) or (error.name or "").startswith("seekrec"):
            raise
        raise MissingDependencyError(
            f'The server needs {error.name}, which is not installed; run pip install "seekrec[serve]".'
        ) from error
    return make_app(model, ServingSettings.with_options(settings, options))


__all__ = ["create_app"]
