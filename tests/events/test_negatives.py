# SPDX-License-Identifier: Apache-2.0
"""Negatives: what may be drawn, how often, and that a case's draw depends on nothing but the case."""

import numpy as np
import pyarrow as pa
import pytest
from small_shop import log_of

from seekrec.errors import ConfigurationError, DataError
from seekrec.events.log import EventLog
from seekrec.events.negatives import sample_negatives
from seekrec.events.splits import split_log

CATALOGUE = [f"i{number:03d}" for number in range(200)]


def user_lines(users, *, num_events=6):
    """Each user acts on items of its own choice, some of them after the test day's target."""
    lines = []
    for user in users:
        rng = np.random.default_rng(user)
        for time, item in enumerate(rng.choice(120, size=num_events, replace=False)):
            lines.append((f"u{user}", time, CATALOGUE[item]))
    return lines


@pytest.mark.parametrize("kind", ["uniform", "popularity", "bm25"])
def test_negatives_are_distinct_and_no_items_of_the_user(kind):
    split = split_log(log_of(user_lines(range(30)), items=CATALOGUE))
    negatives = sample_negatives(split, "validation", "recommendation", kind=kind, num_negatives=20, seed=3)
    assert len(negatives) == 30
    items_of = {}
    for user, _, item in user_lines(range(30)):
        items_of.setdefault(user, set()).add(item)
    for drawn, user in zip(negatives, split.validation.user_id, strict=True):
        assert len(set(drawn)) == len(drawn) == 20
        assert set(drawn) <= set(CATALOGUE) and not set(drawn) & items_of[user]


def test_too_few_items_beside_those_of_the_user_are_refused():
    # 6 items; the user acts on A to E, on E after the target of validation, D: F alone is left.
    split = split_log(log_of([("u", time, item) for time, item in enumerate("ABCDE")], items=list("ABCDEF")))
    assert sample_negatives(split, "validation", "recommendation", kind="uniform", num_negatives=1) == [["F"]]
    with pytest.raises(
        DataError,
        match=r"`num_negatives` is 2, but of 6 items only 1 of them are left for user 'u' without the target and 5 "
        r"items of the user; lower `num_negatives` or rank the whole catalogue",
    ):
        sample_negatives(split, "validation", "recommendation", kind="uniform", num_negatives=2)


def test_shown_items_are_negatives_even_of_a_history_that_holds_them():
    lines = [("u", 0, "S", None, "impression"), *(("u", time, item) for time, item in enumerate("ABC", start=1))]
    log = log_of(lines, items=list("ABCS"))
    for keep_impressions in (False, True):
        split = split_log(log, keep_impressions=keep_impressions)
        assert sample_negatives(split, "test", "recommendation", kind="uniform", num_negatives=1) == [["S"]]
        with pytest.raises(DataError, match="only 1 of them are left"):
            sample_negatives(split, "test", "recommendation", kind="uniform", num_negatives=2)


@pytest.mark.parametrize("kind", ["uniform", "bm25"])
def test_a_case_gets_the_same_negatives_whatever_the_batch(kind):
    # (All titles share a word, so BM25 has matches enough and nothing is filled up by the popularity in training.)
    draw = dict(kind=kind, num_negatives=15, seed=5)
    everyone = split_log(log_of(user_lines(range(20)), items=CATALOGUE))
    some = split_log(log_of(user_lines([7, 3, 12]), items=CATALOGUE))
    of_user, again = (
        dict(zip(split.test.user_id, sample_negatives(split, "test", "recommendation", **draw), strict=True))
        for split in (everyone, some)
    )
    assert again == {user: of_user[user] for user in again}
    assert sample_negatives(everyone, "test", "recommendation", **draw) == sample_negatives(
        everyone, "test", "recommendation", **draw
    )


def test_the_seed_changes_the_draw():
    split = split_log(log_of(user_lines(range(5)), items=CATALOGUE))
    first, second = (
        sample_negatives(split, "test", "recommendation", kind="uniform", num_negatives=10, seed=s) for s in (0, 1)
    )
    assert all(one != other for one, other in zip(first, second, strict=True))


def popular_split():
    """400 users with targets; of the items they never touch, M is trained 30 times, N 10 times, O never."""
    lines = [(f"u{user}", time, item) for user in range(400) for time, item in enumerate("ABC")]
    lines += [(f"m{number}", 0, "M") for number in range(30)] + [(f"n{number}", 0, "N") for number in range(10)]
    return split_log(log_of(lines, items=list("ABCMNO")))


