# SPDX-License-Identifier: Apache-2.0
"""The base of both identifier learners: scaled views, codebooks, and encoding and decoding of vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from seekrec.errors import CatalogError, ConfigurationError, DataError
from seekrec.identifiers.configuration_dual_rqvae import IdentifierConfig
from seekrec.identifiers.residual_codes import EncodedItems, LatentRows, ResidualCodebooks, quantize
from seekrec.schema import View
from seekrec.util.memory_maps import release_rows, row_blocks

# Items that pass through a network at once; only memory depends on it.
_CHUNK_ROWS = 8_192
# Items whose float64 differences from the centre exist at once.
_SCALED_ROWS = 65_536


class ViewScaler(nn.Module):
    """Centre the vectors of a view and divide them by one number, so that their mean squared norm is 1.

    Without it the view with the longer vectors would rule the shared levels and the loss.

    Args:
        size (`int`): Numbers in a vector.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(size))
        self.register_buffer("scale", torch.ones(()))

    def fit(self, vectors: np.ndarray) -> None:
        """Measure the centre and the scale on vectors of shape `(num_items, size)`."""
        # A block at a time: in float64 a million vectors take gigabytes.
        total = sum(block.sum(axis=0, dtype=np.float64) for _, block in row_blocks(vectors, _SCALED_ROWS))
        center = total / len(vectors)
        squares = np.concatenate(
            [np.square(block - center).sum(axis=1) for _, block in row_blocks(vectors, _SCALED_ROWS)]
        )
        scale = float(np.sqrt(squares.mean()))
        self.center.copy_(torch.from_numpy(center))
        # Vectors that are all the same have no scale.
        self.scale.fill_(scale if scale > 0 else 1.0)

    def forward(self, vectors: Tensor) -> Tensor:
        """Scale vectors of shape `(batch, size)`."""
        return (vectors - self.center) / self.scale

    def restore(self, scaled: Tensor) -> Tensor:
        """Undo `forward`."""
        return scaled * self.scale + self.center


