// The cpu attention against the reference, and the laws that training leans on: causality, isolation of documents,
// equal bits for any number of threads.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "core/random.h"
#include "kernels/attention.h"
#include "kernels/attention_in_order.h"
#include "kernels/cpu/scratch.h"
#include "kernels/harness.h"
#include "kernels/table.h"

namespace tessera {
namespace {

struct Problem {
  int64_t heads, kv_heads, head_dim;
  std::vector<AttentionSegment> segments;
  int64_t padding = 0;  // extra elements between rows
  int64_t window = 0;
  int64_t tokens() const { return segments.empty() ? 0 : segments.back().q_end; }
  int64_t keys() const { return segments.empty() ? 0 : segments.back().k_end; }
};

std::ostream& operator<<(std::ostream& out, const Problem& p) {
  out << p.heads << "/" << p.kv_heads << " heads of " << p.head_dim << ", padding " << p.padding << ", window "
      << p.window << ", segments";
  for (const auto& s : p.segments) out << " " << s.q_end - s.q_begin << "x" << s.k_end - s.k_begin;
  return out;
}

/// Documents of these lengths, one behind the other.
std::vector<AttentionSegment> documents(std::initializer_list<int64_t> lengths) {
  std::vector<AttentionSegment> segments;
  int64_t at = 0;
  for (int64_t n : lengths) segments.push_back({at, at + n, at, at + n}), at += n;
  return segments;
}

struct Matrix {
  Tensor storage;
  TensorView view;
  Matrix(int64_t rows, int64_t cols, int64_t padding, uint64_t seed)
      : storage({rows, cols + padding}, DType::f32), view(storage.view().slice_cols(0, cols)) {
    const auto all = storage.as<float>();
    for (size_t i = 0; i < all.size(); ++i) all[i] = to_unit(static_cast<uint32_t>(mix64(seed * 1000003 + i))) * 4 - 2;
  }
};

struct Pass {
  Matrix q, k, v, dout, out, lse, dq, dk, dv;
  explicit Pass(const Problem& p)
      : q(p.tokens(), p.heads * p.head_dim, p.padding, 1),
        k(p.keys(), p.kv_heads * p.head_dim, p.padding, 2),
        v(p.keys(), p.kv_heads * p.head_dim, p.padding, 3),
        dout(p.tokens(), p.heads * p.head_dim, p.padding, 4),
        out(p.tokens(), p.heads * p.head_dim, p.padding, 5),
        lse(p.tokens(), p.heads, p.padding, 6),
        dq(p.tokens(), p.heads * p.head_dim, p.padding, 7),
        dk(p.keys(), p.kv_heads * p.head_dim, p.padding, 8),
        dv(p.keys(), p.kv_heads * p.head_dim, p.padding, 9) {}

