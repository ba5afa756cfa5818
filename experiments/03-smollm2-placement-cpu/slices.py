"""PostNAS against uniform placement per held-out slice, from the result.json of a search.

    slices.py result.json [TASK]

The slices are disjoint and differ in difficulty, so the two are compared slice by slice. "Better" is said only where the
mean difference is larger than its spread (largest - smallest) over the slices.
"""
import json
import sys

result = json.load(open(sys.argv[1]))
task = sys.argv[2] if len(sys.argv) > 2 else result["objective"].split(".")[0]
rows = {row["name"]: row["tasks"][task] for row in result["table"]}

for metric, sign in (("kl", 1), ("top1", -1)):
    print(metric)
    for name, row in rows.items():
        if metric in row:
            values = "  ".join(f"{v:.4f}" for v in row[metric]["values"])
            print(f"  {name:22s} {values}   mean {row[metric]['mean']:.4f}")
    for suffix in ("", ", distilled"):
        if "uniform" + suffix not in rows:
            continue
        uniform, postnas = (rows[name + suffix][metric]["values"] for name in ("uniform", "PostNAS"))
        gain = [sign * (u - p) for u, p in zip(uniform, postnas)]
        mean, spread = sum(gain) / len(gain), max(gain) - min(gain)
        verdict = "better" if mean > spread else "worse" if -mean > spread else "no difference beyond the spread"
        print(f"  gain over uniform{suffix}: {'  '.join(f'{g:+.4f}' for g in gain)}   mean {mean:+.4f}, "
              f"spread {spread:.4f}: {verdict}")
