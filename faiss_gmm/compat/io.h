// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include "faiss_gmm/compat/faiss_version.h"

// What faiss::IOReader and IOWriter call their file descriptor: another name since 1.9.
#if FAISS_GMM_FAISS_AT_LEAST(1, 9)
#define FAISS_GMM_FILENO filedescriptor
#else
#define FAISS_GMM_FILENO fileno
#endif
