# SPDX-License-Identifier: Apache-2.0
"""Loads models and processors from a Hub with arguments: `python hub_arguments_session.py ARGUMENTS REPORT`.

It runs in a subprocess of the tests, because huggingface_hub reads its address when it is imported. `ARGUMENTS` is a
JSON list of repositories and what `from_pretrained` is given for each; the report has the hashes of both catalogues,
or the name of the error.
"""

import json
import sys
from pathlib import Path

from transformers import AutoModel, AutoProcessor

import seekrec  # noqa: F401  registers the families


def main(questions, report_path):
    report = []
    for repository, arguments in json.loads(questions):
        try:
            parts = [loader.from_pretrained(repository, **arguments) for loader in (AutoModel, AutoProcessor)]
            report.append([part.catalog.content_hash for part in parts])
        except OSError as error:
            report.append(type(error).__name__)
    Path(report_path).write_text(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
