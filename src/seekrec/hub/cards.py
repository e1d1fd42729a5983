# SPDX-License-Identifier: Apache-2.0
"""Model and dataset cards: templates filled with the results of a run, with all data escaped.

A template is Jinja2. Every text that it prints is escaped for Markdown unless it went through `| code` (a Python or
JSON literal for a code block) or `| line` (one line of a code block), so a title cannot open a heading, a link, a tag
or a fence. The front matter is written by huggingface_hub from values, never pasted. A variable that was not given
raises; nothing is left blank.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml
from huggingface_hub import DatasetCardData, EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from seekrec.errors import ConfigurationError, DataError
from seekrec.evaluation import ResultRow
from seekrec.evaluation.metrics import SELECTION_METRIC
from seekrec.recipes.record import EVERYTHING

# Metrics of a card's tables and of its metadata.
CARD_METRICS = ("recall@5", "recall@10", "ndcg@5", "ndcg@10", "mrr@10")
PIPELINE_TAG = "text-ranking"

# A row of results, a run or a data set, as JSON holds it.
Values = Mapping[str, Any]
Table = dict[str, Any]
Row = ResultRow | Values


class _Safe(str):
    """Text that is printed as it is."""

    __slots__ = ()


def escape_markdown(value: object) -> Any:
    """Make text one line that Markdown and HTML show as it is; anything else is returned unchanged."""
    if not isinstance(value, str) or isinstance(value, _Safe):
        return value
    # An underscore inside a word opens nothing, and names are full of them.
    return re.sub(r"([\\`*\[\]<>|#~$&!]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", re.sub(r"\s+", " ", value))


def _code(value: object) -> _Safe:
    """Write a value as a literal that Python and JSON read alike; it has no line break and no fence."""
    _refuse_undefined(value)
    return _Safe(json.dumps(value, ensure_ascii=False).replace("```", "\\u0060\\u0060\\u0060"))


def _line(value: object) -> _Safe:
    """Write text as one line of a code block."""
    return _Safe(_one_line(value).replace("```", "` ` `"))


def _number(value: object, form: str) -> _Safe:
    _refuse_undefined(value)
    return _Safe(format(value, form).replace("%", " %"))


def _refuse_undefined(value: object) -> None:
    """Raise the error that names what is missing, before a TypeError is raised that does not."""
    if isinstance(value, jinja2.Undefined):
        str(value)


def _one_line(value: object) -> str:
    return " ".join(str(value).split())


def _ranking(protocol: str) -> str:
    """Name a protocol: "full" is "full ranking", "full, query forms" is "full ranking, query forms"."""
    first, comma, rest = protocol.partition(", ")
    return f"{first} ranking{comma}{rest}"


_FILTERS = {
    "code": _code,
    "line": _line,
    "ranking": _ranking,
    "number": lambda value: _number(value, ","),
    "fixed": lambda value, digits: _number(value, f".{digits}f"),
    "percent": lambda value: _number(value, ".2%"),
}


def render_model_card(template_path: str | Path, results: Sequence[Row] | None, run: Values) -> str:
    """Render the card of a model.

    The template sees `run`, `metadata` (the YAML front matter) and `tables` (see [`result_tables`]).

    Args:
        template_path (`str` or `Path`): The template, such as `hub_cards/gensar.md` of a source checkout.
        results (`Sequence`, *optional*): Rows of `results.json`, as [`ResultRow`] or as dictionaries: this model's and
            those of the baselines on the same cases. `None` or none where nothing was measured, which the card says.
        run (`Mapping`): From [`describe_model`]. The front matter takes `repo_id`, `system`, `license`, `tags`,
            `dataset_id` and `base_model` from it; the two last may be `None`.

    Returns:
        `str`: The card.

    Raises:
        ConfigurationError: If a variable of the template was not given, or the template cannot be read.
        DataError: If no row is of this system.
    """
    rows = [_as_mapping(row) for row in results or ()]
    metadata = _model_metadata(rows, run)
    return _render(template_path, {"run": run, "metadata": metadata, "tables": result_tables(rows)})


def render_adapter_card(template_path: str | Path, adapter: Values) -> str:
    """Render the card of an adapter.

    Args:
        template_path (`str` or `Path`): The template, such as `hub_cards/adapter.md` of a source checkout.
        adapter (`Mapping`): The template sees it as `adapter`: `repo_id`, `base_model`, `license`, and `settings`,
            those of `peft`.

    Returns:
        `str`: The card.

    Raises:
        ConfigurationError: If a variable of the template was not given, or the template cannot be read.
    """
    metadata = ModelCardData(
        license=_need(adapter, "license"),
        library_name="peft",
        pipeline_tag=PIPELINE_TAG,
        tags=["seekrec", "adapter", *([str(kind).lower()] if (kind := adapter["settings"].get("peft_type")) else [])],
        base_model=_need(adapter, "base_model"),
    )
    return _render(template_path, {"adapter": adapter, "metadata": _Safe(metadata.to_yaml())})


def render_dataset_card(template_path: str | Path, data: Values) -> str:
    """Render the card of a published corpus or log.

    Args:
        template_path (`str` or `Path`): The template, such as `hub_cards/dataset.md` of a source checkout.
        data (`Mapping`): The template sees it as `data`. The front matter takes `license`, `tags` and `configs` from
            it: for each configuration its name and, by split, the pattern of its files. `configs` may be empty where
            `Dataset.push_to_hub` writes them.

    Returns:
        `str`: The card.

    Raises:
        ConfigurationError: If a variable of the template was not given, or the template cannot be read.
    """
    configs = [
        {
            "config_name": name,
            "data_files": [{"split": split, "path": pattern} for split, pattern in splits.items()],
        }
        for name, splits in _need(data, "configs").items()
    ]
    metadata = DatasetCardData(license=_need(data, "license"), tags=list(_need(data, "tags")), configs=configs or None)
    return _render(template_path, {"data": data, "metadata": _Safe(metadata.to_yaml())})


def result_tables(results: Sequence[Row]) -> list[Table]:
    """Arrange rows for a card: one table for each setting, in the order of the rows.

    Returns:
        `list[dict]`: Each with the fields of the setting (`behavior`, `dataset`, `part`, `protocol`, `split_method`,
        `split_protocol`, `split_fingerprint`, `query_source`, `seen_removed`, `num_cases`, `num_items`), `metrics`
        (the names of the columns) and `lines`: each with `system`, `cells` (a text for each column, the best in bold)
        and `interval` (of ndcg@10).
    """
    fields = (
        "behavior",
        "dataset",
        "part",
        "protocol",
        "split_method",
        "split_protocol",
        "split_fingerprint",
        "query_source",
        "seen_removed",
        "num_cases",
        "num_items",
    )
    tables: dict[tuple[object, ...], Table] = {}
    for row in map(_as_mapping, results):
        setting = {name: _need(row, name) for name in fields}
        table = tables.setdefault(tuple(setting.values()), {**setting, "rows": []})
        table["rows"].append(row)
    for table in tables.values():
        rows = table.pop("rows")
        table["metrics"] = [name for name in CARD_METRICS if any(name in row["metrics"] for row in rows)]
        best = {name: max(row["metrics"].get(name, 0.0) for row in rows) for name in table["metrics"]}
        table["lines"] = [
            {
                "system": row["system"],
                "cells": [_value_text(row["metrics"].get(name), best[name]) for name in table["metrics"]],
                "interval": _interval_text(row["intervals"].get(SELECTION_METRIC)),
            }
            for row in rows
        ]
    return list(tables.values())


def eval_results_yaml(results: Sequence[Row] | None, run: Values) -> str | None:
    """Write this model's results in the format of a repository's `.eval_results/*.yaml`.

    Args:
        results (`Sequence`, *optional*): Rows, as for [`render_model_card`].
        run (`Mapping`): As there: `system`, `dataset_id`.

    Returns:
        `str`, *optional*: YAML, or `None` without results or a `dataset_id`: entries name a data set of the Hub. A
            task is a behavior and how it is ranked; the first row of each is taken. `None`, too, of a model that has
            learned from the test since it was measured.
    """
    if not results or run.get("dataset_id") is None or _learned_test(run):
        return None
    entries: dict[str, EvalResultEntry] = {}
    for row in _own_rows(results, run):
        # Ranking of the whole catalogue is what a task is; other candidates have their name in it.
        candidates = "" if row["protocol"] == "full" else f"_{row['protocol']}"
        task = re.sub(r"\W+", "_", f"{row['behavior']}{candidates}_{SELECTION_METRIC}".replace("@", "_at_"))
        entry = EvalResultEntry(
            dataset_id=run["dataset_id"],
            task_id=task,
            value=round(row["metrics"][SELECTION_METRIC], 4),
            notes=_setting_text(row),
        )
        entries.setdefault(task, entry)
    return yaml.safe_dump(eval_result_entries_to_yaml(list(entries.values())), sort_keys=False, allow_unicode=True)


def _model_metadata(rows: Sequence[Values], run: Values) -> _Safe:
    dataset_id, base_model = _need(run, "dataset_id"), _need(run, "base_model")
    results = [
        EvalResult(
            task_type=PIPELINE_TAG,
            task_name=_behavior_text(row),
            dataset_type=dataset_id or _one_line(row["dataset"]),
            dataset_name=_one_line(row["dataset"]),
            dataset_split=row["part"],
            dataset_config=_setting_text(row),
            metric_type=name,
            metric_name=name,
            metric_value=round(row["metrics"][name], 4),
        )
        for row in (_own_rows(rows, run) if rows and not _learned_test(run) else ())
        for name in CARD_METRICS
        if name in row["metrics"]
    ]
    data = ModelCardData(
        license=_need(run, "license"),
        library_name="seekrec",
        pipeline_tag=PIPELINE_TAG,
        tags=list(_need(run, "tags")),
        datasets=None if dataset_id is None else [dataset_id],
        base_model=base_model,
        model_name=_need(run, "repo_id").rpartition("/")[2],
        eval_results=results or None,
    )
    return _Safe(data.to_yaml())


def _learned_test(run: Values) -> bool:
    """Return whether the results of a run are those of the training before that of its model."""
    return (run.get("refit") or {}).get("learned_from") == EVERYTHING


def _own_rows(results: Sequence[Row], run: Values) -> list[Values]:
    system = _need(run, "system")
    rows = [_as_mapping(row) for row in results]
    own = [row for row in rows if row["system"] == system and row["part"] == "test"]
    if not own:
        measured = sorted({f"{row['system']} ({row['part']})" for row in rows})
        raise DataError(
            f"The results contain no test row of {system!r}, only {', '.join(measured) or 'none at all'}; evaluate "
            "the model, or choose a system that was evaluated."
        )
    return own


def _setting_text(row: Values) -> str:
    seen = "removed" if row["seen_removed"] else "kept"
    return (
        f"{_behavior_text(row)}, {_ranking(row['protocol'])}, {row['split_method']} split, {row['split_protocol']}, "
        f"{row['split_fingerprint'][:12]}, seen items {seen}"
    )


def _behavior_text(row: Values) -> str:
    is_synthetic = row["behavior"] == "search" and row["query_source"] == "category"
    return f"{row['behavior']} (synthetic queries)" if is_synthetic else str(row["behavior"])


def _value_text(value: float | None, best: float) -> _Safe:
    text = "-" if value is None else f"{value:.4f}"
    return _Safe(f"**{text}**" if text == f"{best:.4f}" else text)


def _interval_text(interval: Sequence[float] | None) -> _Safe:
    return _Safe("-" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}")


def _as_mapping(row: Row) -> Values:
    return row.to_dict() if isinstance(row, ResultRow) else row


def _need(values: Values, name: str) -> Any:
    if name not in values:
        raise ConfigurationError(
            f"A card needs `{name}`, which was not given; there are {', '.join(values) or 'none'}."
        )
    return values[name]


def _render(template_path: str | Path, variables: Values) -> str:
    path = Path(template_path)
    if not path.is_file():
        raise ConfigurationError(
            f"The card template {path} does not exist; pass a file of the folder hub_cards of a source checkout."
        )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(path.parent),  # parts that templates share
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        finalize=escape_markdown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= _FILTERS
    try:
        return environment.from_string(path.read_text(encoding="utf-8")).render(**variables)
    except jinja2.UndefinedError as error:
        raise ConfigurationError(f"{path} needs a variable that was not given: {error.message}.") from error
    except jinja2.TemplateError as error:
        raise ConfigurationError(f"{path} is not a valid template: {error}.") from error
