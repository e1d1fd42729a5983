# SPDX-License-Identifier: Apache-2.0
"""DualRQVAE: one identifier of an item for search and one for recommendation (GenSAR, section 3.2).

Two encoders map the semantic and the collaborative vector of an item to latents of one size. Shared codebooks quantize
both latents at once, as one concatenated vector; the residual of each is quantized by its own codebooks. Two decoders
reconstruct the vectors from the sums of the codewords. Unusual here:

- Item vectors are centred and divided by one number for each view, measured on all items when the codebooks are
  started: the two terms of equation 8 then have equal weight, whatever the scale of the two sources.
- The codebooks start as k-means centres of all items and not of one batch; a flag in the checkpoint records that it
  was done.
- Codes that no item used for an epoch are moved to where items are ([`DualRQVAEModel.revive_dead_codes`]).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from seekrec.errors import DataError
from seekrec.identifiers.configuration_dual_rqvae import DualRQVAEConfig, IdentifierConfig
from seekrec.identifiers.modeling_identifier import IdentifierModel, ResidualQuantizer, check_vectors
from seekrec.identifiers.residual_codes import squared_distances
from seekrec.identifiers.residual_kmeans import find_codebooks
from seekrec.schema import View

# Items from which dead codes get new positions; more would not make the draw more random.
_REVIVAL_SAMPLE = 16_384


@dataclass
class DualRQVAEOutput(ModelOutput):
    """What a forward pass gives.

    Args:
        loss (`torch.Tensor`): Equation 10, a number.
        reconstruction_loss (`torch.Tensor`): Equation 8.
        quantization_loss (`torch.Tensor`): Equation 9.
        semantic_codes (`torch.Tensor`, *optional*): int64 of shape `(batch, num_levels)`; `None` without this view.
        collaborative_codes (`torch.Tensor`, *optional*): The same for the collaborative view.
        semantic_reconstruction (`torch.Tensor`, *optional*): float of shape `(batch, semantic_size)`, in the units of
            the input.
        collaborative_reconstruction (`torch.Tensor`, *optional*): float of shape `(batch, collaborative_size)`.
    """

    loss: Tensor | None = None
    reconstruction_loss: Tensor | None = None
    quantization_loss: Tensor | None = None
    semantic_codes: Tensor | None = None
    collaborative_codes: Tensor | None = None
    semantic_reconstruction: Tensor | None = None
    collaborative_reconstruction: Tensor | None = None


class DualRQVAEModel(IdentifierModel):
    """GenSAR's identifier learner; with `views=["semantic"]` and no shared levels it is the RQ-VAE of TIGER.

    Args:
        config ([`DualRQVAEConfig`]): Views, levels, codes and the sizes of the network.
    """

    config: DualRQVAEConfig
    config_class = DualRQVAEConfig

    def __init__(self, config: DualRQVAEConfig) -> None:
        super().__init__(config)
        widths = {view: [size, *config.hidden_sizes, config.latent_size] for view, size in config.input_sizes.items()}
        self.encoders = nn.ModuleDict({view: _mlp(own) for view, own in widths.items()})
        self.decoders = nn.ModuleDict({view: _mlp(own[::-1]) for view, own in widths.items()})
        self.post_init()

    @staticmethod
    def _latent_sizes(config: IdentifierConfig) -> dict[View, int]:
        return dict.fromkeys(config.input_sizes, config.latent_size)

    def _to_latents(self, view: View, scaled: Tensor) -> Tensor:
        return self.encoders[view](scaled)

    def _from_latents(self, view: View, latents: Tensor) -> Tensor:
        return self.decoders[view](latents)

    def _build_quantizer(self, num_levels: int, size: int) -> ResidualQuantizer:
        config = self.config
        return ResidualQuantizer(num_levels, config.codebook_size, size, config.commitment_weight, config.reduction)

    def forward(
        self, semantic: Tensor | None = None, collaborative: Tensor | None = None, return_dict: bool | None = None
    ) -> DualRQVAEOutput | tuple[Tensor, ...]:
        """Quantize and restore item vectors, and compute the loss (GenSAR, equations 2 to 10).

        Args:
            semantic (`torch.Tensor`, *optional*): float of shape `(batch, semantic_size)`; needed if the semantic view
                is used.
            collaborative (`torch.Tensor`, *optional*): float of shape `(batch, collaborative_size)`; needed if the
                collaborative view is used.
            return_dict (`bool`, *optional*): `False` returns a tuple.

        Returns:
            [`DualRQVAEOutput`]: Losses, codes and reconstructions.

        Raises:
            DataError: If a view that is used is missing.
        """
        given = {"semantic": semantic, "collaborative": collaborative}
        scaled: dict[View, Tensor] = {}
        for view in self.config.input_sizes:
            own = given[view]
            if own is None:
                raise DataError(
                    f"`{view}` is missing, but `views` is {self.config.views}; pass a vector for each item."
                )
            scaled[view] = self.scaler(view)(own)
        latents = {view: self._to_latents(view, own) for view, own in scaled.items()}

        size, views = self.config.latent_size, list(scaled)
        residual = torch.cat(list(latents.values()), dim=1)  # (batch, len(views) * size): equation 3
        quantized = torch.zeros_like(residual)
        shared_codes: list[Tensor] = []
        level_losses: list[Tensor] = []
        quantizers = self.quantizers
        if "shared" in quantizers:
            codes, quantized, residual, losses = quantizers["shared"](residual)
            shared_codes.append(codes)
            level_losses.append(losses)

        reconstruction_loss = residual.new_zeros(())
        outputs: dict[str, Tensor] = {}
        for position, view in enumerate(views):
            columns = slice(position * size, (position + 1) * size)
            own_codes, own_quantized = list(shared_codes), quantized[:, columns]
            if view in quantizers:
                codes, specific, _, losses = quantizers[view](residual[:, columns])
                own_codes.append(codes)
                level_losses.append(losses)
                own_quantized = own_quantized + specific  # equation 6
            # Straight-through: the decoder sees the codewords, the encoder gets the decoder's gradient.
            latent = latents[view]
            restored = self._from_latents(view, latent + (own_quantized - latent).detach())
            reconstruction_loss = reconstruction_loss + self._squared_norm(scaled[view] - restored)
            outputs[f"{view}_codes"] = torch.cat(own_codes, dim=1)
            outputs[f"{view}_reconstruction"] = self.scaler(view).restore(restored)

        losses = torch.cat(level_losses)
        quantization_loss = losses.sum() if self.config.reduction == "sum" else losses.mean()
        output = DualRQVAEOutput(
            loss=reconstruction_loss + quantization_loss,
            reconstruction_loss=reconstruction_loss,
            quantization_loss=quantization_loss,
            **outputs,
        )
        return output.to_tuple() if return_dict is False else output

    def _squared_norm(self, difference: Tensor) -> Tensor:
        squares = difference.square()
        return squares.sum(dim=1).mean() if self.config.reduction == "sum" else squares.mean()

    def initialize_codebooks(
        self,
        semantic: np.ndarray | Tensor | None = None,
        collaborative: np.ndarray | Tensor | None = None,
        *,
        seed: int = 0,
        num_iterations: int = 100,
    ) -> None:
        """Measure the scale of each view and start every codebook by k-means on the items, level by level.

        Args:
            semantic (`np.ndarray` or `torch.Tensor`, *optional*): float of shape `(num_items, semantic_size)`.
            collaborative (`np.ndarray` or `torch.Tensor`, *optional*): float of shape
                `(num_items, collaborative_size)`.
            seed (`int`): Equal seeds give equal codebooks.
            num_iterations (`int`): The most rounds of k-means at each level.

        Raises:
            DataError: If there is no item, or a vector that is needed is missing, of the wrong shape or not finite.
        """
        vectors = check_vectors(self.config, semantic, collaborative)
        self._fit_scalers(vectors)
        self._set_codebooks(
            find_codebooks(vectors, self.latents, self.config, seed=seed, num_iterations=num_iterations)
        )

    @torch.no_grad()
    def revive_dead_codes(
        self,
        semantic: np.ndarray | Tensor | None = None,
        collaborative: np.ndarray | Tensor | None = None,
        *,
        seed: int = 0,
    ) -> dict[str, Tensor]:
        """Move the codes that no item used in training since the last call to what random items leave at their level.

        Args:
            semantic (`np.ndarray` or `torch.Tensor`, *optional*): float of shape `(num_items, semantic_size)`.
            collaborative (`np.ndarray` or `torch.Tensor`, *optional*): float of shape
                `(num_items, collaborative_size)`.
            seed (`int`): Which items; equal seeds give equal codebooks.

        Returns:
            `dict[str, torch.Tensor]`: For each stack of `quantizers`, bool of shape `(num_levels, codebook_size)`: the
            codes that were moved. An optimizer should forget what it knew of them.

        Raises:
            DataError: If a vector that is needed is missing, has the wrong shape or is not finite.
        """
        dead = {name: module.code_counts == 0 for name, module in self.quantizers.items()}
        for name, module in self.quantizers.items():
            # Nothing counted means that nothing is known, not that every code is dead.
            dead[name] &= module.code_counts.sum(dim=1, keepdim=True) > 0
            module.code_counts.zero_()
        if not any(bool(own.any()) for own in dead.values()):
            return dead
        vectors = check_vectors(self.config, semantic, collaborative)
        generator = np.random.default_rng(seed)
        num_items = len(next(iter(vectors.values())))
        sample = generator.permutation(num_items)[:_REVIVAL_SAMPLE]
        latents = self.latents({view: own[sample] for view, own in vectors.items()})
        residual = np.concatenate(list(latents.values()), axis=1)
        quantizers, size = self.quantizers, self.config.latent_size
        if "shared" in quantizers:
            residual = _revive_stack(quantizers["shared"], residual, dead["shared"], generator)
        for position, view in enumerate(latents):
            if view in quantizers:
                columns = residual[:, position * size : (position + 1) * size]
                _revive_stack(quantizers[view], columns, dead[view], generator)
        return dead


def _revive_stack(
    quantizer: ResidualQuantizer, residual: np.ndarray, dead: Tensor, generator: np.random.Generator
) -> np.ndarray:
    """Move the dead codes of a stack, in place, and return what the stack leaves over of the residuals."""
    codebooks = quantizer.codebooks.detach().float().cpu().numpy().copy()
    for level, is_dead in enumerate(dead.cpu().numpy()):
        chosen = np.resize(generator.permutation(len(residual)), int(is_dead.sum()))
        codebooks[level, is_dead] = residual[chosen]
        # The next level sees what is left after the codes have moved.
        residual = residual - codebooks[level][squared_distances(residual, codebooks[level]).argmin(axis=1)]
    quantizer.codebooks.copy_(torch.from_numpy(codebooks))
    return residual


def _mlp(widths: list[int]) -> nn.Sequential:
    """Linear layers with a ReLU between each two."""
    layers: list[nn.Module] = []
    for position, (inner, outer) in enumerate(pairwise(widths)):
        layers += ([nn.ReLU()] if position else []) + [nn.Linear(inner, outer)]
    return nn.Sequential(*layers)
