"""Jet-Nemotron-2B as a user of PyTorch and flash-linear-attention would write it (docs/blocks.md 2, 3 and 10).

JetBlock is put together as in NVIDIA's module: fla's chunked gated delta rule with its L2 norm inside, fla's gated
norm, gates in eager PyTorch, the taps of the dynamic convolution in memory. Around it fla's norms with the residual
inside, its SwiGLU, rotary embedding and losses that never hold all logits; full attention by cuDNN, windowed attention
by the FlashAttention-2 kernels in PyTorch, which know windows. Weights are random."""
import math

import torch
import triton
import triton.language as tl
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.varlen import varlen_attn

from fla.modules import FusedRMSNormGated, GatedMLP, RMSNorm, RotaryEmbedding
from fla.ops.gated_delta_rule import chunk_gated_delta_rule

HIDDEN, INTERMEDIATE, VOCAB, LAYERS, EPS = 1536, 8960, 151936, 28, 1e-6
HEADS, KV_HEADS, HEAD_DIM, THETA = 12, 2, 128, 1e6
FULL, WINDOWED, WINDOW = (14, 19), (20, 21), 1152
JET_HEADS, DK, DV, WIDTH, REDUCTION, JET_EPS = 12, 96, 256, 4, 8, 1e-5


# ---- dynamic convolution: y_t[c] = sum_w taps_t[c][w] x_{t-(W-1)+w}[c] ----

@triton.jit
def conv_forward(x, taps, y, T, C, W: tl.constexpr, BLOCK: tl.constexpr):
    row, first = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK
    i = tl.arange(0, BLOCK * W)
    c, back = first + i // W, W - 1 - i % W
    k = tl.load(taps + (row * C + first) * W + i, mask=c < C, other=0).to(tl.float32)
    v = tl.load(x + (row - back) * C + c, mask=(c < C) & (row % T >= back), other=0).to(tl.float32)
    o = first + tl.arange(0, BLOCK)
    tl.store(y + row * C + o, tl.sum(tl.reshape(k * v, (BLOCK, W)), axis=1), mask=o < C)


@triton.jit
def conv_backward(x, taps, dy, dx, dtaps, T, C, W: tl.constexpr, BLOCK: tl.constexpr):
    row, first = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK
    i = tl.arange(0, BLOCK * W)
    c, back = first + i // W, W - 1 - i % W
    v = tl.load(x + (row - back) * C + c, mask=(c < C) & (row % T >= back), other=0).to(tl.float32)
    d = tl.load(dy + row * C + c, mask=c < C, other=0).to(tl.float32)
    tl.store(dtaps + (row * C + first) * W + i, d * v, mask=c < C)
    later = (c < C) & (row % T + back < T)  # the tokens that read this one
    k = tl.load(taps + (row + back) * C * W + first * W + i, mask=later, other=0).to(tl.float32)
    d = tl.load(dy + (row + back) * C + c, mask=later, other=0).to(tl.float32)
    o = first + tl.arange(0, BLOCK)
    tl.store(dx + row * C + o, tl.sum(tl.reshape(k * d, (BLOCK, W)), axis=1), mask=o < C)


class DynamicConv(torch.autograd.Function):
    """x [B, T, C], taps [B, T, C * W]."""
    BLOCK = 512

    @staticmethod
    def grid(x):
        return x.shape[0] * x.shape[1], triton.cdiv(x.shape[2], DynamicConv.BLOCK)

    @staticmethod
    def forward(ctx, x, taps):
        ctx.save_for_backward(x, taps)
        y = torch.empty_like(x)
        conv_forward[DynamicConv.grid(x)](x, taps, y, x.shape[1], x.shape[2], WIDTH, DynamicConv.BLOCK)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, taps = ctx.saved_tensors
        dx, dtaps = torch.empty_like(x), torch.empty_like(taps)
        conv_backward[DynamicConv.grid(x)](x, taps, dy.contiguous(), dx, dtaps, x.shape[1], x.shape[2], WIDTH,
                                           DynamicConv.BLOCK)
        return dx, dtaps


# ---- token mixers: x [B, T, HIDDEN] to the same ----

