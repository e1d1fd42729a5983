# SPDX-License-Identifier: Apache-2.0
"""Products of sparse matrices, against scipy's."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array, random_array

from seekrec.util.sparse import add_rows


def test_few_long_rows_are_added_up_as_by_scipy():
    rng = np.random.default_rng(0)
    for seed in range(20):
        table = csr_array(random_array((30, 200), density=0.2, rng=seed, dtype=np.float32))
        asked = csr_array(random_array((9, 30), density=[0.02, 0.1][seed % 2], rng=seed, dtype=np.float32))
        if seed % 3 == 0:  # columns in no order, as a file may hold them
            rows = np.split(np.arange(table.nnz), table.indptr[1:-1])
            order = np.concatenate([rng.permutation(row) for row in rows])
            table = csr_array((table.data[order], table.indices[order], table.indptr), shape=table.shape)
        found = add_rows(asked, table)
        assert found.has_canonical_format and found.dtype == np.float32
        np.testing.assert_allclose(found.toarray(), (asked @ table).toarray(), rtol=1e-6)
    assert add_rows(csr_array((2, 30), dtype=np.float32), table).toarray().tolist() == [[0.0] * 200] * 2
