# SPDX-License-Identifier: MIT
"""From measured points to figures: recall, fronts, interpolation, tables. Python's library alone.

A point is a dict with at least "recall_at_10" and "qps" (queries per second).
"""
import json
import math

from grids import ASKED_RECALLS, OURS


def recall(ids, distances, kth):
    """Share of the k ids a query, each counted once, that are at most as far as the true k-th
    neighbour (ties count): the definition of datasets/ground_truth.h. All [nq, k], kth [nq]."""
    found = asked = 0
    for row, far, limit in zip(ids, distances, kth):
        found += len({i for i, distance in zip(row, far) if i >= 0 and distance <= limit})
        asked += len(row)
    return found / asked


def quantile(values, share):
    """The value below which this share of the values lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1))]


def front(points):
    """The points that no other beats in both recall and speed, by rising recall."""
    best = []
    for point in sorted(points, key=lambda p: (-p["recall_at_10"], -p["qps"])):
        if not best or point["qps"] > best[-1]["qps"]:
            best.append(point)
    return best[::-1]


def thinned(points, low, high, most):
    """Of a front: from the last point at or below `low` to the first at or above `high`, and of
    these at most `most`, about evenly spaced in log(1 - recall)."""
    first = max((p["recall_at_10"] for p in points if p["recall_at_10"] <= low), default=0)
    last = min((p["recall_at_10"] for p in points if p["recall_at_10"] >= high), default=1)
    kept = [p for p in points if first <= p["recall_at_10"] <= last]
    if len(kept) <= most:
        return kept

    def place(point):
        return -math.log(max(1 - point["recall_at_10"], 1e-4))
    start, end = place(kept[0]), place(kept[-1])
    targets = [start + (end - start) * i / (most - 1) for i in range(most)]
    chosen = {min(range(len(kept)), key=lambda i: abs(place(kept[i]) - t)) for t in targets}
    return [kept[i] for i in sorted(chosen)]


def qps_at(points, asked):
    """Queries per second at a recall: (value, exact). Between the two neighbours on the front
    recall is taken as linear in log(qps). A front that begins above the recall gives its first
    point, exact = False: it is at least that fast. (None, True) where the recall is not reached."""
    line = front(points)
    if not line or line[-1]["recall_at_10"] < asked:
        return None, True
    if line[0]["recall_at_10"] >= asked:
        return line[0]["qps"], line[0]["recall_at_10"] == asked
    for low, high in zip(line, line[1:]):
        if low["recall_at_10"] <= asked <= high["recall_at_10"]:
            t = (asked - low["recall_at_10"]) / (high["recall_at_10"] - low["recall_at_10"])
            return math.exp((1 - t) * math.log(low["qps"]) + t * math.log(high["qps"])), True
    raise AssertionError("a front rises in recall")


def by_series(points):
    """{series: its points}, ours first, in the order of appearance."""
    groups = {}
    for point in sorted(points, key=lambda p: p["peer"] != OURS):
        groups.setdefault(point["series"], []).append(point)
    return groups


def text_table(header, lines):
    """Columns as wide as they need to be, the first to the left, the others to the right."""
    widths = [max(len(str(line[i])) for line in (header, *lines)) for i in range(len(header))]

    def text(line):
        cells = [str(c).rjust(w) if i else str(c).ljust(w)
                 for i, (c, w) in enumerate(zip(line, widths))]
        return ("| " + " | ".join(cells) + " |").rstrip()
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([text(header), rule, *map(text, lines)]) + "\n"


def qps_text(value, exact):
    return "-" if value is None else ("" if exact else ">=") + f"{value:,.0f}"


def qps_table(points):
    """Best queries per second of each series at the asked recalls; what building took and holds."""
    lines = []
    for series, own in by_series(points).items():
        cells = [qps_text(*qps_at(own, r)) for r in ASKED_RECALLS]
        builds = {json.dumps(p["parameters"]["build"], sort_keys=True): p for p in own}.values()
        lines.append([series, *cells, span([p["build_s"] for p in builds], ".1f"),
                      span([p["memory_ratio"] for p in builds], ".2f")])
    return text_table(["queries/s at recall@10", *(f"{r:.2f}" for r in ASKED_RECALLS),
                       "build s", "memory / fp32 rows"], lines)


def span(values, form):
    """"3.1" or "3.1 to 9.0"."""
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def ratio_tables(points):
    """For each series of ours: how many times the queries per second of each peer it answers."""
    groups = by_series(points)
    ours = [s for s, own in groups.items() if own[0]["peer"] == OURS]
    peers = [s for s in groups if s not in ours]
    tables = []
    for mine in ours:
        lines = [[peer, *(ratio_text(qps_at(groups[mine], r), qps_at(groups[peer], r))
                          for r in ASKED_RECALLS)] for peer in peers]
        if lines:
            tables.append(text_table(
                [f"{mine} / peer", *(f"{r:.2f}" for r in ASKED_RECALLS)], lines))
    return "\n".join(tables)


def ratio_text(mine, peer):
    if mine[0] is None or peer[0] is None:
        return "-"
    mark = "" if mine[1] and peer[1] else "~" if not mine[1] and not peer[1] else (
        ">=" if peer[1] else "<=")
    return f"{mark}{mine[0] / peer[0]:.2f}"


def json_lines(points):
    return "".join(json.dumps(point) + "\n" for point in points)
