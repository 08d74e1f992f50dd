// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// A small search service, in types of FAISS alone. It is compiled twice, as namespace SERVICE: over FAISS, and with
// faiss_gmm's index_factory and read_index in place of the stock two (service.cc). So it has no guard: a test
// includes it once for each.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <shared_mutex>
#include <string>
#include <vector>

#include <faiss/Index.h>

namespace SERVICE {

/// Vectors under ids of the caller's. Any thread may call anything at any time.
class SearchService {
public:
    struct Hit {
        int64_t id;
        float distance;
    };

    /// description: of an IVF index, for the factory.
    SearchService(int d, const std::string& description);

    void train(const std::vector<float>& x);
    void add(const std::vector<int64_t>& ids, const std::vector<float>& x);
    /// Returns how many of them were there.
    size_t remove(const std::vector<int64_t>& ids);
    /// The k nearest of each query, or fewer.
    std::vector<std::vector<Hit>>
    search(const std::vector<float>& queries, size_t k, size_t nprobe) const;
    void save(const std::string& path) const;
    void load(const std::string& path);
    size_t size() const;
    /// Inside the service: what it is made of.
    const faiss::Index& index() const {
        return *index_;
    }

private:
    std::unique_ptr<faiss::Index> index_;
    mutable std::shared_mutex lock_;
};

} // namespace SERVICE
