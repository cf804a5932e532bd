#include "compress/child_starts.h"

#include <algorithm>
#include <memory>

#include "compress/starts.h"
#include "core/device/memory.h"
#include "core/error.h"

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

Start copy_of(const std::shared_ptr<const Tensor>& tensor) {
  return [tensor](TensorView values) { copy_of(tensor->view())(values); };
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
      if (mean) starts_[fmt::format("fold.group.{}.{}.weight", number, linear.type)] = copy_of(mean);
      for (size_t place = 0; place < group.blocks.size(); ++place) {
        if (group.blocks.size() == 1 || group.parent == group.blocks[place]) continue;
        const auto parent = std::find(group.blocks.begin(), group.blocks.end(), group.parent) - group.blocks.begin();
        add_child(linear, place, mean ? ConstView(mean->view()) : linear.weights[static_cast<size_t>(parent)],
                  first + static_cast<int64_t>(place));
      }
    }
  }

  SlotStarts take() { return std::move(starts_); }

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
    starts_[slot + ".gain"] = copy_of(gain);
    if (plan_.child.level != ChildLevel::lora) return;
    const int64_t rank = std::min({plan_.child.rank, own.rows(), own.cols()});
    LowRankStart delta = low_rank_start(own, shared, gain->view(), linear.sigma[place], rank,
                                        fmt::format("{} of layer {}", linear.type, layer));
    starts_[slot + ".lora_a"] = copy_of(std::make_shared<const Tensor>(std::move(delta.a)));
    starts_[slot + ".lora_bt"] = copy_of(std::make_shared<const Tensor>(std::move(delta.bt)));
  }

  const FoldPlan& plan_;
  std::span<const FoldBlock> blocks_;
  SlotStarts starts_;
};

}  // namespace

bool reads_moments(const FoldPlan& plan) {
  const auto is_weighted = [](const FoldGroup& group) { return group.values == GroupValues::wmean; };
  return plan.child.level >= ChildLevel::scale || std::any_of(plan.groups.begin(), plan.groups.end(), is_weighted);
}

SlotStarts child_starts(const FoldPlan& plan, std::span<const FoldBlock> blocks,
                        const std::function<void()>& before_each) {
  Starts starts(plan, blocks);
  int64_t first = 0;
  for (size_t number = 0; number < plan.groups.size(); ++number) {
    before_each();
    starts.add_group(number, first);
    first += static_cast<int64_t>(plan.groups[number].blocks.size());
  }
  return starts.take();
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
