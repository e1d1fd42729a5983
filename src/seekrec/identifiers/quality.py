# SPDX-License-Identifier: Apache-2.0
"""Measure the quality of identifiers: collisions, code usage, and how well they preserve the item vectors.

A collision rate is GenSAR's (section 4.4.2): `1 - distinct identifiers / items`. Two items that share an identifier
give 1/2, not 1: it is the share of items that would have to move, and after [`assign_unique`] it is 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from seekrec.errors import DataError
from seekrec.identifiers.assign import AssignmentResult, prefix_groups
from seekrec.identifiers.modeling_identifier import IdentifierModel
from seekrec.identifiers.residual_codes import EncodedItems
from seekrec.schema import View
from seekrec.util.files import write_json
from seekrec.util.memory_maps import row_blocks

# Items whose vectors are restored at once.
_BLOCK_ROWS = 65_536


@dataclass(frozen=True)
class LevelQuality:
    """How one level uses its codes.

    Args:
        num_codes (`int`): Codes of the level.
        num_used (`int`): Codes that at least one item has.
        entropy (`float`): Entropy of an item's code, in bits; at most `log2(num_codes)`, when all are used alike.
        dead_codes (`list[int]`): Codes that no item has.
        num_prefixes (`int`): Distinct prefixes that end at this level.
        label_agreement (`float`, *optional*): Of all pairs of items that share the prefix up to this level, the share
            with equal labels; `None` without labels or pairs.
    """

    num_codes: int
    num_used: int
    entropy: float
    dead_codes: list[int]
    num_prefixes: int
    label_agreement: float | None = None


@dataclass(frozen=True)
class IdentifierQuality:
    """Identifiers of one kind.

    Args:
        num_items (`int`): Items.
        num_distinct (`int`): Distinct identifiers.
        collision_rate (`float`): `1 - num_distinct / num_items`.
        largest_group (`int`): Most items with one identifier; 1 without a collision.
        levels (`list[LevelQuality]`): One for each level.
    """

    num_items: int
    num_distinct: int
    collision_rate: float
    largest_group: int
    levels: list[LevelQuality]


@dataclass(frozen=True)
class ViewQuality:
    """One view before and after identifiers were made unique.

    Args:
        before ([`IdentifierQuality`]): The nearest codes.
        after ([`IdentifierQuality`]): The unique codes.
        num_moved (`int`): Items whose identifier changed in between.
        error_before (`float`): Squared error of the vectors restored from the nearest codes, divided by that of the
            mean vector: 0 is perfect, 1 is no better than knowing nothing.
        error_after (`float`): The same of the unique codes.
    """

    before: IdentifierQuality
    after: IdentifierQuality
    num_moved: int
    error_before: float
    error_after: float


@dataclass(frozen=True)
class IdentifierQualityReport:
    """What identifiers are worth; `str` formats it as a table.

    Args:
        views (`dict[str, ViewQuality]`): One for each view.
        label_base_rate (`float`, *optional*): The share of all pairs of items with equal labels: what an identifier
            that says nothing would reach.
        published (`dict[str, IdentifierQuality]`): Identifiers to compare with, by name.
    """

    views: dict[str, ViewQuality]
    label_base_rate: float | None = None
    published: dict[str, IdentifierQuality] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """Return the report as what JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> IdentifierQualityReport:
        """Undo `to_dict`."""
        return cls(
            views={
                view: ViewQuality(
                    **{**own, "before": _quality_from(own["before"]), "after": _quality_from(own["after"])}
                )
                for view, own in data["views"].items()
            },
            label_base_rate=data["label_base_rate"],
            published={name: _quality_from(own) for name, own in data["published"].items()},
        )

    def save(self, path: str | Path) -> None:
        """Write the report as JSON."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> IdentifierQualityReport:
        """Read a report that `save` wrote."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))

    def __str__(self) -> str:
        lines = [
            "identifiers              items  collisions  largest  moved  error  used codes / entropy in bits, by level"
        ]
        for view, own in self.views.items():
            lines.append(_row(f"{view}, nearest", own.before, "", f"{own.error_before:.3f}"))
            lines.append(_row(f"{view}, unique", own.after, str(own.num_moved), f"{own.error_after:.3f}"))
        lines += [_row(name, own, "", "") for name, own in self.published.items()]
        for view, own in self.views.items():
            for level, quality in enumerate(own.after.levels, start=1):
                if quality.dead_codes:
                    shown = ", ".join(map(str, quality.dead_codes[:20]))
                    more = f" and {len(quality.dead_codes) - 20} more" if len(quality.dead_codes) > 20 else ""
                    lines.append(f"{view} level {level}: {len(quality.dead_codes)} codes are not used: {shown}{more}")
        if all(not level.dead_codes for own in self.views.values() for level in own.after.levels):
            lines.append("Every code of every level is used.")
        if self.label_base_rate is not None:
            lines.append(
                f"Pairs of items with one label: {self.label_base_rate:.3f} of all pairs; of those that share "
                "a prefix of 1, 2, ... codes:"
            )
            named = {f"{view}, unique": own.after for view, own in self.views.items()} | self.published
            lines += [f"{name:<24} {_agreements(own)}" for name, own in named.items()]
        return "\n".join(lines)


