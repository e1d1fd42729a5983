# SPDX-License-Identifier: Apache-2.0
"""No secret and no place of the machine is left in what is published; what is neither stays."""

from __future__ import annotations

import pytest

from seekrec.util.redaction import is_secret, place_name, publishable, publishable_command, publishable_text

TOKEN = "hf_" + "Ab1" * 10


@pytest.mark.parametrize("name", ["hub_token", "token", "HF_TOKEN", "db_password", "aws_secret_access_key", "api-key"])
def test_secrets_are_told_by_name(name):
    assert is_secret(name)
    assert publishable("not-a-real-token", name) == "***"
    assert publishable({name: ["a", "b"], "seed": 1}) == {name: ["***", "***"], "seed": 1}


@pytest.mark.parametrize("name", ["max_query_tokens", "merge_event_tokens", "monkey", "key", "yes_no_loss", "seed"])
def test_other_names_are_no_secrets(name):
    assert not is_secret(name)
    assert publishable("token", name) == "token"


def test_settings_that_are_no_text_stay():
    assert publishable({"yes_token_id": 5, "hub_token": None, "lr": 0.1, "on": True}) == {
        "yes_token_id": 5,
        "hub_token": None,
        "lr": 0.1,
        "on": True,
    }


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (
            ["accelerate", "recipes/train_gensar.py", "--config", "recipes/gensar/tiny.yaml", "--hub_token", "abc"],
            "accelerate recipes/train_gensar.py --config recipes/gensar/tiny.yaml --hub_token '***'",
        ),
        (["--hub-token=abc", "--seed=3"], "'--hub_token=***' --seed=3"),
        (["/home/me/x.py", "--data_dir", "/data/shops/acme"], "x.py --data_dir acme"),
        (["--events=acme/log.csv", "--output_dir", "runs/a b"], "--events=log.csv --output_dir 'a b'"),
        (["--delimiter", ";", "--events", "SELECT * FROM a"], "--delimiter ';' --events 'SELECT * FROM a'"),
        (["--compare_with", "/a/one", "../b/two", "--backbone", "google/flan-t5-base"], None),
        (["--x", TOKEN, "--url", "https://me:pw@host/a/b"], "--x '***' --url 'https://***@host/a/b'"),
    ],
)
def test_commands(argv, expected):
    assert publishable_command(argv) == (expected or "--compare_with one two --backbone google/flan-t5-base")


def test_texts_lose_paths_and_the_values_of_secret_variables(monkeypatch):
    monkeypatch.setenv("MY_API_TOKEN", "s3cr3t-value")
    text = (
        f"Events from /home/me/acme/log.csv (3 / 4), s3cr3t-value, {TOKEN}; see https://host/a/b and C:\\Users\\me\\x"
    )
    assert publishable_text(text) == "Events from log.csv (3 / 4), ***, ***; see https://host/a/b and x"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/models/mine", "mine"),
        ("~/mine/", "mine"),
        ("../x/y/", "y"),
        ("runs/x/encoder", "encoder"),
        ("C:\\models\\mine", "mine"),
        ("google/flan-t5-base", "google/flan-t5-base"),
        ("https://host/a/b", "https://host/a/b"),
        ("name", "name"),
    ],
)
def test_names_of_places(value, expected):
    assert place_name(value) == expected