def test_popularity_is_proportional_to_training_interactions():
    split = popular_split()
    drawn = sample_negatives(split, "test", "recommendation", kind="popularity", num_negatives=1, seed=0)
    # M with chance 30 / 40; 400 draws have a standard deviation of sqrt(400 * 3/4 * 1/4) = 8.7 around 300.
    num_m = sum(items == ["M"] for items in drawn)
    assert abs(num_m - 300) < 3 * 8.7
    assert {item for items in drawn for item in items} == {"M", "N"}
    both = sample_negatives(split, "test", "recommendation", kind="popularity", num_negatives=2, seed=0)
    # M comes first with the same chance where both are drawn.
    assert abs(sum(items == ["M", "N"] for items in both) - 300) < 3 * 8.7
    with pytest.raises(
        DataError, match=r"of 6 items only 2 of the 3 with interactions in training .* or use kind='uniform'"
    ):
        sample_negatives(split, "test", "recommendation", kind="popularity", num_negatives=3)


def test_uniform_draws_each_item_alike_even_when_nearly_all_are_taken():
    split = popular_split()
    drawn = sample_negatives(split, "test", "recommendation", kind="uniform", num_negatives=3)
    assert all(sorted(items) == ["M", "N", "O"] for items in drawn)
    # Each comes first with chance 1 / 3; 400 draws have a standard deviation of sqrt(400 * 1/3 * 2/3) = 9.4.
    for item in "MNO":
        assert abs(sum(items[0] == item for items in drawn) - 400 / 3) < 3 * 9.4


def test_a_rare_item_is_found_when_rejection_gives_up():
    # One item weighs 1, another 100,000: eight rounds of draws hardly ever meet the first.
    from seekrec.events.negatives import _draw

    sums = np.cumsum([100_000, 1, 0])
    drawn = _draw(np.random.default_rng(0), np.zeros(3, dtype=bool), 2, sums)
    assert drawn.tolist() == [0, 1]
    assert _draw(np.random.default_rng(0), np.zeros(3, dtype=bool), 3, sums).tolist() == [0, 1]
    assert _draw(np.random.default_rng(0), np.zeros(3, dtype=bool), 1, np.zeros(3, dtype=np.int64)).tolist() == []


TITLES = {
    "A": "red wool scarf",
    "B": "blue cotton shirt",
    "C": "red running shoes",
    "D": "red red shoes",
    "E": "green tent",
    "F": "shoes for running in red",
    "G": "靴 赤い",
    "H": "靴下",
}


def search_split(query="red shoes"):
    lines = [("u", 0, "E"), ("u", 1, "B"), ("u", 2, "C", query), *(("v", time, "GH"[time % 2]) for time in range(2))]
    base = log_of(lines)
    items = pa.table({"item_id": list(TITLES), "title": list(TITLES.values())})
    return split_log(EventLog("shop", base.events, items, query_source="logged"))


def test_bm25_takes_the_best_matches_of_the_query_first():
    split = search_split()
    drawn = sample_negatives(split, "test", "search", kind="bm25", num_negatives=5, seed=0)[0]
    # C is the target, B and E the user's. "red shoes" matches D in both words, "red" twice in three words; F in both,
    # of four words that count; A in one. G and H share no word with it: they fill up.
    assert drawn[:3] == ["D", "F", "A"] and sorted(drawn[3:]) == ["G", "H"]
    # A recommendation is matched by the title of its target, "red running shoes": F shares all three words.
    assert sample_negatives(split, "test", "recommendation", kind="bm25", num_negatives=3)[0] == ["F", "D", "A"]
    assert sample_negatives(split, "test", "search", kind="bm25", num_negatives=2)[0] == ["D", "F"]


def test_bm25_reads_scripts_without_spaces_and_fills_up_where_nothing_matches():
    # Signs stand alone: the query shares one sign with G and with H, and H is as long as G once split.
    assert set(sample_negatives(search_split("靴"), "test", "search", kind="bm25", num_negatives=2)[0]) == {"G", "H"}
    drawn = sample_negatives(search_split("?!"), "test", "search", kind="bm25", num_negatives=5, seed=1)[0]
    # Nothing matches: first what is popular in training (G and H, of user v), then the others.
    assert set(drawn[:2]) == {"G", "H"} and set(drawn[2:]) == {"A", "D", "F"}


def test_what_sample_negatives_refuses():
    split = search_split()
    with pytest.raises(ConfigurationError, match=r"`kind` is 'hard'; use one of 'uniform', 'popularity', 'bm25'"):
        sample_negatives(split, "test", "search", kind="hard")
    with pytest.raises(ConfigurationError, match=r"`part` is 'train'"):
        sample_negatives(split, "train", "search", kind="uniform")
    with pytest.raises(ConfigurationError, match=r"`behavior` is None"):
        sample_negatives(split, "test", None, kind="uniform")
    with pytest.raises(ConfigurationError, match=r"`num_negatives` is 0; give 1 or more"):
        sample_negatives(split, "test", "search", kind="uniform", num_negatives=0)
    wordless = EventLog(
        "wordless",
        split.log.events,
        pa.table({"item_id": list(TITLES), "title": ["..."] * len(TITLES)}),
        query_source="logged",
    )
    with pytest.raises(DataError, match=r"None of the 8 items has a word in title or description"):
        sample_negatives(split_log(wordless), "test", "search", kind="bm25", num_negatives=2)
