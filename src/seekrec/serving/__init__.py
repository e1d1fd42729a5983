# SPDX-License-Identifier: Apache-2.0
"""A server of any family: it remembers what users do, lives with a changing catalogue, and answers over HTTP.

`seekrec serve --model X` runs it; [`create_app`] makes the same application in Python. What it needs besides comes
with `pip install "seekrec[serve]"`.
"""

from seekrec.serving.create import create_app
from seekrec.serving.settings import ServingSettings

__all__ = ["ServingSettings", "create_app"]
