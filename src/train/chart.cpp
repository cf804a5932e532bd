// An axis maps values to pixels, and everything is drawn through two of them. Charts have a fixed size in pixels of
// their own; the page scales them to its width (viewBox).

#include "train/chart.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/error.h"

namespace tessera {
namespace {

constexpr double kWidth = 720, kHeight = 280;
constexpr double kLeft = 64, kRight = 704, kTop = 28, kBottom = 248;  // of the plot
constexpr size_t kMaxPoints = 400, kMaxDots = 60;

/// One axis: values lo..hi laid out from pixel `begin` to pixel `end`.
struct Axis {
  double lo, hi, begin, end;
  bool logarithmic;
  std::vector<double> ticks;

  double at(double value) const {
    const double share = logarithmic ? std::log(value / lo) / std::log(hi / lo) : (value - lo) / (hi - lo);
    return begin + share * (end - begin);
  }
};

/// The largest of 1, 2, 5 times a power of ten that is not above `value`.
double round_down(double value) {
  // A value at a power of ten, say, may come out a little below it: the factor lets 4.9999999999 count as 5.
  const double power = std::pow(10, std::floor(std::log10(value)));
  const double digit = value / power * (1 + 1e-9);
  return (digit >= 5 ? 5 : digit >= 2 ? 2 : 1) * power;
}

Axis linear_axis(double lo, double hi, double begin, double end) {
  if (hi - lo <= 1e-9 * std::max(std::abs(lo), std::abs(hi))) {  // a flat curve lies in the middle
    const double room = lo == 0 ? 1 : std::abs(lo) / 2;
    lo -= room;
    hi += room;
  }
  // At least three steps, each of 1, 2 or 5 times a power of ten.
  const double step = round_down((hi - lo) / 3);
  // The ends are round numbers outside of the values. A value that lies on one, but for rounding, needs no tick beyond.
  const auto first = static_cast<int64_t>(std::floor(lo / step + 1e-6)),
             last = static_cast<int64_t>(std::ceil(hi / step - 1e-6));
  Axis axis{static_cast<double>(first) * step, static_cast<double>(last) * step, begin, end, false, {}};
  for (int64_t i = first; i <= last; ++i) axis.ticks.push_back(static_cast<double>(i) * step);
  return axis;
}

/// Steps are whole and need no room at the end.
Axis step_axis(double lo, double hi) {
  Axis axis = linear_axis(lo, std::max(hi, lo + 3), kLeft, kRight);
  axis.lo = lo;
  axis.hi = std::max(hi, lo + 1);
  std::erase_if(axis.ticks, [&](double tick) { return tick < axis.lo || tick > axis.hi; });
  return axis;
}

Axis log_axis(double lo, double hi, double begin, double end) {
  // A tenth of room at either end.
  Axis axis{lo / 1.1, hi * 1.1, begin, end, true, {}};
  // Over many decades 2 and 5 would stand too close.
  const bool decades_only = hi / lo > 300;
  const auto first = static_cast<int>(std::floor(std::log10(axis.lo))),
             last = static_cast<int>(std::ceil(std::log10(axis.hi)));
  const int stride = (last - first) / 8 + 1;  // of decades, when there are many
  for (int power = first; power <= last; power += stride)
    for (const int digit : {1, 2, 5}) {
      const double tick = digit * std::pow(10, power);
      if ((digit == 1 || !decades_only) && tick >= axis.lo && tick <= axis.hi) axis.ticks.push_back(tick);
    }
  return axis;
}

struct Range {
  double lo = std::numeric_limits<double>::infinity(), hi = -lo;
  void include(double value) {
    lo = std::min(lo, value);
    hi = std::max(hi, value);
  }
};

/// Means of runs of equal length, no more than kMaxPoints of them.
Curve thinned(const Curve& curve) {
  // One where the curve has few points: it is then drawn as it is.
  const size_t run = (curve.points.size() + kMaxPoints - 1) / kMaxPoints;
  Curve thin{curve.name, {}};
  for (size_t begin = 0; begin < curve.points.size(); begin += run) {
    const size_t end = std::min(begin + run, curve.points.size());
    double x = 0, y = 0;
    for (size_t i = begin; i < end; ++i) {
      x += curve.points[i].first;
      y += curve.points[i].second;
    }
    thin.points.emplace_back(x / static_cast<double>(end - begin), y / static_cast<double>(end - begin));
  }
  return thin;
}

std::string describe(const Curve& curve) {
  const auto& points = curve.points;
  const auto lowest =
      std::min_element(points.begin(), points.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return fmt::format("{}: {} at step {}, {} at step {}, lowest {} at step {}. ", curve.name,
                     short_number(points.front().second), short_number(points.front().first),
                     short_number(points.back().second), short_number(points.back().first),
                     short_number(lowest->second), short_number(lowest->first));
}

std::string grid(const Axis& x, const Axis& y) {
  std::string svg;
  for (const double tick : y.ticks) {
    const double at = y.at(tick);
    svg += fmt::format("<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", kLeft, kRight, at, at);
    svg += fmt::format("<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n", kLeft - 6, at + 4,
                       short_number(tick));
  }
  for (const double tick : x.ticks)
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n", x.at(tick), kBottom + 18,
                       short_number(tick));
  return svg + fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">step</text>\n", kRight, kHeight - 2);
}

/// @param place  which curve it is: its class, its dashes, its place in the legend
std::string draw(const Curve& curve, size_t place, const Axis& x, const Axis& y) {
  const std::string style =
      fmt::format("class=\"curve curve-{}\"{}", place, place > 0 ? " stroke-dasharray=\"6 3\"" : "");
  const double legend = kLeft + 150 * static_cast<double>(place);
  std::string svg = fmt::format("<line {} x1=\"{}\" x2=\"{}\" y1=\"12\" y2=\"12\"/><text x=\"{}\" y=\"16\">{}</text>\n",
                                style, legend, legend + 24, legend + 30, escape_html(curve.name));
  const Curve shown = thinned(curve);
  std::string path;
  for (const auto& [px, py] : shown.points) path += fmt::format("{:.1f},{:.1f} ", x.at(px), y.at(py));
  svg += fmt::format("<polyline {} points=\"{}\"/>\n", style, path);
  // A long first curve is a line alone. Others, such as evaluations, mostly have few points: each shows its value.
  if ((place == 0 && shown.points.size() > 1) || shown.points.size() > kMaxDots) return svg;
  for (const auto& [px, py] : shown.points)
    svg += fmt::format(
        "<circle class=\"curve-{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\"><title>step {}: {}</title></circle>\n", place,
        x.at(px), y.at(py), short_number(px), short_number(py));
  return svg;
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string safe;
  for (const char c : text) {
    if (c == '&')
      safe += "&amp;";
    else if (c == '<')
      safe += "&lt;";
    else if (c == '>')
      safe += "&gt;";
    else if (c == '"')
      safe += "&quot;";
    else if (c == '\'')
      safe += "&#39;";
    else
      safe += c;
  }
  return safe;
}

std::string short_number(double value) {
  if (value != std::round(value) || std::abs(value) >= 1e15) return fmt::format("{:.4g}", value);
  std::string digits = fmt::format("{:.0f}", std::abs(value));
  // From the right, three digits at a time.
  for (auto place = static_cast<int64_t>(digits.size()) - 3; place > 0; place -= 3)
    digits.insert(static_cast<size_t>(place), "\u202f");  // a narrow space that does not break
  return (value < 0 ? "-" : "") + digits;
}

std::string line_chart(const std::string& id, const std::string& title, const std::vector<Curve>& curves) {
  Range steps, values;
  std::string description;
  for (const Curve& curve : curves) {
    if (curve.points.empty()) continue;
    description += describe(curve);
    for (const auto& [x, y] : curve.points) {
      steps.include(x);
      values.include(y);
    }
  }
  if (description.empty()) return {};
  const Axis x = step_axis(steps.lo, steps.hi);
  // Pixels count downwards: the axis runs from the plot's bottom to its top.
  const Axis y = values.lo > 0 && values.hi > 10 * values.lo ? log_axis(values.lo, values.hi, kBottom, kTop)
                                                             : linear_axis(values.lo, values.hi, kBottom, kTop);
  std::string svg = fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-labelledby=\"{}-title {}-text\">\n",
                                kWidth, kHeight, id, id);
  svg += fmt::format("<title id=\"{}-title\">{}</title>\n<desc id=\"{}-text\">{}</desc>\n", id, escape_html(title), id,
                     escape_html(description));
  svg += grid(x, y);
  for (size_t i = 0; i < curves.size(); ++i)
    if (!curves[i].points.empty()) svg += draw(curves[i], i, x, y);
  return svg + "</svg>\n";
}

}  // namespace tessera
