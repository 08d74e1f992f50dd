// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "bench/common/svg_plot.h"

#include <gtest/gtest.h>

using namespace faiss_gmm::bench;

namespace {

size_t count(const std::string& text, const std::string& part) {
    size_t found = 0;
    for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
        ++found;
    }
    return found;
}

} // namespace

TEST(Svg, DrawsEverySeriesInEveryPanelAndTheLegend) {
    PlotFigure figure{"a < b", "x & y", {"one", "two"}, {}};
    for (int p = 0; p < 2; ++p) {
        figure.panels.push_back({"panel", "recall", "cost", {{{.5, 10}, {.9, 100}}, {{.7, 30}}}});
    }
    const std::string svg = render_svg(figure);
    EXPECT_EQ(svg.rfind("<svg ", 0), 0u);
    EXPECT_EQ(count(svg, "<circle"), 2 * 2 + 1u); // points of the first series, and its legend
    EXPECT_EQ(count(svg, "<polygon"), 2 + 1u);
    EXPECT_NE(svg.find("a &lt; b"), std::string::npos);
    EXPECT_NE(svg.find("x &amp; y"), std::string::npos);
    EXPECT_EQ(svg.find("nan"), std::string::npos);
    EXPECT_EQ(svg.find("inf"), std::string::npos);
}

TEST(Svg, LooksOfNeighbouringSeriesDiffer) {
    PlotFigure figure{"t", "c", {}, {{"panel", "x", "y", {}}}};
    for (int s = 0; s < 12; ++s) {
        figure.series.push_back("s");
        figure.panels[0].lines.push_back({{.5, 1. + s}});
    }
    EXPECT_NE(render_svg(figure).find("stroke-dasharray"), std::string::npos);
}

TEST(Svg, StandsWhatHasNoRange) {
    PlotFigure figure{"t", "c", {"s"}, {{"empty", "x", "y", {{}}}, {"one", "x", "y", {{{1, 5}}}}}};
    const std::string svg = render_svg(figure);
    EXPECT_EQ(svg.find("nan"), std::string::npos);
    EXPECT_EQ(svg.find("inf"), std::string::npos);
    EXPECT_NE(render_svg({}).find("</svg>"), std::string::npos);
}
