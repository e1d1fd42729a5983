# SPDX-License-Identifier: Apache-2.0
"""What people pass: what is right, what is nearly right, and anything else."""

import datetime

import numpy as np
from hypothesis import strategies as st

from seekrec import Event
from seekrec.errors import SeekrecError

ITEMS = [f"i{row}" for row in range(24)]

texts = st.text(st.characters(exclude_categories=()), max_size=30)
junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    texts,
    st.binary(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(texts, st.integers(), max_size=2),
    st.builds(np.int64, st.integers(-(2**63), 2**63 - 1)),
    st.builds(np.float32, st.floats(width=32)),
    st.just(np.datetime64("2020-01-01")),
    st.just(datetime.datetime(2020, 1, 1)),
    st.just(np.zeros(2)),
    st.just(np.zeros((0, 3))),
    st.just(object()),
    st.just(10**5000),
)
queries = st.one_of(
    st.sampled_from(["garden", "Kitchen thing 9", "OFFICE?", "</s> <R_I> <M1_0>"]), texts.filter(str.strip)
)
times = st.one_of(st.integers(0, 2_000_000_000), st.builds(np.int64, st.integers(0, 2_000_000_000)))


@st.composite
def events(draw, items=None):
    """Right events, in any order."""
    query = draw(st.one_of(st.none(), st.just("garden"), st.just("office thing")))
    item = (
        draw(st.sampled_from(items or ITEMS))
        if query is None
        else draw(st.one_of(st.none(), st.sampled_from(items or ITEMS)))
    )
    return Event(
        item,
        "recommendation" if query is None else "search",
        int(draw(times)),
        query,
        draw(st.sampled_from(["click", "purchase", "impression"])),
        draw(st.one_of(st.none(), st.sampled_from(["s1", "s2"]))),
    )


histories = st.lists(events(), max_size=8).map(lambda listed: sorted(listed, key=lambda event: event.timestamp))


def is_ours(call):
    """Whether a call is refused by an error of ours."""
    try:
        call()
    except SeekrecError:
        return True
    return False
