# SPDX-License-Identifier: Apache-2.0
"""What training asks: a few acts of one user, with the questions written down beside them."""

from __future__ import annotations

import logging
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from small_shop import log_of

from seekrec.catalog import Catalog
from seekrec.corpora.targets import report_questions
from seekrec.corpora.training_windows import build_training_windows, log_actions
from seekrec.events import audit, split_log, synthesize_searches
from seekrec.models import IntSRConfig
from seekrec.recipes.windows import WindowArguments, make_windows, with_lifetimes
from seekrec.schema import IdMap

ROOT = Path(__file__).parents[2]
IDS = IdMap([f"i{number}" for number in range(9)])


def make_log(acts):
    """`acts`: (time, item, query, action, session) of one user; two more are held out behind them."""
    acts = [*acts, (8_000, 7, None, "click", None), (9_000, 8, None, "click", None)]
    lines = [("u", time, f"i{item}", query, action, session) for time, item, query, action, session in acts]
    table = pa.table({"item_id": IDS.ids, "title": IDS.ids, "categories": [[["Shop", "kites"]]] * len(IDS)})
    return log_of(lines, items=table, name="shop")


def questions(windows):
    """Give (what is asked, item, action, items that the question sees) of all questions."""
    batch = windows.batch(range(len(windows)))
    found = []
    for window, place in zip(*np.nonzero(batch["labels"] >= 0), strict=True):
        seen = batch["history_mask"][window] & (
            batch["history_session_ids"][window] < batch["question_session_ids"][window, place]
        )
        behavior = ("rec", "search")[batch["question_behavior_ids"][window, place]]
        action = batch["question_action_ids"][window, place]
        history = batch["history_item_rows"][window][seen].tolist()
        found.append((behavior, int(batch["labels"][window, place]), int(action), history))
    return found


def ask(log, **changes):
    split = split_log(log)
    windows = build_training_windows(split, IDS, actions=log_actions(split), **changes)
    assert windows.count_leaks() == 0 and audit(split).num_leaks == 0
    return questions(windows)


def test_a_purchase_after_a_click_is_asked_without_the_click():
    log = make_log([(1, 0, None, "click", None), (2, 1, None, "click", None), (3, 0, None, "purchase", None)])
    # The question about the purchase does not see item 0; the two clicks are asked as ever.
    assert ask(log) == [("rec", 0, 1, []), ("rec", 1, 1, [0]), ("rec", 0, 2, [1])]


def test_a_second_click_is_a_repeat():
    log = make_log([(1, 0, None, "click", None), (2, 1, None, "click", None), (3, 0, None, "click", None)])
    assert ask(log) == [("rec", 0, 1, []), ("rec", 1, 1, [0])]


def test_a_search_told_as_a_copy_is_asked_in_its_window():
    log = make_log([(1, 0, None, "click", None), (2, 1, None, "click", None)])
    asked = ask(synthesize_searches(log, construction="copy"), recommend_searched_items=True)
    # An item that is told twice at one time is asked once in each behavior; both tellings stand in later histories.
    assert asked == [("rec", 0, 1, []), ("search", 0, 1, []), ("rec", 1, 1, [0, 0]), ("search", 1, 1, [0, 0])]


def test_a_search_for_what_was_recommended_is_asked_once():
    log = make_log([(1, 0, None, "click", None), (2, 1, None, "click", None), (3, 0, "kite", "click", None)])
    # As a recommendation item 0 was asked for already.
    assert ask(log) == [("rec", 0, 1, []), ("rec", 1, 1, [0]), ("search", 0, 1, [1])]


def test_without_a_session_mask_the_own_page_view_is_seen_and_so_kept_apart():
    acts = [(1, 1, None, "click", "p"), (2, 0, None, "click", "p"), (3, 0, None, "buy", "p")]
    masked = ask(make_log(acts), session_ids="page_view")
    assert masked == [("rec", 1, 2, []), ("rec", 0, 2, []), ("rec", 0, 1, [])]
    split = split_log(make_log(acts))
    windows = build_training_windows(
        split, IDS, actions=["buy", "click"], session_ids="page_view", use_session_mask=False
    )
    events = windows.events.item
    assert [events[row].tolist() for row in np.split(windows.windows.values, windows.windows.offsets[1:-1])] == [
        [1, 0, 0],
        [1, 0],
    ]


