# SPDX-License-Identifier: MIT
"""Workers, and how they take turns.

One worker runs at a time. First every worker tries all its settings once (`trial`); then the
points on the front of each series are timed in rounds (`measure`): in each round all workers do
their first point one after the other, then their second, and so on, so that whatever the machine
does meanwhile falls on all of them alike.
"""
import json
import os
import statistics
import subprocess
from dataclasses import dataclass, field

import results
from errors import PeersError

# Points that are timed: from recall LOW to HIGH (and one beyond each), at most MOST a series.
LOW, HIGH, MOST = .8, .995, 12


class WorkerFailed(PeersError):
    pass


class Worker:
    """A process that answers lines of JSON with lines of JSON."""

    def __init__(self, command, name, log, threads):
        self.name, self.log = name, log
        limits = {f"{library}_NUM_THREADS": str(threads)
                  for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}
        limits["OMP_WAIT_POLICY"] = "passive"  # threads whose turn it is not leave the CPU to others
        with open(log, "w") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                env={**os.environ, **limits})

    def ask(self, do, **request):
        try:
            self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.fail(do, f"a process that ended with status {self.process.wait()}")
        try:
            answer = json.loads(line)
        except ValueError:
            self.fail(do, f"the answer {line.strip()[:80]!r}")
        if "error" in answer:
            self.fail(do, answer["error"])
        return answer

    def fail(self, do, given):
        raise WorkerFailed(f"asking the worker of {self.name} to {do}", given,
                           "a line of JSON without error", f"its own messages are in {self.log}")

    def pin(self, cpus):
        """All of its threads to these CPUs; those it starts later inherit them."""
        for thread in os.listdir(f"/proc/{self.process.pid}/task"):
            try:
                os.sched_setaffinity(int(thread), cpus)
            except ProcessLookupError:
                pass  # it has ended meanwhile

    def close(self):
        try:
            self.process.stdin.close()  # its loop over the requests ends
        except BrokenPipeError:
            pass  # it has ended already
        self.process.stdout.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class Point:
    settings: dict
    recall: float
    qps: float  # of the trial
    rounds: list = field(default_factory=list)  # queries per second of each
    latencies_us: list = field(default_factory=list)

    def figures(self):
        return {"recall_at_10": self.recall, "qps": statistics.median(self.rounds),
                "p50_us": results.quantile(self.latencies_us, .5),
                "p99_us": results.quantile(self.latencies_us, .99)}


@dataclass
class Subject:
    """An index under test: its worker, and what is known of it."""
    peer: str
    series: str
    build: dict
    settings: list
    worker: Worker
    facts: dict  # what `open` answered
    points: list = field(default_factory=list)


def batches(subject, settings, threads):
    answer = subject.worker.ask("batches", settings=settings, threads=threads)
    return answer["queries"] / answer["seconds"], answer["recall"]


def trial(subject, threads):
    """All settings once, cheap ones first as the grid has them."""
    for settings in subject.settings:
        qps, found = batches(subject, settings, threads)
        subject.points.append(Point(settings, found, qps))


def choose(subjects):
    """Leaves to each subject its points on the front of its series."""
    for series in {s.series for s in subjects}:
        own = [s for s in subjects if s.series == series]
        tried = [{"recall_at_10": p.recall, "qps": p.qps, "point": p} for s in own for p in s.points]
        kept = [p["point"] for p in results.thinned(results.front(tried), LOW, HIGH, MOST)]
        for subject in own:
            subject.points = sorted((p for p in subject.points if any(p is k for k in kept)),
                                    key=lambda p: p.recall)


def measure(subjects, threads, rounds, show, failed):
    """Times the chosen points. A subject whose worker fails loses its points: failed(it, why)."""
    for number in range(rounds):
        for slot in range(max((len(s.points) for s in subjects), default=0)):
            for subject in subjects:
                if slot >= len(subject.points):
                    continue
                show(f"round {number + 1} of {rounds}, turn {slot + 1}: {subject.worker.name}")
                point = subject.points[slot]
                try:
                    qps, _ = batches(subject, point.settings, threads)
                    singles = subject.worker.ask(
                        "singles", settings=point.settings, round=number, rounds=rounds)
                except WorkerFailed as error:
                    subject.points = []
                    failed(subject, error)
                    continue
                point.rounds.append(qps)
                point.latencies_us += singles["latencies_us"]
