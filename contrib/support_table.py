#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
# Copyright (c) 2026 the faiss_gmm authors
"""Makes contrib/docs/support.md of what tests saw of codecs, of pieces of FAISS and of search routes.

    for test in factory/index_strings_test index/index_{every_codec,wrappers,routes}_test io/io_ondisk_test; do
        build/release/tests/$test --gtest_output=json:results/1.7.3/
    done
    contrib/support_table.py 1.7.3=results/1.7.3 [1.11=results/1.11 ...] > contrib/docs/support.md

One argument a version of FAISS: its name, and the folder with the results of the tests built against it.
"""
import json
import pathlib
import sys

HEAD = """# What works with what

In three parts: strings and codecs; the pieces of FAISS around an index; the routes by which a search can reach it, with the recall of
each. This file is made of the tests' results, never by hand:

    for test in factory/index_strings_test index/index_{{every_codec,wrappers,routes}}_test io/io_ondisk_test; do
        build/release/tests/$test --gtest_output=json:results/{version}/
    done
    contrib/support_table.py {version}=results/{version} > contrib/docs/support.md

with one `VERSION=FOLDER` for each version of FAISS that the tests were built against: each gets a column. What is asserted stands in
[every_string_test.cc](../../tests/factory/every_string_test.cc), [every_codec_test.cc](../../tests/index/every_codec_test.cc),
[wrappers_test.cc](../../tests/index/wrappers_test.cc), [ondisk_test.cc](../../tests/io/ondisk_test.cc) and
[routes_test.cc](../../tests/index/routes_test.cc). How to use the pieces is in [Inside FAISS](faiss.md).

# Strings and codecs

Each string of `faiss_gmm::index_factory` here was made an index of 8 lists and d = 32 by a test, which asked all of this of it;
L2 and IP (inner product) are the metrics. *Runs and sketches*, *runs*, *plain lists* and *copies* are how its lists hold vectors:
all of them were trained, filled and searched, and where all lists are probed found what the stock class finds over the same
lists. A codec has sketches where its code is over twice a sketch's size, or where `sketch=` asks for them. What does not work
says who refuses, and with which words.
"""

PIECES = """
# Pieces of FAISS around an index

Each was used over indices of `Flat` with the lists that `sketch=auto`, `sketch=none` and `storage=copies` ask for, under both
metrics; where these differ, a cell has three answers in this order. An answer names what searches with few of the lists used, as
they were counted: *runs and sketches* and *runs* are the search by budget; *the lists and their guests* are scanned whole and
exactly, which is the plain spill; *copies* are plain lists scanned whole, an id returned once. With all lists the results were
those of brute force.
"""

ROUTES = """
# Search routes

The embedded set (20,000 SIFT descriptors, 500 queries), 64 lists, nprobe 8: recall@10, and the vectors visited a query, by every
route. 8 of 64 lists hold 2,500 vectors on average. What is used is told as above; *plain lists, by FAISS* means that neither runs nor guests are.
"""

SELECTED = """
## With a selector

`IVFGMM64,Flat` where only a share of the vectors may be found: recall@10 among these, and the vectors visited, selected or not.
*Stock* is FAISS's own index over the same lists.
"""

ABSENT = "not in this FAISS"
NOT_RUN = "-"  # of a version whose results hold nothing of this kind

ASKED = [
    ("search_parameters", "`nprobe` and a selector, for one search"),
    ("range_search", "`range_search`"),
    ("reconstruct", "`reconstruct`"),
    ("remove_ids", "`remove_ids`"),
    ("written_and_read", "Written and read: the same results, the same bytes again"),
    ("cloned", "Cloned: the same"),
    ("exported", "Exported to stock classes: the same results"),
]

OVER = ["sketches", "runs", "copies"]  # tests/index/support_record.h


class Rows:
    """What was asked of each name (a string or a codec) under each metric: {(name, metric): properties}."""

    def __init__(self, kind, versions):
        self.by_version = {
            version: {
                (test[kind], test["metric"]): test for test in tests if kind in test
            }
            for version, tests in versions.items()
        }
        self.metrics = {}
        for rows in self.by_version.values():
            for name, metric in rows:
                self.metrics.setdefault(name, {})[metric] = True

    def answers(self, name, question):
        """A version's answer each: that of all metrics, or each metric's where they differ."""
        answers = []
        for rows in self.by_version.values():
            said = {m: rows.get((name, m), {}).get(question) for m in self.metrics[name]}
            said = {m: answer for m, answer in said.items() if answer}
            if len(set(said.values())) > 1:
                answers.append("; ".join(f"{m}: {a}" for m, a in said.items()))
            else:
                answers.append(next(iter(said.values()), ""))
        return tuple(answers)


def properties_of(versions, prefix):
    """What tests of a version recorded under names with a prefix: {name: {over: seen}} each."""
    found = {}
    for version, tests in versions.items():
        found[version] = {}
        for test in tests:
            for key, seen in test.items():
                if key.startswith(prefix):
                    found[version].setdefault(key[len(prefix):], {})[test["over"]] = seen
    return found


