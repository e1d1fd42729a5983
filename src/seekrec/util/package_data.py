# SPDX-License-Identifier: Apache-2.0
"""Files included in the wheel: settings of the recipes and templates of cards.

In a source checkout they are in `recipes/` or `hub_cards/`; in the wheel, inside the package.
"""

from __future__ import annotations

from pathlib import Path

from seekrec.errors import ConfigurationError

_PACKAGE = Path(__file__).parents[1]
# In a source checkout the package is in `src`.
_CHECKOUT = _PACKAGE.parents[1]
# Folder of the checkout -> folder of the installed package.
_PLACES = {"recipes": _PACKAGE / "recipes" / "settings", "hub_cards": _PACKAGE / "hub" / "templates"}


def data_folder(name: str) -> Path:
    """Return the folder of the packaged files of a kind.

    Args:
        name (`str`): `"recipes"`: a folder of YAML files for each family; `"hub_cards"`: the templates of cards.
    """
    installed = _PLACES[name]
    return installed if installed.is_dir() else _CHECKOUT / name


def find_settings(family: str, config: str) -> str:
    """Return the path of a settings file: itself, or the packaged file of that name.

    Args:
        family (`str`): gensar, gensr, intsr or synergen.
        config (`str`): Path of a file, or a name such as `movielens-100k`.

    Raises:
        ConfigurationError: If it is a word that neither is, or a packaged file of another family.
    """
    place = Path(config).resolve().parent
    # Every family has a file of this name.
    is_of_family = place.parent == data_folder("recipes").resolve() and (place / "tiny.yaml").is_file()
    if is_of_family and place.name != family:
        raise ConfigurationError(
            f"`--config` is {config}, which contains settings of {place.name}, not of {family}; train {place.name}, "
            f"or name one of {family}: {', '.join(settings_names(family))}."
        )
    if Path(config).exists() or Path(config).name != config or Path(config).suffix:
        return config
    packaged = data_folder("recipes") / family / f"{config}.yaml"
    if not packaged.is_file():
        raise ConfigurationError(
            f"`--config` is {config!r}, which is neither a file nor a name of packaged settings; those of "
            f"{family} are {', '.join(settings_names(family))}."
        )
    return str(packaged)


def settings_names(family: str) -> list[str]:
    """Return the names of the packaged settings files of a family."""
    return sorted(path.stem for path in (data_folder("recipes") / family).glob("*.yaml"))


__all__ = ["data_folder", "find_settings", "settings_names"]
