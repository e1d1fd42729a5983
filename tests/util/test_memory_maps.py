# SPDX-License-Identifier: Apache-2.0
import sys

import numpy as np
import pytest

from seekrec.util.memory_maps import map_rows, release_rows, row_blocks, write_rows_file


@pytest.mark.parametrize("shape", [(7, 3), (1, 5), (0, 4)])
def test_what_is_written_in_blocks_is_mapped(tmp_path, shape):
    rows = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    write_rows_file(tmp_path / "rows.npy", (block for _, block in row_blocks(rows, 2)), shape)
    # numpy reads the file as any other.
    assert (np.load(tmp_path / "rows.npy") == rows).all()
    mapped = map_rows(tmp_path / "rows.npy")
    assert mapped.dtype == np.float32
    found = [(start, block.copy()) for start, block in row_blocks(mapped, 3)]
    assert [start for start, _ in found] == list(range(0, shape[0], 3))
    assert shape[0] == 0 or (np.concatenate([block for _, block in found]) == rows).all()
    # What was given back is read again.
    assert (mapped == rows).all()


@pytest.mark.skipif(sys.platform != "linux", reason="Memory is read from /proc.")
def test_reading_a_mapped_file_takes_the_memory_of_a_block(tmp_path):
    rows = np.ones((4_000, 4_096), np.float32)  # 64 MiB
    write_rows_file(tmp_path / "rows.npy", [rows], rows.shape)
    mapped = map_rows(tmp_path / "rows.npy")

    def resident() -> int:
        """Pages of mapped files that this process has, in KiB."""
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("RssFile"))

    release_rows(mapped)
    before = resident()
    highest = 0
    for _, block in row_blocks(mapped, 100):
        assert block.sum() == block.size
        highest = max(highest, resident() - before)
    assert highest < 16 * 1024
    assert resident() - before < 4 * 1024