class ResidualQuantizer(nn.Module):
    """A stack of codebooks; each level quantizes what the level before left over (GenSAR, equations 3 and 4).

    Args:
        num_levels (`int`): Codebooks of the stack.
        codebook_size (`int`): Codewords of each.
        size (`int`): Numbers in a codeword.
        commitment_weight (`float`): `alpha` of equation 9.
        reduction (`str`): `"sum"` or `"mean"` over the numbers of a vector.
    """

    code_counts: Tensor
    is_initialized: Tensor

    def __init__(
        self, num_levels: int, codebook_size: int, size: int, commitment_weight: float = 0.25, reduction: str = "sum"
    ) -> None:
        super().__init__()
        self.commitment_weight, self.reduction = commitment_weight, reduction
        self.codebooks = nn.Parameter(torch.zeros(num_levels, codebook_size, size))
        # How often each code was chosen in training since the last revival; saved, so that training resumes exactly.
        self.register_buffer("code_counts", torch.zeros(num_levels, codebook_size, dtype=torch.int64))
        self.register_buffer("is_initialized", torch.zeros((), dtype=torch.bool))

    def forward(self, residual: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Quantize vectors.

        Args:
            residual (`torch.Tensor`): float of shape `(batch, size)`.

        Returns:
            `tuple[torch.Tensor, ...]`: int64 codes `(batch, num_levels)`; the sum of the chosen codewords
            `(batch, size)`; what is left `(batch, size)`; and the loss of each level (a line of equation 9, averaged
            over the batch) `(num_levels,)`.
        """
        quantized, codes, losses = torch.zeros_like(residual), [], []
        for level, codebook in enumerate(self.codebooks):
            # The squared norm of the residual is the same for every codeword and does not change which is nearest.
            nearest = torch.addmm(codebook.square().sum(dim=1), residual, codebook.T, alpha=-2).argmin(dim=1)
            codewords = nn.functional.embedding(nearest, codebook)
            losses.append(
                self._squared_norm(residual.detach() - codewords)
                + self.commitment_weight * self._squared_norm(residual - codewords.detach())
            )
            quantized = quantized + codewords
            residual = residual - codewords
            codes.append(nearest)
            if self.training:
                self.code_counts[level] += torch.bincount(nearest, minlength=codebook.shape[0])
        return torch.stack(codes, dim=1), quantized, residual, torch.stack(losses)

    def _squared_norm(self, difference: Tensor) -> Tensor:
        squares = difference.square()
        return squares.sum(dim=1).mean() if self.reduction == "sum" else squares.mean()

    @torch.no_grad()
    def set_codebooks(self, codebooks: np.ndarray) -> None:
        """Take over codewords, float32 of shape `(num_levels, codebook_size, size)`, as the initial ones."""
        self.codebooks.copy_(torch.from_numpy(codebooks))
        self.code_counts.zero_()
        self.is_initialized.fill_(True)


class IdentifierModel(PreTrainedModel):
    """Base of the identifier learners: item vectors in, codes out, and codes back to vectors.

    A subclass says what a latent vector is (`_to_latents`, `_from_latents`, `_latent_sizes`).
    """

    config: IdentifierConfig
    config_class = IdentifierConfig
    base_model_prefix = "identifier"
    main_input_name = "semantic"

    def __init__(self, config: IdentifierConfig) -> None:
        super().__init__(config)
        self.scalers = nn.ModuleDict({view: ViewScaler(size) for view, size in config.input_sizes.items()})
        sizes = self._latent_sizes(config)
        # By name: "shared" and each view. None where there are no levels: an optimizer would carry empty parameters.
        self.stacks = nn.ModuleDict()
        if config.num_shared_levels:
            self.stacks["shared"] = self._build_quantizer(config.num_shared_levels, sum(sizes.values()))
        if config.num_specific_levels:
            for view, size in sizes.items():
                self.stacks[view] = self._build_quantizer(config.num_specific_levels, size)

    @staticmethod
    def _latent_sizes(config: IdentifierConfig) -> dict[View, int]:
        """Numbers in a latent vector of each view."""
        return config.input_sizes

    def _to_latents(self, view: View, scaled: Tensor) -> Tensor:
        """Map scaled vectors `(batch, input size)` to latents `(batch, latent size)`; here they are the same."""
        return scaled

    def _from_latents(self, view: View, latents: Tensor) -> Tensor:
        """Map latents back to scaled vectors."""
        return latents

    def _build_quantizer(self, num_levels: int, size: int) -> ResidualQuantizer:
        return ResidualQuantizer(num_levels, self.config.codebook_size, size)

    def scaler(self, view: View) -> ViewScaler:
        """The scaler of a view."""
        return cast(ViewScaler, self.scalers[view])

    def _init_weights(self, module: nn.Module) -> None:
        """Set the start values of a module; called for what a checkpoint does not hold."""
        if isinstance(module, nn.Linear):
            # As the released code of GenSAR.
            init.xavier_normal_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, ViewScaler):
            init.zeros_(module.center)
            init.ones_(module.scale)
        elif isinstance(module, ResidualQuantizer):
            # Only until the k-means start: small and all different.
            bound = 1 / module.codebooks.shape[1]
            init.uniform_(module.codebooks, -bound, bound)
            init.zeros_(module.code_counts)
            init.zeros_(module.is_initialized)

    @property
    def quantizers(self) -> dict[str, ResidualQuantizer]:
        """The stacks of codebooks by name: `"shared"` and each view, where they have levels."""
        return cast(dict[str, ResidualQuantizer], dict(self.stacks.items()))

    @property
    def has_codebooks(self) -> bool:
        """Whether the codebooks were started from items; saved with the weights."""
        return all(bool(quantizer.is_initialized) for quantizer in self.quantizers.values())

    def codebooks(self) -> ResidualCodebooks:
        """Copy all codebooks to numpy.

        Returns:
            [`ResidualCodebooks`]: float32 copies.
        """
        arrays = {
            name: module.codebooks.detach().float().cpu().numpy().copy() for name, module in self.quantizers.items()
        }
        sizes, codes = self._latent_sizes(self.config), self.config.codebook_size
        return ResidualCodebooks(
            shared=arrays.get("shared", np.zeros((0, codes, sum(sizes.values())), np.float32)),
            specific={view: arrays.get(view, np.zeros((0, codes, size), np.float32)) for view, size in sizes.items()},
        )

    def _set_codebooks(self, codebooks: ResidualCodebooks) -> None:
        for name, quantizer in self.quantizers.items():
            quantizer.set_codebooks(codebooks.shared if name == "shared" else codebooks.specific[name])  # type: ignore[index]

    def _fit_scalers(self, vectors: Mapping[View, np.ndarray]) -> None:
        for view, own in vectors.items():
            if not len(own):
                raise DataError(f"`{view}` contains no item; pass at least one to find codebooks for.")
            self.scaler(view).fit(own)

    @torch.no_grad()
    def latents(self, vectors: Mapping[View, np.ndarray]) -> dict[View, np.ndarray]:
        """Map item vectors to latents.

        Args:
            vectors (`Mapping[str, np.ndarray]`): For each view, float32 of shape `(num_items, input size)`.

        Returns:
            `dict[str, np.ndarray]`: For each view, float32 of shape `(num_items, latent size)`.
        """
        return {view: self._latents_of(view, own) for view, own in vectors.items()}

    @torch.no_grad()
    def _latents_of(self, view: View, rows: np.ndarray) -> np.ndarray:
        return _in_chunks(lambda chunk: self._to_latents(view, self.scaler(view)(chunk)), rows, self.device)

    def _latent_rows(self, vectors: Mapping[View, np.ndarray]) -> Mapping[View, LatentRows]:
        """Return what gives the latents of rows; here they are computed once, as they are smaller than the vectors."""
        return self.latents(vectors)

    def encode(
        self, semantic: np.ndarray | Tensor | None = None, collaborative: np.ndarray | Tensor | None = None
    ) -> EncodedItems:
        """Return the nearest codes of each item in each view; they may collide.

        Args:
            semantic (`np.ndarray` or `torch.Tensor`, *optional*): float of shape `(num_items, semantic_size)`; not
                used without the semantic view.
            collaborative (`np.ndarray` or `torch.Tensor`, *optional*): float of shape
                `(num_items, collaborative_size)`; not used without the collaborative view.

        Returns:
            [`EncodedItems`]: Codes, and the cost of every other code for [`assign_unique`].

        Raises:
            ConfigurationError: If the codebooks were never started from items.
            DataError: If a vector that is needed is missing, has the wrong shape or is not finite.
        """
        if not self.has_codebooks:
            raise ConfigurationError(
                f"The codebooks of this {type(self).__name__} were never initialised from items; train it or load a "
                "trained one before `encode`."
            )
        vectors = check_vectors(self.config, semantic, collaborative)
        return quantize(self._latent_rows(vectors), self.codebooks())

    @torch.no_grad()
    def reconstruct(self, codes: Mapping[View, np.ndarray]) -> dict[View, np.ndarray]:
        """Return the item vectors that identifiers stand for (GenSAR, equations 6 and 7).

        Args:
            codes (`Mapping[str, np.ndarray]`): For each view, integers of shape `(num_items, num_levels)`.

        Returns:
            `dict[str, np.ndarray]`: For each view, float32 of shape `(num_items, input size)`, in the units of the
            vectors given to `encode`.

        Raises:
            CatalogError: If the codes do not have `num_levels` columns or are outside the codebook.
        """

        def to_vectors(view: View) -> Callable[[Tensor], Tensor]:
            return lambda chunk: self.scaler(view).restore(self._from_latents(view, chunk))

        books, restored = self.codebooks(), {}
        for view, own in codes.items():
            if own.ndim != 2 or own.shape[1] != books.num_levels:
                raise CatalogError(
                    f"`codes` of view {view!r} has shape {own.shape}; expected one column for each of the "
                    f"{books.num_levels} levels."
                )
            if own.size and not 0 <= own.min() <= own.max() < books.codebook_size:
                raise CatalogError(
                    f"`codes` of view {view!r} contains codes from {own.min()} to {own.max()}; they must be 0 to "
                    f"{books.codebook_size - 1}."
                )
            restored[view] = _in_chunks(to_vectors(view), books.quantized(view, own), self.device)
        return restored


def _in_chunks(function: Callable[[Tensor], Tensor], rows: np.ndarray, device: torch.device) -> np.ndarray:
    """Apply a function to float32 rows, some at a time."""
    first = function(torch.from_numpy(rows[:_CHUNK_ROWS]).to(device)).float().cpu().numpy()
    if len(rows) <= _CHUNK_ROWS:
        return first
    results = np.empty((len(rows), *first.shape[1:]), np.float32)
    results[:_CHUNK_ROWS] = first
    for start, block in row_blocks(rows[_CHUNK_ROWS:], _CHUNK_ROWS):
        computed = function(torch.from_numpy(block).to(device)).float().cpu().numpy()
        results[_CHUNK_ROWS + start : _CHUNK_ROWS + start + len(block)] = computed
    return results


class ScaledRows:
    """Scaled vectors that are made of the vectors when rows are asked for, of a learner whose latents they are."""

    def __init__(self, scaler: ViewScaler, vectors: np.ndarray) -> None:
        self.scaler, self.vectors = scaler, vectors

    def __len__(self) -> int:
        return len(self.vectors)

    @torch.no_grad()
    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        read = torch.from_numpy(self.vectors[rows]).to(self.scaler.center.device)
        release_rows(self.vectors)
        return np.asarray(self.scaler(read).cpu().numpy())


def check_vectors(
    config: IdentifierConfig,
    semantic: np.ndarray | Tensor | None,
    collaborative: np.ndarray | Tensor | None,
) -> dict[View, np.ndarray]:
    """Check item vectors and keep those that a configuration uses.

    Args:
        config ([`IdentifierConfig`]): Says which views there are and how long their vectors are.
        semantic (`np.ndarray` or `torch.Tensor`, *optional*): float of shape `(num_items, semantic_size)`.
        collaborative (`np.ndarray` or `torch.Tensor`, *optional*): float of shape `(num_items, collaborative_size)`.

    Returns:
        `dict[str, np.ndarray]`: For each view used, contiguous float32.

    Raises:
        DataError: If a vector that is needed is missing, has the wrong shape or is not finite, or if the views have
            different numbers of items.
    """
    given: dict[View, np.ndarray | Tensor | None] = {"semantic": semantic, "collaborative": collaborative}
    vectors: dict[View, np.ndarray] = {}
    for view, size in config.input_sizes.items():
        own = given[view]
        if own is None:
            raise DataError(f"`{view}` is missing, but `views` is {config.views}; pass a vector for each item.")
        array = own.detach().cpu().numpy() if isinstance(own, Tensor) else np.asarray(own)
        if array.ndim != 2 or array.shape[1] != size:
            raise DataError(
                f"`{view}` has shape {array.shape}; expected (num_items, {size}), as `{view}_size` of the "
                "configuration says."
            )
        array = np.ascontiguousarray(array, np.float32)
        is_finite = np.ones(len(array), bool)
        for start, block in row_blocks(array):
            is_finite[start : start + len(block)] = np.isfinite(block).all(axis=1)
        if not is_finite.all():
            row = int(np.flatnonzero(~is_finite)[0])
            raise DataError(
                f"`{view}` contains a number that is not finite in {int((~is_finite).sum())} rows, the first is row "
                f"{row}; leave these items out or repair their vectors."
            )
        vectors[view] = array
    counts = {view: len(own) for view, own in vectors.items()}
    if len(set(counts.values())) > 1:
        raise DataError(f"The views have different numbers of items: {counts}; pass the same items in the same order.")
    return vectors
