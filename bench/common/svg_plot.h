// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace faiss_gmm::bench {

struct PlotPoint {
    double x = 0, y = 0;
};

/// One set of axes: x linear, y logarithmic.
struct PlotPanel {
    std::string title, x_label, y_label;
    std::vector<std::vector<PlotPoint>> lines; ///< one a series, in the figure's order; y > 0
};

/// Panels side by side, with one legend and one caption below.
struct PlotFigure {
    std::string title, caption;
    std::vector<std::string> series; ///< labels
    std::vector<PlotPanel> panels;
};

/// The figure as a standalone SVG. A series has one colour, dash and marker in every panel.
std::string render_svg(const PlotFigure& figure);

} // namespace faiss_gmm::bench