def identifier_quality(
    model: IdentifierModel,
    encoded: EncodedItems,
    assigned: AssignmentResult,
    vectors: Mapping[View, np.ndarray],
    *,
    labels: Sequence[str | None] | None = None,
    published: Mapping[str, np.ndarray] | None = None,
) -> IdentifierQualityReport:
    """Measure identifiers before and after they were made unique.

    Args:
        model ([`IdentifierModel`]): The learner they come from.
        encoded ([`EncodedItems`]): What `model.encode` gave.
        assigned ([`AssignmentResult`]): What [`assign_unique`] made of it.
        vectors (`Mapping[str, np.ndarray]`): The item vectors of each view, of shape `(num_items, size)`.
        labels (`Sequence[str]`, *optional*): One word for each item, such as its category; items that share a prefix
            should agree in it. `None` or an empty one is left out of the count.
        published (`Mapping[str, np.ndarray]`, *optional*): Other identifiers of the same items to compare with, by
            name, such as [`read_published_identifiers`] returns them.

    Returns:
        [`IdentifierQualityReport`]: The report.

    Raises:
        DataError: If `labels` or a published table does not have one row for each item.
    """
    num_items = len(next(iter(encoded.codes.values())))
    for name, rows in {"labels": labels, **(published or {})}.items():
        if rows is not None and len(rows) != num_items:
            raise DataError(
                f"`{name}` has {len(rows)} rows for {num_items} items; pass one for each item, in their order."
            )
    codebook_size = encoded.codebooks.codebook_size
    views = {
        view: ViewQuality(
            before=measure_codes(encoded.codes[view], codebook_size, labels=labels),
            after=measure_codes(own, codebook_size, labels=labels),
            num_moved=assigned.num_moved[view],
            error_before=relative_error(vectors[view], _RestoredRows(model, view, encoded.codes[view])),
            error_after=relative_error(vectors[view], _RestoredRows(model, view, own)),
        )
        for view, own in assigned.codes.items()
    }
    return IdentifierQualityReport(
        views={str(view): own for view, own in views.items()},
        label_base_rate=None if labels is None else label_agreement(np.zeros(num_items, np.int64), labels),
        published={
            name: measure_codes(codes, codes.max(axis=0, initial=0) + 1, labels=labels)
            for name, codes in (published or {}).items()
        },
    )


def measure_codes(
    codes: np.ndarray, codebook_size: int | Sequence[int] | np.ndarray, *, labels: Sequence[str | None] | None = None
) -> IdentifierQuality:
    """Measure identifiers of one kind.

    Args:
        codes (`np.ndarray`): Integers of shape `(num_items, num_levels)`.
        codebook_size (`int` or `Sequence[int]`): Codes of every level, or of each.
        labels (`Sequence[str]`, *optional*): One word for each item; see [`identifier_quality`].

    Returns:
        [`IdentifierQuality`]: The measures.

    Example:
        ```python
        >>> import numpy as np
        >>> quality = measure_codes(np.array([[0, 0], [0, 0], [0, 1], [1, 1]]), 3)
        >>> quality.num_distinct, quality.collision_rate, quality.levels[0].dead_codes
        (3, 0.25, [2])

        ```
    """
    num_items, num_levels = codes.shape
    sizes = np.broadcast_to(codebook_size, num_levels).tolist()
    levels = []
    for level, size in enumerate(sizes):
        counts = np.bincount(codes[:, level], minlength=size)
        prefixes = prefix_groups(codes, level + 1)
        levels.append(
            LevelQuality(
                num_codes=size,
                num_used=int((counts > 0).sum()),
                entropy=_entropy(counts),
                dead_codes=np.flatnonzero(counts == 0).tolist(),
                num_prefixes=int(prefixes.max(initial=-1)) + 1,
                label_agreement=None if labels is None else label_agreement(prefixes, labels),
            )
        )
    group_sizes = np.bincount(prefix_groups(codes, num_levels))
    num_distinct = len(group_sizes)
    return IdentifierQuality(
        num_items=num_items,
        num_distinct=num_distinct,
        collision_rate=1 - num_distinct / num_items if num_items else 0.0,
        largest_group=int(group_sizes.max(initial=0)),
        levels=levels,
    )


