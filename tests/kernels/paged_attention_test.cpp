// Attention over pages beside attention over each row's own keys, laid out for it alone.

#include <numeric>

#include "core/error.h"
#include "kernels/attention.h"
#include "kernels/cpu_target.h"
#include "kernels/paged_tree.h"

namespace tessera::test {
namespace {

using Tree = PagedTree;

float* row_of(const Matrix& x, int64_t row) { return x.view().row<float>(row); }

/// What `attention` gives to one row over the keys of its path, up to its bound.
struct Alone {
  Matrix out, lse;
};
Alone attend_alone(const Tree& tree, int64_t row) {
  const TreeShape& shape = tree.shape();
  const int64_t width = shape.kv_heads * shape.head_dim, count = tree.row_bound[static_cast<size_t>(row)] + 1;
  Matrix k(count, width, DType::f32), v(count, width, DType::f32);
  int64_t key = 0;
  for (const int node : tree.path_of(row))
    for (int64_t i = 0; i < tree.nodes()[static_cast<size_t>(node)].length && key < count; ++i, ++key) {
      std::copy_n(row_of(tree.keys[static_cast<size_t>(node)], i), width, row_of(k, key));
      std::copy_n(row_of(tree.values[static_cast<size_t>(node)], i), width, row_of(v, key));
    }
  EXPECT_EQ(key, count);
  Alone alone{Matrix(1, shape.heads * shape.head_dim, DType::f32), Matrix(1, shape.heads, DType::f32)};
  const std::vector<AttentionSegment> segments = {{0, 1, 0, count}};
  static const On kCpu("cpu");
  attention(kCpu, {.q = tree.q->view().slice_rows(row, row + 1),
                   .k = k.view(),
                   .v = v.view(),
                   .out = alone.out,
                   .lse = alone.lse,
                   .heads = shape.heads,
                   .kv_heads = shape.kv_heads,
                   .head_dim = shape.head_dim,
                   .scale = tree.scale(),
                   .segments = segments,
                   .window = shape.window});
  return alone;
}

::testing::AssertionResult same_row(const Matrix& got, int64_t row, const Matrix& want) {
  for (int64_t c = 0; c < got.cols(); ++c)
    if (std::bit_cast<uint64_t>(got.at(row, c)) != std::bit_cast<uint64_t>(want.at(0, c)))
      return ::testing::AssertionFailure()
             << "row " << row << ", column " << c << ": " << got.at(row, c) << ", alone " << want.at(0, c);
  return ::testing::AssertionSuccess();
}

std::string text(const TreeShape& s) {
  return std::to_string(s.heads) + "/" + std::to_string(s.kv_heads) + " heads of " + std::to_string(s.head_dim) +
         ", pages of " + std::to_string(s.page_tokens) + ", window " + std::to_string(s.window);
}

const std::vector<TreeShape> kShapes = {
    {.heads = 4, .kv_heads = 1, .head_dim = 64, .page_tokens = 16},
    {.heads = 8, .kv_heads = 1, .head_dim = 128, .page_tokens = 8, .ragged = true},
    {.heads = 3, .kv_heads = 3, .head_dim = 64, .page_tokens = 128},
    {.heads = 6, .kv_heads = 2, .head_dim = 20, .page_tokens = 24, .window = 150, .ragged = true},
    {.heads = 2, .kv_heads = 1, .head_dim = 5, .page_tokens = 1, .window = 1},
    {.heads = 9, .kv_heads = 3, .head_dim = 64, .page_tokens = 32, .window = 1029},
    {.heads = 200, .kv_heads = 1, .head_dim = 4, .page_tokens = 16},
};

TEST(PagedAttention, GivesEachRowOfATreeTheBitsOfAttentionOverItsOwnKeys) {
  int64_t rows = 0;
  for (size_t i = 0; i < kShapes.size(); ++i)
    for (uint64_t seed : {1, 2}) {
      SCOPED_TRACE(text(kShapes[i]) + ", seed " + std::to_string(seed));
      const Tree tree(kShapes[i], Tree::random_tree(seed * 10 + i, 40), seed);
      const Tree::Result got = tree.attend(On("cpu", 2));
      rows += tree.rows();
      for (int64_t row = 0; row < tree.rows(); ++row) {
        const Alone alone = attend_alone(tree, row);
        ASSERT_TRUE(same_row(got.out, row, alone.out));
        ASSERT_TRUE(same_row(got.lse, row, alone.lse));
      }
    }
  EXPECT_GT(rows, 200);
}

/// Few rows below a long prefix, some of them below a second node that ends in the middle of a block.
std::vector<TreeNode> long_tree() {
  return {{-1, 2300, 2}, {0, 40, 0}, {1, 9, 1}, {1, 300, 3}, {0, 1, 1}, {0, 0, 1}, {0, 1800, 40}};
}

TEST(PagedAttention, SpansThatAreTasksOfTheirOwnAreMergedInOrder) {
  for (const int64_t window : {0, 1030, 2100}) {
    const Tree tree({.heads = 3, .kv_heads = 1, .head_dim = 16, .window = window}, long_tree(), 4);
    const Tree::Result one = tree.attend(On("cpu", 1));
    for (int64_t row = 0; row < tree.rows(); ++row) {
      const Alone alone = attend_alone(tree, row);
      ASSERT_TRUE(same_row(one.out, row, alone.out)) << window;
      ASSERT_TRUE(same_row(one.lse, row, alone.lse)) << window;
    }
    for (const int threads : {2, 3, 7}) {
      const Tree::Result many = tree.attend(On("cpu", threads), 64);
      EXPECT_TRUE(many.out.equals_bitwise(one.out)) << threads << " threads, window " << window;
      EXPECT_TRUE(many.lse.equals_bitwise(one.lse)) << threads << " threads, window " << window;
    }
  }
}

TEST(PagedAttention, HasOneOrderForThreadsInstructionsTilesAndPages) {
  const TreeShape shape{.heads = 6, .kv_heads = 2, .head_dim = 24, .page_tokens = 16};
  for (const uint64_t seed : {5, 6}) {
    const std::vector<TreeNode> nodes = seed == 5 ? Tree::random_tree(5, 25, 200) : long_tree();
    const Tree tree(shape, nodes, seed);
    const Tree::Result want = tree.attend(On("cpu"));
    for_each_target(
        [&](const std::string&) { EXPECT_TRUE(tree.attend(On("cpu", 3), 7).out.equals_bitwise(want.out)); });
    for (const int64_t tile_rows : {1, 2, 64})
      EXPECT_TRUE(tree.attend(On("cpu", 2), tile_rows).out.equals_bitwise(want.out)) << tile_rows;
    for (const int threads : {1, 2, 3, 5, 7}) {
      const Tree::Result got = tree.attend(On("cpu", threads));
      EXPECT_TRUE(got.out.equals_bitwise(want.out) && got.lse.equals_bitwise(want.lse)) << threads;
    }
    for (const int64_t page_tokens : {8, 24, 32, 64, 128})
      for (const bool ragged : {false, true}) {
        TreeShape other = shape;
        other.page_tokens = page_tokens, other.ragged = ragged;
        EXPECT_TRUE(Tree(other, nodes, seed).attend(On("cpu", 2)).out.equals_bitwise(want.out)) << page_tokens;
      }
  }
}

// Cut where nodes end, sums are formed in another order.
TEST(PagedAttention, VisitsThatEndWithTheirNodesGiveTheSameToRounding) {
  for (const uint64_t seed : {7, 8, 9}) {
    TreeShape shape{.heads = 8, .kv_heads = 2, .head_dim = 64, .page_tokens = 16, .at_nodes = true};
    Tree tree(shape, Tree::random_tree(seed, 40), seed);
    const Tree::Result got = tree.attend(On("cpu", 2));
    tree.q.emplace(tree.q->as(DType::f64));
    const Tree::Result want = tree.attend(On("reference"));
    expect_within(got.out, want.out, [](int64_t, int64_t) { return 1e-5; });
    expect_within(got.lse, want.lse, [](int64_t, int64_t) { return 1e-5; });
  }
}

TEST(PagedAttention, ReadsPagesOfEveryType) {
  for (const DType stored : {DType::bf16, DType::f16, DType::i8}) {
    for (const uint64_t seed : {1, 2, 3}) {
      SCOPED_TRACE(std::string(name_of(stored)) + ", seed " + std::to_string(seed));
      TreeShape shape{.heads = 4, .kv_heads = 2, .head_dim = seed == 1 ? 20 : 64, .page_tokens = 16, .stored = stored};
      const std::vector<TreeNode> nodes = Tree::random_tree(20 + seed, 40);
      Tree tree(shape, nodes, seed);
      const Tree::Result got = tree.attend(On("cpu", 2));
      if (seed == 1)
        for_each_target(
            [&](const std::string&) { EXPECT_TRUE(tree.attend(On("cpu", 3)).out.equals_bitwise(got.out)); });
      tree.q.emplace(tree.q->as(DType::f64));
      // Of the same pages nothing but f32 sums is between them; of f32 pages what the type takes away.
      expect_within(got.out, tree.attend(On("reference")).out, [](int64_t, int64_t) { return 1e-5; });
      shape.stored = DType::f32;
      Tree exact(shape, nodes, seed);
      exact.q.emplace(exact.q->as(DType::f64));
      const double bound = stored == DType::f16 ? 4e-3 : stored == DType::bf16 ? 3e-2 : 5e-2;
      expect_within(got.out, exact.attend(On("reference")).out, [&](int64_t, int64_t) { return bound; });
    }
  }
}

TEST(PagedAttention, ARowThatSeesNothingIsZeroAndMinusInfinity) {
  for (const char* backend : {"cpu", "reference"}) {
    Tree tree({.heads = 2, .kv_heads = 1, .head_dim = 16}, long_tree(), 3);
    const Tree::Result before = tree.attend(On(backend, 2));
    const int64_t blind[] = {0, 3, tree.rows() - 1};
    for (const int64_t row : blind) tree.row_bound[static_cast<size_t>(row)] = -1;
    const Tree::Result after = tree.attend(On(backend, 2));
    for (int64_t row = 0; row < tree.rows(); ++row) {
      if (std::find(std::begin(blind), std::end(blind), row) == std::end(blind)) {
        for (int64_t c = 0; c < after.out.cols(); ++c) EXPECT_EQ(after.out.at(row, c), before.out.at(row, c));
        continue;
      }
      for (int64_t c = 0; c < after.out.cols(); ++c) EXPECT_EQ(after.out.at(row, c), 0);
      for (int64_t h = 0; h < 2; ++h) EXPECT_EQ(after.lse.at(row, h), -std::numeric_limits<double>::infinity());
    }
  }
}

TEST(PagedAttention, RowsWithoutVisitsAreZero) {
  Tree tree({.heads = 2, .kv_heads = 1, .head_dim = 16}, {{-1, 20, 4}}, 3);
  tree.visits.clear();
  for (const char* backend : {"cpu", "reference"}) {
    const Tree::Result got = tree.attend(On(backend, 2));
    for (int64_t row = 0; row < 4; ++row) {
      EXPECT_EQ(got.out.at(row, 31), 0);
      EXPECT_EQ(got.lse.at(row, 1), -std::numeric_limits<double>::infinity());
    }
  }
}

// NaN in one request's own keys stays with it: those of others in the same panel do not even meet it.
TEST(PagedAttention, ADamagedTailHarmsItsOwnRowsAlone) {
  const std::vector<TreeNode> nodes = {{-1, 128, 0}, {0, 9, 1}, {0, 30, 2}, {0, 4, 1}, {0, 1, 1}};
  const TreeShape shape{.heads = 3, .kv_heads = 1, .head_dim = 16};
  const Tree sound(shape, nodes, 2);
  const Tree::Result want = sound.attend(On("cpu"));
  Tree damaged(shape, nodes, 2);
  const KeyRun& run = damaged.runs[static_cast<size_t>(damaged.visits[4].run_end - 1)];  // of the second tail
  const int64_t page = damaged.tables[static_cast<size_t>(run.table)] + damaged.shape().kv_heads;
  for (int64_t i = 0; i < 16 * 16; ++i) set_element(damaged.pages().v, page * 16 * 16 + i, kNaN);
  const Tree::Result got = damaged.attend(On("cpu"));
  for (int64_t row = 0; row < damaged.rows(); ++row)
    for (int64_t c = 0; c < got.out.cols(); ++c) {
      if (row == 1 || row == 2)
        EXPECT_TRUE(std::isnan(got.out.at(row, c)));
      else
        EXPECT_EQ(got.out.at(row, c), want.out.at(row, c));
    }
}

// Σ over nodes of their entries, once, and not over the paths of rows.
TEST(PagedAttention, CountsTheBytesOfEachVisitOnce) {
  for (const bool at_nodes : {false, true})
    for (const uint64_t seed : {1, 2, 3, 4, 5, 6}) {
      const DType stored = seed % 3 == 0 ? DType::i8 : seed % 3 == 1 ? DType::f32 : DType::bf16;
      const TreeShape shape{.heads = 4, .kv_heads = 2, .head_dim = 8, .stored = stored, .at_nodes = at_nodes};
      const Tree tree(shape, Tree::random_tree(seed, 60), seed);
      int64_t entries = 0;
      for (const TreeNode& node : tree.nodes()) {
        if (node.row_begin == node.row_end) continue;
        const int64_t end = node.first + node.length;
        if (at_nodes)
          entries += node.length;
        else
          entries += 128 * (end / 128 - node.first / 128) + (node.own > 0 ? end % 128 : 0);
      }
      const int64_t entry = 2 * 8 * size_of(stored) + (stored == DType::i8 ? 8 : 0);
      for (const char* backend : {"cpu", "reference"})
        EXPECT_EQ(tree.attend(On(backend)).bytes, entries * 2 * entry) << backend << ", seed " << seed;
    }
}

TEST(PagedAttention, PlansExactlyTheScratchThatItTakes) {
  const Tree tree({.heads = 6, .kv_heads = 2, .head_dim = 20}, Tree::random_tree(3, 30), 3);
  std::vector<int64_t> offsets(tree.runs.size() * 2);
  for (size_t i = 0; i < offsets.size(); ++i) offsets[i] = 300 * static_cast<int64_t>(i);
  for (const bool kept : {false, true})
    expect_planned([&](const Context& ctx) {
      const Matrix out(tree.rows(), 120, DType::f32), lse(tree.rows(), 6, DType::f32);
      const Matrix mass(1, 300 * std::ssize(offsets), DType::f32);
      const PagedPlan plan = plan_tiles(tree.visits, tree.rows(), 3, 2, ctx.threads);
      PagedAttentionArgs args = tree.arguments(out, lse, plan);
      if (kept)
        args.mass = mass.vector(), args.mass_offset = offsets;
      else
        args.lse = {};
      paged_attention(ctx, args);
    });
}

TEST(PagedAttention, NamesWhatLiesOutsideThePool) {
  const auto message = [](const std::function<void(Tree&)>& spoil) {
    Tree tree({.heads = 2, .kv_heads = 1, .head_dim = 8}, {{-1, 40, 0}, {0, 5, 1}}, 3);
    spoil(tree);
    try {
      tree.attend(On("cpu"));
    } catch (const InternalError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  using testing::HasSubstr;
  EXPECT_EQ(message([](Tree&) {}), "no error");
  EXPECT_THAT(message([](Tree& t) { t.tables[0] = 4000; }), HasSubstr("run 0 has page 4001 in head 0, expected 0 to"));
  EXPECT_THAT(message([](Tree& t) { t.lengths[1] = -1; }), HasSubstr("has -1 entries in head 0"));
  EXPECT_THAT(message([](Tree& t) { t.lengths[1] = 5000; }), HasSubstr("has the pages of head 0 at 3 to 316 of 4"));
  EXPECT_THAT(message([](Tree& t) { t.runs[0].length = 9; }), HasSubstr("run 0 has the length of head 0 at 9 of 2"));
  EXPECT_THAT(message([](Tree& t) { t.visits[0].row_end = 7; }), HasSubstr("visit 0 is of rows 0 to 7 of 1"));
  EXPECT_THAT(message([](Tree& t) { t.visits[0].run_end = 70; }), HasSubstr("visit 0 is of runs 0 to 70 of"));
  EXPECT_THAT(message([](Tree& t) { t.row_bound.pop_back(); }), HasSubstr("row_bound has 0 entries, expected 1"));
}

TEST(PagedPlan, TilesCoverTheRowsAndNameEveryVisitOfTheirs) {
  for (const uint64_t seed : {1, 2, 3})
    for (const int64_t group : {1, 3, 8, 64, 300})
      for (const int threads : {1, 2, 16}) {
        const Tree tree({.heads = 2, .kv_heads = 1, .head_dim = 1}, Tree::random_tree(seed, 400, 10), seed);
        const PagedPlan plan = plan_tiles(tree.visits, tree.rows(), group, 3, threads);
        int64_t row = 0;
        for (const AttentionTile& tile : plan.tiles) {
          EXPECT_EQ(tile.row_begin, row);
          EXPECT_LT(row, tile.row_end);
          EXPECT_LE(tile.row_end - row, max_tile_rows(group));
          row = tile.row_end;
          std::vector<int32_t> want, got;
          for (size_t v = 0; v < tree.visits.size(); ++v) {
            const AttentionVisit& visit = tree.visits[v];
            if (std::max(visit.row_begin, tile.row_begin) < std::min(visit.row_end, tile.row_end) &&
                visit.begin < visit.end)
              want.push_back(static_cast<int32_t>(v));
          }
          for (int32_t i = tile.visit_begin; i < tile.visit_end; ++i) {
            got.push_back(plan.tile_visits[static_cast<size_t>(i)]);
          }
          EXPECT_TRUE(std::is_sorted(got.begin(), got.end(), [&](int32_t a, int32_t b) {
            return tree.visits[static_cast<size_t>(a)].begin < tree.visits[static_cast<size_t>(b)].begin;
          }));
          EXPECT_THAT(got, testing::UnorderedElementsAreArray(want));
        }
        EXPECT_EQ(row, tree.rows());
      }
}

TEST(PagedPlan, ManyThreadsGetManyTiles) {
  const std::vector<AttentionVisit> visits = {{0, 256, 0, 128, 0, 1}};
  EXPECT_EQ(plan_tiles(visits, 256, 3, 3, 1).tiles.size(), 4u);
  EXPECT_EQ(plan_tiles(visits, 256, 3, 3, 16).tiles.size(), 16u);
  EXPECT_EQ(plan_tiles(std::vector<AttentionVisit>{{0, 32, 0, 128, 0, 1}}, 32, 3, 3, 2).tiles.size(), 2u);
  EXPECT_THROW(plan_tiles(visits, 32, 3, 3, 2), InternalError);
  EXPECT_TRUE(plan_tiles({}, 0, 3, 3, 2).tiles.empty());
}

TEST(MergeAttention, IsAttentionOverTheKeysOfBoth) {
  for (const int64_t heads : {1, 5, 18}) {
    const int64_t rows = 7, dim = 20;
    const Matrix a = Matrix::random(rows, heads * dim, DType::f32, 1),
                 x = Matrix::random(rows, heads, DType::f32, 2, 9);
    Matrix b = Matrix::random(rows, heads * dim, DType::f32, 3, 1, 4),
           y = Matrix::random(rows, heads, DType::f32, 4, 9);
    Matrix out = a.copy(), lse = x.copy();
    // What one side did not see is the other's, bit for bit, and of two that saw nothing nothing comes.
    constexpr double kNothing = -std::numeric_limits<double>::infinity();
    y.set(1, 0, kNothing);
    lse.set(2, 0, kNothing);
    y.set(3, 0, kNothing), lse.set(3, 0, kNothing);
    for (int64_t c = 0; c < dim; ++c) b.set(1, c, kNaN), out.set(2, c, kNaN), out.set(3, c, 0);
    const Matrix out_before = out.copy(), lse_before = lse.copy();
    Matrix want = out.as(DType::f64), want_lse = lse.as(DType::f64);
    merge_attention(On("reference"), b.as(DType::f64).view(), y.as(DType::f64).view(), dim, want, want_lse);
    merge_attention(On("cpu"), b.view(), y.view(), dim, out, lse);
    expect_within(out, want, [](int64_t, int64_t) { return 1e-6; });
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t h = 0; h < heads; ++h)
        EXPECT_TRUE((r == 3 && h == 0) || std::abs(lse.at(r, h) - want_lse.at(r, h)) <= 1e-6) << r << " " << h;
    EXPECT_EQ(lse.at(3, 0), kNothing);
    for (int64_t c = 0; c < dim; ++c) {
      EXPECT_EQ(out.at(1, c), out_before.at(1, c));
      EXPECT_EQ(out.at(2, c), b.at(2, c));
      EXPECT_EQ(out.at(3, c), 0);
    }
    EXPECT_EQ(lse.at(1, 0), lse_before.at(1, 0));
    for_each_target([&](const std::string&) {
      Matrix other = out_before.copy(), other_lse = lse_before.copy();
      merge_attention(On("cpu", 3), b.view(), y.view(), dim, other, other_lse);
      EXPECT_TRUE(other.equals_bitwise(out) && other_lse.equals_bitwise(lse));
    });
  }
}

}  // namespace
}  // namespace tessera::test
