# SPDX-License-Identifier: Apache-2.0
"""`seekrec serve`: run the server from the command line, in one process or several."""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from seekrec.errors import ConfigurationError, MissingDependencyError
from seekrec.serving.logs import log_as_json
from seekrec.serving.settings import TOKEN_VARIABLE, ServingSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

# Where the processes of a server read how to serve; the token is in a variable of its own.
_SETTINGS_VARIABLE = "SEEKREC_SERVING"
# Seconds that processes have to start; and, behind all that a request may take, to stop.
_START_S, _STOP_S = 60, 10
# Seconds that a connection stays open without a request: longer than clients and proxies keep theirs, or a request may
# meet the end of its connection.
_KEEP_ALIVE_S = 75


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the server to a parser."""
    usual = ServingSettings()
    parser.add_argument("--model", required=True, help="folder of a trained model, or a Hub repository")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; this machine alone by default")
    parser.add_argument("--port", type=int, default=8000, help="port to listen at")
    parser.add_argument("--workers", type=int, default=1, help="processes, each with the model; they share the store")
    parser.add_argument(
        "--store", default=usual.store, help="URL of the database: sqlite:///FILE or postgresql+psycopg://..."
    )
    parser.add_argument("--models", help="folder of the models that POST /admin/model may name")
    parser.add_argument("--beside", nargs="*", metavar="NAME", help="models of that folder that questions may name")
    parser.add_argument("--examples", help="file of users' histories that the page offers: examples.json of a run")
    parser.add_argument("--text_encoder", help="text encoder of new items and queries, if the model only names one")
    for name, words in (
        ("batch_wait_ms", "milliseconds that the first request of a batch waits for others"),
        ("max_batch", "requests that the model answers at once"),
        ("max_queue", "requests that wait at most; further ones get 429"),
        ("timeout_s", "seconds that a request may wait, and that the model may take for it"),
        ("histories_mb", "megabytes of memory for users' histories"),
        ("states_mb", "megabytes of memory for what the model made of histories"),
    ):
        value = getattr(usual, name)
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"{words} ({value})")


def serve(arguments: argparse.Namespace) -> None:
    """Run the server until it is stopped.

    Raises:
        ConfigurationError: If an option is out of its range.
        MissingDependencyError: If the libraries of the server are not installed.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise MissingDependencyError('The server needs uvicorn; run pip install "seekrec[serve]".') from error
    if not 0 <= arguments.port < 2**16:
        raise ConfigurationError(f"`--port` is {arguments.port}; give 0 to 65535.")
    if arguments.workers < 1:
        raise ConfigurationError(f"`--workers` is {arguments.workers}; give 1 or more.")
    names = [one.name for one in fields(ServingSettings)]
    options = {name: value for name, value in vars(arguments).items() if name in names}
    settings = ServingSettings.with_options(None, options)
    kept = {**asdict(settings), "model": arguments.model}
    del kept["token"]
    os.environ[_SETTINGS_VARIABLE] = json.dumps(kept)
    # Processes that share the cores would wait for each other's threads.
    if arguments.workers > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // arguments.workers)))
    log_as_json()
    with tempfile.TemporaryDirectory(prefix="seekrec-metrics-") as folder:
        if arguments.workers > 1:
            from seekrec.serving.metrics import SHARED_FOLDER_VARIABLE

            os.environ[SHARED_FOLDER_VARIABLE] = folder
        uvicorn.run(
            "seekrec.serving.command:make_app",
            factory=True,
            host=arguments.host,
            port=arguments.port,
            workers=arguments.workers,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(2 * settings.timeout_s) + _STOP_S,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_worker_healthcheck=_START_S,
        )


def make_app() -> FastAPI:
    """Make the application of a process, from what the command left in the environment."""
    from transformers.utils.logging import disable_progress_bar

    from seekrec.serving.app import make_app as make

    log_as_json()
    disable_progress_bar()
    kept = json.loads(os.environ[_SETTINGS_VARIABLE])
    model = kept.pop("model")
    settings = ServingSettings(token=os.environ.get(TOKEN_VARIABLE) or None, **kept)
    return make(model, settings)


__all__ = ["TOKEN_VARIABLE", "add_arguments", "make_app", "serve"]
