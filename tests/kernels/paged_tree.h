#pragma once
// A tree of prefixes whose keys and values lie in pages, and the step of some rows on it: what tests of attention over
// pages share. All of a pool that no entry holds is NaN.

#include <limits>
#include <optional>

#include "kernels/harness.h"
#include "kernels/paged_attention.h"

namespace tessera::test {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// A run of the tree, and its own rows in this step: the last of its entries.
struct TreeNode {
  int parent;  // −1 of the root; a parent stands in front of its children
  int64_t length, own;
  int64_t first = 0;                   // entries in front of it on its path
  int32_t row_begin = 0, row_end = 0;  // rows at it and below
};

struct TreeShape {
  int64_t heads = 2, kv_heads = 1, head_dim = 16;
  int64_t page_tokens = 16;
  DType stored = DType::f32;
  int64_t window = 0;
  bool ragged = false;    // every second run has a row of pages for each head
  bool at_nodes = false;  // visits end where nodes end, and not at whole blocks of 128
};

class PagedTree {
 public:
  PagedTree(const TreeShape& shape, std::vector<TreeNode> tree, uint64_t seed)
      : shape_(shape), nodes_(std::move(tree)), seed_(seed) {
    order_rows();
    for (const TreeNode& node : nodes_) {
      keys.push_back(Matrix::random(node.length, shape.kv_heads * shape.head_dim, DType::f32, seed += 1000, 2));
      values.push_back(Matrix::random(node.length, shape.kv_heads * shape.head_dim, DType::f32, seed += 1000, 2));
    }
    q.emplace(Matrix::random(rows(), shape.heads * shape.head_dim, DType::f32, seed + 1000, 2, 3));
    make_pages();
    make_visits();
  }
  /// Up to six deep with up to five children; runs of 1 to 300, leaves of 0 and more.
  static std::vector<TreeNode> random_tree(uint64_t seed, int64_t most_rows, int64_t longest = 300) {
    const RandomStream stream(seed, 5);
    uint64_t at = 0;
    const auto draw = [&](int64_t n) { return static_cast<int64_t>(stream.uniform(at++) * static_cast<double>(n)); };
    std::vector<TreeNode> nodes;
    int64_t rows = 0;
    const std::function<void(int, int)> grow = [&](int parent, int depth) {
      const auto node = static_cast<int>(nodes.size());
      const int64_t children = depth == 6 || rows > most_rows ? 0 : parent < 0 ? 2 + draw(3) : draw(4);
      const int64_t kind = draw(5), length = kind == 0 && children == 0 ? 0 : kind == 1 ? 1 : 1 + draw(longest);
      // A leaf without entries has a row all the same, which sees its prefix.
      const int64_t own = children == 0 ? 1 + (length > 1 ? draw(std::min<int64_t>(length, 9)) : 0) : draw(4) * draw(2);
      nodes.push_back({parent, length, std::min(own, std::max<int64_t>(length, 1))});
      rows += own;
      for (int64_t c = 0; c < children; ++c) grow(node, depth + 1);
    };
    grow(-1, 0);
    return nodes;
  }

  int64_t rows() const { return static_cast<int64_t>(row_position.size()); }
  const TreeShape& shape() const { return shape_; }
  const std::vector<TreeNode>& nodes() const { return nodes_; }