def test_visits_see_their_own_steps():
    acts = [(time, time, None, "click", "v") for time in range(4)]
    assert [seen for *_, seen in ask(make_log(acts))] == [[], [0], [0, 1], [0, 1, 2]]
    assert [seen for *_, seen in ask(make_log(acts), session_ids="page_view")] == [[]] * 4


def test_in_a_visit_the_list_shown_last_stands_beside_a_target():
    acts = [
        (1, 3, None, "impression", "v"),
        (2, 0, None, "click", "v"),
        (4, 4, None, "impression", "v"),
        (4, 5, None, "impression", "v"),
        (6, 1, None, "click", "v"),
        (7, 6, None, "impression", "v"),
        (8, 2, None, "click", "w"),
    ]
    split = split_log(make_log(acts))
    for kind, expected in (("visit", [[3], [4, 5], []]), ("page_view", [[3, 4, 5, 6], [3, 4, 5, 6], []])):
        windows = build_training_windows(split, IDS, actions=["click"], session_ids=kind)
        assert [sorted(row) for row in windows.shown.to_lists()] == expected


class Catalogue:
    id_map = IDS


def warnings_of(caplog, log, **changes):
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="seekrec"):
        config = IntSRConfig(session_ids=changes.pop("session_ids", "auto"))
        make_windows(split_log(log), Catalogue(), config, WindowArguments(**changes))
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_what_training_does_not_see_is_a_warning(caplog):
    acts = [(time, time, None, "click", "v") for time in range(5)]
    assert warnings_of(caplog, make_log(acts)) == []
    assert "`session_id` is taken for visits" in caplog.text
    (blind,) = warnings_of(caplog, make_log(acts), session_ids="page_view")
    assert "4 of the 4 training questions with earlier events (100%)" in blind and "`session_ids: visit`" in blind
    # Two of three clicks on item 0 repeat the first: of four interactions two are not asked for.
    repeats = [
        (1, 0, None, "click", None),
        (2, 1, None, "click", None),
        *((t, 0, None, "click", None) for t in (3, 4)),
    ]
    (share,) = warnings_of(caplog, make_log(repeats))
    assert "2 of 4 training interactions are targets; the other 2 (50%) repeat" in share
    # With one task alone, the other is not missed.
    assert warnings_of(caplog, make_log(acts), tasks="recommendation") == []


def test_a_task_and_an_action_that_are_not_asked_for_are_named(caplog):
    log = make_log([(1, 0, None, "click", None), (2, 1, "kite", "buy", None)])
    split = split_log(log)
    clicks = split.training_interactions()[:1]
    with caplog.at_level(logging.WARNING, logger="seekrec"):
        report_questions(split, clicks, np.zeros(1, dtype=int))
    assert "contains 1 interactions of behavior 'search', but none is used as a target" in caplog.text
    assert "contains 1 interactions of action 'buy', but none is used as a target" in caplog.text


@pytest.mark.parametrize("recipe", ["intsr", "synergen"])
def test_the_papers_recipes_train_searches(recipe):
    """They tell each act as a copy; leave-one-out takes two, the others are asked in both tasks."""
    settings = yaml.safe_load((ROOT / "recipes" / recipe / "paper.yaml").read_text())
    log = make_log([(time, time, None, "click", None) for time in range(4)])
    split = split_log(synthesize_searches(log, construction=settings["construction"]))
    known = {field.name for field in fields(WindowArguments)}
    windows = make_windows(
        split, Catalogue(), IntSRConfig(), WindowArguments(**{k: v for k, v in settings.items() if k in known})
    )
    assert np.bincount(windows.behavior).tolist() == [4, 4]


@pytest.mark.parametrize(("setting", "expected"), [("catalog", [None, None]), ("first_event", [2, None])])
def test_lifetimes_begin_with_the_first_act_in_training(setting, expected):
    """Item 0 is shown at 1 and clicked at 2; item 8 is acted on in the test alone, which nobody knows before."""
    split = split_log(make_log([(1, 0, None, "impression", None), (2, 0, None, "click", None)]))
    catalog = with_lifetimes(Catalog.build(split.log.items), split, WindowArguments(item_lifetimes=setting))
    begins = catalog.items["available_from"].to_pylist()
    assert [begins[0], begins[8]] == expected
