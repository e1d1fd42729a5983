# SPDX-License-Identifier: Apache-2.0
"""The items table of the simulated shop: titles, descriptions, categories and other columns of its items."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.events.simulator.shelves import NEVER, Shelves, department_numbers
from seekrec.events.simulator.words import COLOURS, EMOJI, LEAVES, MATERIALS, STYLE_WORDS
from seekrec.schema import ITEM_FEATURES

_CHINESE_SHARE, _ARABIC_SHARE, _EMOJI_SHARE = 0.04, 0.02, 0.03
_DESCRIBED_SHARE = 0.7
# What an average thing of a leaf costs, by leaf, as powers of ten.
_PRICES = (0.7, 2.7)
_PRICE_STEP = 0.5


def make_items(shelves: Shelves, seed: int) -> pa.Table:
    """Write the table of items.

    Args:
        shelves ([`Shelves`]): The items.
        seed (`int`): Seed of the shop.

    Returns:
        `pyarrow.Table`: Columns of `ITEM_FEATURES`, then `brand` and `price`; row `shelves.row[k]` is item `k` of the
            shelves.
    """
    draws = np.random.default_rng(np.random.SeedSequence([seed, 1]))
    count = shelves.num_items
    language = draws.random(count)
    is_chinese = language < _CHINESE_SHARE
    is_arabic = ~is_chinese & (language < _CHINESE_SHARE + _ARABIC_SHARE)
    leaves = LEAVES[: shelves.num_leaves]
    departments = department_numbers()
    names = list(dict.fromkeys(leaf.department for leaf in LEAVES))
    all_materials = [material for name in names for material in MATERIALS[name]]
    num_materials = len(all_materials) // len(names)
    material_number = departments[shelves.leaf] * num_materials + draws.integers(num_materials, size=count)
    base_price = draws.uniform(*_PRICES, size=shelves.num_leaves)

    brand = _take(shelves.brands, shelves.brand)
    word = _take([word.title() for word in STYLE_WORDS], shelves.word)
    colour = _take(list(COLOURS), shelves.colour)
    noun = _take([leaf.noun.title() for leaf in leaves], shelves.leaf)
    material = _take(all_materials, material_number)
    letters = _take([chr(ord("A") + number) for number in range(26)], draws.integers(26, size=count))
    model = _join(letters, pa.array(draws.integers(10, 1000, size=count)).cast(pa.string()))
    english = _join(brand, " ", word, " ", noun, ", ", colour, " ", material, " ", model)
    chinese = _join(
        brand,
        " ",
        _take(list(COLOURS.values()), shelves.colour),
        _take([leaf.chinese for leaf in leaves], shelves.leaf),
        " ",
        model,
    )
    arabic = _join(_take([leaf.arabic for leaf in leaves], shelves.leaf), " ", brand, " ", model)
    title = pc.if_else(pa.array(is_chinese), chinese, pc.if_else(pa.array(is_arabic), arabic, english))
    has_emoji = pa.array(draws.random(count) < _EMOJI_SHARE)
    emoji = _take(list(EMOJI), draws.integers(len(EMOJI), size=count))
    title = pc.if_else(has_emoji, _join(title, " ", emoji), title)
    plain_noun = _take([leaf.noun.capitalize() for leaf in leaves], shelves.leaf)
    description = _join(
        plain_noun, " in ", colour, ", made of ", material, ", for those who like it ", pc.utf8_lower(word), "."
    )
    is_described = draws.random(count) < _DESCRIBED_SHARE
    price = 10 ** base_price[shelves.leaf] * np.exp(_PRICE_STEP * shelves.price_level)

    columns = {
        "title": title,
        "description": pc.if_else(pa.array(is_described), description, pa.scalar(None, pa.string())),
        "categories": pa.array([[leaf.path] for leaf in leaves], pa.list_(pa.list_(pa.string()))).take(
            pa.array(shelves.leaf)
        ),
        "available_from": pa.array(shelves.begin, mask=shelves.begin == -NEVER),
        "available_until": pa.array(shelves.end, mask=shelves.end == NEVER),
        "brand": brand,
        "price": pa.array(np.round(price, 2)),
    }
    table = pa.table(columns).take(pa.array(np.argsort(shelves.row)))
    table = table.add_column(0, "item_id", item_ids(np.arange(count), count))
    for field in ITEM_FEATURES.arrow_schema:
        place = table.column_names.index(field.name)
        table = table.set_column(place, field, table.column(place).cast(field.type))
    return table.combine_chunks()


def item_ids(rows: np.ndarray, num_items: int) -> pa.Array:
    """Return the ids of rows of the table of items, all of one length so that their order is that of the rows."""
    return numbered("i", rows, len(str(num_items - 1)))


def numbered(letter: str, numbers: np.ndarray, width: int) -> pa.Array:
    """Return texts such as `u0042`: a letter, then a number with leading zeros."""
    digits = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), width, "0")
    return _join(letter, digits)


def _take(values: list[str], rows: np.ndarray) -> pa.Array:
    return pa.array(values, pa.string()).take(pa.array(rows))


def _join(*parts: pa.Array | str) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")


__all__ = ["item_ids", "make_items", "numbered"]