  /// Forward and backward with exactly the planned scratch.
  void go(const Problem& p, std::string_view backend, int threads = 1) {
    const double scale = 1 / std::sqrt(static_cast<double>(p.head_dim));
    const AttentionArgs forward{.q = q.view,
                                .k = k.view,
                                .v = v.view,
                                .out = out.view,
                                .lse = lse.view,
                                .heads = p.heads,
                                .kv_heads = p.kv_heads,
                                .head_dim = p.head_dim,
                                .scale = scale,
                                .segments = p.segments,
                                .window = p.window};
    const AttentionBackwardArgs backward{.q = q.view,
                                         .k = k.view,
                                         .v = v.view,
                                         .out = out.view,
                                         .lse = lse.view,
                                         .dout = dout.view,
                                         .dq = dq.view,
                                         .dk = dk.view,
                                         .dv = dv.view,
                                         .heads = p.heads,
                                         .kv_heads = p.kv_heads,
                                         .head_dim = p.head_dim,
                                         .scale = scale,
                                         .segments = p.segments,
                                         .window = p.window};
    Arena first(cpu::attention_scratch_bytes(forward, threads)),
        second(cpu::attention_backward_scratch_bytes(backward, threads));
    const Kernels& kernels = kernels_for({}, backend);
    attention({.device = {}, .stream = {}, .kernels = kernels, .scratch = first, .threads = threads}, forward);
    attention_backward({.device = {}, .stream = {}, .kernels = kernels, .scratch = second, .threads = threads},
                       backward);
  }
  std::vector<const Matrix*> results() const { return {&out, &lse, &dq, &dk, &dv}; }
};

constexpr const char* kResultNames[] = {"out", "lse", "dq", "dk", "dv"};

/// Bytes of rows [begin, end) of every result but lse's padding are equal.
bool same_rows(const Matrix& a, const Matrix& b, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i)
    if (std::memcmp(a.view.row<float>(i), b.view.row<float>(i), static_cast<size_t>(a.view.cols()) * sizeof(float)) !=
        0)
      return false;
  return true;
}

void expect_like_reference(const Problem& p) {
  Pass found(p), expected(p);
  found.go(p, "cpu");
  expected.go(p, "reference");
  for (size_t r = 0; r < 5; ++r) {
    const auto x = found.results()[r]->storage.as<float>(), y = expected.results()[r]->storage.as<float>();
    double largest = 1;
    for (float value : y) largest = std::max(largest, static_cast<double>(std::abs(value)));
    // Scores reach 4 · sqrt(head_dim): their rounding, about head_dim · eps relative, moves every probability.
    const double bound = 1e-6 * std::sqrt(static_cast<double>(p.head_dim)) * 4 * largest;
    for (size_t i = 0; i < x.size(); ++i)
      ASSERT_NEAR(x[i], y[i], bound) << p << ": " << kResultNames[r] << " element " << i;
  }
}

TEST(CpuAttention, AgreesWithTheReferenceForEveryLengthAroundThePanels) {
  for (int64_t n : {1, 2, 7, 15, 16, 17, 31, 33, 47, 48, 49, 95, 97, 130, 150, 1023, 1030, 2100})
    expect_like_reference({.heads = 2, .kv_heads = 1, .head_dim = 16, .segments = documents({n})});
}

TEST(CpuAttention, AgreesWithTheReferenceForEveryHeadDim) {
  for (int64_t head_dim : {1, 2, 5, 8, 12, 16, 20, 32, 48, 64, 80, 96, 100, 128})
    expect_like_reference({.heads = 3, .kv_heads = 3, .head_dim = head_dim, .segments = documents({50, 3, 20})});
}

// Windows that begin in the middle of a block of 128 keys, at its ends, and so that some queries of a panel see nothing
// of the first block that others see.
TEST(CpuAttention, AgreesWithTheReferenceForEveryWindow) {
  for (int64_t window : {1, 2, 5, 16, 47, 48, 100, 127, 128, 129, 200, 255, 256, 299, 300, 301}) {
    Problem p{.heads = 2, .kv_heads = 1, .head_dim = 8, .segments = documents({300, 3, 140}), .window = window};
    expect_like_reference(p);
    p.segments = {{0, 1, 0, 290}, {1, 51, 290, 500}};  // with a cache there are more keys than queries
    expect_like_reference(p);
  }
}

TEST(CpuAttention, WindowsAsLongAsTheDocumentsAreNone) {
  Problem p{.heads = 4, .kv_heads = 2, .head_dim = 16, .segments = documents({200, 130, 7})};
  Pass all(p), window(p);
  all.go(p, "cpu");
  p.window = 200;
  window.go(p, "cpu");
  for (size_t r = 0; r < 5; ++r)
    EXPECT_TRUE(same_rows(*all.results()[r], *window.results()[r], 0, 337)) << kResultNames[r];
}

// The same keys in the same order, whichever panel a query is in: token by token with a cache as in one pass.
TEST(CpuAttention, AQuerysBitsInAWindowDoNotHangOnThoseBesideIt) {
  for (const int64_t window : {40, 128, 150}) {
    Problem p{.heads = 2, .kv_heads = 2, .head_dim = 8, .segments = documents({300}), .window = window};
    Pass whole(p);
    whole.go(p, "cpu");
    for (const int64_t q : {0, 39, 127, 128, 167, 168, 200, 255, 256, 299}) {
      Pass alone(p);
      p.segments = {{q, q + 1, 0, q + 1}};
      alone.go(p, "cpu");
      EXPECT_TRUE(same_rows(whole.out, alone.out, q, q + 1)) << window << " " << q;
      EXPECT_TRUE(same_rows(whole.lse, alone.lse, q, q + 1)) << window << " " << q;
      p.segments = documents({300});
    }
  }
}

TEST(CpuAttention, AgreesWithTheReferenceForGroupedHeads) {
  for (int64_t kv_heads : {1, 2, 3, 6}) {
    expect_like_reference(
        {.heads = 6, .kv_heads = kv_heads, .head_dim = 8, .segments = documents({140, 11}), .padding = 3});
    expect_like_reference({.heads = 6,
                           .kv_heads = kv_heads,
                           .head_dim = 32,
                           .segments = documents({30, 1, 12, 25, 10, 17, 30, 22, 1, 1, 9, 13, 28, 16, 20, 11})});
  }
}

TEST(CpuAttention, AgreesWithTheReferenceWhenThereAreMoreKeysThanQueries) {
  expect_like_reference(
      {.heads = 4, .kv_heads = 2, .head_dim = 16, .segments = {{0, 1, 0, 300}, {1, 6, 300, 333}, {6, 60, 333, 460}}});
}

TEST(CpuAttention, AgreesWithTheReferenceOnEveryInstructionSet) {
  test::for_each_target([](const std::string&) {
    for (int64_t head_dim : {5, 32})
      expect_like_reference({.heads = 4, .kv_heads = 2, .head_dim = head_dim, .segments = documents({130, 9, 1, 17})});
  });
}

TEST(CpuAttention, HasTheSameBitsOnEveryInstructionSet) {
  for (const Problem& p :
       {Problem{.heads = 6, .kv_heads = 2, .head_dim = 20, .segments = documents({170, 9, 1, 300})},
        Problem{.heads = 2, .kv_heads = 2, .head_dim = 64, .segments = documents({150}), .padding = 3, .window = 40},
        Problem{.heads = 2, .kv_heads = 1, .head_dim = 8, .segments = documents({1200, 2060}), .window = 1029},
        Problem{.heads = 3, .kv_heads = 1, .head_dim = 5, .segments = {{0, 1, 0, 300}, {1, 60, 300, 433}}}}) {
    Pass best(p);
    best.go(p, "cpu");
    test::for_each_target([&](const std::string&) {
      Pass other(p);
      other.go(p, "cpu", 2);
      for (size_t r = 0; r < 5; ++r) {
        const int64_t rows = r == 3 || r == 4 ? p.keys() : p.tokens();
        EXPECT_TRUE(same_rows(*other.results()[r], *best.results()[r], 0, rows)) << kResultNames[r] << " of " << p;
      }
    });
  }
}

// Plain loops beside panels: blocks of 128 keys, spans of 1,024, and what merges them.
TEST(CpuAttention, HasTheBitsOfThePlainLoops) {
  for (const Problem& p :
       {Problem{.heads = 2, .kv_heads = 1, .head_dim = 5, .segments = documents({2300, 7, 1025})},
        Problem{.heads = 1, .kv_heads = 1, .head_dim = 16, .segments = documents({2200}), .window = 1030},
        Problem{.heads = 3, .kv_heads = 3, .head_dim = 8, .segments = {{0, 1, 0, 2049}, {1, 61, 2049, 4200}}}}) {
    Pass run(p);
    run.go(p, "cpu");
    const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(p.head_dim)));
    for (const AttentionSegment& s : p.segments)
      for (int64_t q = s.q_begin; q<s.q_end; q += q % 128> 125 || q % 128 < 2 ? 1 : 41)
        for (int64_t h = 0; h < p.heads; ++h) {
          const int64_t kv = h / (p.heads / p.kv_heads) * p.head_dim;
          const auto rows_of = [&](const Matrix& m) {
            return [&m, &s, kv](int64_t key) { return m.view.row<float>(s.k_begin + key) + kv; };
          };
          const test::Attended expected = test::attention_in_order(
              run.q.view.row<float>(q) + h * p.head_dim, static_cast<size_t>(p.head_dim), scale,
              (s.k_end - s.k_begin) - (s.q_end - q), p.window, rows_of(run.k), rows_of(run.v));
          ASSERT_EQ(run.lse.view.row<float>(q)[h], expected.lse) << p << ", query " << q << ", head " << h;
          for (int64_t c = 0; c < p.head_dim; ++c)
            ASSERT_EQ(run.out.view.row<float>(q)[h * p.head_dim + c], expected.out[static_cast<size_t>(c)])
                << p << ", query " << q << ", head " << h << ", element " << c;
        }
  }
}

