"""nn.MultiheadAttention, taken apart into the linear layers that it is made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sfumato.training.engine.table import handles
from sfumato.training.engine.tape import Tape


@handles(F.multi_head_attention_forward)
def attention(
    tape: Tape,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Record attention; queries, keys and values are (T, B, d), as PyTorch hands them over."""
    named = (in_proj_weight, in_proj_bias, out_proj_weight, out_proj_bias, q_proj_weight, bias_k, bias_v)
    found = [source for source in map(tape.source, named) if source]
    if bias_k is not None or bias_v is not None or add_zero_attn or static_k is not None or query.dim() != 3:
        raise tape.refuse(
            found, "attention with add_bias_kv, add_zero_attn or without a batch cannot be bounded per image"
        )
    with tape:
        if use_separate_proj_weight:
            weights = [q_proj_weight, k_proj_weight, v_proj_weight]
        elif query is key and key is value:
            weights = []
        else:
            assert in_proj_weight is not None
            weights = list(in_proj_weight.chunk(3))
        q_in, k_in, v_in = (part.transpose(0, 1) for part in (query, key, value))
        if not weights:
            assert in_proj_weight is not None
            q, k, v = F.linear(q_in, in_proj_weight, in_proj_bias).chunk(3, -1)
        else:
            biases = [None] * 3 if in_proj_bias is None else list(in_proj_bias.chunk(3))
            q, k, v = (
                F.linear(x, w, b)  # type: ignore[arg-type]
                for x, w, b in zip((q_in, k_in, v_in), weights, biases, strict=True)
            )
        q, k, v = (part.reshape(*part.shape[:2], num_heads, -1).transpose(1, 2) for part in (q, k, v))
        mask = merged(attn_mask, key_padding_mask, q, num_heads)
        rate = dropout_p if training else 0.0
        weights_out = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
            scores = (scores if mask is None else scores + mask).softmax(-1)
            scores = F.dropout(scores, rate) if rate else scores
            out = scores @ v
            weights_out = scores.mean(1) if average_attn_weights else scores
        else:
            out = F.scaled_dot_product_attention(q, k, v, mask, rate)
        out = F.linear(out.transpose(1, 2).flatten(2), out_proj_weight, out_proj_bias)
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
