# SPDX-License-Identifier: Apache-2.0
"""Publish a trained model, with a card that shows the run's own results.

```bash
python recipes/push_to_hub.py --model_dir runs/gensar-movielens-100k/model --repo_id me/gensar --dry_run true
python recipes/push_to_hub.py --model_dir runs/gensar-movielens-100k/model --repo_id me/gensar --private true
```

The folder must be complete: weights, tokenizer, processor, generation settings, catalogue and `results.json`. It is
not changed; a copy with `README.md` and without pickles and checkpoints is uploaded.
"""

import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.utils import HFValidationError, validate_repo_id

from seekrec.errors import ConfigurationError
from seekrec.evaluation import format_table, read_results
from seekrec.hub import copy_model, describe_model, eval_results_yaml, render_model_card
from seekrec.util.command_line import one_line_errors
from seekrec.util.package_data import data_folder
from seekrec.util.parsing import parse_arguments


@dataclass
class PushArguments:
    """The model to publish, and its repository."""

    model_dir: Path = field(metadata={"help": "A model folder as `train_gensar.py` writes it."})
    repo_id: str = field(metadata={"help": "user/name on the Hub; created if it does not exist."})
    results: Path | None = field(
        default=None, metadata={"help": "The results to show; `results.json` of the model folder if not given."}
    )
    system: str = field(default="GenSAR", metadata={"help": "The model's name in the results."})
    template: Path | None = field(
        default=None, metadata={"help": "The card's template; that of the model's family in hub_cards if not given."}
    )
    license: str = field(
        default="unknown",
        metadata={"help": "License of the weights, e.g. apache-2.0; check the data's terms."},
    )
    dataset_id: str | None = field(default=None, metadata={"help": "The training data, if it is on the Hub."})
    base_model: str | None = field(default=None, metadata={"help": "The checkpoint that training started from."})
    private: bool = field(default=False, metadata={"help": "Make a new repository private."})
    dry_run: bool = field(default=False, metadata={"help": "Print the card and the files; upload nothing."})


def main(arguments: PushArguments) -> None:
    """Check the folder, render the card, copy and upload."""
    # 1. Check the folder and read the results.
    try:
        validate_repo_id(arguments.repo_id)
    except HFValidationError as error:
        raise ConfigurationError(f"`--repo_id` is {arguments.repo_id!r}: {error}") from error
    run = describe_model(
        arguments.model_dir,
        repo_id=arguments.repo_id,
        system=arguments.system,
        license=arguments.license,
        dataset_id=arguments.dataset_id,
        base_model=arguments.base_model,
    )
    results = read_results(arguments.results or arguments.model_dir / "results.json")
    print(format_table(results))

    # 2. Render the card.
    template = arguments.template or data_folder("hub_cards") / f"{run['config']['model_type']}.md"
    card = render_model_card(template, results, run)

    # 3. Copy what is to be published, and upload it.
    with tempfile.TemporaryDirectory() as folder:
        files = copy_model(
            arguments.model_dir, Path(folder) / "model", card=card, eval_results=eval_results_yaml(results, run)
        )
        if arguments.dry_run:
            print(f"\n{card}\nNothing was uploaded; these files would be:\n" + "\n".join(files))
            return
        api = HfApi()
        address = api.create_repo(arguments.repo_id, private=arguments.private, exist_ok=True)
        api.upload_folder(
            repo_id=arguments.repo_id, folder_path=Path(folder) / "model", commit_message="Upload model with its card"
        )
    print(f"Published {len(files)} files: {address}")


if __name__ == "__main__":
    with one_line_errors(__file__):
        main(*parse_arguments((PushArguments,), sys.argv[1:]))
