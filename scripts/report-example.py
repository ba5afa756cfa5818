#!/usr/bin/env python3
"""Writes a made-up result.json, to see what report.html makes of large ones. Nothing in it was measured.

    scripts/report-example.py --layers 36 --tasks 7 --paths 600 --speed /tmp/example-speed.json > /tmp/example-result.json
    build/postnas report /tmp/example-result.json /tmp/example.html

With --speed it has the stages after the placement, whose made-up timings go to that file.
"""
import argparse
import json
import math
import random
import sys

TASKS = ["recall", "mmlu", "text", "agreement", "math", "retrieval-niah", "commonsense"]
KIND = {"text": "perplexity", "agreement": "kl", "mmlu": "choice", "commonsense": "choice", "math": "choice"}
FULL, WINDOW = 4, 2  # limits


def text_of(path):
    runs, out = [], []
    for block in path:
        if runs and runs[-1][0] == block:
            runs[-1][1] += 1
        else:
            runs.append([block, 1])
    for block, n in runs:
        out.append(block if n == 1 else f"{block}*{n}")
    return ",".join(out)


class Example:
    def __init__(self, layers, tasks, paths, seed):
        self.rng = random.Random(seed)
        self.n, self.tasks, self.n_paths = layers, (TASKS * 9)[:tasks], paths
        self.weight = {t: [self.rng.expovariate(1) ** 2 for _ in range(layers)] for t in self.tasks}

    def quality(self, task, path):
        """0: all linear, 1: the teacher."""
        w = self.weight[task]
        kept = sum(x for x, b in zip(w, path) if b == "attention") + 0.4 * sum(x for x, b in zip(w, path) if b == "swa")
        lost = sum(0.1 + 0.1 * x for x, b in zip(w, path) if b == "none")
        return max(0, min(1, (kept - lost) / sum(sorted(w)[-FULL - 2:])))

    def metrics(self, task, path, noise=0.01):
        q = self.quality(task, path) + self.rng.gauss(0, noise)
        kind = KIND.get(task, "recall")
        nll = max(1e-4, 3.2 - 3 * q)
        if kind == "perplexity":
            return {"nll": nll, "perplexity": math.exp(nll)}
        if kind == "kl":
            return {"kl": max(1e-4, 2.1 - 2 * q), "top1": max(0, min(1, 0.4 + 0.58 * q))}
        chance = 0.25 if kind == "choice" else 0.04
        out = {"accuracy": max(0, min(1, chance + (1 - chance) * q)), "nll": nll, "accuracy_chance": chance}
        if kind == "recall":
            out.update({f"accuracy@{d}": max(0, min(1, out["accuracy"] - 0.03 * i)) for i, d in enumerate([64, 256, 1024, 4096])})
        return out

    def objective(self, tasks):
        return sum(m["nll"] if "nll" in m else m["kl"] for m in tasks.values()) / len(tasks)

    def cache(self, path, context=65536):
        per = {"attention": 2 * 2 * 256 * 2 * context, "swa": 2 * 2 * 256 * 2 * min(1152, context), "none": 0}
        return sum(per.get(b, 1152 * 2 * 2 * 256 * 2) for b in path)

    def history(self):
        rows, seen = [], set()

        def add(path, round_, parent):
            key = tuple(path)
            if key in seen or len(rows) >= self.n_paths:
                return None
            seen.add(key)
            tasks = {t: self.metrics(t, path) for t in self.tasks}
            full, window = path.count("attention"), path.count("swa")
            rows.append({"path": text_of(path), "layers": path, "complete": full == FULL and window == WINDOW,
                         "objective": self.objective(tasks), "round": round_, "parent": parent,
                         "cache_bytes": self.cache(path), "tasks": tasks})
            return len(rows) - 1

        beam = [add(["jet"] * self.n, 0, -1)]
        kinds = ["attention"] * FULL + ["swa"] * WINDOW
        width = max(1, round((self.n_paths - self.n) / (self.n * (len(kinds) - 1))))
        for round_, kind in enumerate(kinds, 1):
            made = []
            for parent in beam:
                for layer in range(self.n):
                    path = list(rows[parent]["layers"])
                    if path[layer] == "jet":
                        path[layer] = kind
                        made.append(add(path, round_, parent))
            beam = sorted((m for m in made if m is not None), key=lambda i: rows[i]["objective"])[:width]
        return rows

    def row(self, name, path, distilled):
        lift = 0.0 if not distilled else 0.35
        tasks = {}
        for t in self.tasks:
            samples = []
            for _ in range(3):
                m = self.metrics(t, path, 0.015)
                best = self.metrics(t, ["attention"] * self.n, 0)
                samples.append({k: v + lift * (best[k] - v) if k in best else v for k, v in m.items()})
            tasks[t] = {k: {"mean": sum(s[k] for s in samples) / 3, "min": min(s[k] for s in samples),
                            "max": max(s[k] for s in samples), "values": [s[k] for s in samples]} for k in samples[0]}
        return {"name": name, "path": text_of(path), "distilled": distilled, "tasks": tasks}

    def curve(self, points, tokens):
        return [{"step": i + 1, "tokens": (i + 1) * tokens // points,
                 "loss": 0.3 + 2 / (1 + i / 30) + self.rng.gauss(0, 0.03), "ce": 0,
                 "kl": 0.1 + 1 / (1 + i / 30) + self.rng.gauss(0, 0.02), "feature": 0.2 + 1 / (1 + i / 30),
                 "learning_rate": 1e-3} for i in range(points)]

    def gates(self, points=60):
        names = ["attention", "jet", "swa"]
        aim = [[4 * sum(self.weight[t][l] for t in self.tasks) / len(self.tasks) - 6, 0, self.rng.gauss(-3, 1)]
               for l in range(self.n)]

        def p(l, part):
            e = [math.exp(part * a + self.rng.gauss(0, 0.05)) for a in aim[l]]
            return [x / sum(e) for x in e]

        rows = [{"step": 10 * i, "tokens": 40960 * i, "temperature": 1 - 0.8 * i / points,
                 "p": [p(l, i / points) for l in range(self.n)]} for i in range(points + 1)]
        return {"candidates": names, "points": rows, "final": rows[-1]["p"]}

    def variant(self, history, stage, text, name, path, cost, noise):
        """Its row of the history too; cost: of attention-like work, 1 for the block of the placement."""
        path = [name if b == "jet" else b for b in path]
        tasks = {t: {k: v + abs(self.rng.gauss(0, noise)) * (v if k in ("nll", "kl", "perplexity") else 0)
                     for k, v in self.metrics(t, path).items()} for t in self.tasks}
        history.append({"path": text_of(path), "layers": path, "complete": True, "objective": self.objective(tasks),
                        "stage": stage, "round": 0, "parent": -1, "cache_bytes": self.cache(path), "tasks": tasks})
        return {"text": text, "type": text.split()[0], "options": {}, "row": len(history) - 1,
                "objective": self.objective(tasks), "tasks": tasks, "parameters": 2.4e6 * (1 + cost / 4),
                "flops": 5e6 * (1 + cost / 3), "state": 294912.0 * cost}

    def stage(self, history, stage, name, candidates, path):
        """candidates: text, name in paths, cost."""
        variants = [self.variant(history, stage, t, n, path, c, 0.25) for t, n, c in candidates]
        chosen = min(range(len(variants)), key=lambda i: variants[i]["objective"])
        row = variants[chosen]["row"]
        errors = [{"layer": l, "block": n, "start": 1 + self.rng.random() * 0.4, "first": 0.8, "last": 0.2 + self.rng.random() * 0.3}
                  for l in range(self.n) for _, n, _ in candidates]
        rates = []
        for (t, _, c), v in zip(candidates, variants):
            noise = 1 + self.rng.gauss(0, 0.1)
            rates.append({"text": t, "decode": [4e5 * noise / c, 3.6e5 * noise / c],
                          "prefill": [2e5 * noise / c**0.5, 1.6e5 * noise / c**0.5]})
        for v, x in zip(variants, rates):
            time = sum(1 / d for d in x["decode"])
            x["front"] = not any(w["objective"] <= v["objective"] and sum(1 / d for d in y["decode"]) < time
                                 for w, y in zip(variants, rates) if w is not v)
        return ({"stage": name, "objective": f"{self.tasks[0]}.nll", "ascending": False, "worth": {}, "chosen": chosen,
                 "path": history[row]["path"], "winner": row, "variants": variants, "local_errors": errors},
                {"stage": name, "variants": rates})

    def later_stages(self, history, path):
        types = ["retnet", "gla", "mamba2", "deltanet", "gated_deltanet", "rwkv7", "jet"]
        shapes = [(h, k, v) for h in (4, 6, 8, 12) for k in (48, 64, 96, 128, 192) for v in (128, 192, 256, 384)
                  if h * k * v == 294912] + [(h, k, v) for h in (4, 8, 12) for k in (64, 96, 128) for v in (128, 256)]
        block = self.stage(history, 1, "block", [(t, f"{t}_2", 0.5 + self.rng.random()) for t in types], path)
        shape = self.stage(history, 2, "shape", [(f"jet num_heads {h} head_dim {k} expand_v {v / k:g}", f"jet_{i + 3}",
                                                  0.3 + h * k * v / 294912) for i, (h, k, v) in enumerate(shapes)], path)
        models = []
        for what, base, gain in (("decode", 400, 3), ("prefill", 6000, 2)):
            for context in (4096, 65536):
                for name, rate in (("base", base), ("PostNAS", base * gain)):
                    measured = rate * 4096 / context * (1 + self.rng.gauss(0, 0.1))
                    models.append({"model": name, "pass": what, "context": context, "predicted": rate * 4096 / context,
                                   "measured": measured, "error": measured / (rate * 4096 / context) - 1})
        return [block[0], shape[0]], {"batch": 8, "chunk": 512, "contexts": [4096, 65536],
                                      "stages": [block[1], shape[1]], "models": models}

    def selectors(self):
        """Each ranks layers by what it believes of them, the later ones the nearer to the truth."""
        names = ["uniform", "random", "gates", "kl_guided", "recall_ratio", "greedy", "beam", "exhaustive"]
        truth = [sum(self.weight[t][l] for t in self.tasks) for l in range(self.n)]
        rows = []
        for count in (1, 2, 4, 8, 12, self.n // 2):
            for i, name in enumerate(names):
                order = sorted(range(self.n), key=lambda l: -truth[l] * math.exp(self.rng.gauss(0, 3 / (i + 1))))
                path = ["attention" if l in order[:count] else "jet" for l in range(self.n)]
                values = [self.objective({t: self.metrics(t, path) for t in self.tasks}) for _ in range(3)]
                rows.append({"selector": name, "full_attention": count, "path": text_of(path), "paths": 1 + i * self.n,
                             "searched": values[0], "heldout": {"mean": sum(values) / 3, "min": min(values),
                                                                "max": max(values), "values": values}})
        return {"objective": " + ".join(f"{t}.nll" for t in self.tasks[:2]), "ascending": False, "normalised": False,
                "rows": rows}

    def result(self, later):
        """And what speed.json holds; later: with the stages after the placement."""
        history = self.history()
        complete = [h for h in history if h["complete"]] or history
        winner = min(complete, key=lambda h: h["objective"])["layers"]
        linear, teacher = ["jet"] * self.n, ["attention"] * self.n
        uniform = list(linear)
        for i in range(FULL + WINDOW):
            layer = (2 * i + 1) * self.n // (2 * (FULL + WINDOW))
            uniform[layer] = "attention" if i < FULL else "swa"
        table = [self.row(n, p, d) for n, p, d in
                 [("teacher", teacher, False), ("all linear", linear, False), ("uniform", uniform, False),
                  ("PostNAS", winner, False), ("all linear, distilled", linear, True),
                  ("uniform, distilled", uniform, True), ("PostNAS, distilled", winner, True)]]
        single = {h["layers"].index("attention"): h for h in history if h["round"] == 1}
        importance = []
        for layer, h in sorted(single.items()):
            gain = {}
            for t, m in h["tasks"].items():
                gain[t] = {k: (v - history[0]["tasks"][t][k]) * (1 if k[:4] in ("accu", "top1") else -1)
                           for k, v in m.items() if not k.endswith("_chance")}
            importance.append({"layer": layer, "gain": gain})
        out = {"format": 1, "model": f"made-up example of {self.n} layers (nothing measured)", "seed": 1, "backend": "cpu",
                "supernet_weights": "0123456789abcdef", "strategy": "beam", "objective": f"{self.tasks[0]}.nll",
                "objectives": {"attention": f"{self.tasks[0]}.nll", "swa": "mmlu.accuracy"},
                "limits": {"full_attention": FULL, "swa": WINDOW, "none": 0}, "path": text_of(winner), "layers": winner,
                "table": table, "selectors": self.selectors(),
                "cache_bytes": [{"context": c, "base": self.cache(teacher, c), "winner": self.cache(winner, c)}
                                for c in (4096, 16384, 65536, 262144)],
                "importance": importance, "history": history,
                "local_errors": [{"layer": l, "block": b, "first": 1 + self.rng.random() * 0.1,
                                  "last": 0.2 + self.rng.random() * 0.2} for l in range(self.n) for b in ("jet", "swa")],
                "supernet_curve": self.curve(900, 50_000_000), "distill_curve": self.curve(400, 20_000_000),
               "gates": self.gates()}
        if not later:
            return out, None
        for row in history:
            row["stage"] = 0
        out["variants"], speed = self.later_stages(history, winner)
        out["stages"] = [{"kinds": [k], "objective": f"{self.tasks[0]}.nll", "ascending": False, "normalised": False, "path": p}
                         for k, p in [("full_attention", text_of(winner))] + [(v["stage"], v["path"]) for v in out["variants"]]]
        return out, speed


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--layers", type=int, default=36)
    p.add_argument("--tasks", type=int, default=7)
    p.add_argument("--paths", type=int, default=600)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--speed", metavar="FILE")
    a = p.parse_args()
    result, speed = Example(a.layers, a.tasks, a.paths, a.seed).result(a.speed is not None)
    json.dump(result, sys.stdout, indent=1)
    if a.speed:
        with open(a.speed, "w") as f:
            json.dump(speed, f, indent=1)


if __name__ == "__main__":
    main()
