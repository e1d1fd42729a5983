# SPDX-License-Identifier: Apache-2.0
"""The quickstart: simulate a shop, train a model on its log, and print its answers for one user."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from transformers import AutoModel, AutoProcessor

from seekrec.events import Split
from seekrec.events.simulator import SimulatedShop, simulate
from seekrec.recipes.intsr import IntSRRecipe
from seekrec.recipes.launch import run_recipe
from seekrec.recipes.show import CHOSEN, answer, describe_history
from seekrec.schema import RECOMMENDATION, SEARCH, Behavior, Request
from seekrec.util.clock import process_seconds
from seekrec.util.files import write_table

NUM_EVENTS = 20_000
MAX_MINUTES = 1.4
_SHOWN_EVENTS, _SHOWN_ITEMS = 6, 5


def run_quickstart(output_dir: str | Path, *, seed: int = 0) -> None:
    """Simulate a shop, train IntSR on its log, and print its answers to a user alongside the truth.

    Args:
        output_dir (`str` or `Path`): Folder of the shop's tables and of the run.
        seed (`int`): Seed of the shop.
    """
    folder = Path(output_dir)
    shop = simulate(NUM_EVENTS, seed=seed)
    tables = folder / "shop"
    tables.mkdir(parents=True, exist_ok=True)
    events, items = tables / "events.parquet", tables / "items.parquet"
    write_table(events, shop.log.events)
    write_table(items, shop.items)
    print(f"A simulated shop: {NUM_EVENTS:,} events with {shop.num_items:,} items, in {tables}\n")
    own = ["--events", str(events), "--items", str(items)]
    minutes = minutes_after(process_seconds() / 60)
    print(f"$ seekrec train intsr {' '.join(own)} --max_minutes {minutes}\n", flush=True)
    options = [*own, "--max_minutes", str(minutes), "--output_dir", str(folder), "--disable_tqdm", "true"]
    recipe = run_recipe(["-m", "seekrec.recipes.command", "train", "intsr"], IntSRRecipe, options)
    show_answers(folder / "model", shop, recipe.split)
    print(f"\nThe model is in {folder / 'model'}, all settings in {folder / 'settings.yaml'}. Your own log:")
    print("$ seekrec train intsr --events my/events.parquet --items my/items.csv --max_minutes 30")


def minutes_after(passed: float) -> float:
    """Return the minutes of the training, which count from the start of the process: more where starting took long.

    Args:
        passed (`float`): Minutes since the start. A machine that is so slow, or so busy, will be in what follows, too.
    """
    return MAX_MINUTES if passed < MAX_MINUTES / 4 else round(MAX_MINUTES + 3 * passed, 1)


def show_answers(model_dir: Path, shop: SimulatedShop, split: Split) -> None:
    """Print what a saved model recommends to one user of a shop and finds for one search, alongside the truth.

    Args:
        model_dir (`Path`): Folder of the model.
        shop ([`SimulatedShop`]): The shop, whose oracle knows the chances that its users choose by.
        split ([`Split`]): Split of its log; its test requests are shown.
    """
    model = AutoModel.from_pretrained(model_dir).eval()
    processor = AutoProcessor.from_pretrained(model_dir)
    catalog, ids = processor.catalog, shop.items["item_id"].to_pylist()
    behaviors: tuple[Behavior, ...] = (RECOMMENDATION, SEARCH)
    asked = {
        behavior: {
            str(request.user_id): (request, target)
            for request, target in zip(split.requests("test", behavior), split.targets("test", behavior), strict=True)
        }
        for behavior in behaviors
    }
    user_id = choose_user(asked)
    for behavior in behaviors:
        if user_id not in asked[behavior]:
            continue
        request, target = asked[behavior][user_id]
        chances = shop.oracle.score_all([request])[0]
        if request.query is None:
            print(f"\nUser {user_id}, who acted {len(request.history)} times, the latest last:")
            for line in describe_history(request.history[-_SHOWN_EVENTS:], catalog):
                print(f"    {line}")
            print("  recommended by the model, of what the user does not know:")
            seen = {event.item_id for event in request.history} - {target}
            chances[[row for row, item_id in enumerate(ids) if item_id in seen]] = 0
        else:
            print(f"\n  found by the model when user {user_id} searched for {request.query!r}:")
        for line in answer(model, processor, request, top_k=_SHOWN_ITEMS, target=target):
            print(f"    {line}")
        print("  most likely in truth, which the simulator knows:")
        for place, row in enumerate(np.argsort(-chances)[:_SHOWN_ITEMS].tolist(), start=1):
            mark = CHOSEN if ids[row] == target else ""
            print(f"    {place:2d}. {catalog.titles([ids[row]])[0]}   ({chances[row]:.1%}){mark}")
        print(f"  chosen by the user: {catalog.titles([target])[0]}")


def choose_user(asked: Mapping[Behavior, Mapping[str, tuple[Request, str]]]) -> str:
    """Return the user of a middling past among those who are asked about in most tasks."""
    users = sorted({user for requests in asked.values() for user in requests})
    most = max(sum(user in requests for requests in asked.values()) for user in users)
    best = [user for user in users if sum(user in requests for requests in asked.values()) == most]
    past = [max(len(one[user][0].history) for one in asked.values() if user in one) for user in best]
    return best[int(np.argsort(past, kind="stable")[len(past) // 2])]


__all__ = ["MAX_MINUTES", "NUM_EVENTS", "choose_user", "minutes_after", "run_quickstart", "show_answers"]
