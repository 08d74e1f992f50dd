// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "faiss_gmm/mixture/gaussian_mixture.h"
#include "faiss_gmm/train/cpu/score_model.h"
#include "faiss_gmm/train/estep_engine.h"

namespace faiss_gmm::cpu {

/// The components of a mixture in cells of near means. Head card in component_cells.cc.
class ComponentCells {
public:
    /// Components of weight zero are in no cell. Throws Error where check() of the mixture does.
    ComponentCells(const GaussianMixture& mixture, Assignment assignment);

    /// Cells, each of at least one component.
    size_t count() const {
        return first_.size() - 1;
    }
    /// Cells that a row looks into.
    size_t probed() const {
        return probed_;
    }
    /// Of the cell, into components().
    size_t begin(size_t cell) const {
        return first_[cell];
    }
    size_t end(size_t cell) const {
        return first_[cell + 1];
    }
    /// Numbers of the mixture's components, cell after cell, ascending within a cell.
    const uint32_t* components() const {
        return components_.data();
    }
    /// Of the components in that order.
    const ScoreModel& scores() const {
        return *scores_;
    }
    /// The cells [n, probed()] whose centres are nearest to each row, nearest first. Throws Error
    /// naming the first row that holds NaN or Inf.
    const int32_t* nearest(const Chunk& rows);

private:
    size_t probed_ = 0;
    std::vector<uint32_t> components_;
    std::vector<size_t> first_; ///< [count + 1] into components_
    std::unique_ptr<ScoreModel> scores_;
    std::unique_ptr<EStepEngine> centres_; ///< begun with a component a cell
    TopResponsibilities nearest_;
};

/// Whether the components of this shape that matter to a row are those of near means.
bool near_means_matter(Covariance covariance);

} // namespace faiss_gmm::cpu
