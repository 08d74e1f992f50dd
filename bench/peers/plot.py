# SPDX-License-Identifier: MIT
"""Draws recall against queries per second; runs in the peers' environment, which has matplotlib.

usage: plot.py RESULTS.jsonl PICTURE.svg|PICTURE.png...
"""
import json
import math
import sys

import matplotlib

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "faiss_gmm"  # the same points give the same file
import matplotlib.pyplot as plt

import results
from grids import OURS

MARKERS = "osD^vPX*<>"


def mean_height(line):
    return sum(math.log(p["qps"]) for p in line) / len(line)


def draw(points, paths):
    lines = {s: results.front(own) for s, own in results.by_series(points).items()}
    figure, axes = plt.subplots(figsize=(9, 6))
    order = sorted(lines, key=lambda s: -mean_height(lines[s]))
    for number, series in enumerate(order):
        line = lines[series]
        ours = line[0]["peer"] == OURS
        axes.plot([p["recall_at_10"] for p in line], [p["qps"] for p in line],
                  marker=MARKERS[number % len(MARKERS)], markersize=6 if ours else 4,
                  linewidth=2.4 if ours else 1.2, linestyle="-" if ours else "--",
                  color=f"C{number % 10}", label=series)
    first = points[0]
    axes.set(yscale="log", xlabel="recall@10", ylabel="queries per second",
             title=f"{first['dataset']}: n = {first['n']:,}, d = {first['d']}, {first['metric']}")
    axes.grid(True, which="both", alpha=.3)
    axes.legend(loc="lower left", fontsize=8)
    threads = f"{first['threads']} thread{'s' if first['threads'] > 1 else ''}"
    figure.text(.01, .01, f"{first['cpu']}, {threads}; batches of {first['batch']:,}, median of "
                f"{first['rounds']} rounds; commit {first['git_commit']}, {first['date'][:10]}",
                fontsize=7)
    figure.tight_layout(rect=(0, .02, 1, 1))
    for path in paths:
        svg = path.endswith(".svg")
        figure.savefig(path, dpi=150, metadata={"Date": None} if svg else None)


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        draw([json.loads(line) for line in file], sys.argv[2:])
