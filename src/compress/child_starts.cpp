#include "compress/child_starts.h"

#include <algorithm>
#include <memory>
#include <optional>

#include "comm/fault_together.h"
#include "compress/starts.h"
#include "core/device/memory.h"
#include "core/error.h"
#include "core/json.h"
#include "train/send_numbers.h"

namespace tessera {
namespace {

using Start = SlotStarts::mapped_type;

Start copy_of(const ConstView& view) {
  return [view](TensorView values) {
    const OnHost host(view);
    Init init;
    init.source = host.view();
    write_first_values(init, 0, "", values);
  };
}

/// Of one linear of a group: its blocks' weights, and what they read in place of them.
struct SharedLinear {
  std::string type;
  std::vector<ConstView> weights;              // by place in the group
  std::vector<std::span<const double>> sigma;  // the same
};

/// The mean that a group reads; null where it reads a block's own weights.
std::shared_ptr<const Tensor> mean_of(const SharedLinear& linear, GroupValues values) {
  const DType dtype = linear.weights.front().dtype;
  if (values == GroupValues::mean) return std::make_shared<const Tensor>(mean_weight(linear.weights, dtype));
  if (values != GroupValues::wmean) return nullptr;
  return std::make_shared<const Tensor>(weighted_mean_weight(linear.weights, linear.sigma, dtype));
}

using Tensors = std::map<std::string, std::shared_ptr<const Tensor>>;

/// What each rank has found, on every rank.
Tensors of_all_ranks(Communicator& world, Tensors mine) {
  if (world.size() == 1) return mine;
  Json list = Json::array();
  for (const auto& [slot, tensor] : mine) {
    Json shape = Json::array();
    for (int axis = 0; axis < tensor->shape().rank; ++axis) shape.push_back(tensor->shape()[axis]);
    list.push_back(Json::object()
                       .set("slot", slot)
                       .set("dtype", static_cast<int64_t>(tensor->dtype()))
                       .set("shape", std::move(shape)));
  }
  const std::string text = list.dump();
  const auto lists = world.all_gather(std::as_bytes(std::span(text)));
  Tensors all;
  for (int rank = 0; rank < world.size(); ++rank) {
    const auto& bytes = lists[static_cast<size_t>(rank)];
    const std::string of_rank(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const Json entries = Json::parse(of_rank, "a rank's starts");
    for (const Json& entry : entries.items()) {
      Shape shape;
      for (const Json& size : entry.at("shape").items()) shape.dims[shape.rank++] = size.as_integer();
      auto tensor = std::make_shared<Tensor>(shape, static_cast<DType>(entry.at("dtype").as_integer()));
      const std::string& slot = entry.at("slot").as_string();
      if (rank == world.rank()) copy(*mine.at(slot), *tensor);
      send_numbers(world, *tensor, rank);
      all[slot] = std::move(tensor);
    }
  }
  return all;
}

class Starts {
 public:
  Starts(const FoldPlan& plan, std::span<const FoldBlock> blocks) : plan_(plan), blocks_(blocks) {}

  /// @param first  number of the group's first layer
  void add_group(size_t number, int64_t first) {
    const FoldGroup& group = plan_.groups[number];
    const FoldBlock& front = block(group.blocks.front());
    for (size_t i = 0; i < front.linears.size(); ++i) {
      const SharedLinear linear = shared_linear(group, i);
      const auto mean = mean_of(linear, group.values);
      if (mean) starts_[fmt::format("fold.group.{}.{}.weight", number, linear.type)] = mean;
      for (size_t place = 0; place < group.blocks.size(); ++place) {
        if (group.blocks.size() == 1 || group.parent == group.blocks[place]) continue;
        const auto parent = std::find(group.blocks.begin(), group.blocks.end(), group.parent) - group.blocks.begin();
        add_child(linear, place, mean ? ConstView(mean->view()) : linear.weights[static_cast<size_t>(parent)],
                  first + static_cast<int64_t>(place));
      }
    }
  }

  Tensors take() { return std::move(starts_); }

 private:
  const FoldBlock& block(int64_t original) const { return blocks_[static_cast<size_t>(original)]; }

  SharedLinear shared_linear(const FoldGroup& group, size_t i) const {
    SharedLinear linear{.type = block(group.blocks.front()).linears[i].type, .weights = {}, .sigma = {}};
    for (const int64_t original : group.blocks) {
      const FoldBlock::Linear& own = block(original).linears[i];
      linear.weights.push_back(own.weight);
      linear.sigma.emplace_back(block(original).moments.of(own.part));
    }
    return linear;
  }

  void add_child(const SharedLinear& linear, size_t place, const ConstView& shared, int64_t layer) {
    if (plan_.child.level < ChildLevel::scale) return;
    const std::string slot = fmt::format("fold.layer.{}.{}", layer, linear.type);
    const ConstView& own = linear.weights[place];
    const auto gain = std::make_shared<const Tensor>(scale_start(own, shared, linear.sigma[place]));
    starts_[slot + ".gain"] = gain;
    if (plan_.child.level != ChildLevel::lora) return;
    const int64_t rank = std::min({plan_.child.rank, own.rows(), own.cols()});
    LowRankStart delta = low_rank_start(own, shared, gain->view(), linear.sigma[place], rank,
                                        fmt::format("{} of layer {}", linear.type, layer));
    starts_[slot + ".lora_a"] = std::make_shared<const Tensor>(std::move(delta.a));
    starts_[slot + ".lora_bt"] = std::make_shared<const Tensor>(std::move(delta.bt));
  }

  const FoldPlan& plan_;
  std::span<const FoldBlock> blocks_;
  Tensors starts_;
};

}  // namespace

Start start_from(const std::shared_ptr<const Tensor>& tensor) {
  return [tensor](TensorView values) { copy_of(tensor->view())(values); };
}

bool reads_moments(const FoldPlan& plan) {
  const auto is_weighted = [](const FoldGroup& group) { return group.values == GroupValues::wmean; };
  return plan.child.level >= ChildLevel::scale || std::any_of(plan.groups.begin(), plan.groups.end(), is_weighted);
}

SlotStarts child_starts(Communicator& world, const FoldPlan& plan, std::span<const FoldBlock> blocks,
                        const std::function<void()>& before_each) {
  Starts mine(plan, blocks);
  std::optional<UserError> fault;
  int64_t first = 0, shared = 0;
  for (size_t number = 0; number < plan.groups.size(); ++number) {
    before_each();
    const FoldGroup& group = plan.groups[number];
    const bool has_starts = group.blocks.size() > 1 || !group.parent;
    const bool is_mine = has_starts && shared++ % world.size() == world.rank();
    if (is_mine && !fault) fault = user_fault_of([&] { mine.add_group(number, first); });
    first += static_cast<int64_t>(group.blocks.size());
  }
  throw_together(world, fault);
  SlotStarts starts;
  for (auto& [slot, tensor] : of_all_ranks(world, mine.take())) starts[slot] = start_from(tensor);
  return starts;
}

void add_drawn_starts(Model& original, const FoldPlan& plan, SlotStarts& starts) {
  const std::vector<VirtualLayer> layers = virtual_layers(plan);
  const DecoderModel& decoder = original.decoder();
  for (size_t i = 0; i < decoder.specs().size(); ++i) {
    const WeightSpec& spec = decoder.specs()[i];
    if (spec.storage != spec.name) continue;
    const auto add = [&](const std::string& slot) {
      starts.try_emplace(slot, copy_of(decoder.weight(static_cast<int>(i))->direct({&original.pool()})));
    };
    if (spec.layer < 0) add(spec.storage);
    for (const VirtualLayer& layer : layers) {
      if (layer.original != spec.layer) continue;
      if (spec.role != Role::linear)
        add(fmt::format("fold.layer.{}.{}.{}", layer.number, spec.type, spec.role == Role::bias ? "bias" : "weight"));
      else if (layer.is_parent || plan.groups[static_cast<size_t>(layer.group)].blocks.size() == 1)
        add(fmt::format("fold.group.{}.{}.weight", layer.group, spec.type));
    }
  }
}

}  // namespace tessera
