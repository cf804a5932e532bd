#pragma once
// The fold plan: which blocks of a model are left, and which of them read one set of weights.
//
// A model of L blocks loses some; the R retained ones run in their old order as virtual layers. A group is a run of
// consecutive virtual layers that read the linear weights of one block, its parent:
//
//   original index   0   1   2   3   4   5   6   7        removed: 2 and 5
//   virtual layer    0   1       2   3       4   5        "number"
//   storage         {0} {1}     {3 , 4}     {6 , 7}       "group": 0, 1, 2, 3
//
// A virtual layer has a number (its slot of the KV cache, its layer of an adapter, its norms), an original index (its
// rotary embedding, the teacher's layer, its name in reports) and a storage. A caller says which of them it means; a
// number is never used for an index. Depth sharing is a plan that removes nothing.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"

namespace tessera {

/// The model that a plan is of.
struct FoldBase {
  std::string fingerprint;  // of its configuration and weights; empty: not told, as in a plan written by hand
  int64_t layers = 0;
  std::string model_type;
};

/// The two parts of a block, each with the norm in front of it.
enum class BlockHalf : uint8_t { attention, mlp };
struct RemovedHalf {
  int64_t block = 0;  // original index
  BlockHalf part = BlockHalf::attention;
  friend auto operator<=>(const RemovedHalf&, const RemovedHalf&) = default;
};

/// What a group's weights are: the parent's own; the mean, or the mean weighted by the inputs' second moments, of all
/// its blocks; trained ones, which the folded model's file holds (a group of one).
enum class GroupValues : uint8_t { own, mean, wmean, trained };
struct FoldGroup {
  std::vector<int64_t> blocks;    // original indices, ascending
  std::optional<int64_t> parent;  // one of `blocks`; absent for mean and wmean, where every block is a child
  GroupValues values = GroupValues::own;
  friend bool operator==(const FoldGroup&, const FoldGroup&) = default;
};

/// What a child has of its own; each level but mos holds those above it, mos holds scale's.
enum class ChildLevel : uint8_t { tie, norm, scale, lora, mos };
struct FoldChild {
  ChildLevel level = ChildLevel::norm;
  int64_t rank = 0;  // of lora; of mos the equivalent rank; else 0
  friend bool operator==(const FoldChild&, const FoldChild&) = default;
};

std::string_view name_of(BlockHalf);
std::string_view name_of(GroupValues);
std::string_view name_of(ChildLevel);

struct FoldPlan {
  FoldBase base;
  std::vector<int64_t> removed;             // original indices, ascending
  std::vector<RemovedHalf> removed_halves;  // ascending; of blocks that are retained
  std::vector<FoldGroup> groups;            // every retained block once, ascending
  FoldChild child;
  Json history;  // how the plan was found: an object, or null. Nothing reads it back

  int64_t virtual_layers() const { return base.layers - static_cast<int64_t>(removed.size()); }  // R
};

/// One of the R layers that a folded model computes.
struct VirtualLayer {
  int64_t number = 0;      // 0 .. R-1
  int64_t original = 0;    // the block's index in the model that was folded
  int64_t group = 0;       // index into FoldPlan::groups: the weights that it reads
  bool is_parent = false;  // the weights that it reads are its own
  bool has_attention = true, has_mlp = true;
};

/// In the order of their numbers. @param plan  without fault
std::vector<VirtualLayer> virtual_layers(const FoldPlan& plan);

/// Depth sharing of `layers` blocks over `stored` ones: nothing is removed; group k holds the layers l with
/// ⌊l · stored / layers⌋ = k and reads its first.
/// @param stored  1 .. layers
FoldPlan depth_plan(int64_t layers, int64_t stored, const std::string& model_type);

/// A plan in which every block is retained by itself: the model as it was.
FoldPlan identity_plan(const FoldBase&);

/// Which retained blocks a plan's groups must hold: all but the removed ones, ascending.
std::vector<int64_t> retained_blocks(int64_t layers, const std::vector<int64_t>& removed);

/// The plan as text, one line a block: "removed", or its number, its group and where its weights come from.
std::string plan_text(const FoldPlan&);

}  // namespace tessera