TEST(CpuAttention, SumsGradientsOfKeysInChainsOverQueriesThenHeads) {
  // dv alone, of probabilities that the kernel itself tells as the outputs of unit vectors.
  const int64_t tokens = 100, heads = 3, dim = 8;
  const Problem p{.heads = heads, .kv_heads = 1, .head_dim = dim, .segments = documents({tokens})};
  Pass run(p);
  run.go(p, "cpu");
  for (int64_t key : {int64_t{0}, int64_t{37}, tokens - 1}) {
    // The gradient of v is linear in dout: with dout of one query and head alone it is that query's probability.
    std::vector<float> probabilities(static_cast<size_t>(tokens * heads));
    for (int64_t q = 0; q < tokens; ++q) {
      Pass one(p);
      for (int64_t i = 0; i < tokens; ++i)
        for (int64_t c = 0; c < heads * dim; ++c) one.dout.view.row<float>(i)[c] = i == q && c % dim == c / dim;
      one.go(p, "cpu");
      for (int64_t h = 0; h < heads; ++h)
        probabilities[static_cast<size_t>(q * heads + h)] = one.dv.view.row<float>(key)[h];
    }
    for (int64_t c = 0; c < dim; ++c) {
      float sum = 0;
      for (int64_t h = 0; h < heads; ++h) {
        float head = 0;
        for (int64_t q = 0; q < tokens; ++q)
          head = std::fma(probabilities[static_cast<size_t>(q * heads + h)], run.dout.view.row<float>(q)[h * dim + c],
                          head);
        sum = h == 0 ? head : sum + head;
      }
      EXPECT_EQ(run.dv.view.row<float>(key)[c], sum) << "key " << key << ", element " << c;
    }
  }
}

