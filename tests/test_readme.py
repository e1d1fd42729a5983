# SPDX-License-Identifier: Apache-2.0
"""What the README says is true: its commands, its Python, its tree. So are the commands and links of all documents.

Conventions:
- a block of shell commands is fenced as `bash`; every command in it is checked, and one of an unknown kind fails;
- a block of Python is fenced as `python` and is run; `<!-- not run: reason -->` on the line before limits that to the
  names it imports;
- the tree is the block after `<!-- tree -->`: two spaces a level, names, then two spaces or more and what they hold;
- `<!-- ci: test -->` and `<!-- ci: main -->` stand before the two blocks that CI and newcomers run.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import io
import re
import runpy
import shlex
import sys
import tomllib
from pathlib import Path

import house
import pyarrow as pa
import pytest
from packaging.requirements import Requirement
from small_shop import make_aisles, make_gensar

from seekrec.models.manifest import save_checkpoint
from seekrec.recipes.command import main as console_command
from seekrec.schema import Request
from seekrec.util.package_data import settings_names

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

_spec = importlib.util.spec_from_file_location("readme_block", ROOT / ".ci" / "readme_block.py")
assert _spec is not None
assert _spec.loader is not None
readme_block = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(readme_block)

# Commands that need no check beyond their name.
# `curl`: tests/serving/test_handbook_page.py sends what it would.
HARMLESS = {"cd", "git", "export", ".", "curl"}


def fenced(text: str, language: str) -> list[tuple[str, str]]:
    """Give the blocks of a language, each with the line before it."""
    pattern = rf"(?:^|\n)([^\n]*)\n+```{language}\n(.*?)\n```"
    return re.findall(pattern, text, flags=re.DOTALL)


def commands_of(text: str) -> list[str]:
    return [command for _, block in fenced(text, "bash") for command in readme_block.split_commands(block)]


@functools.cache
def help_of(script: str) -> str:
    """Ask a script for its help; it must say it without running. In this process: a new one would import for long."""
    printed = io.StringIO()
    argv, path = sys.argv, sys.path
    sys.argv, sys.path = [script, "--help"], [str((ROOT / script).parent), *path]
    try:
        with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as stop:
            runpy.run_path(str(ROOT / script), run_name="__main__")
    finally:
        sys.argv, sys.path = argv, path
    assert not stop.value.code, f"`python {script} --help` fails: {stop.value.code}"
    return printed.getvalue()


def check_command(command: str) -> None:
    """Check one command.

    Raises:
        AssertionError: If it names what does not exist, or is of a kind that nothing here checks.
    """
    words = shlex.split(command, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    if words[:2] == ["accelerate", "launch"]:
        scripts = [number for number, word in enumerate(words) if word.endswith(".py")]
        assert scripts, f"`{command}` launches no script"
        check_script(words[scripts[0]], words[scripts[0] + 1 :])
    elif words[:2] in (["python", "-m"], ["python3", "-m"]):
        assert words[2] in ("venv", "pip", "pytest"), f"`{command}`: nothing here checks the module {words[2]!r}"
        if words[2] == "pytest":
            check_paths(words[3:])
    elif words[0] in ("python", "python3") and words[1].endswith(".py"):
        check_script(words[1], words[2:])
    elif words[0] == "pytest":
        check_paths(words[1:])
    elif words[0] == "seekrec":
        check_console_command(words[1:])
    elif words[:2] == ["pip", "install"]:
        for word in words[2:]:
            check_requirement(word)
    elif words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE)
        assert set(words[1:]) <= set(targets), f"`{command}`: the Makefile has {', '.join(targets)}"
    elif words[0] == "bash":
        assert (ROOT / words[1]).is_file(), f"`{command}`: there is no {words[1]}"
    else:
        assert words[0] in HARMLESS | {"ruff", "mypy", "source"}, f"`{command}`: nothing here checks {words[0]!r}"


def check_console_command(words: list[str]) -> None:
    """Its options are those of the recipe, or of the command itself; a settings file by name is there."""
    if words[:1] == ["train"] and len(words) > 1 and words[1] in house.FAMILIES:
        family, options = words[1], [word for word in words[2:] if word != "--num_processes"]
        for name, value in zip(options, options[1:], strict=False):
            assert name != "--config" or value in settings_names(family) or value.startswith("runs/"), value
        check_script(f"recipes/train_{family}.py", options)
    else:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as stop:
            console_command([*words, *(() if "--help" in words else ("--help",))])
        assert not stop.value.code, printed.getvalue()


def check_script(script: str, arguments: list[str]) -> None:
    assert (ROOT / script).is_file(), f"there is no {script}"
    check_paths(arguments)
    flags = [argument.split("=")[0] for argument in arguments if argument.startswith("--")]
    asked = [script]
    if script == "recipes/papers.py":
        # It hands on what it does not know itself; the runs of a paper may be of other families, too.
        paper = arguments[arguments.index("--paper") + 1]
        asked += [f"recipes/train_{family}.py" for family in house.FAMILIES if paper in (family, "trade_off")]
    known = [flag for one in asked for flag in re.findall(r"--[a-zA-Z][\w-]*", help_of(one))]
    for flag in flags:
        assert flag in known, f"{script} does not know {flag}"


def check_paths(arguments: list[str]) -> None:
    """Files of the repository that a command reads must be there; what it writes (`runs/...`) need not."""
    for argument in arguments:
        path = argument.split("=")[-1].split("::")[0]
        if path.startswith(("recipes/", "tests/", "src/", "hub_cards/")) or path.endswith((".yaml", ".yml")):
            assert (ROOT / path).exists(), f"there is no {path}"


def check_requirement(word: str) -> None:
    """A pinned version must be one that the project allows; an extra must be one it has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if word.startswith("-") or word == ".":
        return
    if extras := re.search(r"\[(.*)\]$", word):
        missing = set(extras.group(1).split(",")) - set(project["optional-dependencies"])
        assert not missing, f"{word}: the project has no extra {', '.join(missing)}"
        return
    asked = Requirement(word)
    for text in project["dependencies"]:
        ours = Requirement(text)
        if ours.name == asked.name:
            for pin in asked.specifier:
                assert pin.operator != "==" or ours.specifier.contains(pin.version), f"{word} is outside {text}"


