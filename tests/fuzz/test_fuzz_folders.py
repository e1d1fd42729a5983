# SPDX-License-Identifier: Apache-2.0
"""Folders: damaged anywhere, they are refused, or what is loaded equals what was saved."""

import json
import shutil

import torch
from hypothesis import given
from hypothesis import strategies as st
from small_shop import make_catalog, make_intsr, make_log
from tally import TALLY, fuzzed

from seekrec import Catalog, EventLog, Request, Split, split_log

json_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 2**40),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.integers(), max_size=2),
    st.just({}),
)


def damage(data, folder):
    """Damage one file of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files))
    content = path.read_bytes()
    ways = ["cut", "flip", "remove", "empty", "swap", "junk"] + (["edit"] * 3 if path.suffix == ".json" else [])
    way = data.draw(st.sampled_from(ways))
    place = data.draw(st.integers(0, max(len(content) - 1, 0)))
    if way == "cut":
        path.write_bytes(content[:place])
    elif way == "flip" and content:
        path.write_bytes(
            content[:place] + bytes([content[place] ^ (1 << data.draw(st.integers(0, 7)))]) + content[place + 1 :]
        )
    elif way == "remove":
        path.unlink()
    elif way == "empty":
        path.write_bytes(b"")
    elif way == "swap":
        other = data.draw(st.sampled_from(files))
        path.write_bytes(other.read_bytes())
    elif way == "junk":
        path.write_bytes(data.draw(st.binary(max_size=40)))
    elif way == "edit":
        edited = json.loads(content)
        holder = edited
        while isinstance(holder, dict) and holder:
            key = data.draw(st.sampled_from(sorted(holder)))
            if isinstance(holder[key], dict) and data.draw(st.booleans()):
                holder = holder[key]
                continue
            if data.draw(st.booleans()):
                holder[key] = data.draw(json_values)
            else:
                del holder[key]
            break
        path.write_text(json.dumps(edited))


def fuzz_folder(tmp_path, kind, num_cases, save, load, is_equal):
    save(tmp_path / "whole")

    @fuzzed(num_cases)
    @given(st.data())
    def ask(data):
        shutil.rmtree(tmp_path / "damaged", ignore_errors=True)
        shutil.copytree(tmp_path / "whole", tmp_path / "damaged")
        damage(data, tmp_path / "damaged")
        with TALLY.case(f"damaged {kind}"):
            assert is_equal(load(tmp_path / "damaged"))

    ask()


def test_damaged_logs(tmp_path):
    log = make_log()
    fuzz_folder(tmp_path, "logs", 700, log.save, EventLog.load, lambda loaded: loaded.fingerprint == log.fingerprint)


def test_damaged_splits(tmp_path):
    split = split_log(make_log())
    fuzz_folder(
        tmp_path, "splits", 700, split.save, Split.load, lambda loaded: loaded.fingerprint == split.fingerprint
    )


def test_damaged_catalogues(tmp_path):
    catalog = make_catalog(make_log())
    fuzz_folder(
        tmp_path,
        "catalogues",
        700,
        catalog.save,
        Catalog.load,
        lambda loaded: loaded.content_hash == catalog.content_hash,
    )


def test_damaged_models(tmp_path):
    model, processor = make_intsr()
    asked = processor([Request()])
    expected = [one.item_id for one in model.retrieve(asked, top_k=5)[0]]
    whole = {name: weight.clone() for name, weight in model.state_dict().items()}

    def save(folder):
        model.save_pretrained(folder)

    def is_equal(loaded):
        same = all(torch.equal(whole[name], weight) for name, weight in loaded.state_dict().items())
        return same and [one.item_id for one in loaded.retrieve(asked, top_k=5)[0]] == expected

    fuzz_folder(tmp_path, "models", 300, save, lambda folder: type(model).from_pretrained(folder).eval(), is_equal)
