// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "bench/common/svg_plot.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace faiss_gmm::bench {

namespace {

constexpr double panel_width = 320, panel_height = 270;
constexpr double left = 62, right = 20, top = 76, bottom = 48; // around each panel, for its labels
constexpr double legend_row = 22;

// Okabe and Ito's palette: told apart with any kind of colour vision. Black and yellow left out.
constexpr const char* colours[] = {
        "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"};
constexpr const char* dashes[] = {"", "7 3", "2 3", "9 3 2 3"};
constexpr size_t marker_count = 5;

template <size_t N> const char* cycle(const char* const (&values)[N], size_t i) {
    return values[i % N];
}

std::string escaped(const std::string& text) {
    std::string out;
    for (const char c : text) {
        switch (c) {
        case '&':
            out += "&amp;";
            break;
        case '<':
            out += "&lt;";
            break;
        case '>':
            out += "&gt;";
            break;
        case '"':
            out += "&quot;";
            break;
        default:
            out += c;
        }
    }
    return out;
}

std::string marker(size_t series, double x, double y) {
    const std::string paint =
            fmt::format("fill=\"{}\" stroke=\"#fff\" stroke-width=\"1\"", cycle(colours, series));
    const auto polygon = [&](const std::vector<PlotPoint>& corners) {
        std::string points;
        for (const PlotPoint& corner : corners) {
            points += fmt::format("{:.1f},{:.1f} ", x + corner.x, y + corner.y);
        }
        return fmt::format("<polygon points=\"{}\" {}/>\n", points, paint);
    };
    switch (series % marker_count) {
    case 0:
        return fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4.2\" {}/>\n", x, y, paint);
    case 1:
        return polygon({{-4, -4}, {4, -4}, {4, 4}, {-4, 4}});
    case 2:
        return polygon({{0, -5}, {4.8, 4}, {-4.8, 4}});
    case 3:
        return polygon({{0, -5.5}, {5.5, 0}, {0, 5.5}, {-5.5, 0}});
    default:
        return polygon({{0, 5}, {4.8, -4}, {-4.8, -4}});
    }
}

std::string stroke(size_t series) {
    const std::string dash = cycle(dashes, series);
    return fmt::format(
            "fill=\"none\" stroke=\"{}\" stroke-width=\"2\" stroke-linejoin=\"round\"{}",
            cycle(colours, series),
            dash.empty() ? "" : fmt::format(" stroke-dasharray=\"{}\"", dash));
}

/// 1500 -> "1.5k", 2e6 -> "2M".
std::string short_number(double value) {
    if (value >= 1e9) {
        return fmt::format("{:g}G", value / 1e9);
    }
    if (value >= 1e6) {
        return fmt::format("{:g}M", value / 1e6);
    }
    return value >= 1e3 ? fmt::format("{:g}k", value / 1e3) : fmt::format("{:g}", value);
}

struct Range {
    double low, high;
};

/// Recall from the tenth (or twentieth) below the lowest point to 1.
Range x_range(const PlotPanel& panel) {
    double low = 1;
    for (const auto& line : panel.lines) {
        for (const PlotPoint& point : line) {
            low = std::min(low, point.x);
        }
    }
    const double step = low > .8 ? .05 : .1;
    return {std::clamp(std::floor(low / step) * step, 0., .9), 1};
}

/// A little more than all points, at least a factor of three.
Range y_range(const PlotPanel& panel) {
    double low = HUGE_VAL, high = 0;
    for (const auto& line : panel.lines) {
        for (const PlotPoint& point : line) {
            low = std::min(low, point.y);
            high = std::max(high, point.y);
        }
    }
    if (high <= 0) {
        return {1, 10};
    }
    const double widen = std::max(1.15, std::sqrt(3 * low / high));
    return {low / widen, high * widen};
}

/// 1, 2, 5 times powers of ten within the range; powers of ten alone where that is enough.
std::vector<double> log_ticks(const Range& range) {
    const double decades = std::log10(range.high / range.low);
    std::vector<double> ticks;
    for (double power = std::pow(10., std::floor(std::log10(range.low))); power <= range.high;
         power *= 10) {
        for (const double digit : {1., 2., 5.}) {
            const double tick = digit * power;
            if (tick >= range.low && tick <= range.high && (digit == 1. || decades < 3.5)) {
                ticks.push_back(tick);
            }
        }
    }
    return ticks;
}

/// One panel whose inner area begins at (x0, y0).
class PanelPainter {
public:
    PanelPainter(const PlotPanel& panel, double x0, double y0)
            : panel_(panel), x0_(x0), y0_(y0), x_(x_range(panel)), y_(y_range(panel)) {}

    std::string paint() const {
        return grid() + labels() + lines();
    }

private:
    double x_at(double x) const {
        return x0_ + panel_width * (x - x_.low) / (x_.high - x_.low);
    }

    double y_at(double y) const {
        return y0_ + panel_height * (1 - std::log(y / y_.low) / std::log(y_.high / y_.low));
    }

