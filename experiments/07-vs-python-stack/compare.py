#!/usr/bin/env python3
"""Times PyTorch with flash-linear-attention beside postnas on one GPU in one run, and prints the ratios.

    compare.py POSTNAS [--only ROW ...] [--quick] [--limit SECONDS] [--json FILE]

POSTNAS is the program. Python needs PyTorch with CUDA and flash-linear-attention (README.md). Both sides run alone,
one after the other: postnas by `postnas bench`, the Python side by stack.py in one process. What is known is written to
FILE after every result, so a run that is cut off has lost only what it had not measured."""
import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import Callable

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = ("--shape", "jet-nemotron-2b")
LONGEST = 120  # seconds of one `postnas bench`


@dataclass
class Row:
    name: str
    what: str
    unit: str  # ms, us, s, tokens/s, GB
    must: str
    goal: str
    postnas: Callable  # of a Bench: a result
    python: str = ""  # the row of stack.py, if not of the same name
    key: str = "seconds"  # of the Python side's result


# ---- postnas ----

def in_seconds(row):
    return {"median": row["median_ms"] / 1e3, "least": row["min_ms"] / 1e3, "most": row["max_ms"] / 1e3}


class Bench:
    """`postnas bench`, each set of arguments once. A result: {"median", "least", "most"} in SI units or {"error"}."""

    def __init__(self, program, log):
        self.program, self.log = program, log

    @functools.cache
    def run(self, *arguments, vary=False):
        """(the JSON it wrote, seconds from its start to its first step or None), or ({"error"}, None)."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "bench.json")
            command = [self.program, "bench", *arguments, "--device", "cuda", "--json", path]
            print(f"# {'PN_CUDA_VARY=1 ' if vary else ''}postnas {' '.join(command[1:-2])}", file=self.log, flush=True)
            first, began = None, time.monotonic()
            environment = {name: value for name, value in os.environ.items() if name != "PN_CUDA_VARY"}
            if vary:
                environment["PN_CUDA_VARY"] = "1"
            errors = tempfile.TemporaryFile("w+")
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment) as done:
                timer = threading.Timer(LONGEST, done.kill)
                timer.start()
                for line in done.stdout:
                    if line.startswith("first step done"):
                        first = time.monotonic() - began
                    print(line, end="", file=self.log, flush=True)
                timer.cancel()
            if done.returncode:
                errors.seek(0)
                return {"error": " ".join(errors.read().split())[-500:] or f"exit code {done.returncode}"}, None
            with open(path) as f:
                return json.load(f), first

    def op(self, op, only, tokens, sequences, directions, vary=False):
        """The implementation that a run takes; forward and backward added up, as they are timed apart."""
        result, _ = self.run("ops", "--op", op, *MODEL, "--only", only, "--chosen", "--tokens", str(tokens),
                             "--sequences", str(sequences), vary=vary)
        if "error" in result:
            return result
        rows = [row for row in result["rows"] if row["direction"] in directions]
        if len(rows) != len(directions):
            return {"error": f"bench ops has {len(rows)} rows for {directions}"}
        total = lambda key: sum(row[key] for row in rows) / 1e6
        return {"median": total("median_us"), "least": total("min_us"), "most": total("max_us"),
                "implementation": rows[0]["op"], "machine": result["machine"]}

    def layer(self):
        result, _ = self.run("layer", *MODEL, "--block", "{ type: jet, head_dim: 96, expand_v: 2.6666666667 }",
                             "--tokens", "32768", "--sequences", "8")
        if "error" in result:
            return result
        row, = (row for row in result["rows"] if row["direction"] == "both")
        return in_seconds(row)

    def step(self, stage, key, extra=()):
        result, first = self.run("step", *MODEL, "--tokens", "16384", "--sequences", "4", "--stage", str(stage), *extra)
        if "error" in result:
            return result
        return {"seconds": in_seconds(result), "gpu_bytes": {"median": result["gpu_bytes"]},
                "start": {"median": first}}[key] | {"tokens": result["tokens"]}

    def prompt(self):
        best = None
        for prompts in 1, 4:
            result, _ = self.run("prefill", *MODEL, "--context", "4096", "--chunk", "4096", "--prompts", str(prompts))
            if "error" in result:
                return result
            row, = (row for row in result["rows"] if row["part"] == "the whole model")
            one = {**in_seconds(row), "tokens": 4096 * prompts, "prompts": prompts}
            if not best or one["tokens"] / one["median"] > best["tokens"] / best["median"]:
                best = one
        return best


def rows_of(step_arguments):
    delta = lambda directions: lambda b: b.op("gated_delta", "12 heads 96x256", 32768, 8, directions)
    attention = lambda directions, vary: lambda b: b.op("attention", "12/2 heads", 32768, 8, directions, vary)
    step = lambda stage, key: lambda b: b.step(stage, key, step_arguments)
    fwd, both = ("fwd",), ("fwd", "bwd")
    return [
        Row("delta-forward", "gated delta rule B8 T4096 H12 96x256: forward", "ms", "1.05", "0.60", delta(fwd)),
        Row("delta-both", "same, forward + backward", "ms", "3.4", "2.2", delta(both)),
        Row("delta-step", "gated delta step, batch 128, fp32 state", "us", "125", "110",
            lambda b: b.op("gated_delta", "12 heads 96x256", 0, 128, fwd)),
        Row("attention-forward", "softmax attention B8 T4096, 12/2 heads of 128: forward", "ms", "0.78", "equal",
            attention(fwd, True)),
        Row("attention-both", "same, forward + backward, bits may vary", "ms", "3.2", "equal", attention(both, True)),
        Row("attention-same", "same, postnas with the same bits every run", "ms", "", "", attention(both, False),
            python="attention-both"),
        Row("layer", "JetBlock layer, 32,768 tokens, forward + backward", "ms", "11", "8", Bench.layer),
        Row("step", "training step, 2B hybrid, B4 T4096", "tokens/s", "38k", "45k", step(2, "seconds")),
        Row("memory", "same, GPU memory in use", "GB", "60", "", step(2, "gpu_bytes"), "step", "gpu_bytes"),
        Row("stage1", "stage-1 step", "tokens/s", "33k", "42k", step(1, "seconds")),
        Row("prompt", "forward of the 2B hybrid, 4K", "tokens/s", "135k", "160k", Bench.prompt),
        Row("start", "process start to first training step, 2B", "s", "15", "8", step(2, "start"), key="start"),
    ]


# ---- the Python side ----

def spread(values):
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def run_stack(names, quick, until, keep):
    """stack.py on those rows; keep(name, what) is called with every line as it comes, and with {"error"} at the end for
    rows that it did not get to. A Triton cache of its own, empty: nothing was compiled before."""
    with tempfile.TemporaryDirectory() as cache:
        began = time.monotonic()
        command = [sys.executable, os.path.join(HERE, "stack.py"), *(("--untuned", "--repeat", "3") if quick else ())]
        done = subprocess.Popen([*command, *names], stdout=subprocess.PIPE, text=True,
                                env={**os.environ, "TRITON_CACHE_DIR": cache})
        timer = threading.Timer(max(1, until - began), done.kill)
        timer.start()
        got = set()
        with done:
            for line in done.stdout:
                try:
                    what = json.loads(line)
                    name = what.pop("row")
                except (ValueError, AttributeError, KeyError):
                    print(line, end="", file=sys.stderr)  # some library's own words
                    continue
                if name == "start":
                    what["start"] = time.monotonic() - began
                if name == "failed":
                    for row in set(what["rows"]) - got:
                        keep(row, {"error": what["error"]})
                    got |= set(what["rows"])
                else:
                    keep(name, what)
                    got.add(name)
        timer.cancel()
        for row in set(names) - got:
            keep(row, {"error": f"not reached: stack.py ended with {done.returncode}"})


def python_result(row, said):
    """A row of the table from what stack.py said of it; None: nothing."""
    what = said.get(row.python or row.name)
    if not what or "error" in what:
        return what
    value = what.get(row.key)
    if value is None:
        return None
    many = isinstance(value, list)
    return {**(spread(value) if many else {"median": value}), "tokens": what.get("tokens"),
            "refused": what.get("refused")}


# ---- the table ----

SCALE = {"ms": 1e3, "us": 1e6, "s": 1, "GB": 1e-9}


def show(row, result):
    if not result:
        return "-"
    if "error" in result:
        return "failed"

    def number(value):
        value = result["tokens"] / value if row.unit == "tokens/s" else value * SCALE[row.unit]
        return f"{value:.0f}" if value >= 1000 else f"{value:.3g}" if value >= 10 else f"{value:.2f}"

    text = f"{number(result['median'])} {row.unit}"
    if "most" in result:
        low, high = sorted((number(result["least"]), number(result["most"])), key=float)
        text += f" ({low}..{high})"
    return f"refused; without the check {text}" if result.get("refused") else text


def cost(row, result):
    return result["median"] / (result["tokens"] if row.unit == "tokens/s" else 1)


def table(rows, found):
    lines = ["| | PyTorch + fla | postnas | ratio | must | goal |", "|---|---|---|---|---|---|"]
    for row in rows:
        theirs, ours = found["python"].get(row.name), found["postnas"].get(row.name)
        ratio = "-"
        if theirs and ours and "median" in theirs and "median" in ours:
            ratio = f"{cost(row, theirs) / cost(row, ours):.2f}"
        lines.append(f"| {row.what} | {show(row, theirs)} | {show(row, ours)} | {ratio} | {row.must} | {row.goal} |")
    return "\n".join(lines)


def gpu_state():
    """What nvidia-smi says of GPU, driver, clock, power and temperature now."""
    fields = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.draw,temperature.gpu"
    try:
        return subprocess.run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader", "--id=0"],
                              capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"nvidia-smi: {error}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("postnas", help="the program")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="these rows (see the JSON or this file for names)")
    parser.add_argument("--side", choices=("both", "python", "postnas"), default="both")
    parser.add_argument("--quick", action="store_true", help="find mistakes: the Python side untuned, with four layers")
    parser.add_argument("--step", default="--memory 60", metavar="ARGUMENTS",
                        help="for `postnas bench step`, beside shape, tokens and stage; --memory 60")
    parser.add_argument("--limit", type=float, default=420, metavar="SECONDS",
                        help="the Python side is stopped when the whole has run so long; 420")
    parser.add_argument("--json", metavar="FILE", default="result.json", help="results; result.json")
    a = parser.parse_args()
    until = time.monotonic() + a.limit
    rows = rows_of(tuple(a.step.split()))
    names = [row.name for row in rows]
    only = a.only or names
    if unknown := [name for name in only if name not in names]:
        parser.error(f"there is no row {unknown[0]}; there are {', '.join(names)}")
    rows = [row for row in rows if row.name in only]
    found = {"gpu": [gpu_state()], "versions": {}, "postnas": {}, "python": {}, "said": {}}

    def write():
        with open(a.json + ".part", "w") as f:
            json.dump({**found, "rows": {row.name: row.what for row in rows}}, f, indent=1)
        os.replace(a.json + ".part", a.json)

    def keep(name, what):
        if name == "versions":
            found["versions"].update(what)
        else:
            found["said"].setdefault(name, {}).update(what)
            found["python"] = {row.name: r for row in rows if (r := python_result(row, found["said"]))}
            print(f"# {name}: {json.dumps(what)[:300]}", flush=True)
        write()

    if a.side != "python":
        bench = Bench(a.postnas, sys.stdout)
        found["versions"]["postnas"] = subprocess.run([a.postnas, "--version"], capture_output=True,
                                                      text=True).stdout.strip()
        for row in rows:
            found["postnas"][row.name] = row.postnas(bench)
            write()
        found["gpu"].append(gpu_state())
    if a.side != "postnas":
        wanted = list(dict.fromkeys(row.python or row.name for row in rows))
        run_stack([*wanted, "check"], a.quick, until, keep)
        found["gpu"].append(gpu_state())
    write()
    for state in found["gpu"]:
        print(state)
    print(", ".join(f"{name} {value}" for name, value in found["versions"].items()))
    print(table(rows, found))
    for side in ("python", "postnas"):
        for name, result in found[side].items():
            if "error" in result:
                print(f"{side}, {name}: {result['error']}")


main()
