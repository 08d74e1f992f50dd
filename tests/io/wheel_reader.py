# SPDX-License-Identifier: MIT
"""A program that knows PyPI's FAISS alone: wheel_reader.py INDEX QUERIES K LABELS. As stock_reader.cc, nprobe as read."""
import sys

import faiss
import numpy

_, path, queries, k, labels = sys.argv
try:
    index = faiss.read_index(path)
except RuntimeError as error:
    sys.exit(str(error))
rows = numpy.fromfile(queries, dtype=numpy.float32).reshape(-1, index.d)
index.search(rows, int(k))[1].tofile(labels)