def tests_of(path):
    with open(path, encoding="utf-8") as file:
        suites = json.load(file)["testsuites"]
    tests = [test for suite in suites for test in suite["testsuite"]]
    for test in tests:
        if "failures" in test:
            sys.exit(f"{path}: {test['name']} failed; a table is made of tests that pass")
    return tests


def escaped(text):
    return " ".join(text.split()).replace("|", "\\|")


def print_table(head, lines):
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for line in lines:
        print("| " + " | ".join(escaped(cell) for cell in line) + " |")


def print_lists(title, rows, head):
    print(f"\n## {title}")
    print_table(
        head,
        [
            [f"`{name}`", ", ".join(metrics), *(a or ABSENT for a in rows.answers(name, "lists"))]
            for name, metrics in rows.metrics.items()
        ],
    )


def print_question(title, rows, question, versions):
    names = {}  # those with the same answers
    for name in rows.metrics:
        names.setdefault(rows.answers(name, question), []).append(f"`{name}`")
    names.pop(("",) * len(versions), None)  # no index was made
    works = []  # with every version that makes an index
    for answers in [a for a in names if set(a) <= {"", "works"}]:
        works += names.pop(answers)
    print(f"\n## {title}")
    if not names:
        print(f"\nWorks for all {len(works)} strings that make an index.")
    else:
        print(f"\nWorks for {len(works)} strings, all but these:")
        print_table(
            [*(f"FAISS {v}" for v in versions), "strings"],
            [[*(a or "no index" for a in answers), ", ".join(of)] for answers, of in names.items()],
        )


def names_in_order(by_version):
    """Of all versions: those of the one with most first, the others behind."""
    most_first = sorted(by_version.values(), key=len, reverse=True)
    return list(dict.fromkeys(name for rows in most_first for name in rows))


def absent_in(rows):
    return ABSENT if rows else NOT_RUN


def print_pieces(versions):
    by_version = properties_of(versions, "piece.")
    lines = []
    for name in names_in_order(by_version):
        cells = []
        for rows in by_version.values():
            seen = [rows[name][over] for over in OVER if over in rows[name]] if name in rows else []
            distinct = list(dict.fromkeys(seen))
            cells.append("; ".join(distinct if len(distinct) == 1 else seen) or absent_in(rows))
        lines.append([f"`{name}`", *cells])
    print(PIECES, end="")
    print_table(["piece", *(f"FAISS {version}" for version in versions)], lines)


def print_routes(versions):
    by_version = {
        version: {(test["section"], test["route"]): test for test in tests if "route" in test}
        for version, tests in versions.items()
    }
    order = names_in_order(by_version)
    print(ROUTES, end="")
    for section in dict.fromkeys(section for section, _ in order):
        print(f"\n## {section}")
        lines = []
        for of, route in order:
            if of != section:
                continue
            seen = [(rows, rows.get((of, route))) for rows in by_version.values()]
            used = dict.fromkeys(test["used"] for _, test in seen if test)
            cells = [
                f"{test['recall']}, {int(test['visited']):,}" if test else absent_in(rows)
                for rows, test in seen
            ]
            lines.append([route, "; ".join(used), *cells])
        print_table(["route", "what is used", *(f"FAISS {v}: recall, visited" for v in versions)], lines)


def print_selected(versions):
    print(SELECTED, end="")
    lines = []
    shares = {}  # {(share, route): {version: recall and visited}}
    for version, tests in versions.items():
        for test in tests:
            for key in test:
                if key.startswith("selected."):
                    route = key[len("selected."):]
                    cell = f"{test[key]}, {int(test['visited.' + route]):,}"
                    row = shares.setdefault((test["selected"], route), {"used": test["used." + route]})
                    row[version] = cell
    for (share, route), row in shares.items():
        cells = [
            row.get(version, absent_in(any(version in other for other in shares.values())))
            for version in versions
        ]
        lines.append([share, route, row["used"], *cells])
    print_table(
        ["selected", "route", "what is used", *(f"FAISS {v}: recall, visited" for v in versions)],
        lines,
    )


def main(arguments):
    versions = {}
    for argument in arguments:
        version, _, folder = argument.partition("=")
        paths = sorted(pathlib.Path(folder).glob("*.json"))
        versions[version] = [test for path in paths for test in tests_of(path)]
    if not versions or not all(versions.values()):
        sys.exit(__doc__)
    strings, codecs = Rows("string", versions), Rows("codec", versions)
    print(HEAD.format(version=next(iter(versions))), end="")
    columns = [f"FAISS {version}" for version in versions]
    print_lists("What holds the vectors", strings, ["string", "metrics", *columns])
    for question, title in ASKED:
        print_question(title, strings, question, list(versions))
    print_lists(
        "Codecs as classes, d = 24, those that no string names among them",
        codecs,
        ["codec", "metrics", *columns],
    )
    print_pieces(versions)
    print_routes(versions)
    print_selected(versions)


if __name__ == "__main__":
    main(sys.argv[1:])
