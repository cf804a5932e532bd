// A query of one head at a time, its scores in a vector of their own. With s_j = scale · q·k_j over the keys it sees:
//   forward    m = max s,  p_j = exp(s_j − m) / Σ exp(s − m),  out = Σ p_j v_j,  lse = m + log Σ exp(s − m)
//   backward   p_j = exp(s_j − lse),  D = dout·out,  ds_j = scale · p_j (dout·v_j − D)
//              dv_j += p_j dout,  dq += ds_j k_j,  dk_j += ds_j q
// D is Σ_j p_j (dout·v_j): what softmax's derivative takes from every score alike, since probabilities sum to 1.

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/reference/reference_kernels.h"
#include "kernels/reference/types.h"

namespace tessera::reference {
namespace {

template <class T> double dot(const T* a, const T* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

/// Keys [begin, end) of the segment, those that query row q sees.
struct Visible {
  int64_t begin, end;
  Visible(const AttentionSegment& s, int64_t q, int64_t window)
      : begin(0), end((s.k_end - s.k_begin) - (s.q_end - s.q_begin) + (q - s.q_begin) + 1) {
    if (window > 0) begin = std::max<int64_t>(0, end - window);
  }
};

template <class T> void attend(const AttentionArgs& args, const AttentionSegment& s, int64_t head, int64_t q) {
  const int64_t D = args.head_dim, kv = head / (args.heads / args.kv_heads) * D;
  const Visible keys(s, q, args.window);
  std::vector<double> scores, out(D);
  for (int64_t j = keys.begin; j < keys.end; ++j)
    scores.push_back(args.scale * dot(args.q.row<T>(q) + head * D, args.k.row<T>(s.k_begin + j) + kv, D));
  const double max = *std::max_element(scores.begin(), scores.end());
  // Scores are needed twice, for the maximum and for the exponentials; subtracting the maximum keeps these from
  // overflowing and changes nothing in the quotient below.
  double sum = 0;
  for (int64_t j = keys.begin; j < keys.end; ++j) {
    const double p = std::exp(scores[static_cast<size_t>(j - keys.begin)] - max);
    sum += p;
    for (int64_t d = 0; d < D; ++d) out[d] += p * args.v.row<T>(s.k_begin + j)[kv + d];
  }
  for (int64_t d = 0; d < D; ++d) args.out.row<T>(q)[head * D + d] = static_cast<T>(out[d] / sum);
  if (!args.lse.empty()) args.lse.row<T>(q)[head] = static_cast<T>(max + std::log(sum));
}

/// One query of one head: adds to dk and dv (f64, [keys of the segment, kv_heads · head_dim]), assigns dq.
template <class T>
void attend_backward(const AttentionBackwardArgs& args, const AttentionSegment& s, int64_t head, int64_t q, double* dk,
                     double* dv) {
  const int64_t D = args.head_dim, kv = head / (args.heads / args.kv_heads) * D, width = args.kv_heads * D;
  const Visible keys(s, q, args.window);
  const T *query = args.q.row<T>(q) + head * D, *dout = args.dout.row<T>(q) + head * D;
  // D = rowsum(dout · out) stands in for Σ_j p_j · dp_j, the part of the softmax's derivative that all keys share.
  const double delta = dot(dout, args.out.row<T>(q) + head * D, D);
  std::vector<double> dq(D);
  for (int64_t j = keys.begin; j < keys.end; ++j) {
    const T *key = args.k.row<T>(s.k_begin + j) + kv, *value = args.v.row<T>(s.k_begin + j) + kv;
    // lse holds the maximum and the sum of the forward pass: one exponential gives the probability.
    const double p = std::exp(args.scale * dot(query, key, D) - args.lse.row<T>(q)[head]);
    const double ds = args.scale * p * (dot(dout, value, D) - delta);
    for (int64_t d = 0; d < D; ++d) {
      dq[d] += ds * key[d];
      dk[j * width + kv + d] += ds * query[d];
      dv[j * width + kv + d] += p * dout[d];
    }
  }
  for (int64_t d = 0; d < D; ++d) args.dq.row<T>(q)[head * D + d] = static_cast<T>(dq[d]);
}

template <class T> void segment_backward(const AttentionBackwardArgs& args, const AttentionSegment& s) {
  // Summed in f64 over all queries and heads and rounded once, when a segment is done.
  const int64_t width = args.kv_heads * args.head_dim, keys = s.k_end - s.k_begin;
  std::vector<double> dk(keys * width), dv(keys * width);
  for (int64_t head = 0; head < args.heads; ++head)
    for (int64_t q = s.q_begin; q < s.q_end; ++q) attend_backward<T>(args, s, head, q, dk.data(), dv.data());
  for (int64_t j = 0; j < keys; ++j) {
    for (int64_t c = 0; c < width; ++c) {
      args.dk.row<T>(s.k_begin + j)[c] = static_cast<T>(dk[j * width + c]);
      args.dv.row<T>(s.k_begin + j)[c] = static_cast<T>(dv[j * width + c]);
    }
  }
}

}  // namespace

void attention(const Context&, const AttentionArgs& args) {
  with_compute_type(args.q.dtype, [&](auto t) {
    for (const AttentionSegment& s : args.segments)
      for (int64_t head = 0; head < args.heads; ++head)
        for (int64_t q = s.q_begin; q < s.q_end; ++q) attend<decltype(t)>(args, s, head, q);
  });
}

void attention_backward(const Context&, const AttentionBackwardArgs& args) {
  with_compute_type(args.q.dtype, [&](auto t) {
    for (const AttentionSegment& s : args.segments) segment_backward<decltype(t)>(args, s);
  });
}

}  // namespace tessera::reference
