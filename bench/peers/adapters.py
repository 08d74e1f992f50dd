# SPDX-License-Identifier: MIT
"""How each peer is built, kept and searched, by its own documentation. Each class imports its
library when it is made, so a worker loads one alone.

    build(x, threads, path)  makes the index over x [n, d] and writes it to `path`
    load(path)               reads it again
    search(q, settings, threads) -> ids [len(q), NEIGHBOURS], -1 or any id >= n for none
    search_one(q, settings)  the same for one query [1, d] on one thread
"""
import os

from grids import INNER_PRODUCT, NEIGHBOURS


class Faiss:
    package = "faiss-cpu"

    def __init__(self, parameters, metric, d):
        import faiss
        self.faiss, self.parameters, self.d = faiss, parameters, d
        self.metric = faiss.METRIC_INNER_PRODUCT if metric in INNER_PRODUCT else faiss.METRIC_L2

    def build(self, x, threads, path):
        self.faiss.omp_set_num_threads(threads)
        index = self.faiss.index_factory(self.d, self.parameters["factory"], self.metric)
        if "ef_construction" in self.parameters:
            index.hnsw.efConstruction = self.parameters["ef_construction"]
        index.train(x)
        index.add(x)
        self.faiss.write_index(index, path)

    def load(self, path):
        self.index = self.faiss.read_index(path)

    def search(self, q, settings, threads):
        self.faiss.omp_set_num_threads(threads)
        return self.index.search(q, NEIGHBOURS, params=self.search_parameters(settings))[1]

    def search_one(self, q, settings):
        return self.search(q, settings, 1)

    def search_parameters(self, settings):
        if "ef" in settings:
            return self.faiss.SearchParametersHNSW(efSearch=settings["ef"])
        lists = self.faiss.SearchParametersIVF(nprobe=settings["nprobe"])
        if "k_factor_rf" not in settings:
            return lists
        return self.faiss.IndexRefineSearchParameters(
            k_factor=settings["k_factor_rf"], base_index_params=lists)


class SymphonyQG:
    """search_batch takes rows of queries: a batch is one call, a single query is a batch of one."""
    package = "rabitqlib"

    def __init__(self, parameters, metric, d):
        import rabitqlib
        self.type, self.parameters = rabitqlib.SymqgIndex, parameters
        self.d, self.metric = d, "ip" if metric in INNER_PRODUCT else "l2"

    def build(self, x, threads, path):
        index = self.type(dim=self.d, max_degree=self.parameters["degree"], metric=self.metric)
        index.build(x, self.parameters["ef_construction"], num_threads=threads)
        index.save(path)

    def load(self, path):
        self.index = self.type.load(path)

    def search(self, q, settings, threads):
        return self.index.search_batch(q, NEIGHBOURS, settings["ef"], num_threads=threads)[0]

    def search_one(self, q, settings):
        return self.search(q, settings, 1)


class ScaNN:
    package = "scann"

    def __init__(self, parameters, metric, d):
        from scann import scann_ops_pybind
        self.scann, self.parameters = scann_ops_pybind, parameters
        self.measure = "squared_l2" if metric == "l2" else "dot_product"

    def build(self, x, threads, path):
        tree = {"num_leaves": int(self.parameters["leaves"]), "num_leaves_to_search": 10,
                "training_sample_size": len(x)}
        scores = {"dimensions_per_block": 2}
        if self.measure == "dot_product":
            scores["anisotropic_quantization_threshold"] = .2
            if self.parameters["soar"]:
                tree["soar_lambda"] = self.parameters["soar"]
        builder = self.scann.builder(x, NEIGHBOURS, self.measure).tree(**tree)
        index = builder.score_ah(**scores).reorder(100).set_n_training_threads(threads).build()
        os.mkdir(path)
        index.serialize(path, relative_path=True)

    def load(self, path):
        self.index = self.scann.load_searcher(path)

    def search(self, q, settings, threads):
        wanted = {"final_num_neighbors": NEIGHBOURS,
                  "leaves_to_search": settings["leaves_to_search"],
                  "pre_reorder_num_neighbors": settings["reorder"]}
        if threads == 1:
            return self.index.search_batched(q, **wanted)[0]
        self.index.set_num_threads(threads)
        return self.index.search_batched_parallel(q, batch_size=-(-len(q) // threads), **wanted)[0]

    def search_one(self, q, settings):
        return self.index.search(
            q[0], final_num_neighbors=NEIGHBOURS, leaves_to_search=settings["leaves_to_search"],
            pre_reorder_num_neighbors=settings["reorder"])[0][None]


class Hnswlib:
    package = "hnswlib"

    def __init__(self, parameters, metric, d):
        import hnswlib
        self.parameters = parameters
        self.index = hnswlib.Index(space="ip" if metric in INNER_PRODUCT else "l2", dim=d)

    def build(self, x, threads, path):
        self.index.init_index(max_elements=len(x), M=self.parameters["M"],
                              ef_construction=self.parameters["ef_construction"])
        self.index.add_items(x, num_threads=threads)
        self.index.save_index(path)

    def load(self, path):
        self.index.load_index(path)

    def search(self, q, settings, threads):
        self.index.set_ef(settings["ef"])
        return self.index.knn_query(q, k=NEIGHBOURS, num_threads=threads)[0]

    def search_one(self, q, settings):
        return self.search(q, settings, 1)


ADAPTERS = {"faiss": Faiss, "symphonyqg": SymphonyQG, "scann": ScaNN, "hnswlib": Hnswlib}
