# SPDX-License-Identifier: Apache-2.0
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from seekrec.events.partitions import training_facts
from seekrec.events.partitions.training_facts import count_queries
from seekrec.util.files import write_table


@pytest.mark.parametrize("at_once", [1_000_000, 40, 7])
def test_distinct_queries_are_counted_a_part_at_a_time(monkeypatch, tmp_path, at_once):
    monkeypatch.setattr(training_facts, "_QUERIES_AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    files, expected = [], Counter()
    for number, size in enumerate((60, 0, 45)):
        texts = [f"耳机 {one}" for one in rng.permutation(80)[:size]]
        files.append(tmp_path / f"{number}.parquet")
        counts = rng.integers(1, 5, size)
        write_table(files[-1], pa.table({"query": pa.array(texts, pa.string()), "count": counts}))
        expected.update(dict(zip(texts, counts.tolist(), strict=True)))
    found = count_queries(files)
    assert sorted(found["query"].to_pylist()) == sorted(expected)
    assert dict(zip(*found.to_pydict().values(), strict=True)) == expected
    assert count_queries(files[1:2]).num_rows == 0
