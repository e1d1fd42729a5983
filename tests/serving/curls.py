# SPDX-License-Identifier: Apache-2.0
"""Send the requests of `recipes/serving/routes.md` to a server, and write what it answers into the page.

SEEKREC_TOKEN=... python tests/serving/curls.py http://localhost:8000
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx

PAGES = Path(__file__).parents[2] / "recipes"
ROUTES = PAGES / "serving" / "routes.md"
# A request, and the block behind it with the answer.
_SHOWN = re.compile(r"(```bash\n(?P<line>curl .*)\n```\n\n```(?:json|text)\n)(?P<answer>[^`]*)(```\n)")
_MOST, _DIGITS = 3, 4
_REST = "..."
# Lines of the numbers for Prometheus that are shown.
_TOLD = ("seekrec_requests_total", "seekrec_queue_length", "seekrec_cache_total", "seekrec_catalog_items")
_TOKEN = "$SEEKREC_TOKEN"


@dataclass(frozen=True)
class Asked:
    """A request of a page.

    Args:
        line (`str`): The command.
        answer (`str`): What the page says that it answers; empty where it says nothing.
    """

    line: str
    answer: str = ""

    @property
    def words(self):
        """The words of the command."""
        return shlex.split(self.line)

    @property
    def path(self):
        """The path asked for, with its query."""
        return next(word for word in self.words if word.startswith("localhost:")).removeprefix("localhost:8000")

    @property
    def method(self):
        """The method, as curl chooses it."""
        if "-X" in self.words:
            return self.words[self.words.index("-X") + 1]
        return "POST" if "-d" in self.words else "GET"

    def send(self, client, token):
        """Send it, with a token whether it names one or not, and return the answer."""
        words = self.words
        headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
        assert headers.pop("Authorization", f"Bearer {_TOKEN}") == f"Bearer {_TOKEN}"
        body = words[words.index("-d") + 1].encode() if "-d" in words else None
        return client.request(
            self.method, self.path, content=body, headers=headers | {"Authorization": f"Bearer {token}"}
        )


def read_page(page):
    """Return the requests of a page with their answers."""
    return [Asked(one["line"], one["answer"]) for one in _SHOWN.finditer(page.read_text("utf-8"))]


def shorten(value):
    """Cut long lists, and round numbers."""
    if isinstance(value, dict):
        return {name: shorten(part) for name, part in value.items()}
    if isinstance(value, list):
        return [shorten(part) for part in value[:_MOST]] + [_REST] * (len(value) > _MOST)
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def show(value, indent=""):
    """Return JSON with a line for each field of the whole, and for each object of a list."""

    def line(part):
        return json.dumps(part, ensure_ascii=False)

    if isinstance(value, dict) and not indent:
        fields = [f"  {line(name)}: {show(part, '    ')}" for name, part in value.items()]
        return "{\n" + ",\n".join(fields) + "\n}"
    if isinstance(value, list) and any(isinstance(part, dict) for part in value):
        return "[\n" + ",\n".join(indent + line(part) for part in value) + f"\n{indent[:-2]}]"
    return line(value)


def shown_answer(answer):
    """Return an answer as a page shows it."""
    if "json" in answer.headers["content-type"]:
        return show(shorten(answer.json())) + "\n"
    lines = answer.text.splitlines()
    lines = [line for name in _TOLD for line in [one for one in lines if one.startswith(name)][:_MOST]]
    return "".join(f"{line}\n" for line in lines)


def differences(shown, real, place="answer"):
    """Say where an answer has other fields, or values of other kinds, than a page shows."""
    if isinstance(shown, dict) and isinstance(real, dict):
        if shown.keys() != real.keys():
            return [f"{place}: {sorted(shown)} shown, {sorted(real)} answered"]
        return [line for name in shown for line in differences(shown[name], real[name], f"{place}.{name}")]
    if isinstance(shown, list) and isinstance(real, list):
        pairs = zip([part for part in shown if part != _REST], real, strict=False)
        return [line for number, pair in enumerate(pairs) for line in differences(*pair, f"{place}[{number}]")]
    kinds = [float if isinstance(one, (int, float)) else type(one) for one in (shown, real) if one is not None]
    return [] if len(set(kinds)) < 2 else [f"{place}: {shown!r} shown, {real!r} answered"]


def main(url):
    """Ask a server all of the page, in its order, and write what it answers."""
    token = os.environ.get("SEEKREC_TOKEN", "none")
    with httpx.Client(base_url=url, timeout=600) as client:

        def replaced(match):
            answer = Asked(match["line"]).send(client, token)
            return match[1] + shown_answer(answer) + match[4]

        ROUTES.write_text(_SHOWN.sub(replaced, ROUTES.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
