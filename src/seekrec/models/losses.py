# SPDX-License-Identifier: Apache-2.0
"""Losses that families share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seekrec.models.configuration_t5 import IdentifierT5Config

# `loss_norm="level"` asks for less than the paper's loss: the model need not learn that a code of the second level
# cannot follow a behavior token, because the trie never lets it.


def token_loss(logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
    """Negative log-likelihood of the labels (GenSAR, equation 12).

    Args:
        logits (`torch.Tensor` of shape `(num_labels, vocab_size)`): Scores.
        labels (`torch.LongTensor` of shape `(num_labels,)`): -100 is not scored.
        num_items_in_batch (`int`, *optional*): Divides the sum; the mean is taken if not given.

    Returns:
        `torch.Tensor`: A float32 number, in nats a token.
    """
    reduction = "mean" if num_items_in_batch is None else "sum"
    loss = nn.functional.cross_entropy(logits.float(), labels, ignore_index=-100, reduction=reduction)
    return loss if num_items_in_batch is None else loss / num_items_in_batch


def level_loss(
    hidden: Tensor, labels: Tensor, head: Tensor, config: IdentifierT5Config, num_items_in_batch: Tensor | int | None
) -> Tensor:
    """Negative log-likelihood with each code normalised over its level, other tokens over the vocabulary.

    Equal to `token_loss(mask_other_levels(hidden @ head.T, ...))`, but only the scores of a code's own level are
    computed: with 256 codes in a vocabulary of 5,600 that is a twentieth of the head.

    Args:
        hidden (`torch.Tensor` of shape `(num_labels, d_model)`): Decoder states.
        labels (`torch.LongTensor` of shape `(num_labels,)`): Tokens, none of them -100.
        head (`torch.Tensor` of shape `(vocab_size, d_model)`): Output embeddings.
        config ([`IdentifierT5Config`]): Where codes are in the vocabulary.
        num_items_in_batch (`int`, *optional*): As in [`token_loss`].

    Returns:
        `torch.Tensor`: A float32 number, in nats a token.
    """
    first_code = config.first_identifier_token_id + 3
    level = _levels(labels, config)
    total = hidden.new_zeros((), dtype=torch.float32)
    for number in torch.unique(level).tolist():
        inside = level == number
        offset = 0 if number < 0 else first_code + number * config.codebook_size
        rows = head if number < 0 else head[offset : offset + config.codebook_size]
        scores = nn.functional.linear(hidden[inside], rows)
        total = total + nn.functional.cross_entropy(scores.float(), labels[inside] - offset, reduction="sum")
    return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)


def mask_other_levels(logits: Tensor, labels: Tensor, config: IdentifierT5Config) -> Tensor:
    """Leave a row whose label is a code only the scores of that code's level.

    Args:
        logits (`torch.Tensor` of shape `(num_labels, vocab_size)`): Scores.
        labels (`torch.LongTensor` of shape `(num_labels,)`): Tokens; -100 is left alone.
        config ([`IdentifierT5Config`]): Where codes are in the vocabulary.

    Returns:
        `torch.Tensor`: Scores of the same shape, minus infinity where masked.
    """
    tokens = torch.arange(logits.shape[-1], device=logits.device)
    level = _levels(labels, config)[:, None]
    return logits.masked_fill((level >= 0) & (_levels(tokens, config) != level), float("-inf"))


def next_item_losses(
    scores: Tensor, codes: Tensor, wanted: Tensor, hidden: Tensor, heads: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Score items all at once, and teach what that says to a decoder that writes them code by code.

    Args:
        scores (`torch.Tensor` of shape `(num_targets, num_items)`): float32, of every item.
        codes (`torch.LongTensor` of shape `(num_items, num_levels)`): The items' identifiers.
        wanted (`torch.LongTensor` of shape `(num_targets, num_levels)`): The targets' identifiers.
        hidden (`torch.Tensor` of shape `(num_targets, num_levels, d_model)`): Decoder states before each code.
        heads (`list[torch.Tensor]`): Output embeddings of each level, `(codebook_size, d_model)`.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: float32 sums in nats. The negative log-likelihood of the targets among the
        items; and the cross-entropy of the decoder's codes, after the target's own prefix, with the distribution that
        the (detached) scores give them. Items that share an identifier count as one target.
    """
    likely = scores.detach().softmax(1)
    share = likely.new_zeros(len(scores), len(heads[0])).index_add_(1, codes[:, 0], likely)
    target, item = (codes[:, 0] == wanted[:, :1]).nonzero(as_tuple=True)  # pairs: items under the target's prefix
    taught = scores.new_zeros(())
    for level, head in enumerate(heads):
        if level:
            share = likely.new_zeros(len(scores), len(head))
            share = share.index_put_((target, codes[item, level]), likely[target, item], accumulate=True)
            # A prefix that the scores hold impossible teaches nothing.
            share = share / share.sum(1, keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)
            is_under = codes[item, level] == wanted[target, level]
            target, item = target[is_under], item[is_under]
        answered = nn.functional.linear(hidden[:, level], head).float().log_softmax(1)
        taught = taught - (share * answered).sum()
    # Items of one identifier have one score, so the identifier's probability is that of one times their number.
    count = torch.bincount(target, minlength=len(scores))
    own = scores.new_zeros(len(scores)).index_add(0, target, scores[target, item]) / count + count.log()
    return (scores.logsumexp(1) - own).sum(), taught