TEST(CpuAttention, StaysFiniteForLargeScores) {
  const Problem p{.heads = 1, .kv_heads = 1, .head_dim = 8, .segments = documents({200})};
  Pass run(p);
  for (float& x : run.q.storage.as<float>()) x *= 1000;
  run.go(p, "cpu");
  for (const Matrix* m : run.results())
    for (float x : m->storage.as<float>()) ASSERT_TRUE(std::isfinite(x));
}

TEST(CpuAttention, LeavesRowsOutsideEverySegmentAlone) {
  const Problem all{.heads = 2, .kv_heads = 1, .head_dim = 8, .segments = documents({10, 20, 30})};
  Problem some = all;
  some.segments.erase(some.segments.begin() + 1);
  Pass run(all);
  const Pass before(all);
  run.go(some, "cpu");
  for (size_t r = 0; r < 5; ++r) {
    EXPECT_TRUE(same_rows(*run.results()[r], *before.results()[r], 10, 30)) << kResultNames[r];
    EXPECT_FALSE(same_rows(*run.results()[r], *before.results()[r], 30, 31)) << kResultNames[r];
  }
}

TEST(CpuAttention, ALaterTokenChangesNoEarlierOutput) {
  const Problem p{.heads = 4, .kv_heads = 2, .head_dim = 20, .segments = documents({170})};
  Pass before(p);
  before.go(p, "cpu");
  for (int64_t token : {1, 40, 100, 169}) {
    Pass after(p);
    for (Matrix* m : {&after.q, &after.k, &after.v})
      for (int64_t c = 0; c < m->view.cols(); ++c) m->view.row<float>(token)[c] += 3;
    after.go(p, "cpu");
    EXPECT_TRUE(same_rows(after.out, before.out, 0, token)) << token;
    EXPECT_TRUE(same_rows(after.lse, before.lse, 0, token)) << token;
    EXPECT_FALSE(same_rows(after.out, before.out, token, token + 1)) << token;
  }
}

