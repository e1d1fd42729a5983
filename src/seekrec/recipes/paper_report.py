# SPDX-License-Identifier: Apache-2.0
"""Write the report of a paper's exhibits: tables in Markdown and Parquet, claims in JSON, and figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from seekrec.recipes.drawing import Spread, draw_bars, draw_curves, draw_plane
from seekrec.recipes.paper_claims import Finding, Number, Verdict
from seekrec.recipes.papers import Exhibit
from seekrec.schema import RECOMMENDATION, SEARCH
from seekrec.util.files import replace_file, write_json, write_table

_Section = tuple[str, str]  # behavior and protocol
_COLUMNS = pa.schema(
    [
        ("exhibit", pa.string()),
        ("label", pa.string()),
        ("behavior", pa.string()),
        ("protocol", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("num_cases", pa.int64()),
    ]
)


def write_report(
    folder: Path,
    heading: Sequence[str],
    exhibits: Sequence[Exhibit],
    numbers: Sequence[Number],
    findings: Sequence[Finding],
) -> Path:
    """Write `report.md`, `numbers.parquet`, `claims.json` and a PNG for each exhibit with a picture.

    Args:
        folder (`Path`): Where to.
        heading (`Sequence[str]`): Lines that say of what and how it was measured.
        exhibits (`Sequence[Exhibit]`): The exhibits, in order.
        numbers (`Sequence[Number]`): Their numbers.
        findings (`Sequence[Finding]`): What became of their claims.

    Returns:
        `Path`: The Markdown file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "numbers.parquet", pa.Table.from_pylist([one._asdict() for one in numbers], _COLUMNS))
    write_json(folder / "claims.json", [one._asdict() for one in findings])
    lines = list(heading)
    for exhibit in exhibits:
        own = [number for number in numbers if number.exhibit == exhibit.name]
        lines += ["", f"## {exhibit.name.capitalize()}: {exhibit.shows}"]
        lines += _tables(exhibit, own)
        picture = picture_path(folder, exhibit)
        if draw(exhibit, own, picture):
            lines += ["", f"![{exhibit.name}: {exhibit.shows}]({picture.name})"]
        lines += _claims([finding for finding in findings if finding.exhibit == exhibit.name])
    path = folder / "report.md"
    with replace_file(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def picture_path(folder: Path, exhibit: Exhibit) -> Path:
    """Return where the picture of an exhibit is: `figure-6.png` in the folder of the report."""
    return folder / f"{exhibit.name.replace(' ', '-')}.png"


def summarize(findings: Sequence[Finding]) -> Verdict:
    """Return what several comparisons say to one claim: it holds where all do, and fails where one does.

    Args:
        findings (`Sequence[Finding]`): The comparisons.
    """
    verdicts = {finding.verdict for finding in findings}
    return "does not hold" if "does not hold" in verdicts else "holds" if verdicts == {"holds"} else "undecided"


def _tables(exhibit: Exhibit, numbers: Sequence[Number]) -> list[str]:
    """Return a Markdown table for each behavior and protocol; the deciding metric with its interval."""
    lines = []
    for section, own in _by_section(numbers).items():
        metrics = list(dict.fromkeys(number.metric for number in own))
        labels = list(dict.fromkeys(number.label for number in own))
        cells = {(number.label, number.metric): number for number in own}
        best = {metric: max(f"{one.value:.4f}" for one in own if one.metric == metric) for metric in metrics}
        lines += ["", ", ".join(part for part in (_title(section), f"{own[0].num_cases:,} cases") if part), ""]
        lines += ["| | " + " | ".join(metrics) + " |", "|---" + "|---:" * len(metrics) + "|"]
        for label in labels:
            row = []
            for metric in metrics:
                number = cells.get((label, metric))
                text = "-" if number is None else f"{number.value:.4f}"
                if exhibit.measure is None and text == best[metric] and len(labels) > 1:
                    text = f"**{text}**"
                if number is not None and number.low is not None and metric == exhibit.decides:
                    text += f" ({number.low:.4f} to {number.high:.4f})"
                row.append(text)
            lines.append(f"| {label} | " + " | ".join(row) + " |")
    return lines


def _claims(findings: Sequence[Finding]) -> list[str]:
    """Return the claims with their verdicts, and each comparison below."""
    lines = [""] if findings else []
    for says in dict.fromkeys(finding.says for finding in findings):
        own = [finding for finding in findings if finding.says == says]
        counts = Counter(finding.verdict for finding in own)
        said = _count(counts)
        if all(one.difference == one.low == one.high == 0 for one in own):
            said = "both answer every case alike"
        lines.append(f"- {says}: **{summarize(own)}**" + (f" ({said})" if len(own) > 1 else ""))
        for one in own:
            interval = "" if one.low is None else f" ({one.low:+.4f} to {one.high:+.4f})"
            place = ", ".join(part for part in (_title((one.behavior, one.protocol)), one.metric) if part)
            lines.append(f"  - {place}: {one.better} less {one.than} {one.difference:+.4f}{interval}: {one.verdict}")
    return lines


def _count(counts: Mapping[Verdict, int]) -> str:
    return ", ".join(f"{verdict} in {number}" for verdict, number in counts.items())


def _by_section(numbers: Sequence[Number]) -> dict[_Section, list[Number]]:
    sections: dict[_Section, list[Number]] = {}
    for number in numbers:
        sections.setdefault((number.behavior, number.protocol), []).append(number)
    return sections


def _title(section: _Section) -> str:
    behavior, protocol = section
    kind, _, number = protocol.partition("-")
    names = {
        "uniform": f"among {number} random items",
        "bm25": f"among {number} by BM25",
        "full": "all items",
        "full, available": "items available at the time",
    }
    return ", ".join(part for part in (behavior, names.get(kind, protocol)) if part)


def _spread(number: Number) -> Spread:
    low, high = number.low, number.high
    return Spread(number.value, number.value if low is None else low, number.value if high is None else high)


def draw(exhibit: Exhibit, numbers: Sequence[Number], path: Path) -> bool:
    """Draw an exhibit by the metric that decides.

    Args:
        exhibit ([`Exhibit`]): The exhibit; its `picture` says how.
        numbers (`Sequence[Number]`): Its numbers.
        path (`Path`): PNG file to write.

    Returns:
        `bool`: Whether there is anything to draw.
    """
    chosen = [number for number in numbers if number.metric == exhibit.decides]
    sections = {_title(section): own for section, own in _by_section(chosen).items()}
    if exhibit.picture == "own":
        return path.is_file()  # drawn where it was measured
    if exhibit.picture == "none" or not sections:
        return False
    if exhibit.picture == "bars":
        draw_bars(
            path,
            {title: {number.label: _spread(number) for number in own} for title, own in sections.items()},
            unit=exhibit.decides,
        )
    elif exhibit.picture == "curve":
        curves = {
            title: {exhibit.decides: [(float(number.label), _spread(number)) for number in own]}
            for title, own in sections.items()
        }
        draw_curves(path, curves, axis=exhibit.axis)
    else:
        _draw_plane(exhibit, chosen, path)
    return True


def _draw_plane(exhibit: Exhibit, numbers: Sequence[Number], path: Path) -> None:
    """Draw recommendation to the right and search upwards, a panel for each protocol that both have."""
    places: dict[str, dict[str, dict[str, Spread]]] = {}  # protocol, label, behavior
    for number in numbers:
        places.setdefault(number.protocol, {}).setdefault(number.label, {})[number.behavior] = _spread(number)
    points: dict[str, dict[str, tuple[Spread, Spread]]] = {}
    begins: dict[str, dict[str, tuple[Spread, Spread]]] = {}
    for protocol, labels in places.items():
        title = _title(("", protocol))
        if not exhibit.arrows:
            points[title] = {
                label: (own[RECOMMENDATION], own[SEARCH]) for label, own in labels.items() if len(own) == 2
            }
        for name, (right, up, both) in exhibit.arrows.items():
            ends = [labels.get(both, {}).get(behavior) for behavior in (RECOMMENDATION, SEARCH)]
            begin = labels.get(right, {}).get(RECOMMENDATION), labels.get(up, {}).get(SEARCH)
            if ends[0] and ends[1] and begin[0] and begin[1]:
                points.setdefault(title, {})[name] = ends[0], ends[1]
                begins.setdefault(title, {})[name] = begin[0], begin[1]
    axes_names = f"recommendation, {exhibit.decides}", f"search, {exhibit.decides}"
    note = "open: a model for each task; filled: one for both" if begins else ""
    shown = {title: own for title, own in points.items() if own}
    draw_plane(path, shown, axes_names=axes_names, arrows=begins, note=f"{note}; 95 % intervals".lstrip("; "))


__all__ = ["draw", "picture_path", "summarize", "write_report"]
