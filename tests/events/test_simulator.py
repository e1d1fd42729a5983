# SPDX-License-Identifier: Apache-2.0
"""The simulated shop: the same whatever is made of it, true to its own rules, and understood by its oracle."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from seekrec.errors import ConfigurationError, RequestError
from seekrec.evaluation import evaluate_systems
from seekrec.evaluation.baselines import Popularity
from seekrec.events import EventLog, audit, split_log
from seekrec.events.checks import find_repeated_events
from seekrec.events.simulator import simulate
from seekrec.events.simulator.people import BLOCK_EVENTS, REQUEST_SECONDS
from seekrec.events.simulator.queries import BRAND, BRAND_ALONE, COLOUR, NOTHING, STYLE_WORD
from seekrec.events.simulator.words import LEAVES, misspell
from seekrec.schema import IdMap, Request


@pytest.fixture(scope="module")
def shop():
    return simulate(60_000, num_items=400, seed=3)


@pytest.fixture(scope="module")
def events(shop):
    """Events with the row of their item, -1 for none."""
    frame = shop.log.events.to_pandas()
    frame["row"] = frame["item_id"].map(dict(zip(shop.items["item_id"].to_pylist(), range(400), strict=True)))
    return frame.assign(row=frame["row"].fillna(-1).astype(int))


def test_a_block_made_alone_is_the_same_in_a_log_of_any_length():
    long, short = (simulate(count, num_items=300, seed=7) for count in (150_000, 70_000))
    blocks = list(long.blocks())
    assert [block.num_rows for block in blocks] == [BLOCK_EVENTS, BLOCK_EVENTS, 150_000 - 2 * BLOCK_EVENTS]
    alone = simulate(150_000, num_items=300, seed=7).block(1)
    assert alone.equals(blocks[1])
    assert short.block(0).equals(blocks[0])
    assert short.block(1).equals(blocks[1].slice(0, 70_000 - BLOCK_EVENTS))
    assert short.items.equals(long.items)
    assert not simulate(10, num_items=300, seed=8).items.equals(long.items)
    with pytest.raises(IndexError, match=r"Block 3 is outside 0\.\.2"):
        long.block(3)


def test_the_log_passes_the_checks_of_every_log(shop):
    """No user of one block is in another, so the rows are in the order that a log puts them into."""
    log = simulate(70_000, num_items=300, seed=7).log
    checked = EventLog("simulated", log.events, log.items, query_source="logged")
    assert checked.events.equals(log.events)
    assert find_repeated_events(log.events) == []
    assert audit(split_log(shop.log)).num_leaks == 0


def test_written_files_hold_the_log_whatever_their_size(shop, tmp_path):
    shop.write(tmp_path / "shop", rows_per_file=25_000)
    parts = sorted((tmp_path / "shop" / "events").iterdir())
    assert [pq.read_metadata(part).num_rows for part in parts] == [25_000, 25_000, 10_000]
    events = pa.dataset.dataset(parts).to_table()
    # 60,000 events are one block: written in the order of time, and by user again when they are a log.
    assert (np.diff(events["timestamp"].to_numpy()) >= 0).all()
    assert EventLog("read", events, shop.items, query_source="logged").events.equals(shop.log.events)
    assert pq.read_table(tmp_path / "shop" / "items.parquet").equals(shop.items)
    first = parts[0].read_bytes()
    simulate(60_000, num_items=400, seed=3).write(tmp_path / "shop", rows_per_file=25_000)
    assert parts[0].read_bytes() == first


def test_shares_are_those_asked_for(events):
    pages = events.drop_duplicates("session_id")
    # 60,000 events are some 27,000 pages: one standard deviation of a share of 0.4 is 0.003.
    assert abs((pages["behavior"] == "search").mean() - 0.4) < 0.015
    assert abs((events["action"] == "impression").mean() - 0.3) < 0.05
    others = simulate(5_000, search_fraction=0.0, impression_fraction=0.0).log
    assert others.query_source == "none"
    assert set(others.events["action"].to_pylist()) == {"click", "purchase"}
    tiny = simulate(5_000, num_items=12, impression_fraction=0.6, search_fraction=1.0).log
    assert tiny.num_events == 5_000
    assert set(tiny.events["behavior"].to_pylist()) == {"search"}


def test_nothing_happens_to_an_item_outside_its_life(shop, events):
    lives = shop.items.select(["available_from", "available_until"]).to_pandas()
    assert lives["available_from"].notna().mean() > 0.3
    assert lives["available_until"].notna().mean() > 0.2
    acted = events[events["row"] >= 0]
    begin = lives["available_from"].fillna(0).to_numpy()[acted["row"]]
    end = lives["available_until"].fillna(np.inf).to_numpy()[acted["row"]]
    assert ((begin <= acted["timestamp"]) & (acted["timestamp"] < end)).all()


def test_a_session_is_one_page_of_one_user_and_query(events):
    pages = events.groupby("session_id")
    assert (pages["user_id"].nunique() == 1).all()
    assert (pages["behavior"].nunique() == 1).all()
    assert (pages["query"].nunique(dropna=False) == 1).all()
    assert ((pages["timestamp"].max() - pages["timestamp"].min()) < REQUEST_SECONDS).all()
    # An item is listed once, and not beside its own click.
    listed = events[(events["row"] >= 0) & events["action"].isin(["impression", "click"])]
    is_shown = listed["action"] == "impression"
    assert not listed[is_shown].duplicated(["session_id", "item_id"]).any()
    both = listed[is_shown].merge(listed[~is_shown], on=["session_id", "item_id"])
    assert both.empty
    # Nothing is bought that was not clicked on the page.
    bought = events[events["action"] == "purchase"]
    clicked = events[events["action"] == "click"]
    keys = ["session_id", "item_id"]
    assert len(bought.merge(clicked.drop_duplicates(keys), on=keys)) == len(bought)
    assert events.loc[events["row"] < 0, "action"].eq("search").all()


def test_popularity_drifts(shop, events):
    """Counts of items of the first and the last third differ by far more than those of two draws from one law."""
    always = shop.items["available_from"].is_null().to_numpy() & shop.items["available_until"].is_null().to_numpy()
    clicks = events[events["action"] == "click"]
    third = pd.qcut(clicks["timestamp"], 3, labels=False)
    first, last = (np.bincount(clicks["row"][third == number], minlength=400)[always] for number in (0, 2))
    first, last = first[first + last > 0], last[first + last > 0]
    total = first + last
    expected = total * first.sum() / total.sum()
    statistic = (np.square(first - expected) / (expected * last.sum() / total.sum())).sum()
    # Chi-square has the number of cells as its mean, and twice that as its variance.
    assert statistic > len(total) + 10 * np.sqrt(2 * len(total))


def test_queries_are_typed_in_many_ways(shop, events):
    asked = events[events["behavior"] == "search"].drop_duplicates("session_id")["query"]
    understood = shop.maker.language.understand(asked.tolist())
    shares = np.bincount(understood.kind, minlength=5) / len(asked)
    assert shares[[NOTHING, STYLE_WORD, COLOUR, BRAND, BRAND_ALONE]] == pytest.approx(
        [0.30 * 0.94 + 0.04 * 0.8 + 0.02, 0.25 * 0.94, 0.2 * 0.94 + 0.04 * 0.2, 0.15 * 0.94, 0.1 * 0.94], abs=0.02
    )
    # A quarter has capitals, but for what is written without.
    latin = asked[asked.str.isascii()]
    assert abs((latin != latin.str.lower()).mean() - 0.25) < 0.02
    nouns = asked[understood.kind == NOTHING].str.lower()
    names = {name for leaf in LEAVES for name in (leaf.noun, leaf.synonym, leaf.chinese, leaf.arabic)}
    assert 0.06 < (~nouns.isin(names)).mean() < 0.14
    for spelling in ("synonym", "chinese", "arabic"):
        assert nouns.isin([getattr(leaf, spelling) for leaf in LEAVES]).any()
    assert misspell("kettle") == ["kettle", "ketlte", "kettl", "keettle"]
    assert misspell("耳机") == ["耳机"] * 4
    # What is typed leads to things of the leaf, and far more often than not to what has the word.
    leaf = np.array([[path[0][2] for path in shop.items["categories"].to_pylist()][row] for row in range(400)])
    clicked = events[(events["behavior"] == "search") & (events["action"] == "click")]
    meant = shop.maker.language.understand(clicked["query"].tolist())
    named = meant.leaf >= 0
    expected = np.array([item.path[2] for item in LEAVES])[meant.leaf[named]]
    assert (leaf[clicked["row"].to_numpy()[named]] == expected).all()


def test_titles_have_several_scripts(shop):
    titles = pd.Series(simulate(1, num_items=2_000).items["title"].to_pylist())
    for script, share in (("[\u4e00-\u9fff]", 0.04), ("[\u0600-\u06ff]", 0.02), ("[✨🔥🎁💚]", 0.03)):
        assert abs(titles.str.contains(script).mean() - share) < 0.015
    assert titles.is_unique


def test_the_oracle_knows_the_chances_of_clicks(shop, events):
    """In each bin of chances, items are clicked and bought as often as they say, within the error of counting."""
    for action in ("click", "purchase"):
        acts = events[events["action"] == action].drop_duplicates("session_id").iloc[:5_000]
        queries = [None if pd.isna(query) else query for query in acts["query"]]
        # Any time of a page is as good as its first second.
        chances = shop.oracle.score(
            acts["user_id"].tolist(),
            acts["timestamp"].to_numpy(),
            queries,
            purchase=np.full(len(acts), action == "purchase"),
        )
        assert chances.sum(axis=1) == pytest.approx(1.0)
        happened = np.zeros(chances.shape, dtype=bool)
        happened[np.arange(len(acts)), acts["row"]] = True
        bins = np.digitize(chances, 10.0 ** np.arange(-4, 0, 0.5)).ravel()
        expected, variance, found = (
            np.bincount(bins, values.ravel()) for values in (chances, chances * (1 - chances), happened)
        )
        assert (expected[1:] > 10).all()
        assert (np.abs(found - expected) < 4 * np.sqrt(variance) + 1).all()


def test_the_oracle_scores_requests_and_candidates_alike(shop, events):
    pages = events[events["action"] == "click"].drop_duplicates("session_id").iloc[:40]
    queries = [None if pd.isna(query) else query for query in pages["query"]]
    requests = [
        Request(query=query, user_id=user, timestamp=time)
        for query, user, time in zip(queries, pages["user_id"], pages["timestamp"].tolist(), strict=True)
    ]
    chances = shop.oracle.score_all(requests)
    candidates = np.random.default_rng(0).integers(400, size=(40, 7))
    some = shop.oracle.score(pages["user_id"].tolist(), pages["timestamp"].to_numpy(), queries, candidates)
    assert some == pytest.approx(np.take_along_axis(chances, candidates, axis=1))
    # What is not for sale is never taken; a search is for one leaf, unless it names a brand alone.
    begin = shop.items["available_from"].fill_null(0).to_numpy()
    end = shop.items["available_until"].fill_null(2**60).to_numpy()
    asked = pages["timestamp"].to_numpy()[:, None]
    assert (chances[(begin > asked) | (end <= asked - REQUEST_SECONDS)] == 0).all()
    assert shop.oracle.score_all([]).shape == (0, 400)
    with pytest.raises(RequestError, match="needs both"):
        shop.oracle.score_all([Request(user_id="u000000001")])
    with pytest.raises(RequestError, match="'a xylophone' does not occur in this simulated shop"):
        shop.oracle.score_all([Request(query="a xylophone", user_id="u000000001", timestamp=1_740_000_000)])
    with pytest.raises(RequestError, match="has no user 'Ada'"):
        shop.oracle.score_all([Request(user_id="Ada", timestamp=1_740_000_000)])


def test_the_oracle_beats_popularity(shop):
    split = split_log(shop.log)
    id_map = IdMap(shop.items["item_id"].to_pylist())
    popularity = Popularity.fit(split, id_map)
    for behavior, margin in (("recommendation", 0.1), ("search", 0.3)):
        systems = {"oracle": shop.oracle, "popularity": popularity}
        settings = {"behaviors": [behavior], "max_cases": 500, "k": (10,), "show_progress": False}
        ours, theirs = evaluate_systems(systems, split, id_map, **settings)
        assert ours.metrics["ndcg@10"] > theirs.metrics["ndcg@10"] + margin


def test_arguments_out_of_range_are_refused(shop, tmp_path):
    for settings, message in (
        ({"num_events": 0}, "`num_events` is 0; use at least 1"),
        ({"num_events": 9, "num_items": 11}, "`num_items` is 11; use at least 12"),
        ({"num_events": 9, "search_fraction": 1.5}, "`search_fraction` is 1.5; give a share from 0 to 1"),
        ({"num_events": 9, "impression_fraction": 0.95}, "`impression_fraction` is 0.95; give a share from 0 to 0.9"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            simulate(**settings)
    with pytest.raises(ConfigurationError, match="`rows_per_file` is 0"):
        shop.write(tmp_path, rows_per_file=0)
    assert list(tmp_path.iterdir()) == []
