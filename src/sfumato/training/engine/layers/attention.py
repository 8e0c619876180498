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

#: What torch calls it with: 24 arguments, most of them by name.
_SIGNATURE = inspect.signature(F.multi_head_attention_forward)


@handles(F.multi_head_attention_forward)
def attention(tape: Tape, *given: Any, **named: Any) -> tuple[Tensor, Tensor | None]:
    """Record attention; queries, keys and values are (T, B, d), as PyTorch hands them over."""
    bound = _SIGNATURE.bind(*given, **named)
    bound.apply_defaults()
    return _attention(tape, SimpleNamespace(**bound.arguments))


def _attention(tape: Tape, a: SimpleNamespace) -> tuple[Tensor, Tensor | None]:
    named = (
        a.in_proj_weight,
        a.in_proj_bias,
        a.out_proj_weight,
        a.out_proj_bias,
        a.q_proj_weight,
        a.bias_k,
        a.bias_v,
    )
    found = [source for source in map(tape.source, named) if source]
    if (
        a.bias_k is not None
        or a.bias_v is not None
        or a.add_zero_attn
        or a.static_k is not None
        or a.query.dim() != 3
    ):
        raise tape.refuse(
            found,
            "attention with add_bias_kv, add_zero_attn or without a batch cannot be bounded per image",
        )
    with tape:
        if a.use_separate_proj_weight:
            weights = [a.q_proj_weight, a.k_proj_weight, a.v_proj_weight]
        elif a.query is a.key and a.key is a.value:
            weights = []
        else:
            assert a.in_proj_weight is not None
            weights = list(a.in_proj_weight.chunk(3))
        q_in, k_in, v_in = (part.transpose(0, 1) for part in (a.query, a.key, a.value))
        if not weights:
            assert a.in_proj_weight is not None
            q, k, v = F.linear(q_in, a.in_proj_weight, a.in_proj_bias).chunk(3, -1)
        else:
            biases = [None] * 3 if a.in_proj_bias is None else list(a.in_proj_bias.chunk(3))
            q, k, v = (F.linear(x, w, b) for x, w, b in zip((q_in, k_in, v_in), weights, biases, strict=True))
        q, k, v = (part.reshape(*part.shape[:2], a.num_heads, -1).transpose(1, 2) for part in (q, k, v))
        mask = merged(a.attn_mask, a.key_padding_mask, q, a.num_heads)
        rate = a.dropout_p if a.training else 0.0
        weights_out = None
        if a.need_weights:
            scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
            scores = (scores if mask is None else scores + mask).softmax(-1)
            scores = F.dropout(scores, rate) if rate else scores
            out = scores @ v
            weights_out = scores.mean(1) if a.average_attn_weights else scores
        else:
            out = F.scaled_dot_product_attention(q, k, v, mask, rate)
        out = F.linear(out.transpose(1, 2).flatten(2), a.out_proj_weight, a.out_proj_bias)
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
