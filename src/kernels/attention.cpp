#include "kernels/attention.h"

#include "core/error.h"
#include "kernels/checks.h"

namespace tessera {
namespace {

/// The operands that forward and backward share.
template <class Args> void check_operands(const Context& ctx, const Arguments& check, const Args& args) {
  const int64_t tokens = args.q.shape[0], keys = args.k.shape[0], width = args.heads * args.head_dim;
  TS_CHECK(args.heads > 0 && args.kv_heads > 0 && args.head_dim > 0 && args.heads % args.kv_heads == 0,
           "attention: {} heads cannot share {} key-value heads", args.heads, args.kv_heads);
  TS_CHECK(args.window >= 0, "attention: a window of {} keys", args.window);
  check.matrix("q", args.q, tokens, width);
  check.matrix("k", args.k, keys, args.kv_heads * args.head_dim);
  check.matrix("v", args.v, keys, args.kv_heads * args.head_dim);
  check.matrix("out", args.out, tokens, width);
  if (!args.lse.empty()) check.matrix("lse", args.lse, tokens, args.heads);
  check.place("segments", args.segments);
  if (is_counting(ctx)) return;
  for (const AttentionSegment& s : args.segments.host()) {
    TS_CHECK(0 <= s.q_begin && s.q_begin <= s.q_end && s.q_end <= tokens, "attention: queries {}..{} of {}", s.q_begin,
             s.q_end, tokens);
    TS_CHECK(0 <= s.k_begin && s.k_begin <= s.k_end && s.k_end <= keys, "attention: keys {}..{} of {}", s.k_begin,
             s.k_end, keys);
    TS_CHECK(s.q_end - s.q_begin <= s.k_end - s.k_begin, "attention: {} queries but only {} keys", s.q_end - s.q_begin,
             s.k_end - s.k_begin);
  }
}

}  // namespace

void attention(const Context& ctx, const AttentionArgs& args) {
  const Arguments check(ctx, "attention", args.q.dtype);
  check_operands(ctx, check, args);
  check.no_alias("out", args.out, "q", args.q);
  check.no_alias("out", args.out, "k", args.k);
  check.no_alias("out", args.out, "v", args.v);
  ctx.kernels.attention(ctx, args);
}

void attention_backward(const Context& ctx, const AttentionBackwardArgs& args) {
  const Arguments check(ctx, "attention_backward", args.q.dtype);
  check_operands(ctx, check, args);
  TS_CHECK(!args.lse.empty(), "attention_backward: lse is missing");
  check.matrix("dout", args.dout, args.q.shape[0], args.q.shape[1]);
  check.matrix("dq", args.dq, args.q.shape[0], args.q.shape[1]);
  check.matrix("dk", args.dk, args.k.shape[0], args.k.shape[1]);
  check.matrix("dv", args.dv, args.v.shape[0], args.v.shape[1]);
  const struct {
    const char* name;
    const ConstView& view;
  } inputs[] = {{"q", args.q}, {"k", args.k}, {"v", args.v}, {"out", args.out}, {"dout", args.dout}};
  for (const auto& input : inputs) {
    check.no_alias("dq", args.dq, input.name, input.view);
    check.no_alias("dk", args.dk, input.name, input.view);
    check.no_alias("dv", args.dv, input.name, input.view);
  }
  ctx.kernels.attention_backward(ctx, args);
}

}  // namespace tessera
