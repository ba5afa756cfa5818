#!/usr/bin/env python3
"""The Python side of compare.py: PyTorch and flash-linear-attention, one line of JSON on standard output per result.

    stack.py [--repeat N] [--untuned] ROW...

Random data throughout. Rows share what Triton compiles and tunes for them, so one process runs them all; `start` comes
first, from an empty Triton cache, and is stamped by who reads it."""
import argparse
import gc
import json

import torch

B, T, DEV, BF16 = 8, 4096, "cuda", torch.bfloat16


def emit(row, **what):
    print(json.dumps({"row": row, **what}), flush=True)


def event_seconds(run, repeat, least=4e-3):
    """Seconds of `repeat` samples, each the mean of as many calls as fill `least`."""
    def sample(calls):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / calls

    sample(1)
    calls = max(1, round(least / sample(1)))
    sample(calls)
    return [sample(calls) for _ in range(repeat)]


def step_seconds(run, repeat):
    """Of steps that follow one another without waiting for the GPU, from the end of one to that of the next."""
    ends = [torch.cuda.Event(enable_timing=True) for _ in range(repeat + 1)]
    for at, end in enumerate(ends):
        if at:
            run()
        end.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) / 1e3 for begin, end in zip(ends, ends[1:])]


# ---- fla's refusal of its gated backward on Hopper with Triton 3.4 to 3.7.0 (its issue 640) ----

def take_the_check_out():
    """chunk_bwd_dqkwg asks its module which Triton this is. No kernel and no setting depends on the answer."""
    from fla.ops.common import chunk_o
    chunk_o.TRITON_ABOVE_3_7_1 = True


class Refusal:
    said, cleared = None, False

    def around(self, run):
        """run(); where it refuses, after the check is taken out; where memory is left in pieces, once more."""
        while True:
            try:
                return run()
            except torch.OutOfMemoryError:
                if self.cleared:
                    raise
                self.cleared = True
            except RuntimeError as error:
                if self.said or "on Hopper" not in str(error):
                    raise
                self.said = str(error)
                take_the_check_out()
            gc.collect()
            torch.cuda.empty_cache()


refusal = Refusal()


# ---- the whole model ----

class Whole:
    def __init__(self):
        import hybrid
        self.hybrid = hybrid
        torch.manual_seed(1)
        with torch.device(DEV):
            self.model = hybrid.ready(hybrid.Model())
            self.ids = torch.randint(hybrid.VOCAB, (4, T))
        self.targets = self.ids.roll(-1, 1)
        self.teacher = None
        self.train(self.model.parameters())
        torch.cuda.empty_cache()

    def train(self, parameters):
        self.trained = list(parameters)
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-5, betas=(0.9, 0.95), weight_decay=0.01, fused=True)

    def finish(self, loss):
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def step(self):
        from fla.modules import FusedLinearCrossEntropyLoss
        self.optimizer.zero_grad()
        hidden, _ = self.model(self.ids)
        return self.finish(FusedLinearCrossEntropyLoss()(hidden, self.targets, self.model.embed.weight))

    def stage1(self):
        from fla.modules import FusedKLDivLoss
        self.optimizer.zero_grad()
        with torch.no_grad():
            hidden_t, outputs_t = self.teacher(self.ids)
        hidden, outputs = self.model(self.ids)
        head = self.model.embed.weight
        kl = FusedKLDivLoss()(hidden.flatten(0, 1), hidden_t.flatten(0, 1), head, head)
        feature = sum(map(self.hybrid.feature_loss, outputs, outputs_t)) / len(outputs)
        return self.finish(kl + feature)

    def freeze(self):
        """All but the mixers, and a teacher beside it."""
        self.optimizer = self.trained = None
        for name, p in self.model.named_parameters():
            p.requires_grad_(".mixer." in name)
            p.grad = None
        self.train(p for p in self.model.parameters() if p.requires_grad)
        with torch.device(DEV):
            self.teacher = self.hybrid.Model(like=self.model)
            for layer in self.teacher.layers:
                self.hybrid.ready(layer.mixer).requires_grad_(False)

    @torch.no_grad()
    def prompt(self, ids):
        """Logits of the last token."""
        hidden, _ = self.model(ids)
        return torch.nn.functional.linear(hidden[:, -1], self.model.embed.weight)


def measured_steps(run, tokens, repeat):
    """A step that compiles what is left, then the rest with memory counted anew."""
    refusal.around(run)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    run()
    losses = []
    times = step_seconds(lambda: losses.append(run()), repeat)
    free, total = torch.cuda.mem_get_info()
    return {"seconds": times, "tokens": tokens, "loss": losses[-1].item(), "refused": refusal.said,
            "gpu_bytes": total - free, "allocated_bytes": torch.cuda.max_memory_allocated()}


