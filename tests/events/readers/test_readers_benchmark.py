# SPDX-License-Identifier: Apache-2.0
import json
import runpy
from pathlib import Path

import pytest

from seekrec.errors import ConfigurationError

RECIPE = Path(__file__).parents[3] / "recipes" / "benchmarks" / "readers.py"


def test_benchmark_prints_a_line_for_each_source(tmp_path, capsys):
    recipe = runpy.run_path(str(RECIPE))
    rows = [f"{user}\t{item}\t{1_000_000_000 + user * 50 + item}" for user in range(8) for item in range(25)]
    header = "user_id:token\titem_id:token\ttimestamp:float\n"
    bad = f"{rows[0]}\n0\t99\t1000000001\n0\t1\n0\t1\tNaN\n"
    (tmp_path / "toy.inter").write_text(header + "\n".join(rows) + "\n" + bad)
    (tmp_path / "toy.item").write_text("item_id:token\ttitle:token\n" + "".join(f"{k}\tT\n" for k in range(26)))
    recipe["main"](recipe["Arguments"](source=[f"recbole={tmp_path}"]))
    line = json.loads(capsys.readouterr().out)
    assert (line["source"], line["events"], line["searches"], line["users"], line["items"]) == (
        "recbole",
        200,
        0,
        8,
        26,
    )
    assert line["items_with_events"] == 25
    assert line["refused"] == {
        "toy.inter: name an item without a text": 1,
        "toy.inter: repeat an earlier row": 1,
        "toy.inter: cannot be read": 1,
        "toy.inter: have a timestamp that is not a time": 1,
    }
    assert line["rows"] == 200 + 26 + 4
    with pytest.raises(ConfigurationError, match="`source` contains the name 'x'; use one of amazon, "):
        recipe["main"](recipe["Arguments"](source=["x=y"]))
