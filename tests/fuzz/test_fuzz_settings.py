# SPDX-License-Identifier: Apache-2.0
"""Settings files: what YAML can say, and what only looks like it."""

import math

import yaml
from hypothesis import given
from hypothesis import strategies as st
from tally import TALLY, fuzzed
from values import texts

from seekrec.recipes.arguments import DataArguments, EvaluationArguments
from seekrec.util.parsing import parse_arguments

TYPES = [DataArguments, EvaluationArguments]
NAMES = [name for kind in TYPES for name in kind.__dataclass_fields__]
scalars = st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), texts, st.dates())
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(scalars, inner, max_size=3)),
    max_leaves=5,
)


@fuzzed(1000)
@given(settings=st.dictionaries(st.one_of(st.sampled_from(NAMES), texts), anything, max_size=4))
def test_any_yaml(tmp_path_factory, settings):
    path = tmp_path_factory.mktemp("yaml") / "settings.yaml"
    path.write_bytes(yaml.safe_dump(settings, allow_unicode=False).encode())
    with TALLY.case("yaml"):
        filled = parse_arguments(TYPES, ["--config", str(path)])
        for name, value in settings.items():
            (holder,) = [one for one in filled if name in type(one).__dataclass_fields__]
            kept = getattr(holder, name)
            default = getattr(type(holder)(), name)
            same = kept == value or (
                isinstance(value, float) and isinstance(kept, float) and math.isnan(value) and math.isnan(kept)
            )
            # A list of texts takes one text too; null means the default.
            assert (
                same
                or str(kept) == str(value)
                or kept in ([value], [str(value)])
                or (value is None and kept == default)
                or list(map(str, value)) == kept
            )


LINES = [
    "dataset: tables",
    "events: a.csv",
    "num_cold_items: 3",
    "column_map: [user_id=u]",
    "num_negatives: 2",
    "has_time: false",
    "a: &a [x, x]",
    "b: [*a, *a]",
    "<<: *a",
    "- x",
    "? y",
    "!!python/object:os.system x",
    "max_refused: 0.2",
    "\t",
    "'",
    "{",
    "#",
    "---",
    "%YAML 1.1",
    "num_beams: 0x10",
    "seed: 1_0",
]


@fuzzed(1000)
@given(st.lists(st.one_of(st.sampled_from(LINES), texts), max_size=6))
def test_any_text(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("text") / "settings.yaml"
    path.write_bytes("\n".join(lines).encode(errors="surrogatepass"))
    with TALLY.case("text for yaml"):
        parse_arguments(TYPES, ["--config", str(path)])


@fuzzed(400)
@given(
    st.lists(
        st.one_of(
            st.sampled_from([f"--{name}" for name in NAMES]),
            texts,
            st.sampled_from(["1", "true", "x=y", "=", "--", "-"]),
        ),
        max_size=5,
    )
)
def test_any_command_line(argv):
    with TALLY.case("command line"):
        # --help prints and ends the program, as it should.
        if not any(one.startswith(("-h", "--h")) for one in argv):
            parse_arguments(TYPES, [one.replace("\0", "") for one in argv])
