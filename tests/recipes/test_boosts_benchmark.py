# SPDX-License-Identifier: Apache-2.0
import json
from math import log
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
    exact = [first, second, third, fourth]
    for line in exact:
        assert (line["what"], line["items"], line["ends"]) == ("exact: against beams", 20_000, True)
        assert {"milliseconds", "milliseconds of beams"} <= line.keys()
    # The larger the scale of the head, the surer it is of the first code: of 256, none is unsurer than log(256) nats.
    nats = [line["nats of the first code"] for line in exact]
    assert nats == sorted(nats, reverse=True) and 0 <= nats[-1] < nats[0] < log(256)
    assert (next_item["what"], next_item["items"], next_item["batch"]) == ("exact: next item", 20_000, 2)
    assert {"milliseconds", "with numbers", "of the product", "of beams with numbers"} <= next_item.keys()
