# SPDX-License-Identifier: MIT
"""A benchmark set on disk: base.*, query.*, gt.ibin, as datasets/dataset.h reads them.

What `describe` needs is in Python itself; `rows` and `Truth` (in the workers) need numpy.
"""
import ast
import hashlib
import os
import struct
from dataclasses import dataclass

from errors import PeersError

# Extension: element type in numpy's words. texmex formats have an int32 d before each row.
BIG_ANN = {".fbin": "<f4", ".u8bin": "|u1", ".i8bin": "|i1"}
TEXMEX = {".fvecs": "<f4", ".bvecs": "|u1"}
EXTENSIONS = (*BIG_ANN, *TEXMEX, ".npy")


@dataclass(frozen=True)
class Shape:
    """Where the rows of a file are."""
    path: str
    type: str  # in numpy's words
    n: int
    d: int
    offset: int  # bytes before the first row's elements
    stride: int  # bytes from row to row


@dataclass(frozen=True)
class Description:
    name: str
    folder: str
    base: Shape
    query: Shape
    truth: str
    fingerprint: str  # tells sets of one name apart in the cache


def describe(folder):
    doing = f"opening the data set '{folder}'"
    if not os.path.isdir(folder):
        raise PeersError(doing, "no folder of this name",
                         "a folder with base.*, query.* and gt.ibin", "check the path")
    base, query = (shape(find(folder, stem)) for stem in ("base", "query"))
    truth = os.path.join(folder, "gt.ibin")
    if not os.path.isfile(truth):
        raise PeersError(doing, "no gt.ibin", "u32 queries, u32 k, int32 ids [queries, k]",
                         "put it there, or unpack the set again")
    if base.d != query.d:
        raise PeersError(doing, f"base of {base.d} dimensions, queries of {query.d}",
                         "the same number for both", "use the queries that belong to this base")
    name = os.path.basename(os.path.abspath(folder))
    return Description(name, os.path.abspath(folder), base, query, truth, fingerprint(base.path))


def find(folder, stem):
    """The one vector file stem.* of the folder."""
    found = [stem + e for e in EXTENSIONS if os.path.isfile(os.path.join(folder, stem + e))]
    if len(found) != 1:
        given = f"more than one: {', '.join(found)}" if found else f"no {stem}.*"
        next_step = "keep the one that is meant" if found else "put it there, or unpack the set again"
        raise PeersError(f"opening the data set '{folder}'", given,
                         f"one file {stem}.* ({' '.join(EXTENSIONS)})", next_step)
    return os.path.join(folder, found[0])


def shape(path):
    extension = os.path.splitext(path)[1]
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(4096)
    if extension == ".npy":
        found = npy_shape(path, head)
    elif len(head) < 8:
        found = None
    elif extension in BIG_ANN:
        n, d = struct.unpack("<II", head[:8])
        kind = BIG_ANN[extension]
        found = Shape(path, kind, n, d, 8, d * int(kind[2]))
    else:
        (d,) = struct.unpack("<i", head[:4])
        kind = TEXMEX[extension]
        stride = 4 + d * int(kind[2])
        found = Shape(path, kind, size // stride if d > 0 else 0, d, 4, stride)
    if found is None or found.n < 1 or found.d < 1 or size != file_size(found, extension):
        raise PeersError(f"reading '{path}'", f"{size} bytes that do not fit the file's header",
                         "a whole file of at least one row", "fetch or write the file again")
    return found


def file_size(found, extension):
    start = 0 if extension in TEXMEX else found.offset
    return start + found.n * found.stride


def npy_shape(path, head):
    """Versions 1.0 and 2.0 of numpy's format, two dimensions in C order."""
    if head[:6] != b"\x93NUMPY" or head[6] not in (1, 2):
        return None
    length, start = (struct.unpack("<H", head[8:10])[0], 10) if head[6] == 1 else (
        struct.unpack("<I", head[8:12])[0], 12)
    try:
        header = ast.literal_eval(head[start:start + length].decode("latin1"))
        kind, (n, d) = header["descr"], header["shape"]
    except (ValueError, SyntaxError, KeyError, TypeError):
        return None
    if header.get("fortran_order") or kind not in ("<f4", "|u1", "|i1"):
        return None
    return Shape(path, kind, n, d, start + length, d * int(kind[2]))


def fingerprint(path):
    """Of the size and of the first and last MB."""
    size = os.path.getsize(path)
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        digest.update(file.read(1 << 20))
        file.seek(max(0, size - (1 << 20)))
        digest.update(file.read())
    return digest.hexdigest()[:10]


def rows(found, metric):
    """A function: ids or a slice -> floats [rows, d]; under cosine of unit length."""
    import numpy as np
    mapped = np.memmap(found.path, np.uint8, "r")
    table = np.lib.stride_tricks.as_strided(
        np.ndarray(1, found.type, mapped, found.offset), (found.n, found.d),
        (found.stride, int(found.type[2])))

    def read(ids):
        x = np.ascontiguousarray(table[ids], dtype=np.float32)
        if metric in ("cosine", "cosine-ip"):
            lengths = np.sqrt((x.astype(np.float64) ** 2).sum(-1, keepdims=True))
            if not (np.isfinite(lengths).all() and (lengths > 0).all()):
                raise PeersError(f"bringing the rows of '{found.path}' to unit length",
                                 "a row without length", "rows with a direction",
                                 "remove the row, or use the metric l2 or ip")
            x = (x / lengths).astype(np.float32)
        return x
    return read


def all_rows(found, metric):
    """[n, d] floats, made in steps, so that what is needed meanwhile stays small."""
    import numpy as np
    read, step = rows(found, metric), 1 << 16
    x = np.empty((found.n, found.d), np.float32)
    for first in range(0, found.n, step):
        x[first:first + step] = read(slice(first, first + step))
    return x


class Truth:
    """Distances in double precision, and those of the true k-th neighbours."""

    def __init__(self, description, metric, k):
        import numpy as np
        self.n = description.base.n
        self.base = rows(description.base, metric)
        self.query = all_rows(description.query, metric)
        self.inner_product = metric in ("ip", "cosine-ip")
        head = np.fromfile(description.truth, "<u4", 2)
        if len(head) < 2 or head[0] != len(self.query) or head[1] < k:
            raise PeersError(f"reading true neighbours from '{description.truth}'",
                             f"a header that says {head.tolist()}",
                             f"{len(self.query)} queries and at least {k} neighbours",
                             "use the file that belongs to these queries")
        ids = np.fromfile(description.truth, "<i4", int(head[0]) * int(head[1]), offset=8)
        self.kth = self.distances(ids.reshape(head)[:, :k]).max(-1)

    def distances(self, ids):
        """ids [nq, k] -> [nq, k], smaller is nearer; of ids that are no rows: infinity."""
        import numpy as np
        out = np.empty(ids.shape)
        for first in range(0, len(ids), 250):  # in steps that stay in the cache
            part = slice(first, first + 250)
            real = (ids[part] >= 0) & (ids[part] < self.n)
            x = self.base(np.where(real, ids[part], 0)).astype(np.float64)
            y = self.query[part, None].astype(np.float64)
            near = -(x * y).sum(-1) if self.inner_product else ((x - y) ** 2).sum(-1)
            out[part] = np.where(real, near, np.inf)
        return out
