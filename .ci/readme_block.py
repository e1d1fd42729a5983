# SPDX-License-Identifier: Apache-2.0
"""Print the commands of a marked block of the README, so that it and CI cannot differ.

Usage:
    python .ci/readme_block.py README.md test           # the block after the comment `<!-- ci: test -->`
    python .ci/readme_block.py README.md test setup     # all commands of it but the last
    python .ci/readme_block.py README.md test last      # the last command of it
"""

import re
import sys
from pathlib import Path


def read_block(text: str, name: str) -> str:
    """Give the fenced block that follows a marker.

    Args:
        text (`str`): Markdown.
        name (`str`): Of the marker `<!-- ci: name -->`.

    Returns:
        `str`: The lines between the fences.

    Raises:
        ValueError: If there is not exactly one such marker with a block after it.
    """
    pattern = rf"<!-- ci: {re.escape(name)} -->\s*\n```(?:bash|sh|console)?\n(.*?)\n```"
    blocks = re.findall(pattern, text, flags=re.DOTALL)
    if len(blocks) != 1:
        raise ValueError(
            f"The text has {len(blocks)} blocks after the marker `<!-- ci: {name} -->`; write the marker once, on a "
            "line of its own, and a fenced block under it."
        )
    return str(blocks[0])


def split_commands(block: str) -> list[str]:
    """Split a block into its commands: at line ends and at `&&`, lines that end in a backslash joined, no comments."""
    joined = re.sub(r"\\\n\s*", "", block)
    lines = [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [command.strip() for line in lines for command in line.split(" && ")]


def main(arguments: list[str]) -> None:
    """Print what the command line asks for."""
    if len(arguments) not in (2, 3) or (len(arguments) == 3 and arguments[2] not in ("setup", "last")):
        raise SystemExit(__doc__)
    commands = split_commands(read_block(Path(arguments[0]).read_text(encoding="utf-8"), arguments[1]))
    if len(arguments) == 3:
        commands = commands[:-1] if arguments[2] == "setup" else commands[-1:]
    sys.stdout.write("\n".join(commands) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