def label_agreement(groups: np.ndarray, labels: Sequence[str | None]) -> float | None:
    """Return the share of pairs of items of one group that have the same label.

    Args:
        groups (`np.ndarray`): int64 group numbers of shape `(num_items,)`.
        labels (`Sequence[str]`): One for each item; items with none are left out.

    Returns:
        `float` or `None`: The share; `None` if no group has two items.

    Example:
        Items 0, 1 and 2 make three pairs, of which one agrees.

        ```python
        >>> label_agreement(np.array([0, 0, 0, 1]), ["relay", "relay", "glove", "glove"])
        0.3333333333333333

        ```
    """
    has_label = np.array([bool(label) for label in labels], bool)
    if not has_label.any():
        return None
    names = np.unique(
        np.array([label or "" for label in labels], dtype=object)[has_label].astype(str), return_inverse=True
    )[1]
    table = np.stack([groups[has_label], names], axis=1)
    num_pairs, num_equal = _num_pairs(prefix_groups(table, 1)), _num_pairs(prefix_groups(table, 2))
    return num_equal / num_pairs if num_pairs else None


class Restored(Protocol):
    """Restored vectors: an array, or what restores some rows when asked for them."""

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Return some of them."""


@dataclass(frozen=True)
class _RestoredRows:
    """The vectors that the codes of a view stand for, restored when asked for."""

    model: IdentifierModel
    view: View
    codes: np.ndarray

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        return self.model.reconstruct({self.view: self.codes[rows]})[self.view]


def relative_error(vectors: np.ndarray, restored: Restored) -> float:
    """Return the squared error of restored vectors, divided by that of the mean vector.

    Args:
        vectors (`np.ndarray`): float of shape `(num_items, size)`.
        restored (`np.ndarray` or `Restored`): The same.

    Returns:
        `float`: 0 is perfect; 1 is as good as the mean vector. If all vectors are the same, 0 for a perfect
        restoration and infinity for any other.
    """
    mean = np.zeros(vectors.shape[1])
    for _, block in row_blocks(vectors, _BLOCK_ROWS):
        mean += block.sum(axis=0, dtype=np.float64)
    mean /= max(len(vectors), 1)
    error = spread = 0.0
    for start, block in row_blocks(vectors, _BLOCK_ROWS):
        exact = np.asarray(block, np.float64)
        error += float(np.square(exact - restored[slice(start, start + len(block))]).sum())
        spread += float(np.square(exact - mean).sum())
    return error / spread if spread else (0.0 if error == 0 else float("inf"))


def _num_pairs(groups: np.ndarray) -> int:
    counts = np.bincount(groups)
    return int((counts * (counts - 1) // 2).sum())


def _entropy(counts: np.ndarray) -> float:
    """Entropy, in bits, of the distribution that the counts describe."""
    shares = counts[counts > 0] / max(counts.sum(), 1)
    # Adding 0 turns the -0.0 of a single code into 0.0.
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def _quality_from(data: Mapping[str, Any]) -> IdentifierQuality:
    return IdentifierQuality(**{**data, "levels": [LevelQuality(**level) for level in data["levels"]]})


def _row(name: str, quality: IdentifierQuality, moved: str, error: str) -> str:
    levels = "  ".join(f"{level.num_used}/{level.entropy:.2f}" for level in quality.levels)
    return (
        f"{name:<24} {quality.num_items:>5}  {quality.collision_rate:>10.2%}  {quality.largest_group:>7}  {moved:>5}  "
        f"{error:>5}  {levels}"
    )


def _agreements(quality: IdentifierQuality) -> str:
    shares = [level.label_agreement for level in quality.levels]
    return "  ".join(
        f"{level}: {'-' if share is None else f'{share:.3f}'}" for level, share in enumerate(shares, start=1)
    )
