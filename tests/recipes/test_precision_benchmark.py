# SPDX-License-Identifier: Apache-2.0
import json

from tiny_runs import run_script


def test_both_precisions_are_timed():
    options = ("--width", "16", "--batch_size", "2", "--length", "8", "--repeats", "1")
    line = json.loads(run_script("benchmarks/precision.py", *options))
    assert set(line) == {"has_bf16", "float32_seconds", "bf16_seconds", "speedup"} and line["speedup"] > 0
