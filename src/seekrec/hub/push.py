# SPDX-License-Identifier: Apache-2.0
"""Prepare complete repositories of a model, an adapter or a data set in a folder, before they are uploaded.

Each function writes a new folder with the complete repository and uploads nothing, so that it can be inspected.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa

from seekrec.corpora import describe_corpus
from seekrec.errors import ConfigurationError, DataError
from seekrec.evaluation import ResultRow, read_results
from seekrec.events import EventLog
from seekrec.events.partitions import PartitionedLog
from seekrec.hub.cards import eval_results_yaml, render_adapter_card, render_dataset_card, render_model_card
from seekrec.hub.publish import copy_model, describe_model, refuse_secrets
from seekrec.models.manifest import read_json
from seekrec.models.repository import RepositoryModel
from seekrec.util.files import write_json, write_table
from seekrec.util.package_data import data_folder
from seekrec.util.redaction import place_name

ADAPTER_FILE = "adapter_config.json"
_ADAPTER_WEIGHTS = "adapter_model.safetensors"
# Rows of one Parquet file of a data set.
_MAX_ROWS = 5_000_000


def prepare_model(
    folder: str | Path,
    target: str | Path,
    repo_id: str,
    *,
    system: str | None = None,
    license: str | None = None,
    dataset_id: str | None = None,
    base_model: str | None = None,
    results: Sequence[ResultRow] | None = None,
    template: str | Path | None = None,
) -> list[str]:
    """Write the repository of a model: a copy of its folder, with card, evaluation results and module.

    Args:
        folder (`str` or `Path`): The model folder; it is not changed.
        target (`str` or `Path`): A folder that does not exist.
        repo_id (`str`): Its name on the Hub.
        system (`str`, *optional*): The model's name in the results; that of its family if not given.
        license (`str`, *optional*): License of the weights, as the Hub abbreviates it.
        dataset_id (`str`, *optional*): The data set it was trained on, if that is on the Hub.
        base_model (`str`, *optional*): The checkpoint it started from.
        results (`Sequence[ResultRow]`, *optional*): What the card shows; `results.json` of the folder, if there is
            one, if not given.
        template (`str` or `Path`, *optional*): The card's template; that of the family if not given.

    Returns:
        `list[str]`: The paths of all files, sorted.

    Raises:
        ConfigurationError: If files are missing, or a text file contains a secret.
        DataError: If the results contain none of this system.
    """
    source = Path(folder)
    found = source / "results.json"
    if results is None and found.is_file():
        results = read_results(found)
    # A processor that was never saved here is pushed by itself; one that a manifest names must be whole.
    with_processor = any((source / name).is_file() for name in ("processor_config.json", "processor_manifest.json"))
    run = describe_model(
        source,
        repo_id=repo_id,
        system=system,
        license=license or "unknown",
        dataset_id=dataset_id,
        base_model=base_model,
        with_processor=with_processor,
    )
    family = read_json(source / "config.json")["model_type"]
    card = render_model_card(template or data_folder("hub_cards") / f"{family}.md", results, run)
    return copy_model(source, target, card=card, eval_results=eval_results_yaml(results, run))


def prepare_adapter(
    folder: str | Path,
    target: str | Path,
    repo_id: str,
    *,
    base_model: str | None = None,
    license: str | None = None,
    template: str | Path | None = None,
) -> list[str]:
    """Write the repository of an adapter: its weights, its settings with the name of the base model, and a card.

    Args:
        folder (`str` or `Path`): Folder that `save_pretrained` of a `peft` model wrote; it is not changed.
        target (`str` or `Path`): A folder that does not exist.
        repo_id (`str`): Its name on the Hub.
        base_model (`str`, *optional*): Repository of the model that the adapter belongs to; as the settings say if
            not given.
        license (`str`, *optional*): License of the weights, as the Hub abbreviates it.
        template (`str` or `Path`, *optional*): The card's template; `hub_cards/adapter.md` if not given.

    Returns:
        `list[str]`: The paths of all files, sorted.

    Raises:
        ConfigurationError: If a file is missing, or the base model has no name on the Hub.
    """
    source, destination = Path(folder), Path(target)
    missing = [name for name in (ADAPTER_FILE, _ADAPTER_WEIGHTS) if not (source / name).is_file()]
    if missing:
        raise ConfigurationError(
            f"{source} is not an adapter: it lacks {', '.join(missing)}. Save the `peft` model with `save_pretrained`."
        )
    settings = read_json(source / ADAPTER_FILE)
    base = base_model or settings.get("base_model_name_or_path") or ""
    if base.count("/") != 1 or place_name(base) != base or Path(base).exists():
        raise ConfigurationError(
            f"The adapter in {source} was trained on {base or 'a model without a name'}, which nobody else can load; "
            "publish that model, and pass its repository as `base_model`."
        )
    destination.mkdir(parents=True)
    shutil.copyfile(source / _ADAPTER_WEIGHTS, destination / _ADAPTER_WEIGHTS)
    write_json(destination / ADAPTER_FILE, {**settings, "base_model_name_or_path": base})
    facts = {"repo_id": repo_id, "base_model": base, "license": license or "unknown", "settings": settings}
    card = render_adapter_card(template or data_folder("hub_cards") / "adapter.md", facts)
    return _finish(destination, card)


def prepare_data_set(
    target: str | Path,
    repo_id: str,
    *,
    log: EventLog | PartitionedLog | None = None,
    corpus: str | Path | None = None,
    license: str | None = None,
    command: str = "",
    template: str | Path | None = None,
) -> list[str]:
    """Write the repository of a data set: `events` and `items` of a log, and a configuration for each task.

    ```
    README.md                                the card, and which files make up which configuration
    log.json                                 what the tables do not say: name, origin of the queries, notes
    events/train-00000-of-00001.parquet      load_dataset("me/my-log", "events")
    items/train-00000-of-00001.parquet
    nrip/train-00000-of-00001.parquet        load_dataset("me/my-log", "nrip"): a task of a corpus
    ```

    Args:
        target (`str` or `Path`): A folder that does not exist.
        repo_id (`str`): Its name on the Hub.
        log ([`EventLog`] or [`PartitionedLog`], *optional*): The log; of a partitioned one a partition is in memory at
            a time.
        corpus (`str` or `Path`, *optional*): Folder that `save_corpus` wrote.
        license (`str`, *optional*): License of the data, as the Hub abbreviates it.
        command (`str`): Command that made the data, for the card.
        template (`str` or `Path`, *optional*): The card's template; `hub_cards/dataset.md` if not given.

    Returns:
        `list[str]`: The paths of all files, sorted.

    Raises:
        ConfigurationError: If there is neither a log nor a corpus.
        DataError: If the folder of the corpus contains none.
    """
    if log is None and corpus is None:
        raise ConfigurationError("There is nothing to publish: give a log, the folder of a corpus, or both.")
    destination = Path(target)
    destination.mkdir(parents=True)
    tables: list[dict[str, object]] = []
    if log is not None:
        parts = iter(log) if isinstance(log, PartitionedLog) else iter([log])
        for name, content in (("events", (part.events for part in parts)), ("items", iter([log.items]))):
            tables.append(_write_shards(destination / name, name, content))
        write_json(destination / "log.json", log_facts(log))
    if corpus is not None:
        counts = describe_corpus(corpus)["num_rows"]
        for name, by_part in counts.items() if isinstance(counts, dict) else ():
            if not all(str(word).isidentifier() for word in (name, *by_part)):
                raise DataError(
                    f"{corpus} has a task {name!r} with parts {list(by_part)!r}, which are not valid names; save it "
                    "again."
                )
            shutil.copytree(Path(corpus) / name, destination / name)
            tables += [{"config": name, "split": part, "num_rows": rows} for part, rows in by_part.items()]
        shutil.copyfile(Path(corpus) / "corpus.json", destination / "corpus.json")
    configs: dict[str, dict[str, str]] = {}
    for table in tables:
        name, part = str(table["config"]), str(table["split"])
        configs.setdefault(name, {})[part] = f"{name}/{part}-*.parquet"
        table.setdefault("columns", _columns(destination / name))
    card = render_dataset_card(
        template or data_folder("hub_cards") / "dataset.md",
        {
            "repo_id": repo_id,
            "license": license or "unknown",
            "tags": ["seekrec", "recommendation", "search"],
            "configs": configs,
            "tables": tables,
            "log": None if log is None else log.describe(),
            "has_corpus": corpus is not None,
            "command": command,
        },
    )
    return _finish(destination, card)


def log_facts(log: EventLog | PartitionedLog) -> dict[str, object]:
    """Return what the two tables of a log do not say."""
    return {
        "name": log.name,
        "has_time": log.has_time,
        "query_source": log.query_source,
        "notes": list(log.notes),
    }


def _write_shards(folder: Path, name: str, tables: Iterator[pa.Table]) -> dict[str, object]:
    """Write tables as the files of one configuration; return its line of the card."""
    folder.mkdir()
    shards = (
        table.slice(start, _MAX_ROWS) for table in tables for start in range(0, max(1, table.num_rows), _MAX_ROWS)
    )
    num_rows, columns, count = 0, [], 0
    for table in shards:
        write_table(folder / f"train-{count:05d}.parquet", table)
        num_rows, columns, count = num_rows + table.num_rows, table.column_names, count + 1
    for number in range(count):
        (folder / f"train-{number:05d}.parquet").rename(folder / f"train-{number:05d}-of-{count:05d}.parquet")
    return {"config": name, "split": "train", "num_rows": num_rows, "columns": columns}


def _columns(folder: Path) -> list[str]:
    first = next(islice(sorted(folder.glob("*.parquet")), 1))
    names: list[str] = pa.parquet.read_schema(first).names
    return names


def _finish(folder: Path, card: str) -> list[str]:
    (folder / "README.md").write_text(card, encoding="utf-8")
    refuse_secrets(folder)
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


RepositoryModel.publisher = prepare_model

__all__ = ["ADAPTER_FILE", "prepare_adapter", "prepare_data_set", "prepare_model"]
