#include "model/sharing/fold_deltas.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"

namespace tessera {
namespace {

/// @param numbers  of the adapter's specs among the model's
void append(AdapterWeights&& from, std::span<const int> numbers, AdapterWeights& to) {
  for (size_t i = 0; i < from.by_weight.size(); ++i)
    for (LowRank& delta : from.by_weight[i]) to.by_weight[static_cast<size_t>(numbers[i])].push_back(std::move(delta));
}

AdapterWeights attach(Adapter& adapter, const std::string& prefix, std::span<const WeightSpec> specs,
                      const FoldSlots& slots) {
  return adapter.attach(specs, slots.pool(), [&](const std::string& name, SlotOptions slot) {
    return slots.own(prefix + name, std::move(slot));
  });
}

LowRank low_rank(const WeightSpec& spec, int64_t rank, const FoldSlots& slots) {
  const int64_t out = spec.shape[0], in = spec.shape[1], q = std::min({rank, in, out});
  const std::string base = fmt::format("fold.layer.{}.{}", spec.layer, spec.type);
  const SlotId a =
      slots.own(base + ".lora_a",
                {.shape = {q, in}, .init = {Init::Kind::uniform, 1.0 / std::sqrt(static_cast<double>(in)), {}}});
  const SlotId bt = slots.own(base + ".lora_bt", {.shape = {q, out}, .init = {}});
  return {.a = std::make_shared<SliceView>(slots.pool(), a, Shape{q, in}),
          .bt = std::make_shared<SliceView>(slots.pool(), bt, Shape{q, out})};
}

/// Pieces that every vector can be cut into: the method's own number, or the largest below it.
int64_t shards_of(std::span<const WeightSpec> specs) {
  int64_t shards = AdapterConfig{}.shards;
  for (const WeightSpec& spec : specs) shards = std::gcd(shards, std::gcd(spec.shape[0], spec.shape[1]));
  return shards;
}

/// A number of a saved descriptor. @throws UserError outside low .. high
int64_t number(const Json& descriptor, const char* key, int64_t low, int64_t high) {
  const int64_t value = descriptor.at(key).as_integer();
  if (value < low || value > high)
    throw UserError("", fmt::format("\"{}\" of the cure's adapter is {}, expected {} .. {}", key, value, low, high));
  return value;
}

}  // namespace

std::vector<bool> children_of(const FoldPlan& plan) {
  std::vector<bool> children;
  for (const VirtualLayer& layer : virtual_layers(plan))
    children.push_back(plan.groups[static_cast<size_t>(layer.group)].blocks.size() > 1 && !layer.is_parent);
  return children;
}

void add_child_deltas(std::span<const WeightSpec> specs, const FoldPlan& plan, const FoldSlots& slots,
                      const KeyPlaces& where, AdapterWeights& deltas) {
  const std::vector<bool> is_child = children_of(plan);
  std::vector<WeightSpec> linears;
  std::vector<int> numbers;
  for (size_t i = 0; i < specs.size(); ++i)
    if (specs[i].role == Role::linear && specs[i].layer >= 0 && is_child[static_cast<size_t>(specs[i].layer)]) {
      linears.push_back(specs[i]);
      numbers.push_back(static_cast<int>(i));
    }
  if (linears.empty()) return;
  if (plan.child.level == ChildLevel::lora)
    for (size_t i = 0; i < linears.size(); ++i)
      deltas.by_weight[static_cast<size_t>(numbers[i])].push_back(low_rank(linears[i], plan.child.rank, slots));
  if (plan.child.level != ChildLevel::mos) return;
  AdapterConfig config;
  config.method = "mos";
  config.equivalent_rank = plan.child.rank;
  config.shards = shards_of(linears);
  append(attach(*make_adapter(config, where), "fold.", linears, slots), numbers, deltas);
}

Json add_cure(std::span<const WeightSpec> specs, const AdapterConfig& config, const FoldSlots& slots,
              const KeyPlaces& where, AdapterWeights& deltas) {
  const auto adapter = make_adapter(config, where);
  std::vector<int> numbers(specs.size());
  std::iota(numbers.begin(), numbers.end(), 0);
  append(attach(*adapter, "fold.cure.", specs, slots), numbers, deltas);
  return adapter->descriptor();
}

AdapterConfig cure_of(const Json& descriptor) {
  AdapterConfig config;
  config.method = descriptor.at("method").as_string();
  const auto& known = adapter_methods();
  if (std::none_of(known.begin(), known.end(), [&](const AdapterMethod& m) { return m.name == config.method; }))
    throw UserError("", fmt::format("the cure's adapter is of method \"{}\", which is not known", config.method));
  config.rank = number(descriptor, "rank", 1, 4096);
  config.alpha = descriptor.at("alpha").as_number();
  config.scale = descriptor.at("scale").as_string();
  config.targets.clear();
  for (const Json& type : descriptor.at("types").items()) config.targets.push_back(type.as_string());
  if (config.method != "mos") return config;
  config.equivalent_rank = number(descriptor, "equivalent_rank", 1, 1024);
  config.private_rank = number(descriptor, "private_rank", 0, 1024);
  config.shards = number(descriptor, "shards", 1, 1024);
  config.draw = descriptor.at("draw").as_string();
  config.index_seed = descriptor.at("index_seed").as_integer();
  return config;
}

}  // namespace tessera