    std::string grid() const {
        std::string svg;
        const double bottom_y = y0_ + panel_height, right_x = x0_ + panel_width;
        const double step = x_.high - x_.low > .6 ? .2 : x_.high - x_.low > .25 ? .1 : .05;
        for (double tick = std::ceil(x_.low / step - 1e-9) * step; tick <= x_.high + 1e-9;
             tick += step) {
            svg += fmt::format(
                    "<path d=\"M{0:.1f} {1:.1f}V{2:.1f}\" class=\"grid\"/>"
                    "<text x=\"{0:.1f}\" y=\"{3:.1f}\" text-anchor=\"middle\">{4:.2f}</text>\n",
                    x_at(tick),
                    y0_,
                    bottom_y,
                    bottom_y + 17,
                    tick);
        }
        for (const double tick : log_ticks(y_)) {
            svg += fmt::format(
                    "<path d=\"M{0:.1f} {1:.1f}H{2:.1f}\" class=\"grid\"/>"
                    "<text x=\"{3:.1f}\" y=\"{4:.1f}\" text-anchor=\"end\">{5}</text>\n",
                    x0_,
                    y_at(tick),
                    right_x,
                    x0_ - 7,
                    y_at(tick) + 4,
                    short_number(tick));
        }
        return svg + fmt::format(
                             "<path d=\"M{:.1f} {:.1f}V{:.1f}H{:.1f}\" class=\"axis\"/>\n",
                             x0_,
                             y0_,
                             bottom_y,
                             right_x);
    }

    std::string labels() const {
        const double middle_x = x0_ + panel_width / 2, middle_y = y0_ + panel_height / 2;
        std::string svg = fmt::format(
                "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\" "
                "class=\"panel\">{}</text>\n",
                middle_x,
                y0_ - 14,
                escaped(panel_.title));
        svg += fmt::format(
                "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n",
                middle_x,
                y0_ + panel_height + 37,
                escaped(panel_.x_label));
        return svg + fmt::format(
                             "<text transform=\"translate({:.1f} {:.1f}) rotate(-90)\" "
                             "text-anchor=\"middle\">{}</text>\n",
                             x0_ - 46,
                             middle_y,
                             escaped(panel_.y_label));
    }

    std::string lines() const {
        std::string svg;
        for (size_t s = 0; s < panel_.lines.size(); ++s) {
            std::string path, markers;
            for (const PlotPoint& point : panel_.lines[s]) {
                const double x = x_at(point.x), y = y_at(point.y);
                path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? 'M' : 'L', x, y);
                markers += marker(s, x, y);
            }
            if (!path.empty()) {
                svg += fmt::format("<path d=\"{}\" {}/>\n", path, stroke(s)) + markers;
            }
        }
        return svg;
    }

    const PlotPanel& panel_;
    double x0_, y0_;
    Range x_, y_;
};

/// Entries one under the other, in as many columns as panels.
std::string legend(const PlotFigure& figure, double y0, double column_width) {
    std::string svg;
    const size_t columns = std::max<size_t>(figure.panels.size(), 1);
    for (size_t s = 0; s < figure.series.size(); ++s) {
        const double x = left + double(s % columns) * column_width;
        const size_t line = s / columns;
        const double y = y0 + double(line) * legend_row;
        svg += fmt::format(
                "<path d=\"M{:.1f} {:.1f}h34\" {}/>\n{}<text x=\"{:.1f}\" y=\"{:.1f}\" "
                "class=\"legend\">{}</text>\n",
                x,
                y,
                stroke(s),
                marker(s, x + 17, y),
                x + 43,
                y + 4,
                escaped(figure.series[s]));
    }
    return svg;
}

} // namespace

std::string render_svg(const PlotFigure& figure) {
    const size_t columns = std::max<size_t>(figure.panels.size(), 1);
    const size_t legend_rows = (figure.series.size() + columns - 1) / columns;
    const double column_width = left + panel_width + right;
    const double width = column_width * double(columns);
    const double legend_y = top + panel_height + bottom + 22;
    const double caption_y = legend_y + legend_row * double(legend_rows) + 6;
    std::string svg = fmt::format(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
            "viewBox=\"0 0 {0:.0f} {1:.0f}\" role=\"img\">\n<title>{2}</title>\n",
            width,
            caption_y + 16,
            escaped(figure.title));
    svg += "<style>text{font:12px system-ui,'DejaVu Sans',Helvetica,Arial,sans-serif;fill:#333}"
           ".title{font-size:16px;font-weight:600;fill:#111}.panel{font-weight:600}"
           ".legend{font-size:13px}.caption{font-size:11px;fill:#666}"
           ".grid{stroke:#e4e4e4;fill:none}.axis{stroke:#555;fill:none}</style>\n"
           "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n";
    svg += fmt::format(
            "<text x=\"{:.1f}\" y=\"30\" text-anchor=\"middle\" class=\"title\">{}</text>\n",
            width / 2,
            escaped(figure.title));
    for (size_t p = 0; p < figure.panels.size(); ++p) {
        svg += PanelPainter(figure.panels[p], left + double(p) * column_width, top).paint();
    }
    svg += legend(figure, legend_y, column_width);
    svg += fmt::format(
            "<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"caption\">{}</text>\n</svg>\n",
            left,
            caption_y,
            escaped(figure.caption));
    return svg;
}

} // namespace faiss_gmm::bench
