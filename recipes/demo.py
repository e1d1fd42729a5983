# SPDX-License-Identifier: Apache-2.0
"""Query a trained model: print a user's history by title, recommendations, and search results.

```bash
python recipes/demo.py --model runs/gensar-movielens-100k/model
python recipes/demo.py --model runs/gensar-movielens-100k/model --query "space adventure" --query "romantic comedy"
python recipes/demo.py --model runs/gensar-movielens-100k/model --web    # in the browser; pip install "seekrec[serve]"
```

The users come from the training data: the recipe saves some as `examples.json` next to the model.
"""

import argparse
import tempfile
from pathlib import Path

from transformers import AutoModel, AutoProcessor

from seekrec.errors import RequestError
from seekrec.events import read_examples
from seekrec.models.checkpoint import named_model
from seekrec.recipes.show import answer, describe_history
from seekrec.schema import Request
from seekrec.util.command_line import one_line_errors

HISTORY_SHOWN = 12


def main(arguments: argparse.Namespace) -> None:
    """Load the model and answer."""
    examples = Path(arguments.examples or Path(arguments.model).parent / "examples.json")
    if arguments.web:
        serve(arguments, examples)
        return

    # 1. Load.
    with named_model(arguments.model):
        model = AutoModel.from_pretrained(arguments.model).eval()
    encoder = {} if arguments.text_encoder is None else {"text_encoder": arguments.text_encoder}
    processor = AutoProcessor.from_pretrained(arguments.model, **encoder)
    histories = read_examples(examples)
    user_id = arguments.user or next(iter(histories))
    if user_id not in histories:
        raise RequestError(f"`--user` is {user_id!r}; choose one of {', '.join(histories)}.")

    # 2. Answer.
    history = histories[user_id]
    lines = describe_history(history, processor.catalog)
    print(f"User {user_id} did, latest last:")
    if len(lines) > HISTORY_SHOWN:
        print(f"  ({len(lines) - HISTORY_SHOWN} earlier events)")
    for line in lines[-HISTORY_SHOWN:]:
        print(f"  {line}")
    for query in [None, *arguments.query]:
        print("\nRecommended:" if query is None else f"\nFound for {query!r}:")
        asked = Request(history=history, query=query)
        for line in answer(model, processor, asked, top_k=arguments.top_k, exclude_seen=arguments.exclude_seen):
            print(f"  {line}")


def serve(arguments: argparse.Namespace, examples: Path) -> None:
    """Serve the model with the page of the server, which offers the same users."""
    from seekrec.serving.command import add_arguments
    from seekrec.serving.command import serve as run_server

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    encoder = [] if arguments.text_encoder is None else ["--text_encoder", arguments.text_encoder]
    with tempfile.TemporaryDirectory() as folder:
        # What visitors do is forgotten in the end.
        store = f"sqlite:///{folder}/demo.sqlite"
        print("Once the model is loaded, the page is at http://127.0.0.1:8000; stop with Ctrl+C.", flush=True)
        run_server(
            parser.parse_args(["--model", arguments.model, "--examples", str(examples), "--store", store, *encoder])
        )


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="folder of a trained model, or a Hub repository")
    parser.add_argument("--examples", help="file of users' histories; examples.json alongside the model if not given")
    parser.add_argument("--text_encoder", help="text encoder of queries, if the model only names one")
    parser.add_argument("--user", help="user id among the examples; the first if not given")
    parser.add_argument("--query", action="append", default=[], help="text to search for; may be given more than once")
    parser.add_argument("--top_k", type=int, default=5, help="answers to each question")
    parser.add_argument(
        "--exclude_seen",
        action=argparse.BooleanOptionalAction,
        help="leave out items the user acted on; by default in recommendations only",
    )
    parser.add_argument("--web", action="store_true", help="serve it with a page for the browser")
    return parser.parse_args()


if __name__ == "__main__":
    with one_line_errors(__file__):
        main(parse())
