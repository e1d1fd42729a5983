# SPDX-License-Identifier: Apache-2.0
"""A repository of the Hub, read from a clone: what `EventLog.to_dataset_dict` pushes comes back."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seekrec.errors import DataError
from seekrec.events.log import EventLog
from seekrec.events.readers.hub import read_hub

# What `push_to_hub` writes into the card for two configurations.
CARD = """\
---
configs:
- config_name: events
  data_files:
  - split: train
    path: events/train-*
- config_name: items
  data_files:
  - split: train
    path: items/train-*
---
"""


@pytest.fixture
def log():
    events = pa.table(
        {
            "user_id": ["u", "u", "v"],
            "timestamp": [1_700_000_000, 1_700_000_100, 1_700_000_050],
            "behavior": ["recommendation", "search", "recommendation"],
            "query": [None, "面条 🍜", None],
            "item_id": ["a", "b", "a"],
            "action": ["click", "purchase", "impression"],
            "session_id": ["1", "1", "2"],
            "position": [3, None, 1],
        }
    )
    items = pa.table({"item_id": ["a", "b"], "title": ["Soba", "كسكس"], "categories": [[["Food", "Noodles"]], None]})
    return EventLog("shop", events, items, query_source="logged")


@pytest.fixture
def clone(log, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "my-log"
    for name, splits in log.to_dataset_dict().items():
        (folder / name).mkdir(parents=True)
        splits["train"].to_parquet(folder / name / "train-00000-of-00001.parquet")
    (folder / "README.md").write_text(CARD)
    return folder


def test_clone(log, clone):
    read = read_hub(clone)
    assert read.name == "my-log"
    assert read.notes[-1].startswith("The source of queries is not stored on the Hub")
    assert read.fingerprint == log.fingerprint
    assert read.events["position"].to_pylist() == [3, None, 1]


def test_other_tables(log, clone):
    path = clone / "events" / "train-00000-of-00001.parquet"
    names = {"user_id": "customer", "item_id": "sku"}
    events = pq.read_table(path).drop_columns(["behavior"])
    pq.write_table(events.rename_columns([names.get(name, name) for name in events.column_names]), path)
    read = read_hub(clone)
    names = ["user_id", "timestamp", "behavior", "query", "item_id", "action", "session_id"]
    assert read.events.select(names).to_pylist() == log.events.select(names).to_pylist()


def test_what_is_missing(clone, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # without waiting for a network
    with pytest.raises(DataError, match=r"configuration 'events' of .*nothing cannot be read"):
        read_hub(tmp_path / "nothing")
    (clone / "README.md").write_text(CARD.replace("config_name: items", "config_name: goods"))
    with pytest.raises(DataError, match=r"configuration 'items' of .*my-log cannot be read: .*events"):
        read_hub(clone)
    with pytest.raises(DataError, match=r"configuration 'events' of nobody/nothing at revision 'v1' cannot be read"):
        read_hub("nobody/nothing", revision="v1")


def test_columns_are_checked(clone):
    path = clone / "events" / "train-00000-of-00001.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["item_id"]), path)
    with pytest.raises(DataError, match="item_id"):
        read_hub(clone)
