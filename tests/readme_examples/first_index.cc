#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#include <faiss/IndexIVF.h>
#include <faiss_gmm/factory/index_factory.h>

int main() {
    const int d = 32, n = 20000, nq = 5, k = 3;
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> x(n * d), distances(nq * k);
    for (float& v : x)
        v = normal(random);
    std::unique_ptr<faiss::Index> index(faiss_gmm::index_factory(d, "IVFGMM64,Flat"));
    index->train(n, x.data());
    index->add(n, x.data());
    dynamic_cast<faiss::IndexIVF&>(*index).nprobe = 8; // visits 8 / 64 of the vectors
    std::vector<int64_t> ids(nq * k);
    index->search(nq, x.data(), k, distances.data(), ids.data());
    for (int i = 0; i < nq; i++)
        std::printf("query %d: nearest is %ld\n", i, long(ids[i * k]));
}
