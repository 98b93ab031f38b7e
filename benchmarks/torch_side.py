"""The other side of `make bench`, in an environment of its own: a plain GPT in PyTorch as nanoGPT writes it, and
`generate` of transformers. Answers the requests of `benchmarks.against_torch` (see `benchmarks.protocol`)."""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))  # this environment does not know the project
from protocol import DECODE, MATMUL, SHAPES, Shape, serve


class Block(nn.Module):
    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class GPT(nn.Module):
    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(s.vocab, s.d), nn.Embedding(s.length, s.d)
        self.blocks = nn.Sequential(*(Block(s.d, s.heads) for _ in range(s.layers)))
        self.norm = nn.LayerNorm(s.d)
        self.head = nn.Linear(s.d, s.vocab, bias=False)
        self.apply(self._init)
        self.head.weight = self.token.weight

    @staticmethod
    def _init(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        x = self.token(ids) + self.position(torch.arange(ids.shape[1]))
        logits = self.head(self.norm(self.blocks(x)))
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def training(shape: str, bfloat16: bool, compiled: bool) -> Callable[[], object]:
    s = SHAPES[shape]
    torch.manual_seed(0)
    model = GPT(s)
    loss_of = torch.compile(model) if compiled else model
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)
    data = torch.randint(s.vocab, (s.rows, s.length + 1))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = loss_of(data[:, :-1], data[:, 1:])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()

    return step


def decoding(shape: str, rows: int) -> Callable[[], object]:
    from transformers import GPT2Config, GPT2LMHeadModel

    s = SHAPES[shape]
    config = GPT2Config(
        vocab_size=s.vocab, n_positions=s.length, n_embd=s.d, n_layer=s.layers, n_head=s.heads,
        bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    prompt = torch.randint(1, s.vocab, (rows, DECODE.prompt))

    @torch.no_grad()
    def step() -> None:
        out = model.generate(prompt, max_new_tokens=DECODE.new, min_new_tokens=DECODE.new, do_sample=False)
        assert out.shape == (rows, DECODE.prompt + DECODE.new)

    return step


def matmul(n: int = MATMUL) -> Callable[[], object]:
    a, b = torch.randn(2, n, n)
    return lambda: torch.mm(a, b)


MAKERS = {
    f"torch {'compile' if c else 'eager'} {'bfloat16' if b else 'float32'}": lambda shape, b=b, c=c: training(
        shape, b, c
    )
    for b in (False, True)
    for c in (False, True)
}
MAKERS |= {f"transformers generate, batch {n}": lambda shape, n=n: decoding(shape, n) for n in DECODE.rows}
MAKERS |= {"torch float32 matmul": lambda shape: matmul()}

if __name__ == "__main__":
    torch.set_num_threads(2)
    serve(MAKERS)
