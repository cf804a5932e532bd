#include "infer/paged_context.h"

#include "core/device/memory.h"
#include "core/error.h"
#include "kernels/elementwise.h"
#include "kernels/host_work.h"
#include "kernels/upload.h"
#include "model/decoder.h"

namespace tessera {
namespace {

int64_t pages_of(const DecoderModel& model, int64_t bundles) {
  return bundles * model.num_layers() * model.config().num_key_value_heads;
}

bool is_narrow(DType type) { return type == DType::f16 || type == DType::i8; }

}  // namespace

KeyValuePages allocate_pages(Arena& memory, const DecoderModel& model, int64_t bundles, int64_t page_tokens,
                             DType type) {
  const int64_t pages = pages_of(model, bundles);
  const Shape shape{pages, page_tokens * model.config().head_dim};
  KeyValuePages all;
  all.k = memory.allocate(shape, type);
  all.v = memory.allocate(shape, type);
  all.page_tokens = page_tokens;
  if (type == DType::i8) {
    all.k_scale = memory.allocate({pages, page_tokens}, DType::f32);
    all.v_scale = memory.allocate({pages, page_tokens}, DType::f32);
  }
  return all;
}

void copy_bundles(const KeyValuePages& pages, int64_t pages_per_bundle, std::span<const BundleCopy> copies) {
  KeyValuePages::visit(pages, [&](const TensorView& all) {
    if (all.empty()) return;
    for (const BundleCopy& c : copies)
      copy(all.slice_rows(c.from, c.from + pages_per_bundle), all.slice_rows(c.to, c.to + pages_per_bundle));
  });
}

int64_t bundle_bytes(const DecoderModel& model, int64_t page_tokens, DType type) {
  Arena counted = Arena::counting();
  allocate_pages(counted, model, 1, page_tokens, type);
  return counted.used_bytes();
}

PagedAttention::PagedAttention(const Context& ctx, const StepPlan& plan, const KeyValuePages& pages)
    : pages_(pages),
      row_pages_(upload(ctx, plan.pages)),
      row_entries_(upload(ctx, plan.entries)),
      row_positions_(upload(ctx, plan.positions)),
      tables_(upload(ctx, plan.tables)),
      lengths_(upload(ctx, plan.lengths)),
      tile_visits_(upload(ctx, plan.tiles.tile_visits)),
      runs_(upload(ctx, plan.runs)),
      visits_(upload(ctx, plan.visits)),
      tiles_(upload(ctx, plan.tiles.tiles)),
      fault_(ctx.scratch.allocate({std::ssize(plan.ids)}, DType::i32)),
      bytes_(ctx.scratch.allocate({1}, DType::i64)) {
  fill(ctx, 0, bytes_);
}

int64_t PagedAttention::bytes_read() const { return OnHost(bytes_).view().as<int64_t>()[0]; }

void PagedAttention::note_faults(const Context& ctx, int layer) {
  if (!is_narrow(pages_.k.dtype)) return;
  host_work(ctx, [&] {
    const OnHost faults(fault_);
    const auto heads = faults.view().as<int32_t>();
    for (size_t row = 0; row < heads.size(); ++row)
      if (heads[row] > 0) faults_.push_back({static_cast<int32_t>(row), layer, heads[row] - 1});
  });
}

void PagedAttention::attend(const Context& ctx, const AttentionSpec& spec, const TokenBatch& batch, TensorView q,
                            TensorView k, ConstView v, TensorView out, TensorView lse) {
  // Keys are kept as they are turned: a token's position never changes.
  rotate(ctx, spec, batch, RopeDirection::forward, q, k);
  const int64_t base = spec.layer * spec.kv_heads;
  write_pages(ctx, {.k = k,
                    .v = v,
                    .pages = pages_,
                    .page_base = base,
                    .kv_heads = spec.kv_heads,
                    .head_dim = spec.head_dim,
                    .page = row_pages_,
                    .entry = row_entries_,
                    .position = row_positions_,
                    .fault = fault_});
  note_faults(ctx, spec.layer);
  paged_attention(ctx, {.q = q,
                        .out = out,
                        .lse = lse,
                        .pages = pages_,
                        .page_base = base,
                        .heads = spec.heads,
                        .kv_heads = spec.kv_heads,
                        .head_dim = spec.head_dim,
                        .scale = spec.scale,
                        .window = spec.window,
                        .row_position = row_positions_,
                        .row_bound = row_positions_,
                        .tables = tables_,
                        .lengths = lengths_,
                        .runs = runs_,
                        .visits = visits_,
                        .tiles = tiles_,
                        .tile_visits = tile_visits_,
                        .mass = {},
                        .mass_offset = {},
                        .mass_rows = {},
                        .bytes = bytes_});
}

}  // namespace tessera
