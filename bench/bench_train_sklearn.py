#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Seconds of one EM iteration of scikit-learn's GaussianMixture(covariance_type='spherical').

usage: bench_train_sklearn.py BASE.u8bin [n] [K]      (defaults: 262144 256)
Needs numpy and scikit-learn. Counts the E- and M-steps of four iterations alone, not the start.
"""
import statistics
import sys
import time
import warnings

import numpy as np
from sklearn.mixture import GaussianMixture


class Timed(GaussianMixture):
    """Notes how long each step takes."""

    def _e_step(self, X, **more):
        begin = time.perf_counter()
        result = super()._e_step(X, **more)
        self.e_steps.append(time.perf_counter() - begin)
        return result

    def _m_step(self, X, log_resp, **more):
        begin = time.perf_counter()
        super()._m_step(X, log_resp, **more)
        self.m_steps.append(time.perf_counter() - begin)


path = sys.argv[1]
n = int(sys.argv[2]) if len(sys.argv) > 2 else 262144
K = int(sys.argv[3]) if len(sys.argv) > 3 else 256
rows, d = np.fromfile(path, "<u4", 2)
x = np.fromfile(path, "u1", min(n, rows) * d, offset=8).reshape(-1, d).astype("f4")
start = x[np.random.default_rng(1).choice(len(x), K, replace=False)]
model = Timed(K, covariance_type="spherical", max_iter=4, tol=0, means_init=start,
              weights_init=np.full(K, 1 / K), precisions_init=np.full(K, 1 / x.var()),
              init_params="random")
model.e_steps, model.m_steps = [], []
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    model.fit(x)
seconds = statistics.median(model.e_steps) + statistics.median(model.m_steps)
print(f"n {len(x)}, d {d}, K {K}: {seconds:.2f} s an iteration")
