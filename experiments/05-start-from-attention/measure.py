#!/usr/bin/env python3
"""Every linear block of the quickstart from a random start and from attention.

    experiments/05-start-from-attention/measure.py OUTPUT [--seed N] [--program build/postnas] [NAME ...]

Runs `postnas search` on configs/quickstart.yaml once for each row and start, without distillation and rivals, below
OUTPUT (runs that are there are read, not made again), and prints the table of README.md."""
import argparse
import json
import os
import subprocess

BLOCKS = {
    "gated_deltanet 16": "type: gated_deltanet, head_dim: 16, expand_v: 2",
    "gated_deltanet": "type: gated_deltanet, expand_v: 1",
    "gated_deltanet +": "type: gated_deltanet, expand_v: 1, qkv_bias: true, rope: true",
    "jet": "type: jet, expand_v: 1",
    "jet +": "type: jet, expand_v: 1, qkv_bias: true, rope: true",
    "deltanet": "type: deltanet",
    "deltanet +": "type: deltanet, qkv_bias: true, rope: true",
    "gla": "type: gla, expand_k: 1, num_kv_heads: 1",
    "gla +": "type: gla, expand_k: 1, num_kv_heads: 1, qkv_bias: true",
    "retnet": "type: retnet, expand_v: 1, num_kv_heads: 1",
    "retnet +": "type: retnet, expand_v: 1, num_kv_heads: 1, qkv_bias: true",
    "mamba2": "type: mamba2, expand: 1, head_dim: 32, state_size: 32, n_groups: 2",
    "mamba2 +": "type: mamba2, expand: 1, head_dim: 32, state_size: 32, n_groups: 2, use_bias: true",
}
TASKS = "[{name: recall, kind: recall, skill: recall, documents: 16, document_bytes: 255, pairs_min: 24, pairs_max: 24, seed: 100}]"


def run(args, name, start):
    out = os.path.join(args.output, f"{name.replace(' ', '-')}-{start}-{args.seed}")
    settings = {
        "output": out, "seed": args.seed, "supernet.blocks": f"[{{{BLOCKS[name]}, init: {start}}}]",
        "search.tasks": TASKS, "distill.tokens": 0, "compare.exhaustive": "false", "compare.uniform": "false",
        "compare.all_linear": "false",
    }
    command = [args.program, "search", "--quiet", "--config", "configs/quickstart.yaml"]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with open(os.path.join(out, "result.json")) as f:
        result = json.load(f)
    errors = result["local_errors"]
    mean = [sum(e[key] for e in errors) / len(errors) for key in ("start", "last")]
    hybrid = next(row for row in result["table"] if row["name"] == "PostNAS")["tasks"]["recall"]
    return mean + [hybrid["accuracy"]["mean"], hybrid["nll"]["mean"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--program", default="build/postnas")
    parser.add_argument("names", nargs="*", default=[])
    args = parser.parse_intermixed_args()
    print("| block | error at step 0 | | error at the end | | recall accuracy | | recall nll | |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    print("| | random | attention | random | attention | random | attention | random | attention |")
    for name in args.names or BLOCKS:
        random, attention = (run(args, name, start) for start in ("random", "attention"))
        cells = [f"{x:.3f}" if i < 6 else f"{x:.4f}" for i, x in enumerate(v for pair in zip(random, attention) for v in pair)]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