TEST(CpuAttention, ADocumentDoesNotFeelItsNeighbours) {
  for (const auto& segments : {documents({33, 90, 60}), documents({5, 8, 20, 4, 9, 30, 11, 12, 13, 7})}) {
    const Problem p{.heads = 4, .kv_heads = 2, .head_dim = 16, .segments = segments};
    Pass before(p), after(p);
    before.go(p, "cpu");
    const AttentionSegment& changed = segments[1];
    for (Matrix* m : {&after.q, &after.k, &after.v, &after.dout})
      for (int64_t i = changed.q_begin; i < changed.q_end; ++i)
        for (int64_t c = 0; c < m->view.cols(); ++c) m->view.row<float>(i)[c] *= -1.5f;
    after.go(p, "cpu");
    for (size_t r = 0; r < 5; ++r) {
      EXPECT_TRUE(same_rows(*after.results()[r], *before.results()[r], 0, changed.q_begin)) << kResultNames[r];
      EXPECT_TRUE(same_rows(*after.results()[r], *before.results()[r], changed.q_end, p.tokens())) << kResultNames[r];
      EXPECT_FALSE(same_rows(*after.results()[r], *before.results()[r], changed.q_begin, changed.q_end))
          << kResultNames[r];
    }
  }
}

TEST(CpuAttention, GivesTheSameBitsForAnyNumberOfThreads) {
  // Heads that do not divide among the threads are cut into two tasks each, one of which goes on from the other.
  for (const Problem& p :
       {Problem{.heads = 6, .kv_heads = 2, .head_dim = 16, .segments = documents({200})},
        Problem{.heads = 6, .kv_heads = 2, .head_dim = 16, .segments = documents({5, 80, 20, 4, 9, 30, 11, 12, 13, 7})},
        Problem{.heads = 3, .kv_heads = 1, .head_dim = 16, .segments = documents({700})},
        Problem{.heads = 1, .kv_heads = 1, .head_dim = 20, .segments = documents({433, 3})},
        Problem{.heads = 3, .kv_heads = 1, .head_dim = 16, .segments = documents({130, 500}), .window = 150},
        Problem{.heads = 3, .kv_heads = 3, .head_dim = 8, .segments = {{0, 170, 0, 600}, {170, 171, 600, 900}}}}) {
    Pass one(p);
    one.go(p, "cpu");
    for (int threads : {2, 3, 5, 7}) {
      Pass many(p);
      many.go(p, "cpu", threads);
      for (size_t r = 0; r < 5; ++r) {
        const int64_t rows = r == 3 || r == 4 ? p.keys() : p.tokens();
        EXPECT_TRUE(same_rows(*many.results()[r], *one.results()[r], 0, rows))
            << kResultNames[r] << " of " << p << ", threads " << threads;
      }
    }
  }
}

}  // namespace
}  // namespace tessera