def check_tree(block: str, root: Path) -> set[str]:
    """Check that each path of a tree is there, once, and give them all, relative to the root."""
    folders: list[str] = []
    listed: set[str] = set()
    for line in block.splitlines():
        if not line.strip():
            continue
        depth = (len(line) - len(line.lstrip(" "))) // 2
        names = [name.rstrip("/") for name in re.split(r" {2,}", line.strip())[0].split(" ")]
        assert depth <= len(folders), f"{line!r} is indented below something that is no folder"
        folders = folders[:depth]
        for name in names:
            path = "/".join([*folders, name])
            assert (root / path).exists(), f"the tree names {path}, which is not there"
            assert path not in listed, f"the tree names {path} twice"
            listed.add(path)
        if (root / "/".join([*folders, names[-1]])).is_dir():
            folders.append(names[-1])
    return listed


DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "recipes").rglob("*.md"))]
COMMANDS = list(dict.fromkeys(one for path in DOCUMENTS for one in commands_of(path.read_text("utf-8"))))
PYTHON = [(number, *found) for number, found in enumerate(fenced(README, "python"))]


def test_marked_blocks_are_there():
    assert readme_block.split_commands(readme_block.read_block(README, "main"))
    last = readme_block.split_commands(readme_block.read_block(README, "test"))[-1]
    assert "pytest" in last, "CI takes the last command of the block `test` for the tests"


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_true(command):
    check_command(command)


@pytest.mark.parametrize(("number", "before", "code"), PYTHON, ids=lambda value: str(value)[:20])
def test_python_runs(number, before, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "<!-- not run:" not in before:
        exec(compile(code, f"README.md, Python block {number}", "exec"), {"__name__": "readme"})
        return
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
        elif isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)


def test_the_session_runs_with_a_model_in_the_place_of_the_trained_one(tmp_path, monkeypatch):
    """A small random GenSAR, whose items stand for the films: every call takes what is passed, and answers."""
    (code,) = [code for _, before, code in PYTHON if "<!-- not run:" in before]
    for row, film in enumerate(dict.fromkeys(re.findall(r'"(\d+)"', code))):
        code = code.replace(f'"{film}"', f'"i{row}"')
    split, catalog, *rest = make_aisles()
    years = pa.array(range(1925, 1925 + len(catalog)))
    catalog = dataclasses.replace(catalog, items=catalog.items.append_column("year", years))
    tasks = ["nrip", "nsip", "nsqp", "id2desc_semantic"]
    model, processor = make_gensar((split, catalog, *rest), corpus="stream", item_vector_size=8, trained_tasks=tasks)
    monkeypatch.chdir(tmp_path)
    save_checkpoint(model, processor, "runs/gensar-movielens-100k/model")
    names: dict = {"__name__": "readme"}
    exec(compile(code, "README.md, the session", "exec"), names)
    assert names["classics"].tolist() == [1930 <= year <= 1959 for year in years.to_pylist()]
    asked = names["processor"]([Request(names["history"])])
    (answers,) = names["model"].retrieve(asked, top_k=30, where=names["classics"])
    # Of 24 items 5 are older; the user acted on two of these 5, which are not in the mask anyway.
    assert {item.item_id for item in answers} == {f"i{row}" for row in range(5, 24)}


