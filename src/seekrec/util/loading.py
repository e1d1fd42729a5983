# SPDX-License-Identifier: Apache-2.0
"""Load models one at a time.

While transformers loads a model, it replaces methods of classes that all models share, and puts back what it found. If
two threads load at once, the replacement can remain, and every later model of the process is loaded without tied
weights.
"""

import threading

# Held by whoever calls `from_pretrained` of transformers; a model that loads another holds it twice.
LOADING = threading.RLock()

__all__ = ["LOADING"]
