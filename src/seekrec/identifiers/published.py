# SPDX-License-Identifier: Apache-2.0
"""Read identifiers that others published, as JSON: `{"0": ["<a_121>", "<b_202>", ...], "1": ...}`.

The keys are item rows. In each token a letter is the level and a number the code.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from seekrec.errors import DataError

_TOKEN = re.compile(r"<[a-z]+_(\d+)>")


def read_published_identifiers(path: str | Path) -> np.ndarray:
    """Read a published index.

    Args:
        path (`str` or `Path`): A JSON file; its keys are the item rows 0, 1, ... in any order.

    Returns:
        `np.ndarray`: int64 codes of shape `(num_items, num_levels)`.

    Raises:
        DataError: If the file is not such an index; the message names the item.
    """
    path = Path(path)
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; pass a published index file.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not JSON ({error}); pass a published index file.") from None
    if not isinstance(index, dict) or not index:
        raise DataError(
            f"{path} contains {type(index).__name__}, not a table of items; expected {{item row: [token, ...]}}."
        )
    rows: list[list[int]] = []
    for row in range(len(index)):
        if str(row) not in index:
            raise DataError(
                f"{path} has {len(index)} items but none with the key {str(row)!r}; keys must be 0, 1, 2, ..."
            )
        tokens = index[str(row)]
        matches = [_TOKEN.fullmatch(str(token)) for token in tokens] if isinstance(tokens, list) else []
        codes = [int(match[1]) for match in matches if match]
        if not codes or len(codes) < len(tokens) or (rows and len(codes) != len(rows[0])):
            raise DataError(
                f"{path}, item {row}: {tokens!r} is not an identifier like those before; expected "
                f"{len(rows[0]) if rows else 'some'} tokens such as '<a_121>'."
            )
        rows.append(codes)
    return np.array(rows, np.int64)
