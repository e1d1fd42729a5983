# SPDX-License-Identifier: Apache-2.0
"""Views: further evidence on how well items answer a request, added to the score of a generative model.

Each gives a number for every item of a request. The answer is `score + sum_v weight[task][v] * view_v`, in units of a
log-probability:

- `collaborative`: a SASRec's scores of the items after the history.
- `item_knn`: co-occurrence of each item with the items of the history, in the histories of users.
- `lexical`: BM25 of the query over the words of the items.
- `query_log`: training clicks for the query, and for its words.
- `semantic`: for a search the cosine of query and item text; for a recommendation the cosine of the item's text and
  those of the latest items of the history (each older item has 0.7 of the weight of the one after it). An item of the
  history gets nothing for its own text: similarity to itself says nothing about whether it will be chosen again.
- `new`: 1 for an item without training events. The model and the views above score it by a mean over similar items,
  which is lower than the scores of the best items; this compensates.
- `unsearched`: for query words that no training search had, how much likelier an item is that contains them; see
  [`UnsearchedWords`].

The three views that sum matches, `t` for an item, add `log(1 + 1000 t / max t)`: the logarithm of `t / max t + 0.001`,
relative to an item that matches nothing. None of the families' papers has views; if every weight is zero, nothing is
computed.

All are saved with the model, in the folder `views`, and none is trained with it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from seekrec.catalog import Catalog
from seekrec.embeddings import ItemNeighbors, SASRecConfig, SASRecForNextItem, recommender_sizes
from seekrec.errors import CheckpointError, ConfigurationError, DataError
from seekrec.events import Split
from seekrec.events.query_log import QueryLog
from seekrec.models.views.lexical import LexicalIndex, LexicalSettings
from seekrec.models.views.unsearched import UnsearchedWords
from seekrec.models.views.weights import ANSWER_VIEWS, ViewName
from seekrec.util.finite import check_finite
from seekrec.util.hashing import file_sha256, json_digest

_VIEWS_FILE = "views.json"
_VERSION = 1


@dataclass(frozen=True, eq=False)
class Views:
    """The views of a catalogue, as they are saved; never changed.

    Args:
        num_items (`int`): Items that they were made for: the first rows of the catalogue.
        recommender ([`SASRecForNextItem`], *optional*): Gives the collaborative view.
        lexical ([`LexicalIndex`], *optional*): Gives the lexical view.
        query_log ([`QueryLog`], *optional*): Gives the view of the query log.
        item_knn ([`ItemNeighbors`], *optional*): Gives the view of items that users acted on close together.
        unsearched ([`UnsearchedWords`], *optional*): Gives the view of words that nobody has searched for.
    """

    num_items: int
    recommender: SASRecForNextItem | None = None
    lexical: LexicalIndex | None = None
    query_log: QueryLog | None = None
    item_knn: ItemNeighbors | None = None
    unsearched: UnsearchedWords | None = None
    # What [`with_words`] made of the words of which items.
    _worded: dict[LexicalSettings, tuple[pa.Table, Views | None]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def fit(
        cls,
        split: Split,
        catalog: Catalog,
        recommender: SASRecForNextItem | None = None,
        lexical: LexicalSettings | None = None,
        *,
        whole: Iterable[Split] | None = None,
        names: Collection[str] = ANSWER_VIEWS,
    ) -> Views:
        """Make the views of a log, from its training events alone.

        Args:
            split (`Split`): The log; its training events are counted.
            catalog ([`Catalog`]): Its items.
            recommender ([`SASRecForNextItem`], *optional*): A SASRec over the items, trained on the same events.
            lexical ([`LexicalSettings`], *optional*): How words of items are weighed.
            whole (`Iterable[Split]`, *optional*): All partitions, where `split` is one of them: they are counted.
            names (`Collection[str]`): Views to make; all, unless some are named.

        Raises:
            ConfigurationError: If the recommender knows other items.
        """
        ids = catalog.id_map
        words = log = nearest = unsearched = None
        if "lexical" in names:
            words = LexicalIndex.fit(catalog.items, LexicalSettings() if lexical is None else lexical)
        if "query_log" in names or "unsearched" in names:
            log = QueryLog.fit(split if whole is None else whole, ids)
            log = log if len(log.query_keys) else None
        if log is not None and "unsearched" in names:
            unsearched = UnsearchedWords.fit(catalog.items, log)
        if "item_knn" in names:
            nearest = ItemNeighbors.fit([split] if whole is None else whole, ids)
        made = cls(len(catalog), None, words, log if "query_log" in names else None, nearest, unsearched)
        return made.with_recommender(recommender if "collaborative" in names else None)

    def only(self, names: Collection[str]) -> Views | None:
        """Return these views without those that are not named; nothing where none is."""
        if not names:
            return None
        return replace(
            self,
            recommender=self.recommender if "collaborative" in names else None,
            item_knn=self.item_knn if "item_knn" in names else None,
            lexical=self.lexical if "lexical" in names else None,
            query_log=self.query_log if "query_log" in names else None,
            unsearched=self.unsearched if "unsearched" in names else None,
        )

    def with_recommender(self, recommender: SASRecForNextItem | None) -> Views:
        """Return these views with another recommender.

        Raises:
            ConfigurationError: If it knows other items.
        """
        if recommender is not None and recommender.config.num_items != self.num_items:
            raise ConfigurationError(
                f"`recommender` knows {recommender.config.num_items} items, the catalogue has {self.num_items}; pass "
                "one over the items of the catalogue."
            )
        kept = None if recommender is None else copy.deepcopy(recommender).cpu().eval().requires_grad_(False)
        return replace(self, recommender=kept)

    def with_words(self, items: pa.Table, settings: LexicalSettings) -> Views | None:
        """Return these views with the words of items weighed so; made by the first call.

        Args:
            items (`pyarrow.Table`): The items that the views were made for.
            settings ([`LexicalSettings`]): How words are weighed.

        Returns:
            [`Views`]: `None` where no item has a word in these fields.
        """
        if self.lexical is not None and self.lexical.settings == settings:
            return self
        made = self._worded.get(settings)
        if made is None or made[0] is not items:
            index = LexicalIndex.fit(items, settings)
            made = self._worded[settings] = (items, None if index is None else replace(self, lexical=index))
        return made[1]

    def names(self, catalog: Catalog) -> list[ViewName]:
        """Return the views that there are."""
        has = {
            "collaborative": self.recommender is not None,
            "item_knn": self.item_knn is not None,
            "lexical": self.lexical is not None,
            "query_log": self.query_log is not None,
            "semantic": "semantic" in catalog.embeddings,
            # Weighed when the others are.
            "new": False,
            "unsearched": False,
        }
        return [name for name in ANSWER_VIEWS if has[name]]

    def save(self, folder: str | Path) -> str:
        """Write the views into a folder.

        Args:
            folder (`str` or `Path`): Made if it does not exist: `views.json`, and a file of tensors for each view.

        Returns:
            `str`: The digest of what was written.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        parts: dict[str, object] = {}
        if self.recommender is not None:
            weights = {name: value.numpy() for name, value in self.recommender.state_dict().items()}
            save_file(weights, target / "collaborative.safetensors")
            parts["collaborative"] = recommender_sizes(self.recommender)
        if self.item_knn is not None:
            save_file(self.item_knn.arrays(), target / "item_knn.safetensors")
            parts["item_knn"] = {"decay": self.item_knn.decay}
        if self.lexical is not None:
            save_file(self.lexical.arrays(), target / "lexical.safetensors")
            parts["lexical"] = self.lexical.describe()
        if self.query_log is not None:
            save_file(self.query_log.arrays(), target / "query_log.safetensors")
            parts["query_log"] = {"smoothing": self.query_log.smoothing}
        if self.unsearched is not None:
            save_file(self.unsearched.arrays(), target / "unsearched.safetensors")
            parts["unsearched"] = {"trust": self.unsearched.trust}
        digests = {name: file_sha256(target / f"{name}.safetensors") for name in parts}
        content = {"version": _VERSION, "num_items": self.num_items, "parts": parts, "digests": digests}
        (target / _VIEWS_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        return json_digest(content)

    @classmethod
    def load(cls, folder: str | Path) -> tuple[Views, str]:
        """Read what `save` wrote.

        Args:
            folder (`str` or `Path`): The folder.

        Returns:
            `tuple[Views, str]`: The views, and the digest of what was read.

        Raises:
            CheckpointError: If a file is missing or damaged.
        """
        source = Path(folder)
        try:
            content = json.loads((source / _VIEWS_FILE).read_text(encoding="utf-8"))
            if content["version"] != _VERSION:
                raise ValueError(f"version {content['version']!r}, expected {_VERSION}")
            parts, num_items = content["parts"], int(content["num_items"])
            read = {}
            for name, digest in content["digests"].items():
                if name not in ANSWER_VIEWS or file_sha256(source / f"{name}.safetensors") != digest:
                    raise ValueError(f"{name}.safetensors is not the file that was saved")
                read[name] = load_file(source / f"{name}.safetensors")
            recommender = lexical = log = nearest = unsearched = None
            if "collaborative" in read:
                recommender = _make_recommender(parts["collaborative"], num_items)
                recommender.load_state_dict(
                    {name: torch.from_numpy(own) for name, own in read["collaborative"].items()}
                )
                check_finite("A weight of the recommender", recommender.item_embeddings(), "item", "save it again")
            if "item_knn" in read:
                decay = float(parts["item_knn"]["decay"])
                nearest = ItemNeighbors.from_arrays(read["item_knn"], num_items, decay=decay)
            if "lexical" in read:
                lexical = LexicalIndex.from_arrays(read["lexical"], parts["lexical"], num_items)
            if "query_log" in read:
                smoothing = float(parts["query_log"]["smoothing"])
                log = QueryLog.from_arrays(read["query_log"], num_items, smoothing=smoothing)
            if "unsearched" in read:
                trust = float(parts["unsearched"]["trust"])
                unsearched = UnsearchedWords.from_arrays(read["unsearched"], num_items, trust=trust)
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError, DataError) as error:
            raise CheckpointError(
                f"The views in {source} cannot be read ({error}): they are missing or damaged. Save the model again "
                "or fetch the folder again."
            ) from error
        return cls(num_items, recommender, lexical, log, nearest, unsearched), json_digest(content)


def _make_recommender(sizes: Mapping[str, object], num_items: int) -> SASRecForNextItem:
    config = SASRecConfig.from_dict({**sizes, "num_items": num_items})
    return SASRecForNextItem(config).eval().requires_grad_(False)


__all__ = ["Views"]
