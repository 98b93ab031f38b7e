"""Where `transformers` computes whole texts otherwise than token by token, or a row otherwise than alone, made to agree
with the latter.

Rotations that depend on the length of a text take the longest of a batch for all, and some remember the longest text
before. Here each row is rotated by its own, from a fresh state.

ProphetNet's predictors add relative scores that depend on the reader. For whole texts 5.24 gives each the scores of
another place, stream and head (it flattens places before heads, and reads heads before places); while it generates, one
token at a time, there is one place only, and all is well. Here it is called for one place at a time."""

from typing import Any

import torch
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.nllb_moe.modeling_nllb_moe import NllbMoeSparseMLP
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding
from transformers.models.phimoe.modeling_phimoe import PhimoeRotaryEmbedding
from transformers.models.prophetnet.modeling_prophetnet import ProphetNetNgramSelfAttention

_whole = ProphetNetNgramSelfAttention.get_predict_relative_pos_embeddings


def _by_place(
    self: torch.nn.Module, states: torch.Tensor, scores: torch.Tensor, positions: Any, buckets: Any
) -> torch.Tensor:
    """states [B, S, streams, d], scores [B, streams, H, S, T], buckets [B, S, T] -> [B, streams, H, S, T]"""
    if buckets is None:
        return _whole(self, states, scores, positions, buckets)
    places = [slice(i, i + 1) for i in range(states.shape[1])]
    found = [_whole(self, states[:, i], scores[..., i, :], positions, buckets[:, i]) for i in places]
    return torch.cat(found, dim=3)


def _row_by_row(rotate: Any) -> Any:
    def forward(self: torch.nn.Module, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = []
        for row in position_ids:
            self.inv_freq, self.max_seq_len_cached = self.original_inv_freq.clone(), self.original_max_seq_len
            found.append(rotate(self, x, row[None]))
        return tuple(torch.cat(part) for part in zip(*found, strict=True))

    return forward


def _two_choices(self: torch.nn.Module, states: torch.Tensor, padding_mask: torch.Tensor | None = None) -> torch.Tensor:
    """states [B, S, d]"""
    _, weights, _ = self.router(states.reshape(-1, states.shape[-1]), padding_mask)  # [B * S, experts]
    kept = 1 - self.experts.moe_token_dropout
    found = [
        self.experts[f"expert_{i}"](states.reshape(-1, states.shape[-1])) * weights[:, i, None] * kept
        for i in range(self.num_experts)
    ]
    return torch.stack(found).sum(0).reshape(states.shape)


def mend() -> None:
    for rotary in (LlamaRotaryEmbedding, Phi3RotaryEmbedding, PhimoeRotaryEmbedding):
        rotary.forward = _row_by_row(rotary.forward)
    ProphetNetNgramSelfAttention.get_predict_relative_pos_embeddings = _by_place
    NllbMoeSparseMLP.forward = _two_choices
