# SPDX-License-Identifier: Apache-2.0
"""A log with its impressions and the same log without them: what is learned from either is the same, to the byte.

Left out of the comparison is what impressions are for: `shown_item_rows`, the hard negatives of SynerGen.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from seekrec.corpora.training_windows import build_training_windows, log_actions, log_geohashes
from seekrec.embeddings import SASRecConfig, interaction_graph, last_interactions, sasrec_sequences
from seekrec.evaluation import Popularity, build_cases
from seekrec.events import EventLog, sample_negatives, split_log, synthesize_searches
from seekrec.schema import BEHAVIORS, Event, IdMap
from seekrec.training.collaborative import graph_validation, validation_histories
from seekrec.training.identity import content_digest
from seekrec.training.sasrec import train_sasrec

NUM_ITEMS = 12
IDS = IdMap([f"i{number:02d}" for number in range(NUM_ITEMS)])


def make_log(*, with_impressions, construction="split"):
    """Eight users take seven items each; before each, three are shown. The first user was only ever shown things."""
    generator = np.random.default_rng(0)
    rows = [("a-onlooker", 5, "i00", "impression", "u0"), ("a-onlooker", 6, "i01", "impression", "u0")]
    for user in range(8):
        for place, item in enumerate(generator.permutation(NUM_ITEMS)[:7]):
            shown = generator.integers(NUM_ITEMS, size=3)
            rows += [(f"u{user}", 100 * place, f"i{number:02d}", "impression", "u0") for number in shown]
            rows.append((f"u{user}", 100 * place + 7, f"i{item:02d}", "click", "u1"))
    names = ("user_id", "timestamp", "item_id", "action", "geohash")
    events = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
    if not with_impressions:
        events = events.filter(pc.not_equal(events["action"], "impression"))
    categories = [[["Shop", name]] for name in ("kites", "drums", "lamps") * (NUM_ITEMS // 3)]
    items = pa.table({"item_id": IDS.ids, "title": [f"thing {item}" for item in IDS.ids], "categories": categories})
    return synthesize_searches(EventLog("shop", events, items), construction=construction, seed=3)


@pytest.fixture(params=["split", "copy"])
def splits(request):
    return [split_log(make_log(with_impressions=flag, construction=request.param)) for flag in (True, False)]


def acts(split):
    """The log's events but impressions, as a table without row numbers."""
    return split.log.events.filter(pc.not_equal(split.log.events["action"], "impression"))


def test_an_event_and_the_timeline_agree_on_what_an_interaction_is(splits):
    split = splits[0]
    names = ["item_id", "behavior", "timestamp", "query", "action"]
    events = [Event(**row) for row in split.log.events.select(names).to_pylist()]
    np.testing.assert_array_equal([event.is_interaction for event in events], split.timeline.is_interaction)
    np.testing.assert_array_equal([event.is_impression for event in events], split.timeline.is_impression)
    assert not Event(None, behavior="search", query="kites").is_interaction


def test_searches_and_questions_are_those_of_the_log_without_impressions(splits):
    shown, plain = splits
    assert acts(shown).equals(plain.log.events.combine_chunks())
    for part in ("validation", "test"):
        assert shown.requests(part) == plain.requests(part)
        assert shown.targets(part) == plain.targets(part)
        for kind in ("uniform", "popularity"):
            drawn = [sample_negatives(split, part, "search", kind=kind, num_negatives=3) for split in splits]
            assert drawn[0] == drawn[1]
        seen = [build_cases(split, IDS, part=part, behavior="search").seen.values.tolist() for split in splits]
        assert seen[0] == seen[1]


def test_what_is_learned_is_that_of_the_log_without_impressions(splits, tmp_path):
    sequences = [[row.tolist() for row in sasrec_sequences(split, IDS)] for split in splits]
    # Seven items, two of them held out, and no more than that.
    assert sequences[0] == sequences[1] and {len(row) for row in sequences[0]} == {5}
    unseen = [[row.tolist() for row in sasrec_sequences(split, IDS, num_unseen_events=1)] for split in splits]
    assert unseen[0] == unseen[1]
    last = [split.log.events.take(last_interactions(split, 2)) for split in splits]
    assert last[0].equals(last[1])
    first, second = (interaction_graph(split, IDS) for split in splits)
    assert first.user_ids == second.user_ids
    assert (first.users.tobytes(), first.items.tobytes()) == (second.users.tobytes(), second.items.tobytes())
    checks = [graph_validation(split, graph, IDS) for split, graph in zip(splits, (first, second), strict=True)]
    assert checks[0].users.tolist() == checks[1].users.tolist()
    counts = [Popularity.fit(split, IDS).counts.tolist() for split in splits]
    assert counts[0] == counts[1]
    assert log_geohashes(splits[0], 2) == ["u1"] and log_actions(splits[0]) == ["click"]
    weights = []
    for split in splits:
        folder = tmp_path / f"{split.log.num_events}"
        config = SASRecConfig(num_items=NUM_ITEMS, hidden_size=8, max_history=8)
        histories = validation_histories(split, IDS)
        model = train_sasrec(sasrec_sequences(split, IDS), histories, config, output_dir=folder, num_epochs=2, seed=1)
        weights.append(content_digest(model))
    assert weights[0] == weights[1]


def test_windows_are_those_of_the_log_without_impressions(splits):
    batches = []
    for split in splits:
        windows = build_training_windows(split, IDS, actions=["click"], geohashes=["u1"], max_history=4)
        batch = windows.batch(range(len(windows)))
        texts = np.array([*windows.events.queries, ""], dtype=object)
        for name in ("history_query_rows", "question_query_rows"):
            batch[name] = texts[batch[name]]
        batches.append({name: values.tolist() for name, values in batch.items() if name != "shown_item_rows"})
    assert batches[0] == batches[1]


def test_items_that_were_only_shown_are_not_seen():
    split = split_log(make_log(with_impressions=True), keep_impressions=True)
    plain = split_log(make_log(with_impressions=False))
    for behavior in BEHAVIORS:
        seen = [build_cases(one, IDS, behavior=behavior).seen.values.tolist() for one in (split, plain)]
        assert seen[0] == seen[1]
        drawn = [sample_negatives(one, "test", behavior, kind="uniform", num_negatives=3) for one in (split, plain)]
        assert drawn[0] == drawn[1]
    found = [validation_histories(one, IDS) for one in (split, plain)]
    assert [history.tolist() for history, _ in found[0]] == [history.tolist() for history, _ in found[1]]
