# SPDX-License-Identifier: MIT
"""What is compared, and over which settings it is tuned: the table ROWS.

A row is an index that gets built; `{lists}`, `{lists2}`, `{lists4}`, `{half}` and `{quarter}` stand
for numbers that follow from the data set (`sizes`). Each index is searched with every combination
of its settings. Rows with the same series share one line in tables and plots: their best counts.
"""
import itertools
import math
from dataclasses import dataclass

NEIGHBOURS = 10  # k: recall@10
BATCH = 1000  # queries a call where throughput is timed
ROUNDS = 5  # the median counts
ASKED_RECALLS = (.90, .95, .98, .99)  # columns of the tables

METRICS = ("l2", "ip", "cosine", "cosine-ip")  # cosine: unit length, then as l2
EUCLIDEAN = ("l2", "cosine")  # searched by squared distance
INNER_PRODUCT = ("ip", "cosine-ip")

# What pip installs, one peer after the other. "base" is needed by all, "plot" for pictures.
PINS = {
    "base": ("numpy==2.4.6",),
    "plot": ("matplotlib==3.11.2",),
    "faiss": ("faiss-cpu==1.15.0",),
    "symphonyqg": ("rabitqlib==0.7.1",),
    "scann": ("scann==1.4.2",),
    "hnswlib": ("hnswlib==0.8.0",),
}
PEERS = ("faiss", "symphonyqg", "scann", "hnswlib")
OURS = "faiss_gmm"

NPROBE = (1, 2, 4, 8, 16, 32, 64, 128, 256)
EF = (10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480)  # graphs: nodes that are kept in sight
REFINED = {"nprobe": NPROBE, "k_factor_rf": (2, 4, 8, 16, 32)}  # k_factor_rf: exact distances / k
LEAVES = {"leaves_to_search": (4, 8, 16, 32, 64, 128, 256), "reorder": (20, 40, 80, 160, 320)}


@dataclass(frozen=True)
class Row:
    peer: str
    series: str
    build: dict
    settings: dict  # name: values
    metrics: tuple = METRICS


ROWS = (
    Row("faiss", "faiss IVF,Flat", {"factory": "IVF{lists},Flat"}, {"nprobe": NPROBE}),
    Row("faiss", "faiss IVF,Flat", {"factory": "IVF{lists4},Flat"}, {"nprobe": NPROBE}),
    Row("faiss", "faiss IVF,PQ,RFlat", {"factory": "IVF{lists},PQ{half}x4fs,RFlat"}, REFINED),
    Row("faiss", "faiss IVF,PQ,RFlat", {"factory": "IVF{lists},PQ{quarter}x4fs,RFlat"}, REFINED),
    Row("faiss", "faiss IVF,PQ,RFlat", {"factory": "IVF{lists4},PQ{half}x4fs,RFlat"}, REFINED),
    Row("faiss", "faiss IVF,SQ8", {"factory": "IVF{lists},SQ8"}, {"nprobe": NPROBE}),
    Row("faiss", "faiss HNSW32", {"factory": "HNSW32", "ef_construction": 100}, {"ef": EF}),
    Row("symphonyqg", "SymphonyQG", {"degree": 32, "ef_construction": 200}, {"ef": EF}),
    # ScaNN takes residuals, anisotropic loss and SOAR with inner products alone; unit vectors have
    # the same neighbours under both metrics, so cosine gets them too.
    Row("scann", "ScaNN", {"leaves": "{lists}", "soar": 0}, LEAVES),
    Row("scann", "ScaNN", {"leaves": "{lists2}", "soar": 0}, LEAVES),
    Row("scann", "ScaNN", {"leaves": "{lists2}", "soar": 1.5}, LEAVES, ("ip", "cosine", "cosine-ip")),
    Row("hnswlib", "hnswlib", {"M": 16, "ef_construction": 200}, {"ef": EF}),
)

# Ours, for every string of --index. lists: how many are probed, 0: by the index's rule.
OUR_SETTINGS = {
    "nprobe": (1, 2, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 56, 80, 128),
    "lists": (0, 16, 24, 32, 48, 64, 80, 96, 128, 192),
    "k_factor": (5, 7, 10, 15, 20),
}
OUR_DEFAULT_INDEX = "IVFGMM{lists},Flat"


def sizes(n, d):
    """Numbers for the braces: lists is the power of two next to sqrt(n)."""
    lists = 2 ** round(math.log2(math.sqrt(n)))
    return {"lists": lists, "lists2": 2 * lists, "lists4": 4 * lists,
            "half": d // 2, "quarter": d // 4}


@dataclass(frozen=True)
class Plan:
    """One index to build, with its numbers filled in, and the settings to search it with."""
    peer: str
    series: str
    build: dict
    settings: list


def combinations(grid, quick=False):
    """{name: values} -> one dict a combination; with quick every other value of each name."""
    values = [v[::2] if quick else v for v in grid.values()]
    return [dict(zip(grid, chosen)) for chosen in itertools.product(*values)]


def our_settings(quick=False):
    """Without those that probe fewer lists than they want vectors from."""
    return [s for s in combinations(OUR_SETTINGS, quick)
            if s["lists"] == 0 or s["lists"] >= s["nprobe"]]


def plans(peers, metric, n, d, quick=False):
    """The rows of these peers that the metric allows. With quick the first of each series alone."""
    numbers = sizes(n, d)
    chosen, seen = [], set()
    for row in ROWS:
        if row.peer not in peers or metric not in row.metrics or (quick and row.series in seen):
            continue
        seen.add(row.series)
        build = {k: v.format(**numbers) if isinstance(v, str) else v for k, v in row.build.items()}
        chosen.append(Plan(row.peer, row.series, build, combinations(row.settings, quick)))
    return chosen
