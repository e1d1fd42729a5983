# SPDX-License-Identifier: Apache-2.0
"""Helpers for all parts of the package."""

__all__: list[str] = []
