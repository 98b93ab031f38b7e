"""Where `transformers` computes whole texts otherwise than token by token, made to agree with the latter.

ProphetNet's predictors add relative scores that depend on the reader. For whole texts 5.24 gives each the scores of
another place, stream and head (it flattens places before heads, and reads heads before places); while it generates, one
token at a time, there is one place only, and all is well. Here it is called for one place at a time."""

from typing import Any

import torch
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


def mend() -> None:
    ProphetNetNgramSelfAttention.get_predict_relative_pos_embeddings = _by_place