def test_links_lead_to_files_and_headings():
    wrong = []
    for path in DOCUMENTS:
        for target, heading in re.findall(
            r"\]\((?!https?://|mailto:)([^)#\s]*)#?([^)\s]*)\)", path.read_text("utf-8")
        ):
            file = (path.parent / target).resolve() if target else path
            if not file.exists() or (heading and heading not in headings_of(file)):
                wrong.append(f"{path.relative_to(ROOT)}: {target}#{heading}")
    assert wrong == []


def test_paths_in_prose_exist():
    prose = {path: path.read_text("utf-8") for path in DOCUMENTS}
    named = {
        name for text in prose.values() for name in re.findall(r"`((?:src|tests|recipes|hub_cards)/[\w./-]+)`", text)
    }
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def headings_of(path: Path) -> set[str]:
    """The anchors of a file's headings, as GitHub makes them."""
    lines = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def test_settings_in_prose_exist():
    """What the documents of a family write as `name: value` or `--name` is a setting of a recipe or of a script."""
    kinds = [kind for family in house.FAMILIES for kind in house.argument_classes(family, ROOT)]
    known = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    for script in ("ablations", "papers", "demo", "push_to_hub"):
        known.update(re.findall(r"--([a-z]\w*)", help_of(f"recipes/{script}.py")))
    unknown = {}
    for path in [path for family in house.FAMILIES for path in (ROOT / "recipes" / family).glob("*.md")]:
        prose = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
        named = set(re.findall(r"`(\w+): [^`]*`|--([a-z]\w*)", prose))
        if names := sorted({name for pair in named for name in pair if name} - known):
            unknown[str(path.relative_to(ROOT))] = names
    assert unknown == {}


def test_tree_is_the_real_one():
    blocks = re.findall(r"<!-- tree -->\s*\n```(?:text)?\n(.*?)\n```", README, flags=re.DOTALL)
    assert len(blocks) == 1, "write the tree once, in a fenced block after `<!-- tree -->`"
    listed = check_tree(blocks[0], ROOT)
    package = ROOT / "src" / "seekrec"
    expected = {f"src/seekrec/{path.parent.name}" for path in package.glob("*/__init__.py")}
    expected |= {f"src/seekrec/{path.name}" for path in package.glob("*.py") if path.name != "__init__.py"}
    expected |= {f"recipes/{path.name}" for path in (ROOT / "recipes").glob("*.py")}
    expected |= {"tests", "hub_cards"}
    assert expected - listed == set()


# From here on: the checks above fail where they should.


def test_blocks_are_found_and_split():
    text = (
        'x\n<!-- ci: test -->\n```bash\npip install a && \\\n  pip install -e ".[b]"\n# why\npython -m pytest\n```\n'
    )
    assert commands_of(text) == ["pip install a", 'pip install -e ".[b]"', "python -m pytest"]
    assert readme_block.read_block(text, "test").startswith("pip install a")
    with pytest.raises(ValueError, match="0 blocks after the marker `<!-- ci: main -->`"):
        readme_block.read_block(text, "main")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("python recipes/no_such_script.py --config x", "there is no recipes/no_such_script.py"),
        ("accelerate launch --num_processes 2 recipes/no_such_script.py", "there is no recipes/no_such_script.py"),
        ("python .ci/readme_block.py --nonsense", "fails|does not know --nonsense"),
        (
            "python recipes/papers.py --paper intsr --config tiny --nonsense 1",
            "recipes/papers.py does not know --nonsense",
        ),
        ("python .ci/readme_block.py recipes/none.yaml", "there is no recipes/none.yaml"),
        ("pytest tests/test_none.py", "there is no tests/test_none.py"),
        ("pip install -e .[nonsense]", "the project has no extra nonsense"),
        ("pip install torch==1.0", "torch==1.0 is outside torch"),
        ("make nonsense", "the Makefile has help, setup"),
        ("python -m seekrec", "nothing here checks the module 'seekrec'"),
        ("seekrec train gensar --config nonsense", "nonsense"),
        ("seekrec train intsr --nonsense", "does not know --nonsense"),
        ("rm -rf x", "nothing here checks 'rm'"),
    ],
)
def test_false_commands_are_found(command, message):
    with pytest.raises(AssertionError, match=message):
        check_command(command)


def test_false_trees_are_found(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.py").touch()
    (tmp_path / "a" / "c.py").touch()
    assert check_tree("a/  folder\n  b.py c.py  two files", tmp_path) == {"a", "a/b.py", "a/c.py"}
    with pytest.raises(AssertionError, match="names a/d.py, which is not there"):
        check_tree("a/\n  d.py", tmp_path)
    with pytest.raises(AssertionError, match="indented below"):
        check_tree("a/\n  b.py\n    c.py", tmp_path)
