#!/usr/bin/env python3
"""Small hybrids as flash-linear-attention writes them, with the logits that must come out: tests/data/golden/fla_*.

    pip install flash-linear-attention==0.6.0 torch transformers
    tests/io/fla_golden.py             writes the four directories again

Model classes, layers, configs and files are fla's own. Its kernels need a GPU, so that the primitives below them (norms,
convolutions, rotary positions, softmax attention, the recurrences) are replaced by their definitions in plain PyTorch,
one token at a time and in float64: docs/blocks.md 1.4 to 1.6, 3.2, 5.3 and 8.3.
"""
import importlib.machinery
import pathlib
import sys
import types

import torch
import torch.nn.functional as F


def attention(q, k, v, causal=True, window_size=(-1, -1)):
    T, shared = q.shape[1], q.shape[2] // k.shape[2]
    k, v = (x.repeat_interleave(shared, 2) for x in (k, v))
    back = torch.arange(T)[:, None] - torch.arange(T)[None]
    hidden = (back < 0) | ((back > window_size[0]) if window_size[0] >= 0 else False)
    score = torch.einsum("bihd,bjhd->bhij", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("bhij,bjhd->bihd", score.masked_fill(hidden, float("-inf")).softmax(-1), v)


flash = types.ModuleType("flash_attn")
flash.__spec__ = importlib.machinery.ModuleSpec("flash_attn", None)
flash.__version__ = "2.7.0"
flash.flash_attn_func = attention
flash.flash_attn_varlen_func = None
sys.modules["flash_attn"] = flash

from fla.layers import delta_net, gated_deltanet, gla, multiscale_retention  # noqa: E402
from fla.models import (  # noqa: E402
    DeltaNetConfig,
    DeltaNetForCausalLM,
    GatedDeltaNetConfig,
    GatedDeltaNetForCausalLM,
    GLAConfig,
    GLAForCausalLM,
    RetNetConfig,
    RetNetForCausalLM,
)
from fla.modules import FusedRMSNormGated, RMSNorm, ShortConvolution, mlp  # noqa: E402
from fla.modules.rotary import RotaryEmbedding  # noqa: E402
from safetensors.torch import save_file  # noqa: E402


def rms(x, w, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * w


def norm(self, x, residual=None, prenorm=False):
    x = x if residual is None else x + residual
    y = rms(x, self.weight, self.eps)
    return (y, x) if prenorm else y


def convolution(self, x, **_):
    y = F.conv1d(x.mT, self.weight, self.bias, padding=self.kernel_size[0] - 1, groups=x.shape[-1])
    y = y[..., : x.shape[1]].mT
    return (F.silu(y) if self.activation else y), None


def rotate(self, q, k, **_):
    half = self.dim // 2
    turns = self.base ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.outer(torch.arange(q.shape[1], dtype=torch.float64), turns)[None, :, None]
    cos, sin = angle.cos(), angle.sin()

    def turned(x):
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    return turned(q), turned(k)


def unit(x):
    return x / torch.sqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def recurrence(q, k, v, g, beta=None):
    """g: log decays of channels, or of heads with a last dimension of 1; beta: the delta rule."""
    state = torch.zeros(*k.shape[:1], *k.shape[2:], v.shape[-1], dtype=v.dtype)
    out = []
    for t in range(q.shape[1]):
        state = state * g[:, t].exp()[..., None]
        write = v[:, t]
        if beta is not None:
            write = beta[:, t, :, None] * (write - torch.einsum("bhkv,bhk->bhv", state, k[:, t]))
        state = state + k[:, t, ..., None] * write[..., None, :]
        out.append(torch.einsum("bhkv,bhk->bhv", state, q[:, t]) * q.shape[-1] ** -0.5)
    return torch.stack(out, 1), None


def run_gla(q, k, v, gk=None, g=None, **_):
    return recurrence(q, k, v, g if gk is None else gk)


def run_retention(q, k, v, **_):
    decay = torch.log1p(-(2.0 ** (-5 - torch.arange(q.shape[2], dtype=q.dtype))))
    return recurrence(q, k, v, decay[None, None, :, None].expand(*q.shape[:3], 1))


def run_delta(q, k, v, beta, **_):
    return recurrence(unit(q), unit(k), v, torch.zeros_like(beta)[..., None], beta)


def run_gated_delta(q, k, v, g, beta, A_log, dt_bias, allow_neg_eigval=False, **_):
    q, k = (unit(x).repeat_interleave(v.shape[2] // x.shape[2], 2) for x in (q, k))
    beta = beta.sigmoid() * (2 if allow_neg_eigval else 1)
    return recurrence(q, k, v, (-A_log.exp() * F.softplus(g + dt_bias))[..., None], beta)


RMSNorm.forward = norm
FusedRMSNormGated.forward = lambda self, x, g: rms(x, self.weight, self.eps) * F.silu(g)
ShortConvolution.forward = convolution
RotaryEmbedding.forward = rotate
mlp.swiglu_linear = lambda gate, up, weight, bias: F.linear(F.silu(gate) * up, weight, bias)
gated_deltanet.GatedDeltaNet._use_fused_qkv_conv = lambda *_, **__: False
gla.chunk_gla = gla.fused_recurrent_gla = run_gla
multiscale_retention.chunk_retention = multiscale_retention.fused_recurrent_retention = run_retention
delta_net.chunk_delta_rule = delta_net.fused_recurrent_delta_rule = run_delta
gated_deltanet.chunk_gated_delta_rule = gated_deltanet.fused_recurrent_gated_delta_rule = run_gated_delta

SAME = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=4, vocab_size=64, max_position_embeddings=128)
FULL = dict(layers=[1], num_heads=2, num_kv_heads=1, qkv_bias=True, rope_theta=1e5)
WINDOW = dict(FULL, layers=[3], window_size=5)
MODELS = {
    "retnet": (RetNetForCausalLM, RetNetConfig(num_heads=2, attn=FULL, **SAME)),
    "gla": (
        GLAForCausalLM,
        GLAConfig(num_heads=4, num_kv_heads=2, use_short_conv=True, clamp_min=-0.15, attn=[FULL, WINDOW], **SAME),
    ),
    "delta_net": (
        DeltaNetForCausalLM,
        DeltaNetConfig(num_heads=2, use_gate=True, attn=dict(WINDOW, qkv_bias=False), tie_word_embeddings=True, **SAME),
    ),
    "gated_deltanet": (
        GatedDeltaNetForCausalLM,
        GatedDeltaNetConfig(num_heads=2, num_v_heads=4, head_dim=12, allow_neg_eigval=True, attn=[FULL, WINDOW], **SAME),
    ),
}

for name, (model_class, config) in MODELS.items():
    torch.manual_seed(len(name))
    model = model_class(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.2 * torch.randn_like(weight)
        model.to(torch.bfloat16)
        directory = pathlib.Path(__file__).parent.parent / "data/golden" / f"fla_{name}"
        model.save_pretrained(directory)
        ids = torch.randint(0, config.vocab_size, (2, 70))
        logits = model.to(torch.float64)(ids, use_cache=False).logits
    save_file({"input_ids": ids, "logits": logits.float().contiguous()}, directory / "expected_outputs.safetensors")
    print(directory, float(logits.std()))
