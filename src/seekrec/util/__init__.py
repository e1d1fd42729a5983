# SPDX-License-Identifier: Apache-2.0
"""What every part of the package uses and none owns."""

__all__: list[str] = []
