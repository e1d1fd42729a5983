# SPDX-License-Identifier: Apache-2.0
"""Configurations of the two identifier learners.

[`IdentifierConfig`] contains what both share: which views there are, and how many levels of codes. The ablations of
GenSAR are settings of it, not classes:

| identifiers | `views` | `num_shared_levels` | `num_specific_levels` |
|---|---|---|---|
| GenSAR | semantic, collaborative | 2 | 2 |
| no shared levels | semantic, collaborative | 0 | 4 |
| all shared | semantic, collaborative | 4 | 0 |
| semantic only (TIGER) | semantic | 0 | 4 |
| collaborative only | collaborative | 0 | 4 |

No `from __future__ import annotations` here: with types as strings, `strict` checks none of them.
"""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from seekrec.identifiers.levels import IdentifierLevels
from seekrec.schema import View

# The order in which views are concatenated for the shared levels (GenSAR, equation 3).
VIEW_ORDER: tuple[View, ...] = ("semantic", "collaborative")


@strict
class IdentifierConfig(IdentifierLevels, PreTrainedConfig):
    """Views of a residual quantizer, on top of [`IdentifierLevels`]; a single view has no shared levels.

    Args:
        views (`list[str]`): `"semantic"`, `"collaborative"` or both, in this order.
        semantic_size (`int`): Numbers in a semantic item vector.
        collaborative_size (`int`): Numbers in a collaborative item vector.

    Raises:
        StrictDataclassFieldValidationError: If a value has the wrong type.
        StrictDataclassClassValidationError: If the values contradict each other or are out of their range.
    """

    views: list[str] | tuple[str, ...] = VIEW_ORDER
    # The vectors of all-MiniLM-L6-v2, the semantic encoder that is used when none is named.
    semantic_size: int = 384
    collaborative_size: int = 64

    def __post_init__(self, **kwargs: object) -> None:
        # JSON knows lists only: always a list, so that a saved and loaded configuration equals the one saved.
        self.views = list(self.views)
        super().__post_init__(**kwargs)

    @property
    def input_sizes(self) -> dict[View, int]:
        """Numbers in an item vector of each view that is used."""
        sizes: dict[View, int] = {"semantic": self.semantic_size, "collaborative": self.collaborative_size}
        return {view: sizes[view] for view in VIEW_ORDER if view in self.views}

    def validate_views(self) -> None:
        """Refuse views that do not exist, are missing, repeated or out of order; `strict` calls this.

        Raises:
            ValueError: If `views` is not one of the three possible lists.
        """
        allowed = [["semantic"], ["collaborative"], ["semantic", "collaborative"]]
        if list(self.views) not in allowed:
            raise ValueError(f"`views` is {self.views!r}; use one of {', '.join(map(str, allowed))}.")

    def validate_levels(self) -> None:
        """Refuse sizes and numbers of levels that cannot be; `strict` calls this.

        Raises:
            ValueError: If a size is not positive, there is no level at all, or a single view has shared levels.
        """
        _check_at_least(self, 1, "semantic_size", "collaborative_size")
        _check_at_least(self, 0, "num_shared_levels", "num_specific_levels")
        # One code would say nothing.
        _check_at_least(self, 2, "codebook_size")
        if self.num_levels < 1:
            raise ValueError("`num_shared_levels` and `num_specific_levels` are both 0; an identifier needs a level.")
        if len(self.views) == 1 and self.num_shared_levels:
            raise ValueError(
                f"`num_shared_levels` is {self.num_shared_levels}, but `views` contains only {self.views[0]!r}: there "
                f"is nothing to share. Set `num_shared_levels=0` and `num_specific_levels={self.num_levels}`."
            )


@strict
class DualRQVAEConfig(IdentifierConfig):
    """Settings of GenSAR's identifier learner (section 3.2), on top of [`IdentifierConfig`].

    Args:
        hidden_sizes (`list[int]`): Widths of an encoder's hidden layers; the decoder mirrors them.
        latent_size (`int`): Numbers in a latent vector of one view; `d` of the paper.
        commitment_weight (`float`): `alpha` of equation 9.
        reduction (`str`): `"sum"`: squared norms, as equations 8 and 9 have them. `"mean"`: means over dimensions and
            codebooks, as the released code has them.
    """

    model_type = "dual_rqvae"

    hidden_sizes: list[int] | tuple[int, ...] = (512, 256, 128, 64)
    latent_size: int = 32
    commitment_weight: float | int = 0.25
    # The paper's sum makes the better prefixes, because it weighs the quantization against the reconstruction as
    # equation 10 does. Amazon Scientific, 100 epochs, seed 0: of the items that share two codes, 62% share their
    # category path with "sum" and 28% with "mean"; both use all codes alike (7.9 of 8 bits at every level).
    reduction: Literal["sum", "mean"] = "sum"

    def __post_init__(self, **kwargs: object) -> None:
        self.hidden_sizes = list(self.hidden_sizes)
        super().__post_init__(**kwargs)

    def validate_network(self) -> None:
        """Refuse layers and weights that cannot be; `strict` calls this.

        Raises:
            ValueError: If a width is not positive or `commitment_weight` is negative.
        """
        _check_at_least(self, 1, "latent_size")
        _check_at_least(self, 0, "commitment_weight")
        if any(size < 1 for size in self.hidden_sizes):
            raise ValueError(f"`hidden_sizes` is {self.hidden_sizes!r}; every width must be at least 1.")


@strict
class ResidualKMeansConfig(IdentifierConfig):
    """Settings of [`ResidualKMeans`]; those of [`IdentifierConfig`] are all there are."""

    model_type = "residual_kmeans"


def _check_at_least(config: PreTrainedConfig, least: int, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value < least:
            raise ValueError(f"`{name}` is {value}; it must be at least {least}.")
