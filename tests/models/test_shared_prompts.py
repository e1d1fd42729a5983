# SPDX-License-Identifier: Apache-2.0
"""T5 over prompts that begin alike, against T5's own stacks over each whole prompt."""

import torch
from small_shop import make_gensr

from seekrec.models.shared_prompts import decode_first_token, encode_prefix, encode_suffixes


@torch.no_grad()
def test_the_shared_prompt_is_plain_t5_with_a_mask(aisles):
    """Prefix once and suffixes beside it equal T5's own stacks over each whole prompt whose prefix is blind ahead."""
    model, _ = make_gensr(aisles)
    generator = torch.Generator().manual_seed(5)
    batch, num_candidates, before, after, width = 3, 4, 5, 4, 32
    prefix = torch.randn(batch, before, width, generator=generator)
    suffix = torch.randn(batch, num_candidates, after, width, generator=generator)
    prefix_mask = torch.arange(before) >= torch.tensor([0, 2, 4])[:, None]
    suffix_mask = torch.arange(after) < torch.tensor([4, 3, 4])[:, None]
    encoded = encode_prefix(model.encoder, prefix, prefix_mask)
    states = encode_suffixes(model.encoder, encoded, suffix, suffix_mask)
    start = model.shared(torch.tensor(model.config.decoder_start_token_id))
    decoded = decode_first_token(model.decoder, encoded, states, suffix_mask, start)
    is_prefix = torch.arange(before + after) < before
    for row in range(batch):
        real = torch.cat([prefix_mask[row], suffix_mask[row]])
        allowed = (real[None, :] & (is_prefix[None, :] | ~is_prefix[:, None]))[None, None]
        mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
        for candidate in range(num_candidates):
            whole = torch.cat([prefix[row], suffix[row, candidate]])[None]
            expected = model.encoder(inputs_embeds=whole, attention_mask=mask)[0]
            place = suffix_mask[row].nonzero()[:, 0]
            torch.testing.assert_close(
                states[row, candidate, place], expected[0, before + place], atol=1e-5, rtol=1e-4
            )
            answer = model.decoder(
                input_ids=torch.tensor([[model.config.decoder_start_token_id]]),
                encoder_hidden_states=expected,
                encoder_attention_mask=real[None].long(),
            )[0]
            torch.testing.assert_close(decoded[row, candidate], answer[0, 0], atol=1e-5, rtol=1e-4)
