#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench/peers without any peer: figures, grids, data sets, turns, and the program as a user runs it.

BENCH_PEERS_WORKER in the environment is our own worker. Python's library alone, no network.
"""
import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest

PEERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench", "peers")
sys.path.insert(0, PEERS)
sys.dont_write_bytecode = True

import dataset
import environment
import grids
import results
import turns
from errors import PeersError

# A worker that follows the protocol: recall grows with nprobe, speed falls with it, and the three
# rounds after the trial answer 1, 3 and 2 times the speed. It notes each request in LOG.
FAKE_WORKER = """#!{python}
import json, sys
NAME, SPEED, LOG, FAILS = {name!r}, {speed}, {log!r}, {fails!r}
calls = {{}}
for line in sys.stdin:
    request = json.loads(line)
    do = request["do"]
    with open(LOG, "a") as log:
        log.write(json.dumps([NAME, do, request.get("settings")]) + "\\n")
    if do == FAILS:
        answer = {{"error": "made to fail"}}
    elif do == "open":
        answer = {{"version": "1", "build_s": 2.5, "memory_bytes": 640}}
    elif do == "singles":
        answer = {{"latencies_us": [10, 20, 30, 40]}}
    else:
        nprobe = request["settings"]["nprobe"]
        calls[line] = calls.get(line, -1) + 1
        qps = SPEED / nprobe * [1, 1, 3, 2][calls[line]]
        answer = {{"queries": 100, "seconds": 100 / qps, "recall": 1 - .25 / nprobe}}
    print(json.dumps(answer), flush=True)
"""


def point(recall, qps, series="x", peer="x", **more):
    return {"peer": peer, "series": series, "recall_at_10": recall, "qps": qps,
            "parameters": {"build": {}}, "build_s": 1, "memory_ratio": 1.5, **more}


class Figures(unittest.TestCase):
    def test_recall_counts_ties_and_each_id_once(self):
        # Query 0: id 7 twice, a tie with the limit, one too far. Query 1: nothing and no row.
        ids = [[7, 7, 3, 4], [-1, 5, -1, 6]]
        distances = [[1, 1, 2, 2.1], [0, .5, 0, float("inf")]]
        self.assertEqual(results.recall(ids, distances, [2, 1]), 3 / 8)

    def test_quantiles_are_nearest_ranks(self):
        self.assertEqual(results.quantile([4, 1, 3, 2], .5), 2)
        self.assertEqual(results.quantile([4, 1, 3, 2], .99), 4)
        self.assertEqual(results.quantile([5], .01), 5)

    def test_front_drops_what_another_beats_in_both(self):
        points = [point(.9, 100), point(.95, 50), point(.93, 40), point(.9, 90), point(.8, 100)]
        self.assertEqual([(p["recall_at_10"], p["qps"]) for p in results.front(points)],
                         [(.9, 100), (.95, 50)])
        self.assertEqual(results.front([]), [])

    def test_between_neighbours_recall_is_linear_in_log_speed(self):
        points = [point(.90, 1000), point(.96, 10), point(.93, 5)]
        qps, exact = results.qps_at(points, .93)
        self.assertAlmostEqual(qps, 100)  # the geometric mean, halfway
        self.assertTrue(exact)
        self.assertAlmostEqual(results.qps_at(points, .96)[0], 10)

    def test_no_extrapolation(self):
        points = [point(.92, 1000), point(.96, 10)]
        self.assertEqual(results.qps_at(points, .97), (None, True))
        self.assertEqual(results.qps_at([], .9), (None, True))
        self.assertEqual(results.qps_at(points, .90), (1000, False))  # at least that fast

    def test_thinned_keeps_one_beyond_each_end(self):
        line = [point(r, 1 / r) for r in (.5, .7, .85, .9, .99, .996, .999)]
        kept = [p["recall_at_10"] for p in results.thinned(line, .8, .995, 12)]
        self.assertEqual(kept, [.7, .85, .9, .99, .996])
        many = [point(.8 + i / 1000, 1000 - i) for i in range(200)]
        few = results.thinned(many, .8, .995, 12)
        self.assertLessEqual(len(few), 12)
        self.assertGreaterEqual(len(few), 10)
        self.assertEqual([few[0], few[-1]], [many[0], many[195]])

    def test_tables(self):
        points = [point(.90, 1000, "peer"), point(.99, 100, "peer", build_s=3),
                  point(.92, 4000, "ours", grids.OURS), point(.98, 1000, "ours", grids.OURS)]
        points[1]["parameters"] = {"build": {"M": 2}}
        self.assertEqual(results.qps_table(points), """\
