# SPDX-License-Identifier: Apache-2.0
"""Loading models one after the other.

While transformers loads a model, it replaces methods of classes that all models share, and puts back what it found.
Two threads that load at once leave the replacement, and every later model of the process loads without tied weights.
"""

import threading

# Held by whoever calls `from_pretrained` of transformers; a model that loads another holds it twice.
LOADING = threading.RLock()

__all__ = ["LOADING"]