def whole_rows(rows, repeat):
    whole, steps = Whole(), min(repeat, 5)
    if "start" in rows:
        loss = refusal.around(whole.step).item()
        torch.cuda.synchronize()
        emit("start", loss=loss, refused=refusal.said, parameters=sum(p.numel() for p in whole.model.parameters()))
    if "step" in rows:
        emit("step", **measured_steps(whole.step, whole.ids.numel(), steps))
    if "stage1" in rows:
        whole.freeze()
        emit("stage1", **measured_steps(whole.stage1, whole.ids.numel(), steps))
    if "prompt" in rows:
        whole.teacher = whole.optimizer = None
        for p in whole.model.parameters():
            p.grad = None
        torch.cuda.empty_cache()
        both = {}
        for n in (1, 4):
            ids = whole.ids[:n]
            both[n] = {"seconds": event_seconds(lambda: whole.prompt(ids), repeat), "tokens": ids.numel()}
        best = max(both, key=lambda n: both[n]["tokens"] / sorted(both[n]["seconds"])[repeat // 2])
        emit("prompt", **both[best], prompts=best, all=both)


# ---- single parts ----

def layer_rows(repeat):
    import hybrid
    torch.manual_seed(2)
    with torch.device(DEV):
        block = hybrid.ready(hybrid.JetBlock())
        x = torch.randn(B, T, hybrid.HIDDEN).to(BF16).requires_grad_()
        dy = torch.randn(B, T, hybrid.HIDDEN).to(BF16)

    def both():
        block(x).backward(dy)
        x.grad = None
        for p in block.parameters():
            p.grad = None

    refusal.around(both)
    emit("layer", seconds=event_seconds(both, repeat), refused=refusal.said)


def delta_inputs(b, t, grad):
    torch.manual_seed(3)
    with torch.device(DEV):
        q, k = (torch.nn.functional.normalize(torch.randn(b, t, 12, 96), dim=-1).to(BF16) for _ in range(2))
        v, beta, g = torch.randn(b, t, 12, 256).to(BF16), torch.rand(b, t, 12).to(BF16), -0.1 * torch.rand(b, t, 12)
    return [x.requires_grad_(grad) for x in (q, k, v, g, beta)]


def delta_forward(repeat):
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule
    x = delta_inputs(B, T, False)
    emit("delta-forward", seconds=event_seconds(lambda: chunk_gated_delta_rule(*x), repeat))


def delta_both(repeat):
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule
    x = delta_inputs(B, T, True)
    do = torch.randn_like(x[2])

    def both():
        chunk_gated_delta_rule(*x)[0].backward(do)
        for leaf in x:
            leaf.grad = None

    refusal.around(both)
    emit("delta-both", seconds=event_seconds(both, repeat), refused=refusal.said)
    emit("delta-both", errors=delta_errors())


def delta_errors():
    """|dx - dx of the recurrence in F64| / |dx of it| for dq, dk, dv, dg and dbeta, on a short case."""
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule
    x = delta_inputs(2, 192, True)
    do = torch.randn_like(x[2])
    chunk_gated_delta_rule(*x)[0].backward(do)
    exact = [leaf.detach().double().requires_grad_() for leaf in x]
    q, k, v, g, beta = exact
    state, loss = torch.zeros(2, 12, 96, 256, device=DEV, dtype=torch.double), 0
    for t in range(q.shape[1]):  # docs/blocks.md 8.3
        state = g[:, t].exp()[..., None, None] * state
        u = beta[:, t, :, None] * (v[:, t] - torch.einsum("bhkv,bhk->bhv", state, k[:, t]))
        state = state + k[:, t, :, :, None] * u[:, :, None]
        loss = loss + (torch.einsum("bhkv,bhk->bhv", state, q[:, t]) * 96 ** -0.5 * do[:, t]).sum()
    loss.backward()
    return {name: error(a.grad, e.grad) for name, a, e in zip(("dq", "dk", "dv", "dg", "dbeta"), x, exact)}


@torch.no_grad()
def delta_step(repeat):
    from fla.ops.gated_delta_rule import fused_recurrent_gated_delta_rule
    q, k, v, g, beta = delta_inputs(128, 1, False)
    state = torch.randn(128, 12, 96, 256, device=DEV)
    run = lambda: fused_recurrent_gated_delta_rule(q, k, v, g, beta=beta, initial_state=state, output_final_state=True)
    emit("delta-step", seconds=event_seconds(run, repeat))


def attention(repeat):
    import hybrid
    torch.manual_seed(4)
    with torch.device(DEV):
        q, do = (torch.randn(B, 12, T, 128, dtype=BF16) for _ in range(2))
        k, v = (torch.randn(B, 2, T, 128, dtype=BF16) for _ in range(2))
    emit("attention-forward", seconds=event_seconds(lambda: hybrid.cudnn_attention(q, k, v), repeat))
    for leaf in (q, k, v):
        leaf.requires_grad_()

    def both():
        hybrid.cudnn_attention(q, k, v).backward(do)
        q.grad = k.grad = v.grad = None

    emit("attention-both", seconds=event_seconds(both, repeat))


# ---- is the Python side right? ----

def error(a, exact):
    return ((a.double() - exact.double()).norm() / exact.double().norm()).item()


def check():
    """Errors, relative in the norm, of what hybrid.py has of its own or wires up itself, against plain PyTorch."""
    import hybrid
    from torch.nn.functional import pad, scaled_dot_product_attention
    torch.manual_seed(5)
    with torch.device(DEV):
        x, taps = torch.randn(2, 70, 600).to(BF16), torch.randn(2, 70, 600 * 4).to(BF16)
        dy, q = torch.randn(2, 70, 600).to(BF16), torch.randn(2, 300, 12, 128).to(BF16)
        k, v = (torch.randn(2, 300, 2, 128).to(BF16) for _ in range(2))
        far = torch.arange(300)[:, None] - torch.arange(300)
    results = []
    for conv, kind in ((hybrid.DynamicConv.apply, BF16), (lambda x, taps: (
            pad(x, (0, 0, 3, 0)).unfold(1, 4, 1) * taps.unflatten(-1, (-1, 4))).sum(-1), torch.double)):
        leaves = [leaf.to(kind).detach().requires_grad_() for leaf in (x, taps)]
        y = conv(*leaves)
        y.backward(dy.to(kind))
        results.append([y.detach(), leaves[0].grad, leaves[1].grad])
    swap = lambda y: y.transpose(1, 2).double()
    masked = lambda seen: scaled_dot_product_attention(swap(q), swap(k), swap(v), attn_mask=seen,
                                                       enable_gqa=True).transpose(1, 2)
    short = lambda y: y.transpose(1, 2)
    emit("check", convolution=[error(a, e) for a, e in zip(*results)],
         windowed=error(hybrid.windowed_attention(q, k, v, 100), masked((far >= 0) & (far < 100))),
         cudnn=error(short(hybrid.cudnn_attention(short(q), short(k), short(v))), masked(far >= 0)))


# In this order. What one measures, and which it needs beside it.
GROUPS = (
    (("start", "step", "stage1", "prompt"), whole_rows),
    (("layer",), layer_rows),
    (("delta-both",), delta_both),
    (("delta-forward",), delta_forward),
    (("delta-step",), delta_step),
    (("attention-forward", "attention-both"), attention),
    (("check",), lambda repeat: check()),
)


def without_tuning():
    """Of every kernel the first setting, which compiles in seconds, and four layers: to find mistakes here."""
    from triton.runtime.autotuner import Autotuner
    init = Autotuner.__init__

    def first_only(self, fn, arg_names, configs, *rest, **named):
        init(self, fn, arg_names, configs[:1], *rest, **named)

    Autotuner.__init__ = first_only
    import hybrid
    hybrid.LAYERS, hybrid.FULL, hybrid.WINDOWED = 4, (1,), (2,)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--untuned", action="store_true", help="not for timing: compile one setting, four layers")
    parser.add_argument("rows", nargs="+", choices=[name for names, _ in GROUPS for name in names])
    a = parser.parse_args()
    if a.untuned:
        without_tuning()
    import fla
    import triton
    emit("versions", gpu=torch.cuda.get_device_name(), torch=torch.__version__, triton=triton.__version__,
         fla=fla.__version__, cudnn=torch.backends.cudnn.version(), cuda=torch.version.cuda)
    for names, measure in GROUPS:
        wanted = [name for name in names if name in a.rows]
        if not wanted:
            continue
        try:
            measure(wanted, a.repeat) if measure is whole_rows else measure(a.repeat)
        except Exception as error:  # the rows of this group are lost, those of the others need not be
            emit("failed", rows=wanted, error=f"{type(error).__name__}: {str(error)[:500]}")
        gc.collect()
        torch.cuda.empty_cache()


main()