class JetBlock(nn.Module):
    def __init__(self):
        super().__init__()
        keys, values = JET_HEADS * DK, JET_HEADS * DV
        self.q_proj, self.k_proj = (nn.Linear(HIDDEN, keys, bias=False) for _ in range(2))
        self.v_proj, self.g_proj = (nn.Linear(HIDDEN, values, bias=False) for _ in range(2))
        self.b_proj, self.a_proj = (nn.Linear(HIDDEN, JET_HEADS, bias=False) for _ in range(2))
        self.A_log = nn.Parameter(torch.empty(JET_HEADS).uniform_(1, 16).log())
        step = torch.exp(torch.rand(JET_HEADS) * math.log(100) + math.log(0.001))
        self.dt_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))
        self.w1 = nn.Linear(HIDDEN, values // REDUCTION, bias=False)
        self.w2 = nn.Linear(values // REDUCTION, values * WIDTH)
        self.o_norm = FusedRMSNormGated(DV, eps=JET_EPS)
        self.o_proj = nn.Linear(values, HIDDEN, bias=False)

    def forward(self, x):
        heads = lambda y: y.unflatten(-1, (JET_HEADS, -1))
        q, k = F.silu(self.q_proj(x)), F.silu(self.k_proj(x))
        v = F.silu(DynamicConv.apply(self.v_proj(x), self.w2(F.silu(self.w1(x)))))
        g = -self.A_log.exp() * F.softplus(self.a_proj(x).float() + self.dt_bias)
        o, _ = chunk_gated_delta_rule(heads(q), heads(k), heads(v), g, self.b_proj(x).sigmoid(),
                                      use_qk_l2norm_in_kernel=True)
        return self.o_proj(self.o_norm(o, heads(self.g_proj(x))).flatten(-2))


def cudnn_attention(q, k, v):
    """Causal; [B, heads, T, d], fewer heads in k and v."""
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def windowed_attention(q, k, v, window):
    """Causal, the last `window` keys; [B, T, heads, d], fewer heads in k and v."""
    B, T = q.shape[:2]
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    starts = torch.arange(0, (B + 1) * T, T, dtype=torch.int32, device=q.device)
    return varlen_attn(q, k, v, starts, starts, T, T, window_size=(window - 1, 0)).unflatten(0, (B, T))


class Attention(nn.Module):
    def __init__(self, window=None):
        super().__init__()
        self.window = window
        self.q_proj = nn.Linear(HIDDEN, HEADS * HEAD_DIM)
        self.k_proj, self.v_proj = (nn.Linear(HIDDEN, KV_HEADS * HEAD_DIM) for _ in range(2))
        self.o_proj = nn.Linear(HEADS * HEAD_DIM, HIDDEN, bias=False)
        self.rotary = RotaryEmbedding(HEAD_DIM, base=THETA)

    def forward(self, x):
        heads = lambda y: y.unflatten(-1, (-1, HEAD_DIM))
        q, k = self.rotary(heads(self.q_proj(x)), heads(self.k_proj(x)))
        v = heads(self.v_proj(x))
        if self.window:
            o = windowed_attention(q, k, v, self.window)
        else:
            o = cudnn_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)
        return self.o_proj(o.flatten(-2))


# ---- the model ----

class Layer(nn.Module):
    def __init__(self, mixer, like=None):
        super().__init__()
        self.mixer = mixer
        self.norm1, self.norm2 = (like.norm1, like.norm2) if like else (RMSNorm(HIDDEN, eps=EPS) for _ in range(2))
        self.mlp = like.mlp if like else GatedMLP(HIDDEN, intermediate_size=INTERMEDIATE)

    def forward(self, added, h):
        """What the last layer adds to the residual stream h; the same of this one, and what its mixer gave."""
        x, h = self.norm1(added, residual=h, prenorm=True)
        y = self.mixer(x)
        x, h = self.norm2(y, residual=h, prenorm=True)
        return self.mlp(x), h, y


class Model(nn.Module):
    """The hybrid; with `like`, a teacher of full attention that shares everything else with that model."""

    def __init__(self, like=None):
        super().__init__()
        self.embed = like.embed if like else nn.Embedding(VOCAB, HIDDEN)
        self.norm = like.norm if like else RMSNorm(HIDDEN, eps=EPS)
        mixer = lambda l: Attention(None if l in FULL else WINDOW) if l in FULL + WINDOWED else JetBlock()
        self.layers = nn.ModuleList(Layer(Attention(), like.layers[l]) if like else Layer(mixer(l))
                                    for l in range(LAYERS))

    def forward(self, ids):
        """ids [B, T] to hidden states before the head, and the mixers' outputs."""
        added, h, outputs = self.embed(ids), None, []
        for layer in self.layers:
            added, h, y = layer(added, h)
            outputs.append(y)
        return self.norm(added, residual=h), outputs


@torch.no_grad()
def ready(module):
    """Random values; BF16, but the two vectors of JetBlock's decay."""
    for name, p in module.named_parameters():
        if p.dim() > 1:
            p.normal_(std=0.02)
        if not name.endswith(("A_log", "dt_bias")):
            p.data = p.data.bfloat16()
    return module


def feature_loss(y, target):
    """The error of y as a share of its target's variance (kernels/feature_loss)."""
    y, target = y.float().flatten(0, 1), target.float().flatten(0, 1)
    return (y - target).square().sum() / (target - target.mean(0)).square().sum()
