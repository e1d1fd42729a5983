# SPDX-License-Identifier: Apache-2.0
"""Ask a trained model: a user's history by title, recommendations, and answers to queries.

```bash
python recipes/demo.py --model runs/gensar-movielens-100k/model
python recipes/demo.py --model runs/gensar-movielens-100k/model --query "space adventure" --query "romantic comedy"
python recipes/demo.py --model runs/gensar-movielens-100k/model --web    # in the browser; pip install "seekrec[demo]"
```

The users are those of the data the model was trained on, as the recipe left it beside the model.
"""

import argparse
from pathlib import Path

from transformers import AutoModel, AutoProcessor

from seekrec.errors import MissingDependencyError, RequestError
from seekrec.events import read_examples
from seekrec.recipes.show import answer, describe_history
from seekrec.schema import Event, Request
from seekrec.util.command_line import one_line_errors

HISTORY_SHOWN = 12


def main(arguments: argparse.Namespace) -> None:
    """Load the model and answer."""
    # 1. Load.
    model = AutoModel.from_pretrained(arguments.model).eval()
    encoder = {} if arguments.text_encoder is None else {"text_encoder": arguments.text_encoder}
    processor = AutoProcessor.from_pretrained(arguments.model, **encoder)
    histories = read_examples(arguments.examples or Path(arguments.model).parent / "examples.json")
    user_id = arguments.user or next(iter(histories))
    if user_id not in histories:
        raise RequestError(f"`--user` is {user_id!r}; the examples are {', '.join(histories)}.")

    # 2. Serve in the browser, or answer once.
    if arguments.web:
        serve(model, processor, histories, arguments.top_k, arguments.exclude_seen)
        return
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


def serve(
    model,  # noqa: ANN001
    processor,  # noqa: ANN001
    histories: dict[str, list[Event]],
    top_k: int,
    exclude_seen: bool | None,
) -> None:
    """Open a page with the same three parts."""
    try:
        import gradio
    except ImportError as error:
        raise MissingDependencyError('`--web` needs gradio; run pip install "seekrec[demo]".') from error

    def ask(user_id: str, query: str) -> tuple[str, str]:
        history = histories[user_id]
        asked = Request(history=history, query=query.strip() or None)
        lines = answer(model, processor, asked, top_k=top_k, exclude_seen=exclude_seen)
        return "\n".join(describe_history(history, processor.catalog)), "\n".join(lines)

    gradio.Interface(
        fn=ask,
        inputs=[gradio.Dropdown(list(histories), label="User"), gradio.Textbox(label="Query (empty: recommend)")],
        outputs=[gradio.Textbox(label="History"), gradio.Textbox(label="Answers")],
        title=f"seekrec: {Path(model.config._name_or_path).parent.name}",
        flagging_mode="never",
    ).launch()


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="folder of a trained model, or a Hub repository")
    parser.add_argument("--examples", help="file of users' histories; examples.json beside the model if not given")
    parser.add_argument("--text_encoder", help="text encoder of queries, if the model only names one")
    parser.add_argument("--user", help="user id among the examples; the first if not given")
    parser.add_argument("--query", action="append", default=[], help="text to search for; may be given more than once")
    parser.add_argument("--top_k", type=int, default=5, help="answers to each question")
    parser.add_argument(
        "--exclude_seen",
        action=argparse.BooleanOptionalAction,
        help="leave out items the user acted on; by default in recommendations only",
    )
    parser.add_argument("--web", action="store_true", help="open a page in the browser")
    return parser.parse_args()


if __name__ == "__main__":
    with one_line_errors(__file__):
        main(parse())
