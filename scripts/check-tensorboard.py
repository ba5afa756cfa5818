#!/usr/bin/env python3
"""Reads a run's event files with TensorBoard itself and compares them with the run's log.jsonl.

    python3 -m venv /tmp/tensorboard && /tmp/tensorboard/bin/pip install tensorboard 'setuptools<81'
    /tmp/tensorboard/bin/python scripts/check-tensorboard.py runs/quickstart

The log keeps every point, those of killed processes too: the last one of a series and step is what counts. Exit code 1
when TensorBoard sees other points.
"""
import json
import math
import os
import re
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
from tensorboard.backend.event_processing import event_accumulator


def logged(run):
    """{series: {scalar: {step: value}}}, what a later process did again from a step on replaced."""
    series, order = {}, {}
    with open(os.path.join(run, "log.jsonl"), encoding="utf-8") as log:
        for line in log:
            try:
                record = json.loads(line)
            except ValueError:  # cut off by a kill
                continue
            if record.get("event") != "point":
                continue
            name, step = record["series"], record["step"]
            scalars = series.setdefault(name, {})
            again = any(step in scalars.get(key, {}) for key in record)
            if again or step < order.get(name, -1):
                for points in scalars.values():
                    for later in [s for s in points if s >= step]:
                        del points[later]
            order[name] = step
            for key, value in record.items():
                if key not in ("time", "event", "series", "step"):
                    scalars.setdefault(key, {})[step] = math.nan if value is None else value
    return series


def same(a, b):
    return (math.isnan(a) and math.isnan(b)) or abs(a - b) <= 1e-6 * max(abs(a), abs(b))


def main():
    run, wrong, n_points = sys.argv[1], 0, 0
    for name, scalars in logged(run).items():
        directory = os.path.join(run, "tensorboard", re.sub(r"[^A-Za-z0-9._]", "-", name))
        events = event_accumulator.EventAccumulator(directory, size_guidance={"scalars": 0, "tensors": 0})
        events.Reload()
        for key, points in scalars.items():
            seen = {e.step: e.value for e in events.Scalars(key)} if key in events.Tags()["scalars"] else {}
            n_points += len(points)
            if sorted(seen) != sorted(points) or not all(same(seen[s], points[s]) for s in points):
                wrong += 1
                print(f"{name}, {key}: log {len(points)} points, TensorBoard {len(seen)}")
    files = sum(len(f) for _, _, f in os.walk(os.path.join(run, "tensorboard")))
    print(f"{n_points} points of {len(logged(run))} series in {files} event files: {'differ' if wrong else 'the same'}")
    return 1 if wrong or not n_points else 0


if __name__ == "__main__":
    sys.exit(main())
