# SPDX-License-Identifier: Apache-2.0
"""Corpora in folders and on the Hub: one configuration for each task, one split for each part.

```
folder/
  README.md                            the configurations, for `datasets.load_dataset(folder, "nrip")`
  corpus.json                          tasks, counts, fingerprint, settings
  nrip/train-00000-of-00001.parquet    ...
```
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml
from datasets import DatasetDict, get_dataset_config_names, load_dataset

from seekrec.corpora.templates import TASKS
from seekrec.errors import DataError
from seekrec.events.saved import refuse_damage
from seekrec.util.files import replace_folder, write_json
from seekrec.util.repositories import upload

CORPUS_FILE = "corpus.json"
_README = "README.md"


def save_corpus(
    parts: Mapping[str, DatasetDict], folder: str | Path, *, description: Mapping[str, object] | None = None
) -> None:
    """Write corpora as Parquet files.

    Args:
        parts (`Mapping[str, datasets.DatasetDict]`): For each part (`"train"`, `"validation"`, ...) what
            `build_corpus` gave.
        folder (`str` or `Path`): Replaced as a whole if it is a corpus already; otherwise it must be new or empty.
        description (`Mapping`, *optional*): Kept in `corpus.json`: the fingerprint, the settings.

    Raises:
        DataError: If the folder contains something else, or there is nothing to write.
    """
    target = Path(folder)
    if not any(parts.values()):
        raise DataError("There is nothing to save: `parts` has no data set.")
    if target.exists() and not (target / CORPUS_FILE).is_file() and any(target.iterdir()):
        raise DataError(f"{target} contains other files and no {CORPUS_FILE}; give a new folder.")
    with replace_folder(target) as new:
        for part, corpus in parts.items():
            for name, rows in corpus.items():
                (new / name).mkdir(exist_ok=True)
                rows.to_parquet(new / _file_name(name, part))
        (new / _README).write_text(_render_readme(parts), encoding="utf-8")
        write_json(new / CORPUS_FILE, {"num_rows": _count_rows(parts), **(description or {})})


def load_corpus(
    folder_or_repo: str | Path,
    part: str = "train",
    *,
    cache_dir: str | Path | None = None,
    revision: str | None = None,
) -> DatasetDict:
    """Read one part of a corpus that `save_corpus` or `push_corpus` wrote. The files are mapped, not read into memory.

    Args:
        folder_or_repo (`str` or `Path`): A folder, or a data set repository on the Hub.
        part (`str`): Part to read.
        cache_dir (`str` or `Path`, *optional*): Folder in which `datasets` keeps its copy.
        revision (`str`, *optional*): Branch, tag or commit of the repository.

    Returns:
        `datasets.DatasetDict`: A data set for each task that has this part.

    Raises:
        DataError: If the folder contains no corpus, or the corpus has no such part.
    """
    place = str(folder_or_repo)
    if Path(place).is_dir() or Path(place).is_absolute():
        tasks = _tasks_of_folder(Path(place), part)
    else:
        # A repository may contain the log, too.
        names = get_dataset_config_names(place, revision=revision)
        tasks = [name for name in names if name not in ("events", "items")]
    corpus = DatasetDict()
    for name in sorted(tasks, key=lambda task: TASKS.index(task) if task in TASKS else len(TASKS)):
        try:
            corpus[name] = load_dataset(
                place, name, split=part, cache_dir=None if cache_dir is None else str(cache_dir), revision=revision
            )
        except ValueError as error:
            if "Unknown split" not in str(error):
                raise
    if not corpus:
        raise DataError(f"Corpus {place} has no part {part!r}; choose one of those it was saved with.")
    return corpus


def describe_corpus(folder: str | Path) -> dict[str, object]:
    """Read `corpus.json`: the number of rows by task and part, and the description given to `save_corpus`.

    Raises:
        DataError: If the folder contains no corpus, or a damaged one.
    """
    path = Path(folder) / CORPUS_FILE
    if not path.is_file():
        raise DataError(f"{folder} contains no {CORPUS_FILE}, so it is not a corpus; save one with `save_corpus`.")
    with refuse_damage(path.parent, "corpus"):
        content: dict[str, object] = dict(json.loads(path.read_text(encoding="utf-8")))
    return content


def push_corpus(
    parts: Mapping[str, DatasetDict], repo_id: str, *, private: bool | None = None, token: str | None = None
) -> None:
    """Publish corpora as a data set repository, one configuration for each task, by one commit.

    Args:
        parts (`Mapping[str, datasets.DatasetDict]`): As in `save_corpus`.
        repo_id (`str`): `user/name`; made if it does not exist.
        private (`bool`, *optional*): Whether a new repository is private.
        token (`str`, *optional*): For the Hub; the one logged in with otherwise.

    Raises:
        DataError: If there is nothing to publish.
    """
    if not any(parts.values()):
        raise DataError("There is nothing to publish: `parts` has no data set.")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "corpus"
        save_corpus(parts, folder)
        upload(
            folder,
            repo_id=repo_id,
            repo_type="dataset",
            commit_message="Upload corpora",
            private=private,
            token=token,
            replaces=["*.parquet"],
        )


def _tasks_of_folder(folder: Path, part: str) -> list[str]:
    counts = describe_corpus(folder)["num_rows"]
    return [name for name, parts in counts.items() if part in parts] if isinstance(counts, dict) else []


def _count_rows(parts: Mapping[str, DatasetDict]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for part, corpus in parts.items():
        for name, rows in corpus.items():
            counts.setdefault(name, {})[part] = len(rows)
    return counts


def _file_name(task: str, part: str) -> str:
    return f"{task}/{part}-00000-of-00001.parquet"


def _render_readme(parts: Mapping[str, DatasetDict]) -> str:
    counts = _count_rows(parts)
    configurations = [
        {
            "config_name": name,
            "data_files": [{"split": part, "path": _file_name(name, part)} for part in by_part],
        }
        for name, by_part in counts.items()
    ]
    header = yaml.safe_dump({"configs": configurations}, sort_keys=False)
    lines = [f"| {name} | {part} | {rows} |" for name, by_part in counts.items() for part, rows in by_part.items()]
    return "\n".join(
        [
            f"---\n{header}---",
            "",
            "# Instruction corpora for search and recommendation",
            "",
            "Token ids of instructions and answers, one configuration for each task. Made with seekrec.",
            "",
            "| task | part | rows |",
            "|---|---|---|",
            *lines,
            "",
        ]
    )
