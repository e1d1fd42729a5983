# SPDX-License-Identifier: Apache-2.0
"""An HTTP server for models of any family, which stores users' events and follows changes of the catalogue.

`seekrec serve --model X` runs it; [`create_app`] makes the same application in Python. Install its dependencies with
`pip install "seekrec[serve]"`.
"""

from seekrec.serving.create import create_app
from seekrec.serving.settings import ServingSettings

__all__ = ["ServingSettings", "create_app"]