  struct Result {
    Matrix out, lse;
    int64_t bytes;
  };
  /// @param tile_rows  0: as plan_tiles has it
  Result attend(const Context& ctx, int64_t tile_rows = 0) const {
    Matrix out(rows(), shape_.heads * shape_.head_dim, q->dtype(), 5), lse(rows(), shape_.heads, q->dtype(), 1);
    const int64_t group = shape_.heads / shape_.kv_heads;
    PagedPlan plan = plan_tiles(visits, rows(), group, shape_.kv_heads, ctx.threads);
    if (tile_rows > 0) plan = tiles_of(tile_rows);
    std::vector<int64_t> bytes = {7};
    PagedAttentionArgs args = arguments(out, lse, plan);
    args.bytes = bytes;
    paged_attention(ctx, args);
    EXPECT_TRUE(out.is_padding_untouched() && lse.is_padding_untouched());
    return {std::move(out), std::move(lse), bytes[0] - 7};
  }
  PagedAttentionArgs arguments(const Matrix& out, const Matrix& lse, const PagedPlan& plan) const {
    return {.q = q->view(),
            .out = out.view(),
            .lse = lse.view(),
            .pages = pages(),
            .page_base = kLayer * shape_.kv_heads,
            .heads = shape_.heads,
            .kv_heads = shape_.kv_heads,
            .head_dim = shape_.head_dim,
            .scale = scale(),
            .window = shape_.window,
            .row_position = row_position,
            .row_bound = row_bound,
            .tables = tables,
            .lengths = lengths,
            .runs = runs,
            .visits = visits,
            .tiles = plan.tiles,
            .tile_visits = plan.tile_visits,
            .mass = {},
            .mass_offset = {},
            .mass_rows = {},
            .bytes = {}};
  }
  double scale() const { return 1 / std::sqrt(static_cast<double>(shape_.head_dim)); }
  KeyValuePages pages() const {
    KeyValuePages pages{.k = k_.view(),
                        .v = v_.view(),
                        .k_scale = {},
                        .v_scale = {},
                        .position = {},
                        .bias = {},
                        .page_tokens = shape_.page_tokens};
    if (shape_.stored == DType::i8) pages.k_scale = k_scale_.view(), pages.v_scale = v_scale_.view();
    return pages;
  }
  /// Tiles of so many rows.
  PagedPlan tiles_of(int64_t tile_rows) const {
    PagedPlan plan;
    for (int64_t row = 0; row < rows(); row += tile_rows) {
      const int64_t end = std::min(rows(), row + tile_rows);
      const auto first = static_cast<int32_t>(plan.tile_visits.size());
      for (size_t v = 0; v < visits.size(); ++v)
        if (visits[v].row_begin < end && visits[v].row_end > row) plan.tile_visits.push_back(static_cast<int32_t>(v));
      std::stable_sort(plan.tile_visits.begin() + first, plan.tile_visits.end(), [&](int32_t a, int32_t b) {
        return visits[static_cast<size_t>(a)].begin < visits[static_cast<size_t>(b)].begin;
      });
      plan.tiles.push_back(
          {static_cast<int32_t>(row), static_cast<int32_t>(end), first, static_cast<int32_t>(plan.tile_visits.size())});
    }
    return plan;
  }
  /// Nodes from the root to that of a row.
  std::vector<int> path_of(int64_t row) const {
    std::vector<int> path;
    for (int node = row_node[static_cast<size_t>(row)]; node >= 0; node = nodes_[static_cast<size_t>(node)].parent)
      path.insert(path.begin(), node);
    return path;
  }
  std::vector<Matrix> keys, values;  // of each node: [length, kv_heads · head_dim]
  std::optional<Matrix> q;
  std::vector<int32_t> row_position, row_bound, tables, lengths;
  std::vector<int> row_node;
  std::vector<KeyRun> runs;
  std::vector<AttentionVisit> visits;

 private:
  static constexpr int64_t kLayers = 3, kLayer = 1;

  void order_rows() {
    const std::function<void(int)> visit = [&](int node) {
      TreeNode& n = nodes_[static_cast<size_t>(node)];
      if (n.parent >= 0) {
        const TreeNode& parent = nodes_[static_cast<size_t>(n.parent)];
        n.first = parent.first + parent.length;
      }
      n.row_begin = static_cast<int32_t>(row_node.size());
      for (int64_t i = 0; i < n.own; ++i) {
        row_node.push_back(node);
        row_position.push_back(static_cast<int32_t>(n.first + n.length - n.own + i));
      }
      if (n.length == 0 && n.own > 0) row_position.back() = static_cast<int32_t>(n.first - 1);
      for (size_t c = 0; c < nodes_.size(); ++c)
        if (nodes_[c].parent == node) visit(static_cast<int>(c));
      n.row_end = static_cast<int32_t>(row_node.size());
    };
    visit(0);
    row_bound = row_position;
  }

