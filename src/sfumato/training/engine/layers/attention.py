"""nn.MultiheadAttention, taken apart into the linear layers that it is made of."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sfumato.training.engine.table import handles
from sfumato.training.engine.tape import Tape

SIGNATURE = inspect.signature(F.multi_head_attention_forward)


@handles(F.multi_head_attention_forward)
def attention(tape: Tape, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """Record attention; queries, keys and values are (T, B, d), as PyTorch hands them over."""
    given = SIGNATURE.bind(*args, **kwargs)
    given.apply_defaults()
    how = SimpleNamespace(**given.arguments)
    named = (
        how.in_proj_weight,
        how.in_proj_bias,
        how.out_proj_weight,
        how.out_proj_bias,
        how.q_proj_weight,
        how.bias_k,
        how.bias_v,
    )
    found = [source for source in map(tape.source, named) if source]
    if (
        how.bias_k is not None
        or how.bias_v is not None
        or how.add_zero_attn
        or how.static_k is not None
        or how.query.dim() != 3
    ):
        raise tape.refuse(
            found, "attention with add_bias_kv, add_zero_attn or without a batch cannot be bounded per image"
        )
    with tape:
        if how.use_separate_proj_weight:
            weights = [how.q_proj_weight, how.k_proj_weight, how.v_proj_weight]
        elif how.query is how.key and how.key is how.value:
            weights = []
        else:
            assert how.in_proj_weight is not None
            weights = list(how.in_proj_weight.chunk(3))
        q_in, k_in, v_in = (part.transpose(0, 1) for part in (how.query, how.key, how.value))
        if not weights:
            assert how.in_proj_weight is not None
            q, k, v = F.linear(q_in, how.in_proj_weight, how.in_proj_bias).chunk(3, -1)
        else:
            biases = [None] * 3 if how.in_proj_bias is None else list(how.in_proj_bias.chunk(3))
            q, k, v = (F.linear(x, w, b) for x, w, b in zip((q_in, k_in, v_in), weights, biases, strict=True))
        q, k, v = (part.reshape(*part.shape[:2], how.num_heads, -1).transpose(1, 2) for part in (q, k, v))
        mask = merged(how.attn_mask, how.key_padding_mask, q, how.num_heads)
        rate = how.dropout_p if how.training else 0.0
        weights_out = None
        if how.need_weights:
            scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
            scores = (scores if mask is None else scores + mask).softmax(-1)
            scores = F.dropout(scores, rate) if rate else scores
            out = scores @ v
            weights_out = scores.mean(1) if how.average_attn_weights else scores
        else:
            out = F.scaled_dot_product_attention(q, k, v, mask, rate)
        out = F.linear(out.transpose(1, 2).flatten(2), how.out_proj_weight, how.out_proj_bias)
        return out.transpose(0, 1), weights_out


def merged(attn_mask: Tensor | None, padding: Tensor | None, q: Tensor, heads: int) -> Tensor | None:
    """Return one mask to be added to the scores, (B or 1, heads or 1, T, S)."""
    parts = []
    if attn_mask is not None:
        parts.append(additive(attn_mask, q.dtype))
        if attn_mask.dim() == 3:
            parts[0] = parts[0].reshape(-1, heads, *attn_mask.shape[1:])
    if padding is not None:
        parts.append(additive(padding, q.dtype)[:, None, None, :])
    return sum(parts[1:], parts[0]) if parts else None


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a mask as numbers that are added to scores."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask, float("-inf"))
