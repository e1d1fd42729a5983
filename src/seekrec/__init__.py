# SPDX-License-Identifier: Apache-2.0
"""seekrec: one generative model that searches and recommends."""