  /// Pages of the pool in an order that has nothing to do with the tree.
  void make_pages() {
    const int64_t B = shape_.page_tokens, H = shape_.kv_heads, bundle = kLayers * H;
    int64_t bundles = 2;
    for (const TreeNode& node : nodes_) bundles += H * ((node.length + B - 1) / B);
    const bool coded = shape_.stored == DType::i8;
    for (Tensor* codes : {&k_, &v_}) {
      *codes = Tensor({bundles * bundle, B * shape_.head_dim}, shape_.stored);
      if (coded) std::memset(codes->view().mutable_data(), 0x5b, static_cast<size_t>(codes->view().bytes()));
      for (int64_t i = 0; !coded && i < codes->shape().count(); ++i) set_element(*codes, i, kNaN);
    }
    for (Tensor* numbers : {&k_scale_, &v_scale_}) {
      *numbers = Tensor({bundles * bundle, B}, DType::f32);
      for (float& x : numbers->as<float>()) x = std::numeric_limits<float>::quiet_NaN();
    }
    std::vector<int32_t> free;
    for (int64_t b = 0; b < bundles; ++b) free.push_back(static_cast<int32_t>(b * bundle));
    const RandomStream stream(seed_, 9);
    for (size_t i = free.size(); i-- > 1;)
      std::swap(free[i], free[static_cast<size_t>(stream.uniform(i) * static_cast<double>(i + 1))]);
    for (size_t n = 0; n < nodes_.size(); ++n) {
      const int64_t numbers = (nodes_[n].length + B - 1) / B;
      const bool ragged = shape_.ragged && n % 2 == 1;
      KeyRun run{.first = static_cast<int32_t>(nodes_[n].first),
                 .head_step = ragged ? static_cast<int32_t>(numbers) : 0,
                 .page_step = ragged ? 0 : 1,
                 .length_step = ragged ? 1 : 0,
                 .table = static_cast<int64_t>(tables.size()),
                 .length = static_cast<int64_t>(lengths.size())};
      for (int64_t h = 0; h < (ragged ? H : 1); ++h) {
        lengths.push_back(static_cast<int32_t>(nodes_[n].length));
        for (int64_t i = 0; i < numbers; ++i) {
          tables.push_back(free.back() + static_cast<int32_t>(ragged ? h % bundle : 0));
          free.pop_back();
        }
      }
      node_runs_.push_back(run);
      write(static_cast<int>(n), run);
    }
  }

  /// The keys and values of a node come to their pages, head by head.
  void write(int node, const KeyRun& run) {
    const int64_t length = nodes_[static_cast<size_t>(node)].length, D = shape_.head_dim;
    for (int64_t h = 0; h < shape_.kv_heads; ++h) {
      std::vector<int32_t> page, entry, fault(static_cast<size_t>(length));
      for (int64_t i = 0; i < length; ++i) {
        const int32_t number = tables[static_cast<size_t>(run.table + h * run.head_step + i / shape_.page_tokens)];
        page.push_back(number + static_cast<int32_t>(run.page_step * (kLayer * shape_.kv_heads + h)));
        entry.push_back(static_cast<int32_t>(i % shape_.page_tokens));
      }
      if (length == 0) continue;
      const KeyValuePages to = pages();
      write_pages(On("reference"), {.k = keys[static_cast<size_t>(node)].view().slice_cols(h * D, (h + 1) * D),
                                    .v = values[static_cast<size_t>(node)].view().slice_cols(h * D, (h + 1) * D),
                                    .pages = to,
                                    .page_base = 0,
                                    .kv_heads = 1,
                                    .head_dim = D,
                                    .page = page,
                                    .entry = entry,
                                    .position = {},
                                    .fault = fault});
      EXPECT_THAT(fault, testing::Each(0));
    }
  }

  /// Runs of a visit lie side by side: each node that has rows below gets a copy of its path.
  void make_visits() {
    for (size_t n = 0; n < nodes_.size(); ++n) {
      const TreeNode& node = nodes_[n];
      const auto run_begin = static_cast<int32_t>(runs.size());
      std::vector<KeyRun> path;
      for (int at = static_cast<int>(n); at >= 0; at = nodes_[static_cast<size_t>(at)].parent)
        path.insert(path.begin(), node_runs_[static_cast<size_t>(at)]);
      runs.insert(runs.end(), path.begin(), path.end());
      const auto run_end = static_cast<int32_t>(runs.size());
      const auto begin = static_cast<int32_t>(node.first), end = static_cast<int32_t>(node.first + node.length);
      const auto own_end = static_cast<int32_t>(node.row_begin + node.own);
      if (shape_.at_nodes) {
        visits.push_back({node.row_begin, node.row_end, begin, end, run_begin, run_end});
        continue;
      }
      // A block belongs to the node that holds its last entry; what is left over, to rows that end here.
      visits.push_back({node.row_begin, node.row_end, begin / 128 * 128, end / 128 * 128, run_begin, run_end});
      visits.push_back({node.row_begin, own_end, end / 128 * 128, end + 1000, run_begin, run_end});
    }
  }

  TreeShape shape_;
  std::vector<TreeNode> nodes_;
  uint64_t seed_;
  std::vector<KeyRun> node_runs_;
  Tensor k_, v_, k_scale_, v_scale_;
};

}  // namespace tessera::test
