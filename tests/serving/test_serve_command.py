# SPDX-License-Identifier: Apache-2.0
"""`seekrec serve`: what it listens to, what it passes to its processes, and that it ends what it began."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient
from small_shop import TEXT_SIZE, make_aisles, make_gensar, make_intsr

from seekrec.errors import ConfigurationError
from seekrec.models import save_checkpoint
from seekrec.recipes.command import main
from seekrec.serving import ServingSettings, create_app
from seekrec.serving.command import make_app
from seekrec.serving.logs import log_as_json


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model, in a folder of models."""
    folder = tmp_path_factory.mktemp("models") / "shop" / "model"
    save_checkpoint(*make_intsr(), folder)
    return folder


@pytest.fixture
def called(monkeypatch):
    """What uvicorn was called with, in place of a server; the environment is put back."""
    calls = []
    monkeypatch.setattr(uvicorn, "run", lambda *args, **options: calls.append((args, options)))
    monkeypatch.setattr("seekrec.serving.command.log_as_json", lambda: None)
    for name in ("SEEKREC_SERVING", "SEEKREC_TOKEN", "PROMETHEUS_MULTIPROC_DIR", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return calls


def test_it_listens_to_this_machine_alone_and_hands_its_settings_on(
    called, folder, store_url, monkeypatch, text_encoder
):
    text_encoder(TEXT_SIZE)
    monkeypatch.setenv("SEEKREC_TOKEN", "a secret")
    main(["serve", "--model", str(folder), "--store", store_url, "--max_batch", "3", "--workers", "2"])
    ((_, options),) = called
    assert (options["host"], options["port"], options["workers"]) == ("127.0.0.1", 8000, 2)
    assert options["timeout_keep_alive"] > 60  # proxies keep a connection for a minute
    assert "a secret" not in os.environ["SEEKREC_SERVING"]
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR")
    with TestClient(make_app()) as client:
        settings = client.app.state.service.settings
        assert (settings.store, settings.max_batch, settings.token) == (store_url, 3, "a secret")
        assert client.get("/health").json()["model"] == "shop"
        assert client.post("/recommend", json={}).status_code == 401


def test_logs_of_the_command_are_json_and_hold_nothing_of_a_history(serve, capsys, monkeypatch):
    root, names = logging.getLogger(), ("", "seekrec.models", "seekrec.serving", "uvicorn", "uvicorn.error")
    monkeypatch.setattr(root, "handlers", [])
    loggers = [logging.getLogger(name) for name in names]
    before = [(one.level, one.propagate) for one in loggers]
    try:
        log_as_json()
        client = serve("intsr")
        assert client.post("/recommend", json={"history": [{"item_id": "made up"}]}).status_code == 200
    finally:
        for one, (level, propagate) in zip(loggers, before, strict=True):
            one.setLevel(level)
            one.propagate = propagate
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert lines[-1]["route"] == "/recommend"
    assert not any("made up" in json.dumps(line) for line in lines)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "0"], "`--workers` is 0; give 1 or more"),
        (["--port", "65536"], "`--port` is 65536; give 0 to 65535"),
        (["--max_queue", "0"], "`max_queue` is 0; give a number from 1 up"),
        (["--timeout_s", "-1"], "`timeout_s` is -1.0; give seconds, more than 0"),
    ],
)
def test_wrong_options_end_it_with_one_line(called, words, message):
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--model", "anything", *words])
    assert str(ended.value).startswith("seekrec serve: ") and message in str(ended.value)
    assert called == []


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ("mysql://me:hunter2@there/db", "`store` is a mysql URL"),
        ("not a url", "`store` cannot be read as a URL"),
        ("sqlite://", "`store` is a sqlite URL without a file"),
        ("sqlite:////no/such/folder/store.sqlite", "The store cannot be opened"),
    ],
)
def test_a_store_that_cannot_be_used_is_named_without_its_password(folder, store, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error, TestClient(create_app(folder, store=store)):
        pass
    assert "hunter2" not in str(error.value)


def test_settings_of_python_are_checked():
    with pytest.raises(ConfigurationError, match="`batch` is an unknown option of a server; use store, models"):
        create_app("anything", batch=3)
    settings = ServingSettings(max_batch=2, token="secret")
    assert create_app("anything", settings=settings, max_queue=9).state.service.settings == ServingSettings(
        max_batch=2, token="secret", max_queue=9
    )
    assert "secret" not in repr(settings)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_accepted_is_answered_before_it_ends(tmp_path, workers):
    # One that needs no text encoder.
    save_checkpoint(*make_gensar(make_aisles()), tmp_path / "model")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["--model", str(tmp_path / "model"), "--store", f"sqlite:///{tmp_path}/store.sqlite", "--port", str(port)]
    words += ["--workers", str(workers), "--batch_wait_ms", "10000"]
    url, num_asked = f"http://127.0.0.1:{port}", 20
    command = [sys.executable, "-m", "seekrec.recipes.command", "serve", *words]
    with ExitStack() as stack:
        log = stack.enter_context((tmp_path / "log").open("w"))
        server = stack.enter_context(subprocess.Popen(command, stderr=log))
        stack.callback(server.kill)
        client = stack.enter_context(httpx.Client(base_url=url, timeout=120))

        def wait_until(path, is_so):
            for _ in range(3000):
                assert server.poll() is None, (tmp_path / "log").read_text()
                try:
                    if is_so(client.get(path)):
                        return
                except httpx.ConnectError:
                    pass
                time.sleep(0.1)
            raise AssertionError((tmp_path / "log").read_text())

        wait_until("/health", lambda answer: answer.status_code == 200)
        threads = stack.enter_context(ThreadPoolExecutor(num_asked))
        asked = [threads.submit(client.post, "/recommend", json={"top_k": 3}) for _ in range(num_asked)]
        # All wait for others, ten seconds, in whichever process; meanwhile the server is stopped.
        wait_until("/metrics", lambda answer: f"seekrec_queue_length {num_asked}.0" in answer.text)
        server.send_signal(signal.SIGTERM)
        assert [one.result().status_code for one in asked] == [200] * num_asked
        # One process ends by the signal that it was stopped with, as is usual.
        assert server.wait(60) == (-signal.SIGTERM if workers == 1 else 0)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if line.startswith("{")]
    assert sum(line.get("route") == "/recommend" and line["status"] == 200 for line in lines) == num_asked
