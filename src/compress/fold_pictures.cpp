// Pictures have a width of their own in pixels; the page scales them to its width (viewBox). What a colour says stands
// beside it as text, or is told of each cell (<title>).

#include "compress/fold_pictures.h"

#include <fmt/core.h>

#include <algorithm>

#include "core/error.h"
#include "train/chart.h"

namespace tessera {
namespace {

constexpr double kWidth = 720;
constexpr size_t kMostColumns = 120;  // of gates over steps: beyond, columns are left out

std::string opening(double height, const std::string& id, const std::string& title, const std::string& description) {
  return fmt::format(
      "<svg viewBox=\"0 0 {} {:.0f}\" role=\"img\" aria-labelledby=\"{}-title {}-text\">\n<title "
      "id=\"{}-title\">{}</title>\n<desc id=\"{}-text\">{}</desc>\n",
      kWidth, height, id, id, id, escape_html(title), id, escape_html(description));
}

std::string text(double x, double y, const std::string& words, const char* anchor = "start") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                     escape_html(words));
}

/// A cell of a map. @param share  of the full colour, 0..1
std::string cell(double x, double y, double width, double height, double share, const std::string& told) {
  return fmt::format(
      "<rect class=\"full\" x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\" "
      "fill-opacity=\"{:.3f}\"><title>{}</title></rect>\n",
      x, y, width, height, std::clamp(share, 0.0, 1.0), escape_html(told));
}

/// Every n-th number along an axis, so that labels do not touch.
int64_t stride_of_labels(int64_t count, double step) {
  constexpr double kRoom = 14;
  int64_t stride = 1;
  while (static_cast<double>(stride) * step < kRoom && stride < count) ++stride;
  return stride;
}

struct BlockLine {
  const char* style = "stored";
  std::string words;
};

std::string list_of(const std::vector<int64_t>& blocks) {
  std::string all;
  for (const int64_t block : blocks) all += fmt::format("{}{}", all.empty() ? "" : ", ", block);
  return all;
}

BlockLine line_of(const FoldPlan& plan, const VirtualLayer& layer) {
  const FoldGroup& group = plan.groups[static_cast<size_t>(layer.group)];
  BlockLine line;
  if (group.values == GroupValues::trained)
    line.words = "trained in place of a run";
  else if (group.blocks.size() == 1)
    line.words = "stored";
  else if (!group.parent)
    line = {"child", fmt::format("reads the mean of blocks {}", list_of(group.blocks))};
  else if (layer.is_parent)
    line.words = fmt::format("stored for blocks {}", list_of(group.blocks));
  else
    line = {"child", fmt::format("reads block {}", *group.parent)};
  if (!layer.has_attention) line.words += ", without its attention";
  if (!layer.has_mlp) line.words += ", without its MLP";
  return line;
}

/// By original index.
std::vector<BlockLine> lines_of(const FoldPlan& plan) {
  std::vector<BlockLine> lines(static_cast<size_t>(plan.base.layers), BlockLine{"removed", "removed"});
  for (const VirtualLayer& layer : virtual_layers(plan))
    lines[static_cast<size_t>(layer.original)] = line_of(plan, layer);
  return lines;
}

}  // namespace

std::string_view picture_style() {
  return R"(
.full { fill: var(--first); } .stored { fill: var(--first); } .child { fill: var(--first); fill-opacity: .3; stroke: var(--first); }
.removed { fill: none; stroke: var(--rule); stroke-dasharray: 4 3; }
)";
}

std::string plan_picture(const FoldPlan& plan, const std::vector<double>& bi) {
  constexpr double kLine = 20, kBar = 220, kBarBegin = 70, kWordsBegin = kBarBegin + kBar + 14;
  const std::vector<BlockLine> lines = lines_of(plan);
  std::string svg =
      opening(kLine * static_cast<double>(lines.size()) + 4, "plan", "What became of each block", plan_text(plan));
  for (size_t block = 0; block < lines.size(); ++block) {
    const double y = kLine * static_cast<double>(block) + 3;
    svg += text(kBarBegin - 8, y + 11, fmt::format("block {}", block), "end");
    svg += fmt::format("<rect class=\"{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"14\" rx=\"2\"/>\n",
                       lines[block].style, kBarBegin, y, kBar);
    svg += text(kWordsBegin, y + 11, lines[block].words);
    if (block < bi.size()) svg += text(kWidth - 4, y + 11, fmt::format("influence {:.4f}", bi[block]), "end");
  }
  return svg + "</svg>\n";
}

std::string similarity_picture(const std::vector<std::vector<double>>& similarity) {
  constexpr double kLeft = 40, kTop = 24;
  const auto states = static_cast<int64_t>(similarity.size());
  const double step = std::min(28.0, (kWidth - kLeft) / static_cast<double>(std::max<int64_t>(1, states)));
  double lowest = 1;
  for (const auto& row : similarity)
    for (const double cosine : row) lowest = std::min(lowest, cosine);
  const double range = std::max(1e-12, 1 - lowest);
  std::string svg = opening(
      kTop + step * static_cast<double>(states) + 4, "similarity", "Cosine of the states in front of two blocks",
      fmt::format("{} states; no colour is {:.3f}, the lowest, and full colour is 1.", states, lowest));
  const int64_t stride = stride_of_labels(states, step);
  for (int64_t i = 0; i < states; ++i) {
    const double at = step * static_cast<double>(i);
    if (i % stride == 0) {
      svg += text(kLeft - 6, kTop + at + step / 2 + 4, fmt::format("{}", i), "end");
      svg += text(kLeft + at + step / 2, kTop - 6, fmt::format("{}", i), "middle");
    }
    const auto& row = similarity[static_cast<size_t>(i)];
    for (size_t j = 0; j < row.size(); ++j)
      svg += cell(kLeft + step * static_cast<double>(j), kTop + at, step, step, (row[j] - lowest) / range,
                  fmt::format("states {} and {}: {:.4f}", i, j, row[j]));
  }
  return svg + "</svg>\n";
}

std::string gates_picture(const std::vector<std::string>& names, const std::vector<std::vector<double>>& theta,
                          int64_t steps) {
  constexpr double kLeft = 110, kTop = 4, kLine = 16, kRight = kWidth - 4;
  const size_t stride = (theta.size() + kMostColumns - 1) / kMostColumns,
               columns = (theta.size() + stride - 1) / stride;
  const double step = (kRight - kLeft) / static_cast<double>(columns),
               bottom = kTop + kLine * static_cast<double>(names.size());
  std::string svg = opening(bottom + 22, "gates", "Gate parameters by step",
                            "A row a gate; full colour is 1, no colour is 0: the block is gone.");
  for (size_t gate = 0; gate < names.size(); ++gate) {
    const double y = kTop + kLine * static_cast<double>(gate);
    svg += text(kLeft - 6, y + 12, names[gate], "end");
    for (size_t column = 0; column < columns; ++column) {
      const size_t record = column * stride;
      TS_CHECK(theta[record].size() == names.size(), "{} gates of {}", theta[record].size(), names.size());
      svg += cell(kLeft + step * static_cast<double>(column), y, step, kLine - 1, theta[record][gate],
                  fmt::format("{} at step {}: {:.3f}", names[gate], 10 * record, theta[record][gate]));
    }
  }
  svg += text(kLeft, bottom + 14, "step 0") + text(kRight, bottom + 14, fmt::format("step {}", steps), "end");
  return svg + "</svg>\n";
}

}  // namespace tessera
