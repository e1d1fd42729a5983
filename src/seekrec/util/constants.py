# SPDX-License-Identifier: Apache-2.0
"""Numbers that several modules share."""

# The label of a position that is not trained on, as in transformers.
LABEL_PADDING = -100

SECONDS_PER_HOUR = 3600
SECONDS_PER_DAY = 86_400

__all__ = ["LABEL_PADDING", "SECONDS_PER_DAY", "SECONDS_PER_HOUR"]
