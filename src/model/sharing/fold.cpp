#include "model/sharing/fold.h"

#include <algorithm>

#include "core/error.h"
#include "io/json_file.h"
#include "model/fold/plan_check.h"
#include "model/fold/plan_file.h"
#include "model/native_mend.h"
#include "model/sharing/fold_deltas.h"
#include "model/sharing/layer_groups.h"
#include "model/sharing_io.h"

namespace tessera {
namespace {

constexpr const char* kPlanFile = "fold_plan.json";

/// What of a saved model's description its plan says, too.
constexpr const char* kOfPlan[] = {"layers", "virtual_layers", "removed", "removed_halves", "groups", "child"};

class Fold final : public FoldedBase {
 public:
  Fold(const SharingConfig& config, KeyPlaces where) : where_(std::move(where)) {
    if (config.making) making_ = *config.making;
    if (!config.load.empty()) {
      plan_file_ = sharing_folder(config.load) / kPlanFile;
      plan_ = read_fold_plan(plan_file_);
    } else if (config.making) {
      plan_ = making_.plan;
    } else {
      throw UserError(where_.of({"load", "method"}),
                      "fold: name a folded model by sharing.load, or make one with job = \"compress\"");
    }
    state_ = making_.state;
  }

  std::vector<BaseLayer> layers(const ModelConfig& base) const override {
    require_sound(plan_, {.fingerprint = {}, .layers = base.num_hidden_layers, .model_type = base.family},
                  plan_file_.empty() ? where_.section() : plan_file_.string());
    std::vector<BaseLayer> layers;
    for (const VirtualLayer& layer : virtual_layers(plan_))
      layers.push_back({static_cast<int>(layer.original), layer.has_attention, layer.has_mlp});
    return layers;
  }

  std::vector<Weight> bind(std::span<const WeightSpec> specs, ParameterPool& pool,
                           const BaseOptions& options) override {
    if (options.saved) read_description(options.saved->description());
    const FoldSlots slots(pool, options, making_, plan_);
    LayerGroups groups = LayerGroups::of(plan_);
    groups.is_assumed = making_.is_assumed;
    grouped_ = {std::move(groups), "fold"};
    std::vector<Weight> weights = grouped_.bind(
        specs, pool, options, [&](const WeightSpec& kept) { return slot_name(kept); },
        [&](const std::string& slot, const WeightSpec& kept) { return slots.tensor(slot, kept); });
    add_gains(specs, slots, weights);
    deltas_.by_weight.assign(specs.size(), {});
    add_child_deltas(specs, plan_, slots, where_, deltas_);
    if (!cure_.is_null())
      with_mend(plan_file_.parent_path() / "sharing.json", kMendNative,
                [&] { add_cure(specs, cure_of(cure_), slots, where_, deltas_); });
    else if (making_.cure)
      cure_ = add_cure(specs, *making_.cure, slots, where_, deltas_);
    trains_shared_ = options.trainable && making_.training == FoldTraining::everything;
    if (trains_shared_ && options.saved) state_ = trained_on(state_);
    return weights;
  }

  AdapterWeights deltas() const override {
    const auto is_empty = [](const std::vector<LowRank>& list) { return list.empty(); };
    return std::all_of(deltas_.by_weight.begin(), deltas_.by_weight.end(), is_empty) ? AdapterWeights{} : deltas_;
  }

  Json descriptor() const override {
    Json perplexity = Json::object();
    for (const auto& [point, value] : state_.perplexity) perplexity.set(point, value);
    const Json plan = fold_plan_json(plan_);
    Json json = Json::object().set("method", "fold").set("version", 1).set("state", state_.name);
    json.set("layers", plan_.base.layers).set("virtual_layers", plan_.virtual_layers());
    for (const char* key : {"removed", "removed_halves", "groups", "child"}) json.set(key, plan.at(key));
    if (!cure_.is_null()) json.set("cure", cure_);
    return json.set("perplexity", perplexity);
  }

  std::vector<std::pair<std::string, std::string>> files() const override {
    return {{kPlanFile, fold_plan_text(plan_)}};
  }

  std::vector<std::string> notes() const override {
    std::vector<std::string> lines = {
        fmt::format("fold: {} of {} layers are left and read {} blocks: {} numbers, {:.4g}x fewer than their weights",
                    plan_.virtual_layers(), plan_.base.layers, plan_.groups.size(), grouped_.held(),
                    static_cast<double>(grouped_.weights()) / static_cast<double>(grouped_.held()))};
    if (trains_shared_ && plan_.groups.size() < static_cast<size_t>(plan_.virtual_layers()))
      lines.emplace_back("fold: a block that several layers read is trained by the sum of their gradients");
    return lines;
  }

