# SPDX-License-Identifier: Apache-2.0
"""The sizes of identifiers, shared by settings, learners and models.

No `from __future__ import annotations` here: with types as strings, `strict` checks none of them.
"""

from dataclasses import dataclass


@dataclass
class IdentifierLevels:
    """Levels and codes of identifiers.

    Args:
        num_shared_levels (`int`): Levels that both identifiers of an item share (L_m, GenSAR section 3.2.2).
        num_specific_levels (`int`): Levels that each identifier has for itself (L_n).
        codebook_size (`int`): Codes of a level (K).
    """

    num_shared_levels: int = 2
    num_specific_levels: int = 2
    codebook_size: int = 256

    @property
    def num_levels(self) -> int:
        """Codes of an identifier: shared levels, then specific ones."""
        return self.num_shared_levels + self.num_specific_levels


__all__ = ["IdentifierLevels"]
