#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
# Copyright (c) 2026 the faiss_gmm authors
"""Makes contrib/docs/support.md of what tests/factory/every_string_test.cc and tests/index/every_codec_test.cc saw.

    index_strings_test --gtest_output=json:strings.json
    index_every_codec_test --gtest_output=json:codecs.json
    support_table.py 1.7.3=strings.json,codecs.json [1.11=...] > contrib/docs/support.md

One argument a version of FAISS: its name, and the results of the tests built against it.
"""
import json
import sys

HEAD = """# What works with what

Each string of `faiss_gmm::index_factory` here was made an index of 8 lists and d = 32 by a test, which asked all of this of it;
L2 and IP (inner product) are the metrics. *Runs and sketches*, *runs*, *plain lists* and *copies* are how its lists hold vectors:
all of them were trained, filled and searched, and where all lists are probed found what the stock class finds over the same
lists. A codec has sketches where its code is over twice a sketch's size, or where `sketch=` asks for them. What does not work
says who refuses, and with which words. Wrappers, changing an index and services are in [Inside FAISS](faiss.md).

This file is made of the tests' results, never by hand:

    build/release/tests/factory/index_strings_test --gtest_output=json:strings.json
    build/release/tests/index/index_every_codec_test --gtest_output=json:codecs.json
    contrib/support_table.py {version}=strings.json,codecs.json > contrib/docs/support.md

with one `VERSION=FILES` for each version of FAISS that the tests were built against: each gets a column. What is asserted stands in
[every_string_test.cc](../../tests/factory/every_string_test.cc) and [every_codec_test.cc](../../tests/index/every_codec_test.cc).
"""

ASKED = [
    ("search_parameters", "`nprobe` and a selector, for one search"),
    ("range_search", "`range_search`"),
    ("reconstruct", "`reconstruct`"),
    ("remove_ids", "`remove_ids`"),
    ("written_and_read", "Written and read: the same results, the same bytes again"),
    ("cloned", "Cloned: the same"),
    ("exported", "Exported to stock classes: the same results"),
]


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
            [f"`{name}`", ", ".join(metrics), *rows.answers(name, "lists")]
            for name, metrics in rows.metrics.items()
        ],
    )


def print_question(title, rows, question, versions):
    names = {}  # those with the same answers
    for name in rows.metrics:
        names.setdefault(rows.answers(name, question), []).append(f"`{name}`")
    names.pop(("",) * len(versions), None)  # no index was made
    works = names.pop(("works",) * len(versions), [])
    print(f"\n## {title}")
    if not names:
        print(f"\nWorks for all {len(works)} strings that make an index.")
    else:
        print(f"\nWorks for {len(works)} strings, all but these:")
        print_table(
            [*(f"FAISS {v}" for v in versions), "strings"],
            [[*answers, ", ".join(of)] for answers, of in names.items()],
        )


def main(arguments):
    versions = {}
    for argument in arguments:
        version, _, paths = argument.partition("=")
        versions[version] = [test for path in paths.split(",") if path for test in tests_of(path)]
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


if __name__ == "__main__":
    main(sys.argv[1:])