| queries/s at recall@10 |    0.90 |  0.95 |  0.98 | 0.99 |    build s | memory / fp32 rows |
|------------------------|---------|-------|-------|------|------------|--------------------|
| ours                   | >=4,000 | 2,000 | 1,000 |    - |        1.0 |               1.50 |
| peer                   |   1,000 |   278 |   129 |  100 | 1.0 to 3.0 |               1.50 |
""")
        self.assertEqual(results.ratio_tables(points), """\
| ours / peer |   0.90 | 0.95 | 0.98 | 0.99 |
|-------------|--------|------|------|------|
| peer        | >=4.00 | 7.19 | 7.74 |    - |
""")
        self.assertEqual(results.ratio_text((4, True), (2, False)), "<=2.00")
        self.assertEqual(results.ratio_tables(points[:2]), "")


class Grids(unittest.TestCase):
    def test_numbers_follow_from_the_set(self):
        self.assertEqual(grids.sizes(10**6, 128), {
            "lists": 1024, "lists2": 2048, "lists4": 4096, "half": 64, "quarter": 32})
        self.assertEqual(grids.sizes(160000, 384)["lists"], 512)

    def test_every_combination_once(self):
        grid = {"a": (1, 2, 3), "b": (4, 5)}
        every = grids.combinations(grid)
        self.assertEqual(len(every), 6)
        self.assertIn({"a": 3, "b": 4}, every)
        self.assertEqual(grids.combinations(grid, quick=True),
                         [{"a": 1, "b": 4}, {"a": 3, "b": 4}])

    def test_plans(self):
        self.assertEqual({p.peer for p in grids.plans(grids.PEERS, "l2", 20000, 128)},
                         set(grids.PEERS))
        factories = [p.build["factory"] for p in grids.plans(["faiss"], "l2", 10**6, 128)]
        self.assertIn("IVF1024,PQ64x4fs,RFlat", factories)
        soar = [[p.build["soar"] for p in grids.plans(["scann"], m, 10**6, 128)]
                for m in ("l2", "cosine")]
        self.assertEqual([any(s) for s in soar], [False, True])  # it takes inner products alone
        quick = grids.plans(grids.PEERS, "cosine", 20000, 128, quick=True)
        self.assertEqual(len(quick), len({p.series for p in quick}))
        for plan in quick:
            self.assertNotIn("{", json.dumps(list(plan.build.values())))

    def test_ours_never_probes_fewer_lists_than_it_wants_vectors_from(self):
        settings = grids.our_settings()
        self.assertIn({"nprobe": 8, "lists": 32, "k_factor": 10}, settings)
        self.assertTrue(all(s["lists"] in (0, *range(s["nprobe"], 1000)) for s in settings))


class Folder(unittest.TestCase):
    """Tests with a folder of their own."""

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = temporary.name
        self.log = self.path("requests")

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, content):
        with open(self.path(name), "wb") as file:
            file.write(content)

    def write_set(self):
        """300 points on a line, 8 queries beside points 3, 6, ...; ten true neighbours each."""
        def rows(values):
            return struct.pack("<II", len(values), 2) + b"".join(
                struct.pack("<2f", v, 1) for v in values)
        queries = [3 * (i + 4) + .1 for i in range(8)]
        self.write("base.fbin", rows(range(300)))
        self.write("query.fbin", rows(queries))
        truth = [i for q in queries for i in sorted(range(300), key=lambda x: abs(x - q))[:10]]
        self.write("gt.ibin", struct.pack("<II80i", 8, 10, *truth))

    def fake_worker(self, name, speed=1000, fails=""):
        self.write(name, FAKE_WORKER.format(python=sys.executable, name=name, speed=speed,
                                            log=self.log, fails=fails).encode())
        os.chmod(self.path(name), 0o755)
        return self.path(name)

    def requests(self, do):
        with open(self.log) as file:
            return [(name, settings) for name, done, settings in map(json.loads, file)
                    if done == do]


class DataSets(Folder):
    def test_formats(self):
        self.write("a.fbin", struct.pack("<II6f", 3, 2, *range(6)))
        self.write("a.i8bin", struct.pack("<II6b", 3, 2, *range(6)))
        self.write("a.bvecs", struct.pack("<i2Bi2B", 2, 0, 1, 2, 0, 1))
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }\n"
        self.write("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
                   + struct.pack("<6f", *range(6)))
        found = {e: dataset.shape(self.path("a" + e)) for e in (".fbin", ".i8bin", ".bvecs", ".npy")}
        self.assertEqual([(s.n, s.d) for s in found.values()], [(3, 2), (3, 2), (2, 2), (3, 2)])
        self.assertEqual((found[".bvecs"].offset, found[".bvecs"].stride), (4, 6))
        self.assertEqual(found[".npy"].offset, 10 + len(header))

    def test_files_that_do_not_fit(self):
        for name, content in (("a.fbin", b"123"), ("a.fbin", struct.pack("<II", 1, 1)),
                              ("a.bvecs", b"\0" * 9), ("a.npy", b"no header at all")):
            self.write(name, content)
            with self.assertRaisesRegex(PeersError, "reading .*: given .*; allowed: .*; fetch"):
                dataset.shape(self.path(name))

    def test_sets(self):
        self.write_set()
        found = dataset.describe(self.folder)
        self.assertEqual((found.base.n, found.base.d, found.query.n), (300, 2, 8))
        before = found.fingerprint
        self.write("base.fbin", struct.pack("<II600f", 300, 2, *[1] * 600))
        self.assertNotEqual(dataset.describe(self.folder).fingerprint, before)
        self.write("base.u8bin", b"")
        with self.assertRaisesRegex(PeersError, "more than one: base.fbin, base.u8bin"):
            dataset.describe(self.folder)
        os.remove(self.path("base.u8bin"))
        os.remove(self.path("gt.ibin"))
        with self.assertRaisesRegex(PeersError, "no gt.ibin"):
            dataset.describe(self.folder)


class Turns(Folder):
    def subject(self, name, series=None, **more):
        worker = turns.Worker([self.fake_worker(name, **more)], name, self.path("log"), 1)
        self.addCleanup(worker.close)
        settings = [{"nprobe": n} for n in (1, 4, 16)]
        return turns.Subject("x", series or name, {}, settings, worker, {})

    def test_workers_take_turns_and_medians_count(self):
        subjects = [self.subject("A"), self.subject("B", speed=500)]
        for subject in subjects:
            turns.trial(subject, 1)
        turns.choose(subjects)
        before = len(self.requests("batches"))
        turns.measure(subjects, 1, 3, lambda text: None, self.fail)
        timed = self.requests("batches")[before:]
        self.assertEqual([name for name, _ in timed], ["A", "B"] * 9)
        self.assertEqual([s["nprobe"] for _, s in timed[:6]], [1, 1, 4, 4, 16, 16])
        figures = subjects[1].points[0].figures()
        self.assertAlmostEqual(figures["qps"], 1000)  # of 500, 1500 and 1000
        self.assertEqual((figures["p50_us"], figures["p99_us"]), (20, 40))
        self.assertEqual(figures["recall_at_10"], .75)

    def test_the_front_is_that_of_the_series(self):
        fast, slow = self.subject("A", "one"), self.subject("B", "one", speed=500)
        for subject in (fast, slow):
            turns.trial(subject, 1)
        turns.choose([fast, slow])
        self.assertEqual([len(fast.points), len(slow.points)], [3, 0])

    def test_a_worker_that_fails_leaves_the_others(self):
        good, bad = self.subject("A"), self.subject("B", fails="singles")
        for subject in (good, bad):
            turns.trial(subject, 1)
        failures = []
        turns.measure([good, bad], 1, 3, lambda text: None, lambda s, why: failures.append((s, why)))
        self.assertEqual([s for s, _ in failures], [bad])
        self.assertRegex(str(failures[0][1]), "worker of B to singles: given made to fail; allowed")
        self.assertEqual([len(p.rounds) for p in good.points], [3, 3, 3])
        self.assertEqual(bad.points, [])

    def test_a_worker_that_ends(self):
        worker = turns.Worker(["false"], "gone", self.path("log"), 1)
        self.addCleanup(worker.close)
        with self.assertRaisesRegex(turns.WorkerFailed, "ended with status 1; .*messages are in"):
            worker.ask("open")


class Program(Folder):
    def run_it(self, *arguments):
        return subprocess.run(
            [sys.executable, os.path.join(PEERS, "run"), *arguments, "--cache", self.path("cache")],
            capture_output=True, text=True, stdin=subprocess.DEVNULL)

    def test_two_builds_of_ours(self):
        self.write_set()
        done = self.run_it(
            self.folder, "--metric", "l2", "--peers", "none", "--rounds", "3", "--json",
            self.path("o.jsonl"), "--worker", "a=" + self.fake_worker("A"), "--worker",
            "b=" + self.fake_worker("B", speed=500), "--index", "IVFGMM16,Flat")
        self.assertEqual((done.returncode, done.stderr), (0, ""))  # no progress: nobody watches
        self.assertIn("| faiss_gmm (a) IVFGMM16,Flat |", done.stdout)
        with open(self.path("o.jsonl")) as file:
            lines = [json.loads(line) for line in file]
        self.assertEqual({line["series"] for line in lines},
                         {"faiss_gmm (a) IVFGMM16,Flat", "faiss_gmm (b) IVFGMM16,Flat"})
        for key, value in {"peer": "faiss_gmm", "version": "1", "n": 300, "d": 2, "threads": 1,
                           "build_s": 2.5, "memory_bytes": 640, "memory_ratio": 640 / 2400,
                           "metric": "l2", "p50_us": 20, "rounds": 3}.items():
            self.assertEqual(lines[0][key], value)
        slow = min(line["qps"] for line in lines if "(b)" in line["series"]
                   and line["parameters"]["search"]["nprobe"] == 1)
        self.assertAlmostEqual(slow, 1000)

    def test_json_alone_goes_to_stdout(self):
        self.write_set()
        done = self.run_it(self.folder, "--metric", "cosine", "--peers", "none", "--quick",
                           "--worker", self.fake_worker("A"), "--json", "-")
        self.assertEqual(done.returncode, 0)
        for line in done.stdout.splitlines():
            self.assertEqual(json.loads(line)["series"], "faiss_gmm IVFGMM16,Flat")
        self.assertIn("queries/s at recall@10", done.stderr)

    def test_a_peer_that_cannot_be_installed_is_named(self):
        self.write_set()
        venv = environment.VirtualEnvironment(self.path("cache"))
        os.makedirs(os.path.dirname(venv.python))
        for stamp in ("made", "installed-base"):
            open(os.path.join(venv.folder, stamp), "w").close()
        with open(venv.python, "w") as file:
            file.write("#!/bin/sh\necho 'ERROR: no wheel for this machine' >&2\nexit 1\n")
        os.chmod(venv.python, 0o755)
        done = self.run_it(self.folder, "--metric", "l2", "--peers", "scann", "--quick",
                           "--worker", self.fake_worker("A"))
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stderr, "left out: scann==.* cannot be installed here: ERROR: no wheel")
        self.assertIn("faiss_gmm IVFGMM16,Flat", done.stdout)

    def test_exit_codes_and_messages(self):
        self.write_set()
        worker = self.fake_worker("A")
        self.assertEqual(self.run_it("--help").returncode, 0)
        for wrong in (["--metric", "l3"], [], ["--metric", "l2", "--peers", "milvus"],
                      ["--metric", "l2", "--threads", "0"], ["--metric", "l2", "--plot", "a.pdf"]):
            done = self.run_it(self.folder, *wrong)
            self.assertEqual(done.returncode, 2, wrong)
            self.assertRegex(done.stderr, "given .*; allowed: .*; correct")
        for wrong in (["--worker", worker, "--index", "IVF4,Flat"],
                      ["--worker", self.path("none")], ["--worker", worker, "--worker", worker],
                      ["--worker", worker, "--json", self.path("none/o")],
                      ["--worker", self.fake_worker("B", fails="open")]):
            done = self.run_it(self.folder, "--metric", "l2", "--peers", "none", *wrong)
            self.assertEqual((done.returncode, done.stdout), (1, ""), wrong)
            self.assertRegex(done.stderr, "^bench/peers/run: .*: given .*; allowed: .*; .*[.]\n$")
        self.assertEqual(self.run_it(self.path("none"), "--metric", "l2").returncode, 1)


@unittest.skipUnless("BENCH_PEERS_WORKER" in os.environ, "without BENCH_PEERS_WORKER")
class OurWorker(Folder):
    def test_it_follows_the_protocol(self):
        self.write_set()
        worker = turns.Worker([os.environ["BENCH_PEERS_WORKER"]], "ours", self.path("log"), 1)
        self.addCleanup(worker.close)
        settings = {"nprobe": 4, "lists": 0, "k_factor": 10}
        with self.assertRaisesRegex(turns.WorkerFailed, "open an index first"):
            worker.ask("batches", settings=settings, threads=1)
        with self.assertRaisesRegex(turns.WorkerFailed, "IVFGMM4,Nonsense"):
            worker.ask("open", data=self.folder, metric="l2", build={"index": "IVFGMM4,Nonsense"},
                       build_threads=1)
        opened = worker.ask("open", data=self.folder, metric="l2",
                            build={"index": "IVFGMM4,Flat"}, build_threads=1)
        self.assertIn("over FAISS", opened["version"])
        self.assertGreater(opened["build_s"], 0)
        passed = worker.ask("batches", settings=settings, threads=1)
        self.assertEqual(passed["recall"], 1)  # nprobe = nlist
        self.assertEqual(passed["queries"] % 8, 0)
        singles = worker.ask("singles", settings=settings, round=1, rounds=5)
        self.assertEqual(len(singles["latencies_us"]), 2)  # queries 1 and 6
        with self.assertRaisesRegex(turns.WorkerFailed, "open, batches, singles"):
            worker.ask("dance")


if __name__ == "__main__":
    unittest.main()
