// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <functional>
#include <string>

#include "faiss_gmm/compat/layout.h"

namespace faiss_gmm {

/// Makes faiss::write_index, read_index, write_InvertedLists and read_InvertedLists know RunInvertedLists
/// (key "ilgm") and MixtureBlockLists ("ilgb"), once for the process. Whatever makes such lists calls it; a program that reads with FAISS's
/// own read_index, and made no index of this library before, calls it itself. Any thread may; but, as
/// FAISS has it, none may read or write other indices at the time of the first call. Throws faiss::FaissException
/// where the loaded FAISS is not the one compiled against (compat/layout.h), as every constructor of an index does.
void register_lists_io();

/// Who hears of it when a stock index searches lists of this library: what faiss::read_index makes of a file of ours
/// is a plain IVF over its lists, with the recall of one (storage=copies: ids repeat), until promote() of
/// io/index_io.h turns it back. Called once for such lists, from the thread that searches them; null: nobody. For
/// the process; set it before anything searches.
using StockSearchWarning = std::function<void(const std::string&)>;
void set_stock_search_warning(StockSearchWarning warning);
const StockSearchWarning& stock_search_warning();

} // namespace faiss_gmm
