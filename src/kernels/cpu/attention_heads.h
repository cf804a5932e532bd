#pragma once
// Query heads that share a key-value head: each sums dk and dv by itself, and then they are added.

#include "kernels/attention.h"

namespace tessera::cpu {

/// Where a backward task sums dk and dv: key j of the segment and head h stand at data[j · stride + h · step].
struct KeyGradients {
  float *dk, *dv;
  int64_t dk_stride, dv_stride;
};

/// Elements of one copy of dk (or dv) with a column block for each query head.
inline int64_t per_head_count(const AttentionBackwardArgs& args) { return args.k.rows() * args.heads * args.head_dim; }

/// Where the heads sum: key 0 of the batch and head 0. Without heads that share keys this is dk and dv themselves.
inline KeyGradients heads_place(const Context& ctx, const AttentionBackwardArgs& args) {
  if (args.heads == args.kv_heads)
    return {args.dk.row<float>(0), args.dv.row<float>(0), args.dk.row_stride(), args.dv.row_stride()};
  // Copies are [keys, heads · head_dim], dk's before dv's: a query head has columns of its own.
  float* copies = ctx.scratch.allocate({2, per_head_count(args)}, DType::f32).row<float>(0);
  return {copies, copies + per_head_count(args), args.heads * args.head_dim, args.heads * args.head_dim};
}

/// to = factor · (the sum of `group` runs of `dim` numbers, in ascending order). A single run may be `to` itself.
inline void join_runs(const float* runs, int64_t group, int64_t dim, float factor, float* to) {
  // Element by element within a run, so that the compiler makes vectors of it.
  if (group > 1)
    for (int64_t c = 0; c < dim; ++c) to[c] = runs[c] + runs[dim + c];
  for (int64_t h = 2; h < group; ++h)
    for (int64_t c = 0; c < dim; ++c) to[c] += runs[h * dim + c];
  if (factor != 1)
    for (int64_t c = 0; c < dim; ++c) to[c] *= factor;
}

/// dk and dv of one key and key-value head, from what the query heads summed.
inline void join_heads(const AttentionBackwardArgs& args, const KeyGradients& heads, int64_t key, int64_t kv_head) {
  const int64_t dim = args.head_dim, group = args.heads / args.kv_heads, from = kv_head * group * dim;
  join_runs(heads.dk + key * heads.dk_stride + from, group, dim, static_cast<float>(args.scale),
            args.dk.row<float>(key) + kv_head * dim);
  if (group > 1)
    join_runs(heads.dv + key * heads.dv_stride + from, group, dim, 1, args.dv.row<float>(key) + kv_head * dim);
}

}  // namespace tessera::cpu
