# SPDX-License-Identifier: Apache-2.0
"""Publish a trained model, an adapter or a data set as a complete repository, with a card that documents its origin.

```bash
python recipes/push_to_hub.py --model_dir runs/gensar-movielens-100k/model --repo_id me/gensar --dry_run true
python recipes/push_to_hub.py --model_dir runs/gensar-movielens-100k/model --repo_id me/gensar --private true
python recipes/push_to_hub.py --model_dir runs/gensar-lora/adapter --base_model me/gensar --repo_id me/gensar-lora
python recipes/push_to_hub.py --events my/events.parquet --items my/items.csv --repo_id me/my-log --license cc-by-4.0
```

A model folder must be complete: weights, tokenizer, processor, generation settings, catalogue. It is not changed; a
copy with `README.md` and without pickles and checkpoints is uploaded in one commit. The tables of a log become the
configurations `events` and `items`; each task of a corpus folder (`--corpus`) becomes one.
"""

import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub.utils import HFValidationError, validate_repo_id

from seekrec.errors import ConfigurationError
from seekrec.evaluation import format_table, read_results
from seekrec.events.partitions import PartitionedLog
from seekrec.hub import prepare_adapter, prepare_data_set, prepare_model
from seekrec.hub.push import ADAPTER_FILE
from seekrec.models.repository import files_of
from seekrec.recipes.arguments import DataArguments
from seekrec.recipes.logs import is_partitioned, read_log
from seekrec.util.command_line import one_line_errors
from seekrec.util.parsing import parse_arguments
from seekrec.util.redaction import publishable_command, publishable_text
from seekrec.util.repositories import upload


@dataclass
class PushArguments:
    """What to publish, and its repository."""

    repo_id: str = field(metadata={"help": "user/name on the Hub; created if it does not exist."})
    model_dir: Path | None = field(
        default=None,
        metadata={"help": "A model folder as the recipes write it, or the folder of an adapter; a log if not given."},
    )
    corpus: Path | None = field(
        default=None, metadata={"help": "A folder of instruction corpora, to publish with the log or alone."}
    )
    results: Path | None = field(
        default=None, metadata={"help": "The results to show; `results.json` of the model folder if not given."}
    )
    system: str | None = field(
        default=None, metadata={"help": "The model's name in the results; that of its family if not given."}
    )
    template: Path | None = field(
        default=None, metadata={"help": "The card's template; that of the model's family in hub_cards if not given."}
    )
    license: str = field(
        default="unknown",
        metadata={"help": "License of the weights or the data, e.g. apache-2.0; check the data's terms."},
    )
    dataset_id: str | None = field(default=None, metadata={"help": "The training data, if it is on the Hub."})
    base_model: str | None = field(
        default=None, metadata={"help": "The checkpoint that training started from; of an adapter its model."}
    )
    revision: str | None = field(default=None, metadata={"help": "Branch to upload to; created if it does not exist."})
    private: bool = field(default=False, metadata={"help": "Make a new repository private."})
    dry_run: bool = field(default=False, metadata={"help": "Print the card and the files; upload nothing."})


def main(arguments: PushArguments, data: DataArguments) -> None:
    """Check what there is, make the repository in a folder, and upload it."""
    # 1. Check the name, which is cheap.
    try:
        validate_repo_id(arguments.repo_id)
    except HFValidationError as error:
        raise ConfigurationError(f"`--repo_id` is {arguments.repo_id!r}: {error}") from error
    source, target, is_model = arguments.model_dir, arguments.repo_id, arguments.model_dir is not None

    # 2. Make the repository, card and all.
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "repository"
        given = {"license": arguments.license, "template": arguments.template}
        if source is None:
            has_log = data.dataset is not None or data.events is not None
            opened = PartitionedLog.load(str(data.events)) if is_partitioned(data) else None
            log = opened or (read_log(data) if has_log else None)
            command = publishable_command(["python", "recipes/push_to_hub.py", *sys.argv[1:]])
            files = prepare_data_set(folder, target, log=log, corpus=arguments.corpus, command=command, **given)
        elif (source / ADAPTER_FILE).is_file():
            files = prepare_adapter(source, folder, target, base_model=arguments.base_model, **given)
        else:
            own = source / "results.json"
            results = read_results(arguments.results or own) if arguments.results or own.is_file() else None
            if results:
                print(publishable_text(format_table(results)))
            files = prepare_model(
                source,
                folder,
                target,
                system=arguments.system,
                dataset_id=arguments.dataset_id,
                base_model=arguments.base_model,
                results=results,
                **given,
            )
            if not results:
                print("The folder contains no results.")

        # 3. Upload it, as one commit.
        if arguments.dry_run:
            card = (folder / "README.md").read_text(encoding="utf-8")
            print(f"\n{card}\nNothing was uploaded; these files would be:\n" + "\n".join(files))
            return
        commit = upload(
            folder,
            repo_id=target,
            repo_type="model" if is_model else "dataset",
            commit_message=f"Upload {'model' if is_model else 'data set'} with its card",
            private=arguments.private,
            revision=arguments.revision,
            replaces=files_of("model", "processor", "results") if is_model else ["*.parquet"],
        )
    print(f"Published {len(files)} files: {commit.repo_url}")


if __name__ == "__main__":
    with one_line_errors(__file__):
        main(*parse_arguments((PushArguments, DataArguments), sys.argv[1:]))
