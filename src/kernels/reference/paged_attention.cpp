// A row of one head at a time: all entries that it sees, whatever visits they are in, one softmax in f64.

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/paged_runs.h"
#include "kernels/reference/reference_kernels.h"
#include "kernels/reference/types.h"

namespace tessera::reference {
namespace {

constexpr double kNothing = -std::numeric_limits<double>::infinity();

/// An entry that a row sees.
struct Seen {
  int64_t page, slot;
  double score;
};

/// The numbers of an entry of k or v.
std::vector<double> numbers(const ConstView& values, const ConstView& scales, int64_t page, int64_t slot, int64_t dim) {
  std::vector<double> x(static_cast<size_t>(dim));
  if (values.dtype == DType::i8) {
    for (int64_t d = 0; d < dim; ++d)
      x[d] = scales.row<float>(page)[slot] * static_cast<float>(values.row<int8_t>(page)[slot * dim + d]);
    return x;
  }
  with_storage_type(values.dtype, [&](auto t) {
    for (int64_t d = 0; d < dim; ++d) x[d] = widen(values.row<decltype(t)>(page)[slot * dim + d]);
  });
  return x;
}

/// scale · q·k + bias
template <class T>
double score_of(const PagedAttentionArgs& args, int64_t row, int64_t head, int64_t page, int64_t slot) {
  const auto k = numbers(args.pages.k, args.pages.k_scale, page, slot, args.head_dim);
  double sum = 0;
  for (int64_t d = 0; d < args.head_dim; ++d)
    sum += static_cast<double>(args.q.row<T>(row)[head * args.head_dim + d]) * k[d];
  const double bias = args.pages.bias.empty() ? 0 : args.pages.bias.row<float>(page)[slot];
  return args.scale * sum + bias;
}

int64_t position_of(const PagedAttentionArgs& args, const PagePiece& piece, int64_t i) {
  if (args.pages.position.empty()) return piece.position + i;
  return args.pages.position.row<int32_t>(piece.page)[piece.slot + i];
}

bool sees(const PagedAttentionArgs& args, int64_t row, int64_t position) {
  const auto r = static_cast<size_t>(row);
  return position <= args.row_bound[r] && (args.window == 0 || position > args.row_position[r] - args.window);
}

/// Calls f(piece, i) for the entries of a visit that a row sees.
template <class F>
void for_seen(const PagedAttentionArgs& args, const AttentionVisit& visit, int64_t row, int64_t kv_head, F&& f) {
  for_pieces(args, visit, kv_head, visit.begin, end_of(args, visit, kv_head), [&](const PagePiece& piece) {
    for (int64_t i = 0; i < piece.count; ++i)
      if (sees(args, row, position_of(args, piece, i))) f(piece, i);
  });
}

/// Its out and log Σ exp(score).
template <class T> double attend(const PagedAttentionArgs& args, int64_t row, int64_t head) {
  const int64_t kv_head = head / (args.heads / args.kv_heads), dim = args.head_dim;
  std::vector<Seen> seen;
  for (const AttentionVisit& visit : args.visits) {
    if (row < visit.row_begin || row >= visit.row_end) continue;
    for_seen(args, visit, row, kv_head, [&](const PagePiece& piece, int64_t i) {
      seen.push_back({piece.page, piece.slot + i, score_of<T>(args, row, head, piece.page, piece.slot + i)});
    });
  }
  double max = kNothing, sum = 0;
  for (const Seen& entry : seen) max = std::max(max, entry.score);
  std::vector<double> out(static_cast<size_t>(dim));
  for (const Seen& entry : seen) {
    const double p = std::exp(entry.score - max);
    const auto v = numbers(args.pages.v, args.pages.v_scale, entry.page, entry.slot, dim);
    sum += p;
    for (int64_t d = 0; d < dim; ++d) out[d] += p * v[d];
  }
  for (int64_t d = 0; d < dim; ++d)
    args.out.row<T>(row)[head * dim + d] = static_cast<T>(seen.empty() ? 0 : out[d] / sum);
  const double lse = seen.empty() ? kNothing : max + std::log(sum);
  if (!args.lse.empty()) args.lse.row<T>(row)[head] = static_cast<T>(lse);
  return lse;
}

/// What the rows of a visit give to the entries of one of its runs: Σ exp(score − lse).
template <class T>
void add_mass(const PagedAttentionArgs& args, const AttentionVisit& visit, int32_t run, int64_t kv_head,
              const std::vector<double>& lse, std::vector<double>& mass) {
  int64_t first = 0;  // the number of the run's first entry in the visit
  for (int32_t r = visit.run_begin; r < run; ++r) first += length_of(args, args.runs[static_cast<size_t>(r)], kv_head);
  const int64_t group = args.heads / args.kv_heads, last = first + static_cast<int64_t>(mass.size());
  for (int64_t row = visit.row_begin; row < visit.row_end; ++row) {
    if (!args.mass_rows.empty() && args.mass_rows[static_cast<size_t>(row)] == 0) continue;
    for_seen(args, visit, row, kv_head, [&](const PagePiece& piece, int64_t i) {
      const int64_t entry = piece.first + i;
      if (entry < first || entry >= last) return;
      for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
        mass[static_cast<size_t>(entry - first)] += std::exp(score_of<T>(args, row, head, piece.page, piece.slot + i) -
                                                             lse[static_cast<size_t>(row * args.heads + head)]);
    });
  }
}

template <class T> void assign_mass(const PagedAttentionArgs& args, const std::vector<double>& lse) {
  const int64_t heads = args.heads / args.kv_heads;
  const auto group = static_cast<double>(heads);
  for (size_t i = 0; i < args.mass_offset.size(); ++i) {
    const auto run = static_cast<int32_t>(i / static_cast<size_t>(args.kv_heads));
    const int64_t kv_head = static_cast<int64_t>(i) % args.kv_heads, offset = args.mass_offset[i];
    if (offset < 0) continue;
    std::vector<double> mass(static_cast<size_t>(length_of(args, args.runs[static_cast<size_t>(run)], kv_head)));
    for (const AttentionVisit& visit : args.visits)
      if (visit.run_begin <= run && run < visit.run_end) add_mass<T>(args, visit, run, kv_head, lse, mass);
    for (size_t e = 0; e < mass.size(); ++e)
      args.mass.row<T>(0)[offset + static_cast<int64_t>(e)] = static_cast<T>(mass[e] / group);
  }
}

}  // namespace

void paged_attention(const Context&, const PagedAttentionArgs& args) {
  with_compute_type(args.q.dtype, [&](auto t) {
    std::vector<double> lse;
    for (int64_t row = 0; row < args.q.shape[0]; ++row)
      for (int64_t head = 0; head < args.heads; ++head) lse.push_back(attend<decltype(t)>(args, row, head));
    if (!args.mass.empty()) assign_mass<decltype(t)>(args, lse);
  });
  if (!args.bytes.empty()) args.bytes.as<int64_t>()[0] += bytes_read(args);
}

void merge_attention(const Context&, ConstView other_out, ConstView other_lse, int64_t head_dim, TensorView out,
                     TensorView lse) {
  with_compute_type(out.dtype, [&](auto t) {
    using T = decltype(t);
    for (int64_t row = 0; row < lse.shape[0]; ++row)
      for (int64_t head = 0; head < lse.shape[1]; ++head) {
        T& mine = lse.row<T>(row)[head];
        const double x = mine, y = other_lse.row<T>(row)[head], top = std::max(x, y);
        if (y == kNothing) continue;
        const double w = std::exp(x - top), v = std::exp(y - top);
        for (int64_t d = head * head_dim; d < (head + 1) * head_dim; ++d) {
          T& number = out.row<T>(row)[d];
          const double other = other_out.row<T>(row)[d];
          number = static_cast<T>(x == kNothing ? other : (w * number + v * other) / (w + v));
        }
        mine = static_cast<T>(top + std::log(w + v));
      }
  });
}

}  // namespace tessera::reference