def view_contrast(first: Tensor, second: Tensor, temperature: float, users: Tensor | None = None) -> Tensor:
    """Bring two views of one history together and those of different users apart (GenSR, equation 10).

    Args:
        first (`torch.Tensor` of shape `(batch, d)`): One view of each history.
        second (`torch.Tensor` of shape `(batch, d)`): The other view of the same histories.
        temperature (`float`): Divides the cosines (tau).
        users (`torch.LongTensor` of shape `(batch,)`, *optional*): Rows of one user are not negatives of each other.

    Returns:
        `torch.Tensor`: A float32 number, the mean over rows; 0 without rows.
    """
    if not len(first):
        return first.sum().float()
    cosine = nn.functional.normalize(first.float(), dim=-1) @ nn.functional.normalize(second.float(), dim=-1).T
    logits = cosine / temperature
    if users is not None:
        is_self = torch.eye(len(users), dtype=torch.bool, device=users.device)
        logits = logits.masked_fill((users[:, None] == users) & ~is_self, float("-inf"))
    # The equation's denominator contains both directions, the pair itself twice.
    return (torch.cat([logits, logits.T], 1).logsumexp(1) - logits.diagonal()).mean()


def seen_items(item_rows: Tensor, allowed: Tensor, is_asked: Tensor) -> Tensor:
    """Return the items that some questions see.

    Args:
        item_rows (`torch.LongTensor`): Items of the tokens, `(batch, length)`; below 0 for none.
        allowed (`torch.BoolTensor`): What questions see, `(batch, num_questions, length)`.
        is_asked (`torch.BoolTensor`): The questions, `(batch, num_questions)`.

    Returns:
        `torch.LongTensor`: Of shape `(num_asked, length)`; below 0 for none.
    """
    return torch.where(allowed, item_rows[:, None], -1)[is_asked]


def unseen_items(seen: Tensor, num_items: int) -> Tensor:
    """Return which items questions do not see, bool `(num_questions, num_items)`; `seen` is of [`seen_items`]."""
    is_unseen = torch.ones(len(seen), num_items + 1, dtype=torch.bool, device=seen.device)
    # One column more, for no item.
    return is_unseen.scatter_(1, torch.where(seen < 0, num_items, seen), False)[:, :num_items]


def without_seen(rows: Tensor, seen: Tensor | None) -> Tensor:
    """Take out of each question's negatives, `(num_questions, num_negatives)`, what it sees; they become -1."""
    return rows if seen is None else rows.masked_fill((rows[..., None] == seen[:, None]).any(-1), -1)


def _levels(tokens: Tensor, config: IdentifierT5Config) -> Tensor:
    """Number of the block of codes each token belongs to, -1 for a token that is not a code."""
    first_code = config.first_identifier_token_id + 3
    end = config.first_identifier_token_id + config.num_identifier_tokens
    block = torch.div(tokens - first_code, config.codebook_size, rounding_mode="floor")
    return torch.where((tokens >= first_code) & (tokens < end), block, -1)


__all__ = [
    "level_loss",
    "mask_other_levels",
    "next_item_losses",
    "seen_items",
    "token_loss",
    "unseen_items",
    "view_contrast",
    "without_seen",
]
