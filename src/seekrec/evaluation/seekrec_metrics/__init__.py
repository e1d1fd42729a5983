# SPDX-License-Identifier: Apache-2.0
"""The folder that `evaluate.load` reads."""

__all__: list[str] = []
