# SPDX-License-Identifier: Apache-2.0
"""Helpers that every part of the package uses."""

__all__: list[str] = []
