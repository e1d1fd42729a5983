# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

from tiny_runs import run_script

FOLDER = Path(__file__).parents[2] / "recipes" / "benchmarks"


def test_numbers_are_priced_in_beams_and_in_exact_answers(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    *beams, counted, first, second, third, fourth, next_item = [
        json.loads(line) for line in run_script("benchmarks/boosts.py", "--quick").splitlines()
    ]
    assert [line["what"] for line in beams] == [f"beams: numbers {which} / none" for which in ("shared", "each")]
    assert counted["value"] == counted["catalogues"] == 3
    for line in (first, second, third, fourth):
        assert line["what"] == "exact: against beams" and 0 < line["milliseconds of beams"] < line["milliseconds"]
    assert (next_item["what"], next_item["items"], next_item["batch"]) == ("exact: next item", 20_000, 2)
    names = ("milliseconds", "with numbers", "of the product", "of beams with numbers")
    assert all(next_item[name] > 0 for name in names)
