#pragma once
// MoS, mixture of shards: the adapter, its index tables, and the view that assembles a matrix from shards.

#include <map>

#include "core/device/indices.h"
#include "model/sharing/adapter.h"

namespace tessera {

/// MoS, mixture of shards (Wang et al., ICLR 2025, arXiv:2410.00938). For each type of weight two pools of shards, P_A
/// [n, in/l] and P_B [n, out/l], n = e·L·l rows, are shared by its L layers. Layer k assembles
///   A[j, i·s : (i+1)·s] = P_A[I_A[j,i]],   Bt[j, i·s : (i+1)·s] = P_B[I_B[j,i]],   j < r, i < l
/// from fixed index tables drawn from a seed. Trained: e·L·(in + out) a type, whatever r, p and l are.
std::unique_ptr<Adapter> make_mos(const AdapterConfig&, const KeyPlaces& where);

/// The numbers of one type: r vectors of l shards in each of L layers, drawn from n = n_public + L·p·l rows.
struct MosShape {
  int64_t layers, equivalent_rank, rank, private_rank, shards;
  int64_t rows() const { return equivalent_rank * layers * shards; }
  int64_t public_rows() const { return (equivalent_rank - private_rank) * layers * shards; }
};

enum class MosDraw { random, tied, pure };

/// The table [r · l] of a layer (its ordinal among the layers of the type) and side (0 = A, 1 = B): entries of vector j
/// piece i at j·l + i. Public entries first: draw_distinct(hash_key(seed, type_id, side, layer), n_public, (r−p)·l);
/// then the layer's own private rows.
std::vector<int32_t> mos_table(const MosShape&, MosDraw, uint64_t seed, uint64_t type_id, int side, int64_t layer);

/// Expected share of public rows that no layer reads: (1 − (r−p)/((e−p)·L))^L.
double mos_dead_share(const MosShape&);

/// r and p with their defaults; checks the whole shape.
/// @throws UserError naming the key that does not fit the others
MosShape mos_shape(const AdapterConfig&, int64_t layers, const KeyPlaces& where);

/// A matrix [vectors, l·s] whose vectors are joined from rows of a pool.
class ShardView final : public WeightView {
 public:
  ShardView(SlotId pool, int64_t vectors, int64_t shards, int64_t width, std::vector<int32_t> table, Device device = {},
            bool trainable = true);
  Shape shape() const override { return shape_; }
  bool is_trainable() const override { return trainable_; }
  using WeightView::gather;
  void gather(const Context&, const PoolRead&, RowRange, TensorView w) const override;
  void scatter_add(const Context&, ConstView dw, ParameterPool&) const override;
  uint64_t fingerprint() const override;
  const std::vector<int32_t>& table() const { return table_.host(); }

 private:
  SlotId pool_;
  Shape shape_;
  DeviceIndices<int32_t> table_;
  bool trainable_;
};

}  // namespace tessera
