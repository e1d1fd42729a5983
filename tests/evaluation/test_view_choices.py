# SPDX-License-Identifier: Apache-2.0
"""What is asked of cases to choose how words are weighed."""

import numpy as np
from small_shop import make_dense_catalog, make_log

from seekrec.evaluation.likely_weights import ScoredCases
from seekrec.evaluation.view_choices import ViewChoices
from seekrec.events import split_log
from seekrec.models.views import LEXICAL_CHOICES, Views


def test_what_is_asked_is_each_view_and_words_in_each_way():
    split, catalog = split_log(make_log()), make_dense_catalog()
    views = Views.fit(split, catalog)
    choices = ViewChoices.of(views, catalog)
    names = choices.names(catalog, "search")
    assert names == ["item_knn", "lexical", "query_log", "semantic"]
    assert choices.names(catalog, "recommendation") == ["item_knn", "semantic"]
    asked = choices.asked(names)
    words = [one for name, (one, _) in asked.items() if name.startswith("lexical")]
    assert [one.lexical.settings for one in words] == list(LEXICAL_CHOICES)
    assert len(asked) == len(words) + 3
    table = np.zeros((2, 3), np.float32)
    scored = ScoredCases(table, {name: table + number for number, name in enumerate(asked)}, table)
    # What is left of the choices is asked by the same names, and says the same.
    narrow = choices.narrow(2)
    assert list(narrow.asked(names)) == ["item_knn", "lexical 2", "query_log", "semantic"]
    assert narrow.views.lexical is words[2].lexical and narrow.views.item_knn is views.item_knn
    said = narrow.scores(scored, names, 2).added
    assert list(said) == names and (said["lexical"] == list(asked).index("lexical 2")).all()
    wordless = ViewChoices(views.only({"item_knn"}), {})
    assert wordless.narrow(None) is wordless and list(wordless.asked(["item_knn"])) == ["item_knn"]
