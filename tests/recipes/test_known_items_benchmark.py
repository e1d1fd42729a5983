# SPDX-License-Identifier: Apache-2.0
import json

from small_shop import make_aisles, make_gensar
from tiny_runs import run_script

from seekrec.models import save_checkpoint
from seekrec.models.views import Views


def test_items_are_searched_for_by_their_titles(tmp_path):
    aisles = make_aisles()
    model, processor = make_gensar(aisles, view_weights=["search.unsearched=5"])
    model.set_views(Views.fit(aisles[0], model.catalog, names=["unsearched"]))
    save_checkpoint(model, processor, tmp_path / "model")
    options = ("--model", tmp_path / "model", "--num_items", "10")
    lines = [json.loads(line) for line in run_script("benchmarks/known_items.py", *options).splitlines()]
    found = {line["system"]: line for line in lines}
    assert [*found] == ["BM25", "model", "model without unsearched words", "model without views"]
    # Titles are numbered, and nobody searched for a number.
    assert found["BM25"]["first"] == found["model"]["first"] == 1.0 and found["model"]["titles"] == 10
    assert found["model without unsearched words"] | {"system": ""} == found["model without views"] | {"system": ""}
    assert found["model without views"]["first"] < 1.0
