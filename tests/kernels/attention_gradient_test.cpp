// The reference attention, against a naive formula and by central differences. The cpu version is compared with it
// elsewhere.

#include "core/error.h"
#include "harness.h"

namespace tessera::test {
namespace {

struct Case {
  const char* name;
  int64_t heads, kv_heads, head_dim, tokens, keys;
  std::vector<AttentionSegment> segments;
};

const std::vector<Case> kCases{
    {"one document", 2, 2, 3, 5, 5, {{0, 5, 0, 5}}},
    {"grouped queries", 4, 2, 3, 4, 4, {{0, 4, 0, 4}}},
    {"one key-value head", 3, 1, 2, 4, 4, {{0, 4, 0, 4}}},
    {"packed documents", 2, 1, 2, 7, 7, {{0, 3, 0, 3}, {3, 4, 3, 4}, {4, 7, 4, 7}}},
    {"more keys than queries", 2, 1, 2, 3, 8, {{0, 2, 0, 5}, {2, 3, 5, 8}}},
};

struct Operands {
  Matrix q, k, v, out, lse, dout, dq, dk, dv;
  explicit Operands(const Case& c)
      : q(Matrix::random(c.tokens, c.heads * c.head_dim, DType::f64, 1, 1, 2)),
        k(Matrix::random(c.keys, c.kv_heads * c.head_dim, DType::f64, 2, 1, 1)),
        v(Matrix::random(c.keys, c.kv_heads * c.head_dim, DType::f64, 3)),
        out(c.tokens, c.heads * c.head_dim, DType::f64),
        lse(c.tokens, c.heads, DType::f64),
        dout(Matrix::random(c.tokens, c.heads * c.head_dim, DType::f64, 4)),
        dq(c.tokens, c.heads * c.head_dim, DType::f64),
        dk(c.keys, c.kv_heads * c.head_dim, DType::f64),
        dv(c.keys, c.kv_heads * c.head_dim, DType::f64) {}
  void forward(const Case& c) {
    attention(On("reference"), {.q = q.view(),
                                .k = k.view(),
                                .v = v.view(),
                                .out = out,
                                .lse = lse,
                                .heads = c.heads,
                                .kv_heads = c.kv_heads,
                                .head_dim = c.head_dim,
                                .scale = 0.7,
                                .segments = c.segments});
  }
};

/// The output of one query, head and dimension, written down directly; every key is looked at and most are refused.
double naive(const Case& c, const Operands& o, int64_t query, int64_t column) {
  const int64_t head = column / c.head_dim, kv = head / (c.heads / c.kv_heads) * c.head_dim, d = column % c.head_dim;
  double sum = 0, weighted = 0;
  for (const AttentionSegment& s : c.segments) {
    if (query < s.q_begin || query >= s.q_end) continue;
    for (int64_t j = s.k_begin; j < s.k_end; ++j) {
      if (s.q_end - query > s.k_end - j) continue;  // counted from the ends: the key lies in the future
      double score = 0;
      for (int64_t i = 0; i < c.head_dim; ++i) score += o.q.at(query, head * c.head_dim + i) * o.k.at(j, kv + i);
      sum += std::exp(0.7 * score);
      weighted += std::exp(0.7 * score) * o.v.at(j, kv + d);
    }
  }
  return weighted / sum;
}

TEST(Attention, ReferenceIsTheSoftmaxOfVisibleKeys) {
  for (const Case& c : kCases) {
    Operands o(c);
    o.forward(c);
    for (int64_t t = 0; t < c.tokens; ++t)
      for (int64_t i = 0; i < o.out.cols(); ++i) ASSERT_NEAR(o.out.at(t, i), naive(c, o, t, i), 1e-13) << c.name;
  }
}

TEST(GradCheck, Attention) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    Operands o(c);
    const auto loss = [&] {
      o.forward(c);
      return dot(o.out, o.dout);
    };
    loss();
    attention_backward(On("reference"), {.q = o.q.view(),
                                         .k = o.k.view(),
                                         .v = o.v.view(),
                                         .out = o.out.view(),
                                         .lse = o.lse.view(),
                                         .dout = o.dout.view(),
                                         .dq = o.dq,
                                         .dk = o.dk,
                                         .dv = o.dv,
                                         .heads = c.heads,
                                         .kv_heads = c.kv_heads,
                                         .head_dim = c.head_dim,
                                         .scale = 0.7,
                                         .segments = c.segments});
    expect_gradient(o.q, o.dq, loss);
    expect_gradient(o.k, o.dk, loss);
    expect_gradient(o.v, o.dv, loss);
  }
}

TEST(Attention, RefusesASegmentWithFewerKeysThanQueries) {
  const Case c{"", 1, 1, 2, 3, 3, {{0, 3, 0, 2}}};
  Operands o(c);
  EXPECT_THROW(o.forward(c), InternalError);
}

}  // namespace
}  // namespace tessera::test