  std::string caution() const override {
    if (state_.name == "cured") return "";
    auto now = state_.perplexity.find(state_.name);
    const auto replaced = state_.perplexity.find("replaced"), before = state_.perplexity.find("original");
    if (state_.name == "removed" && replaced != state_.perplexity.end()) now = replaced;  // its run has a trained block
    const bool is_known = now != state_.perplexity.end() && before != state_.perplexity.end();
    return fmt::format("warning: this model was cut and not cured{}: train it further",
                       is_known ? fmt::format(" (perplexity of its calibration rows {:.1f}, original {:.1f})",
                                              now->second, before->second)
                                : "");
  }

  std::string readers(const std::string& slot, int64_t index) const override {
    const std::span<const int> layers = grouped_.readers(slot);
    if (layers.size() < 2) return BaseSharing::readers(slot, index);
    const auto virtuals = virtual_layers(plan_);
    std::string blocks;
    for (const int layer : layers)
      blocks += fmt::format("{}{}", blocks.empty() ? "" : ", ", virtuals[static_cast<size_t>(layer)].original);
    return fmt::format("{}, read by the original's blocks {}", BaseSharing::readers(slot, index), blocks);
  }

  const FoldPlan& plan() const override { return plan_; }
  const FoldState& state() const override { return state_; }
  void set_state(FoldState state) override { state_ = std::move(state); }

 private:
  std::string slot_name(const WeightSpec& kept) const {
    if (kept.layer < 0) return kept.storage;
    const char* leaf = kept.role == Role::bias ? "bias" : "weight";
    if (kept.role != Role::linear) return fmt::format("fold.layer.{}.{}.{}", kept.layer, kept.type, leaf);
    return fmt::format("fold.group.{}.{}.{}", virtual_layers(plan_)[static_cast<size_t>(kept.layer)].group, kept.type,
                       leaf);
  }

  void add_gains(std::span<const WeightSpec> specs, const FoldSlots& slots, std::vector<Weight>& weights) const {
    if (plan_.child.level < ChildLevel::scale) return;
    const std::vector<bool> is_child = children_of(plan_);
    for (size_t i = 0; i < specs.size(); ++i) {
      const WeightSpec& spec = specs[i];
      if (spec.role != Role::linear || spec.layer < 0 || !is_child[static_cast<size_t>(spec.layer)]) continue;
      const Shape shape{spec.shape[0]};
      const SlotId slot = slots.own(fmt::format("fold.layer.{}.{}.gain", spec.layer, spec.type),
                                    {.shape = shape, .init = {Init::Kind::ones, 0, {}}, .weight_decay = false});
      weights[i].gain = std::make_shared<SliceView>(slots.pool(), slot, shape);
    }
  }

  /// @throws UserError when it is damaged or describes another plan
  void read_description(const Json& saved) {
    const std::string file = (plan_file_.parent_path() / "sharing.json").string();
    with_mend(file, kMendNative, [&] {
      if (const int64_t version = saved.at("version").as_integer(); version != 1)
        throw UserError(file, fmt::format("\"version\" of the folded model is {}, this program reads 1", version));
      state_.name = saved.at("state").as_string();
      if (state_.name != "removed" && state_.name != "shared" && state_.name != "cured")
        throw UserError(file,
                        fmt::format("\"state\" is \"{}\", expected \"removed\", \"shared\" or \"cured\"", state_.name));
      state_.perplexity.clear();
      for (const auto& [point, value] : saved.at("perplexity").members()) state_.perplexity[point] = value.as_number();
      if (const Json* cure = saved.find("cure")) cure_ = *cure;
      const Json ours = descriptor();
      for (const char* key : kOfPlan)
        if (const std::string here = ours.at(key).dump(), there = saved.at(key).dump(); here != there)
          throw UserError(plan_file_.string(), fmt::format("its \"{}\" is {}, sharing.json has {}", key, here, there),
                          "the two do not belong together: take another copy of the folder");
    });
    if (making_.cure && !cure_.is_null())
      throw UserError(where_.of({"load", "method"}), "fold: this model is cured already",
                      "train an adapter above it, or start from a model that is not cured");
  }

  /// Of a saved model once more is trained: its last measured perplexity is no longer its own.
  static FoldState trained_on(FoldState state) {
    state.name = "cured";
    state.perplexity.erase("cured");
    return state;
  }

  KeyPlaces where_;
  FoldMaking making_;
  std::filesystem::path plan_file_;  // of a saved model
  FoldPlan plan_;
  FoldState state_;
  GroupedWeights grouped_{{}, "fold"};
  AdapterWeights deltas_;
  Json cure_;  // its adapter's descriptor; null: none
  bool trains_shared_ = false;
};

}  // namespace

FoldedBase* folded_base(BaseSharing& base) { return dynamic_cast<FoldedBase*>(&base); }

std::unique_ptr<BaseSharing> make_fold(const SharingConfig& config, const KeyPlaces& where) {
  return std::make_unique<Fold>(config, where);
}

}  // namespace tessera
