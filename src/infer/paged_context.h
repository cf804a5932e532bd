#pragma once
// Attention of a step of the engine: keys and values go to pages, rows attend over the tree.

#include <vector>

#include "infer/step_plan.h"
#include "model/attention.h"

namespace tessera {

class DecoderModel;

/// Pages of keys and values for so many bundles; a bundle is a page for each layer and key-value head.
/// @param type  of keys and values: f32, bf16, f16, or i8 with a scale a token and head
KeyValuePages allocate_pages(Arena&, const DecoderModel&, int64_t bundles, int64_t page_tokens, DType type);
/// What one bundle holds is put into another one, for each of them; all are different.
/// @param pages_per_bundle  first pages are multiples of it
void copy_bundles(const KeyValuePages&, int64_t pages_per_bundle, std::span<const BundleCopy>);
/// Bytes of one bundle.
int64_t bundle_bytes(const DecoderModel&, int64_t page_tokens, DType type);

/// A number that pages cannot hold.
struct PageFault {
  int32_t row;
  int layer, head;
};

/// The plan's arrays are uploaded to the context's scratch: open a scope around it. The plan outlives it.
class PagedAttention final : public AttentionContext {
 public:
  PagedAttention(const Context&, const StepPlan&, const KeyValuePages&);

  void attend(const Context&, const AttentionSpec&, const TokenBatch&, TensorView q, TensorView k, ConstView v,
              TensorView out, TensorView lse) override;

  /// Of the rows whose keys or values did not fit into their pages, the first layer and head that did not.
  const std::vector<PageFault>& faults() const { return faults_; }
  /// Bytes of keys and values that attention has read so far.
  int64_t bytes_read() const;

 private:
  void note_faults(const Context&, int layer);

  const KeyValuePages& pages_;
  IndexArray<int32_t> row_pages_, row_entries_, row_positions_, tables_, lengths_, tile_visits_;
  IndexArray<KeyRun> runs_;
  IndexArray<AttentionVisit> visits_;
  IndexArray<AttentionTile> tiles_;
  TensorView fault_, bytes_;
  std::vector<PageFault> faults_;
};

}  // namespace tessera
