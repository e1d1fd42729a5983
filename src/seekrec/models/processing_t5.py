# SPDX-License-Identifier: Apache-2.0
"""What the processors of GenSAR and GenSR share: a tokenizer with identifier tokens, and the model's configuration."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, Self, TypeVar

from transformers import PreTrainedTokenizerBase

from seekrec.catalog import Catalog
from seekrec.corpora import IdentifierVocabulary, add_identifier_tokens
from seekrec.errors import CatalogError
from seekrec.models.configuration_t5 import IdentifierT5Config
from seekrec.models.processing import CatalogProcessor, check_unknown

ConfigT = TypeVar("ConfigT", bound=IdentifierT5Config)


class T5Processor(CatalogProcessor, Generic[ConfigT]):
    """A processor that is made from the configuration of its model, and saved with what it reads of that.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): The tokenizer; identifier tokens are added where it has none.
        catalog ([`Catalog`], *optional*): The items and their identifiers.
        config ([`IdentifierT5Config`], *optional*): Configuration of the model, which says how requests are written.
        unknown (`str`): What to do with events of a history whose item is not in the catalogue: `"skip"` leaves them
            out and logs it, `"raise"` refuses the call. Candidates must always be known.
    """

    _not_settings: ClassVar[tuple[str, ...]] = ("_catalog", "_vocabulary", "config")
    # What a family fills in: its configuration, and the fields of that which are read.
    config_class: type[ConfigT]
    settings_read: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        catalog: Catalog | None = None,
        config: ConfigT | None = None,
        unknown: str = "skip",
    ) -> None:
        super().__init__(tokenizer)
        self.config = self.config_class() if config is None else config
        self.unknown = check_unknown(unknown)
        self._catalog: Catalog | None = None
        self._vocabulary: IdentifierVocabulary | None = None
        if catalog is not None:
            self.set_catalog(catalog)

    @classmethod
    def from_config(cls, config: ConfigT, tokenizer: PreTrainedTokenizerBase, catalog: Catalog | None = None) -> Self:
        """Make the processor of a model from its configuration; see the class for the arguments."""
        return cls(tokenizer, catalog, config)

    @classmethod
    def from_args_and_dict(cls, args: list[object], processor_dict: dict[str, Any], **kwargs: Any) -> Self:
        """Make a processor from its saved settings and those given to `from_pretrained`."""
        settings = {**processor_dict, **kwargs}
        read = cls._take_settings(settings)
        made: Self = super().from_args_and_dict(args, {**settings, "config": cls.config_class(**read)})
        return made

    @classmethod
    def _take_settings(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Take the fields of the configuration out of saved settings."""
        return {name: settings.pop(name) for name in cls.settings_read if name in settings}

    def _settings(self) -> dict[str, object]:
        read = {name: getattr(self.config, name) for name in self.settings_read}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in read.items()}

    def to_dict(self) -> dict[str, object]:
        """Return the settings: what is read of the model's configuration, and what to do with unknown items."""
        return {**super().to_dict(), **self._settings()}

    def _model_settings(self) -> dict[str, object]:
        settings = self._settings()
        if self._vocabulary is not None:
            settings["first_identifier_token_id"] = self._vocabulary.first_token_id
        return settings

    def set_catalog(self, catalog: Catalog) -> None:
        """Use this catalogue from now on; see [`CatalogProcessor`]."""
        if self.config.writes_identifiers:
            self._vocabulary = add_identifier_tokens(self.tokenizer, catalog)
        super().set_catalog(catalog)

    @property
    def vocabulary(self) -> IdentifierVocabulary:
        """The identifier tokens, and where they are in the vocabulary.

        Raises:
            CatalogError: If the processor has no catalogue, or its model writes no identifiers.
        """
        if self._vocabulary is None:
            raise CatalogError(
                "The processor has no catalogue; load a complete checkpoint or call `set_catalog`."
                if self.config.writes_identifiers
                else "The processor has no identifier tokens: its model writes no identifiers."
            )
        return self._vocabulary


__all__ = ["T5Processor"]
