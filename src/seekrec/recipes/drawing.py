# SPDX-License-Identifier: Apache-2.0
"""Plot results: values with their intervals, curves over a setting, and the two tasks against each other.

Needs matplotlib, from the extra `bench`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from seekrec.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DPI = 110
# Of the width of a panel.
_CLOSE = 0.06
_MARKERS = "osD^vP*X"


class Spread(NamedTuple):
    """A value with its interval; both ends are the value where nothing was sampled."""

    value: float
    low: float
    high: float

    @property
    def errors(self) -> tuple[float, float]:
        """Distances to both ends, as matplotlib wants them."""
        return max(self.value - self.low, 0.0), max(self.high - self.value, 0.0)


@contextmanager
def panels(path: Path, num_rows: int, num_columns: int, *, size: tuple[float, float]) -> Iterator[list[Axes]]:
    """Yield the empty panels of a picture, row by row, and write it as PNG when they are filled.

    Args:
        path (`Path`): Where to.
        num_rows (`int`): Panels below each other.
        num_columns (`int`): Panels side by side.
        size (`tuple[float, float]`): Width and height of a panel in inches.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingDependencyError('Drawing needs matplotlib; run pip install "seekrec[bench]".') from error
    width, height = size[0] * num_columns, size[1] * num_rows
    figure, axes = plt.subplots(num_rows, num_columns, figsize=(width, height), layout="constrained", squeeze=False)
    try:
        yield list(axes.flat)
        figure.savefig(path, dpi=_DPI)
    finally:
        plt.close(figure)


def draw_bars(
    path: Path, content: Mapping[str, Mapping[str, Spread]], *, unit: str, mark: float | None = None
) -> None:
    """Draw values with their intervals below each other, a panel for each title.

    Args:
        path (`Path`): Where to.
        content (`Mapping[str, Mapping[str, Spread]]`): By title the values by label.
        unit (`str`): What is measured.
        mark (`float`, *optional*): Where a line is; at the first value of each panel if not given.
    """
    num_columns = min(2, len(content))
    num_rows = -(-len(content) // num_columns)
    most = max(len(values) for values in content.values())
    with panels(path, num_rows, num_columns, size=(5.6, 1.1 + 0.32 * most)) as axes:
        for panel in axes[len(content) :]:
            panel.set_axis_off()
        for panel, (title, values) in zip(axes, content.items(), strict=False):
            for place, spread in enumerate(values.values()):
                panel.errorbar(
                    [spread.value], [place], xerr=[[one] for one in spread.errors], fmt="o", color="C0", capsize=3
                )
            panel.set_yticks(range(len(values)), list(values))
            panel.set_ylim(len(values) - 0.5, -0.5)
            place_of_line = next(iter(values.values())).value if mark is None else mark
            panel.axvline(place_of_line, linewidth=0.7, linestyle=":", color="0.4")
            is_sampled = any(any(spread.errors) for spread in values.values())
            panel.set_xlabel(f"{unit}, 95 % interval" if is_sampled else unit)
            panel.locator_params(axis="x", nbins=6)
            panel.set_title(title, fontsize=10)


def draw_curves(path: Path, content: Mapping[str, Mapping[str, Sequence[tuple[float, Spread]]]], *, axis: str) -> None:
    """Draw curves of a setting with intervals, a panel for each title.

    Args:
        path (`Path`): Where to.
        content (`Mapping`): By title, and by the name of what is measured: values of the setting with what they gave.
        axis (`str`): Name of the setting.
    """
    num_columns = min(2, len(content))
    with panels(path, -(-len(content) // num_columns), num_columns, size=(4.8, 3.2)) as axes:
        for panel in axes[len(content) :]:
            panel.set_axis_off()
        for panel, (title, curves) in zip(axes, content.items(), strict=False):
            values = sorted({value for points in curves.values() for value, _ in points})
            # Labels of close values would cover each other: they stand side by side.
            gaps = [after - before for before, after in pairwise(values)]
            is_close = bool(gaps) and min(gaps) < _CLOSE * sum(gaps)
            places = {value: float(number) if is_close else value for number, value in enumerate(values)}
            for number, (name, points) in enumerate(curves.items()):
                ordered = sorted(points)
                errors = list(zip(*(spread.errors for _, spread in ordered), strict=True))
                panel.errorbar(
                    [places[value] for value, _ in ordered],
                    [spread.value for _, spread in ordered],
                    yerr=errors,
                    marker=_MARKERS[number % len(_MARKERS)],
                    capsize=3,
                    label=name,
                )
            panel.set_xticks(list(places.values()), [f"{value:g}" for value in values])
            panel.tick_params(axis="x", labelrotation=30 if max(map(len, curves.values())) > 5 else 0)
            panel.set_xlabel(axis)
            panel.set_ylabel(", ".join(curves) if len(curves) == 1 else "")
            panel.set_title(title, fontsize=10)
            if len(curves) > 1:
                panel.legend()


def draw_plane(
    path: Path,
    content: Mapping[str, Mapping[str, tuple[Spread, Spread]]],
    *,
    axes_names: tuple[str, str],
    arrows: Mapping[str, Mapping[str, tuple[Spread, Spread]]] | None = None,
    note: str = "",
) -> None:
    """Draw points of two values with their intervals, and arrows that lead to them.

    Args:
        path (`Path`): Where to.
        content (`Mapping`): By title, the points by label: the value to the right and the value upwards.
        axes_names (`tuple[str, str]`): Names of both values.
        arrows (`Mapping`, *optional*): By title and label of a point: where the arrow to it begins.
        note (`str`): What stands below each title.
    """
    # A label looks the same in all panels.
    fullest = sorted(content.values(), key=len, reverse=True)
    labels = list(dict.fromkeys(label for points in fullest for label in points))
    with panels(path, 1, len(content), size=(6.2, 5.0)) as axes:
        for panel, (title, points) in zip(axes, content.items(), strict=True):
            for label, point in points.items():
                number = labels.index(label)
                color, marker = f"C{number}", _MARKERS[number % len(_MARKERS)]
                begin = (arrows or {}).get(title, {}).get(label)
                for place, is_filled in ((begin, False), (point, True)):
                    if place is None:
                        continue
                    across, up = place
                    panel.errorbar(
                        [across.value],
                        [up.value],
                        xerr=[[one] for one in across.errors],
                        yerr=[[one] for one in up.errors],
                        marker=marker,
                        color=color,
                        markerfacecolor=color if is_filled else "white",
                        ecolor=(color, 0.35),
                        linestyle="none",
                        label=label if is_filled else None,
                    )
                if begin is not None:
                    panel.annotate(
                        "",
                        xy=(point[0].value, point[1].value),
                        xytext=(begin[0].value, begin[1].value),
                        arrowprops={"arrowstyle": "->", "color": color, "shrinkA": 6, "shrinkB": 6, "linewidth": 1.6},
                    )
            panel.set_xlabel(axes_names[0])
            panel.set_ylabel(axes_names[1])
            panel.set_title(f"{title}\n{note}" if note else title, fontsize=10)
            panel.legend(fontsize=8)


__all__ = ["Spread", "draw_bars", "draw_curves", "draw_plane", "panels"]
