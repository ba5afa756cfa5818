#!/usr/bin/env python3
"""Times PyTorch with flash-linear-attention beside postnas on one GPU, in one run, and prints the ratios.

    compare.py POSTNAS [--only NAME ...] [--json FILE]

POSTNAS is the program. Needs PyTorch with CUDA and flash-linear-attention (PyPI); its version is printed. All data is
random, timings are medians of CUDA events (here) and of `postnas bench` (there, its own words in the last column).

flash-linear-attention refuses the backward of its gated rules on Hopper with Triton 3.4 to 3.7.0, because it is wrong
there (its issue 640). That refusal is then what is printed, and the time with the check taken out beside it, as such.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

import torch

DEV, BF16, F32 = "cuda", torch.bfloat16, torch.float32


def median_ms(run, repeat=20, warm=5):
    for _ in range(warm):
        run()
    torch.cuda.synchronize()
    times = []
    for _ in range(repeat):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def refusal(run):
    """The message if it refuses, else None."""
    try:
        run()
        torch.cuda.synchronize()
    except Exception as error:  # whatever a library raises to refuse
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
    return None


def without_the_hopper_check():
    """Takes the check out for timing only: the modules that ask are told that this is no Hopper."""
    for name, module in list(sys.modules.items()):
        if name.startswith("fla.") and getattr(module, "IS_NVIDIA_HOPPER", False):
            module.IS_NVIDIA_HOPPER = False


# ---- the Python stack ----

def delta_inputs(B, T, H, dk, dv, grad):
    torch.manual_seed(1)
    l2 = lambda x: torch.nn.functional.normalize(x, dim=-1)
    q = l2(torch.randn(B, T, H, dk, device=DEV)).to(BF16)
    k = l2(torch.randn(B, T, H, dk, device=DEV)).to(BF16)
    v = torch.randn(B, T, H, dv, device=DEV).to(BF16)
    g = -0.1 * torch.rand(B, T, H, device=DEV)
    beta = torch.rand(B, T, H, device=DEV)
    return [x.requires_grad_(grad) for x in (q, k, v, g, beta)]


def fla_gated_delta():
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule
    q, k, v, g, beta = delta_inputs(8, 4096, 12, 96, 256, False)
    forward = lambda: chunk_gated_delta_rule(q, k, v, g, beta, scale=96 ** -0.5, output_final_state=False)
    why = refusal(forward)
    return {"ms": None if why else median_ms(forward), "note": why or ""}


def fla_gated_delta_both():
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule
    x = delta_inputs(8, 4096, 12, 96, 256, True)
    do = torch.randn(8, 4096, 12, 256, device=DEV).to(BF16)

    def both():
        o, _ = chunk_gated_delta_rule(*x, scale=96 ** -0.5, output_final_state=False)
        o.backward(do)
        for t in x:
            t.grad = None

    why = refusal(both)
    if not why:
        return {"ms": median_ms(both), "note": ""}
    without_the_hopper_check()
    still = refusal(both)
    return {"ms": None if still else median_ms(both), "note": f"refused ({why}); timed with the check taken out"}


def fla_gated_delta_step():
    from fla.ops.gated_delta_rule import fused_recurrent_gated_delta_rule
    q, k, v, g, beta = delta_inputs(128, 1, 12, 96, 256, False)
    state = torch.randn(128, 12, 96, 256, device=DEV)
    step = lambda: fused_recurrent_gated_delta_rule(q, k, v, g, beta=beta, scale=96 ** -0.5, initial_state=state,
                                                    output_final_state=True)
    why = refusal(step)
    return {"ms": None if why else median_ms(step, 50), "note": why or ""}


def cudnn_attention(grad):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    q = torch.randn(8, 12, 4096, 128, device=DEV, dtype=BF16, requires_grad=grad)
    k, v = (torch.randn(8, 2, 4096, 128, device=DEV, dtype=BF16, requires_grad=grad) for _ in range(2))
    do = torch.randn_like(q)

    def run():
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            o = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        if grad:
            o.backward(do)
            q.grad = k.grad = v.grad = None

    why = refusal(run)
    return {"ms": None if why else median_ms(run), "note": why or "cuDNN through PyTorch"}


# ---- postnas ----

def bench(program, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "bench.json")
        command = [program, "bench", *arguments, "--device", "cuda", "--json", path]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return None, done.stderr.strip().splitlines()[-1:]
        with open(path) as f:
            return json.load(f), " ".join(command[1:-2])


def op_ms(program, op, shape_has, tokens, sequences, directions, name_has=""):
    result, words = bench(program, "ops", "--op", op, "--shape", "jet-nemotron-2b", "--tokens", str(tokens),
                          "--sequences", str(sequences))
    if result is None:
        return {"ms": None, "note": str(words)}
    best = {}
    for row in result["rows"]:
        if shape_has in row["shape"] and name_has in row["op"] and row["direction"] in directions:
            ms, name = row["median_us"] / 1e3, row["op"]
            if row["direction"] not in best or ms < best[row["direction"]][0]:
                best[row["direction"]] = (ms, name)
    if set(best) != set(directions):
        return {"ms": None, "note": "no such row"}
    return {"ms": sum(ms for ms, _ in best.values()),
            "note": f"postnas {words}; " + " + ".join(f"{d} {ms:.3f} ({n})" for d, (ms, n) in best.items())}


ROWS = {
    "delta-forward": ("gated delta rule B8 T4096 H12 96x256: forward", fla_gated_delta,
                      lambda p: op_ms(p, "gated_delta", "12 heads 96x256", 32768, 8, ["fwd"])),
    "delta-both": ("same, forward + backward", fla_gated_delta_both,
                   lambda p: op_ms(p, "gated_delta", "12 heads 96x256", 32768, 8, ["fwd", "bwd"])),
    "delta-step": ("gated delta step, batch 128, fp32 state", fla_gated_delta_step,
                   lambda p: op_ms(p, "gated_delta", "12 heads 96x256", 0, 128, ["fwd"])),
    "attention-forward": ("softmax attention B8 T4096, 12/2 heads of 128: forward", lambda: cudnn_attention(False),
                          lambda p: op_ms(p, "attention", "12/2 heads", 32768, 8, ["fwd"])),
    "attention-both": ("same, forward + backward", lambda: cudnn_attention(True),
                       lambda p: op_ms(p, "attention", "12/2 heads", 32768, 8, ["fwd", "bwd"])),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("postnas")
    parser.add_argument("--only", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--json")
    a = parser.parse_args()
    import fla
    import triton
    print(f"{torch.cuda.get_device_name()}; PyTorch {torch.__version__}, Triton {triton.__version__}, "
          f"flash-linear-attention {fla.__version__}, cuDNN {torch.backends.cudnn.version()}")
    table = []
    for name in a.only:
        what, peer, own = ROWS[name]
        theirs, ours = peer(), own(a.postnas)
        ratio = theirs["ms"] / ours["ms"] if theirs["ms"] and ours["ms"] else None
        table.append({"name": name, "what": what, "python": theirs, "postnas": ours, "ratio": ratio})
        show = lambda ms: f"{ms:9.3f} ms" if ms else "        - "
        print(f"{what:58} python {show(theirs['ms'])}  postnas {show(ours['ms'])}  "
              f"{f'{ratio:.2f} times as fast' if ratio else ''}\n    {theirs['note']}\n    {ours['note']}", flush=True)
        torch.cuda.empty_cache()
    if a.json:
        with open(a.json, "w") as f:
            json.dump(table, f, indent=1)


main()
