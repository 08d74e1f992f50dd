# SPDX-License-Identifier: MIT
"""One index of a peer in a process of its own, for bench/peers/run; runs in its environment.

Lines of JSON on stdin are requests, each is answered by one line on stdout (README.md has the
protocol; worker.cc speaks it for our own indices).
"""
import ctypes
import importlib.metadata
import json
import os
import sys
import time

import numpy as np

import dataset
import results
from adapters import ADAPTERS
from errors import PeersError
from grids import BATCH, NEIGHBOURS

SHORTEST_PASS_S = .05  # short passes are repeated until they took this long
WARM_UP_QUERIES = 20  # the first searches after a turn find other data in the caches


def resident_bytes():
    """Of this process, after what was freed has gone back to the system."""
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


class Worker:
    def answer(self, request):
        return {"build": self.build, "open": self.open,
                "batches": self.batches, "singles": self.singles}[request["do"]](request)

    def make(self, request):
        self.set = dataset.describe(request["data"])
        self.peer = ADAPTERS[request["peer"]](
            request["build"], request["metric"], self.set.base.d)

    def build(self, request):
        self.make(request)
        x = dataset.all_rows(self.set.base, request["metric"])
        start = time.perf_counter()
        self.peer.build(x, request["build_threads"], request["path"])
        return {"build_s": time.perf_counter() - start}  # writing the file is a small part of it

    def open(self, request):
        self.make(request)
        self.truth = dataset.Truth(self.set, request["metric"], NEIGHBOURS)
        self.query = self.truth.query
        before = resident_bytes()
        self.peer.load(request["path"])
        return {"version": importlib.metadata.version(self.peer.package),
                "memory_bytes": resident_bytes() - before}

    def batches(self, request):
        settings, threads = request["settings"], request["threads"]
        queries, seconds, start = 0, 0, time.perf_counter()
        while seconds < SHORTEST_PASS_S:
            found = [self.peer.search(self.query[i:i + BATCH], settings, threads)
                     for i in range(0, len(self.query), BATCH)]
            queries += len(self.query)
            seconds = time.perf_counter() - start
        ids = np.concatenate(found).astype(np.int64)
        distances = self.truth.distances(ids)
        return {"queries": queries, "seconds": seconds,
                "recall": results.recall(ids.tolist(), distances.tolist(), self.truth.kth.tolist())}

    def singles(self, request):
        settings, latencies = request["settings"], []
        for q in range(min(WARM_UP_QUERIES, len(self.query))):
            self.peer.search_one(self.query[q:q + 1], settings)
        for q in range(request["round"], len(self.query), request["rounds"]):
            one = self.query[q:q + 1]
            start = time.perf_counter()
            self.peer.search_one(one, settings)
            latencies.append(1e6 * (time.perf_counter() - start))
        return {"latencies_us": latencies}


def main():
    # Libraries print; the answers keep the real stdout for themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except PeersError as error:
            answer = {"error": str(error)}
        except Exception as error:  # whatever a library throws is the answer
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
