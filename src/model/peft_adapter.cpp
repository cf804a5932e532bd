#include "model/peft_adapter.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "core/error.h"
#include "io/files.h"
#include "io/json_file.h"
#include "io/regex.h"
#include "io/safetensors.h"
#include "model/native_folder.h"
#include "model/own_pool_view.h"
#include "model/sharing/binding.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMend = "export it from PEFT again as a plain LoRA (lora_A and lora_B of linear layers alone)";
constexpr std::string_view kPrefix = "base_model.model.", kA = ".lora_A.weight", kB = ".lora_B.weight";

/// Whether a member asks for nothing: absent, null, false, or empty.
bool is_off(const Json* member) {
  if (!member) return true;
  if (member->is_bool()) return !member->as_bool();
  if (member->is_array()) return member->items().empty();
  return member->is_object() && member->members().empty();
}

/// What is more than low-rank products beside frozen weights. @throws UserError without a place
void refuse_other_kinds(const Json& config) {
  if (const Json& kind = config.at("peft_type"); kind.as_string() != "LORA")
    throw UserError("", fmt::format("\"peft_type\" is {}, and \"LORA\" is read", kind.dump()), kMend);
  for (const char* key :
       {"use_dora", "use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out", "modules_to_save",
        "trainable_token_indices", "layer_replication", "target_parameters", "alora_invocation_tokens", "arrow_config"})
    if (const Json* member = config.find(key); !is_off(member))
      throw UserError("", fmt::format("\"{}\" is {}, which is not read", key, member->dump()), kMend);
  if (const Json* bias = config.find("bias"); bias && bias->as_string() != "none")
    throw UserError("", fmt::format("\"bias\" is {}: trained biases are not read", bias->dump()), kMend);
  // The others take what they begin with out of the base's weights, and these are not the base's any more.
  const Json* start = config.find("init_lora_weights");
  if (!start || start->is_bool()) return;
  const std::string& name = start->as_string();
  if (name != "gaussian" && name != "eva")
    throw UserError("", fmt::format("\"init_lora_weights\" is \"{}\", which changes the base's weights", name),
                    "convert it to a plain LoRA: PEFT's save_pretrained has path_initial_model_for_weight_conversion");
}

/// Values of modules by the ends of their paths.
class Pattern {
 public:
  Pattern(const Json& config, const char* key, double otherwise) : otherwise_(otherwise) {
    const Json* patterns = config.find(key);
    if (!patterns) return;
    for (const auto& [pattern, value] : patterns->members())
      values_.emplace_back(Regex("\\A(?:(.*\\.)?(" + pattern + "))\\z"), value.as_number());
  }
  double of(const std::string& module) const {
    const auto found = std::find_if(values_.begin(), values_.end(),
                                    [&](const auto& entry) { return entry.first.is_found_in(module); });
    return found == values_.end() ? otherwise_ : found->second;
  }

 private:
  std::vector<std::pair<Regex, double>> values_;
  double otherwise_;
};

class PeftAdapter final : public SavedAdapter {
 public:
  PeftAdapter(const fs::path& folder, std::string where) : folder_(folder), where_(std::move(where)) {
    const fs::path description = folder_ / "adapter_config.json", file = folder_ / "adapter_model.safetensors";
    const Json config = read_configuration(description);
    with_mend(description, kMend, [&] {
      refuse_other_kinds(config);
      rank_.emplace(config, "rank_pattern", static_cast<double>(config.at("r").as_integer()));
      alpha_.emplace(config, "alpha_pattern", config.at("lora_alpha").as_number());
      const Json* rs = config.find("use_rslora");
      by_root_ = rs && rs->as_bool();
    });
    if (!fs::exists(file))
      throw UserError(where_, fmt::format("\"{}\" holds no adapter_model.safetensors", folder_.string()),
                      "save it with PEFT's save_pretrained(folder, safe_serialization=True)");
    reader_ = std::make_unique<const SafetensorsReader>(SafetensorsReader::open(file));
    std::string text = "peft\n";
    with_mend(description, kMend, [&] {  // a pattern may take too long
      find_modules();
      for (const auto& [module, rank] : modules_)
        text += fmt::format("{} {} {:a}\n", module, rank, scale(module, rank));
    });
    content_ = sha256_hex(text + sha256_of_file(file));
  }

  std::string method() const override { return "PEFT lora"; }
  int64_t rank() const override {
    int64_t most = 0;
    for (const auto& [module, rank] : modules_) most = std::max(most, rank);
    return most;
  }
  const std::string& content() const override { return content_; }
  void require_base(Model&) const override {}

  AdapterWeights attach(Model& model, ParameterPool& pool) const override {
    const std::vector<WeightSpec>& specs = model.decoder().specs();
    std::map<std::string, size_t> numbers;
    std::vector<std::string> known;
    for (size_t i = 0; i < specs.size(); ++i) {
      if (specs[i].role != Role::linear) continue;
      known.push_back(specs[i].name.substr(0, specs[i].name.rfind(".weight")));
      numbers[known.back()] = i;
    }
    AdapterWeights weights;
    weights.by_weight.resize(specs.size());
    for (const auto& [module, rank] : modules_) {
      const auto found = numbers.find(module);
      if (found == numbers.end()) refuse_module(module, known);
      weights.by_weight[found->second].push_back(delta_of(module, rank, specs[found->second].shape, pool));
    }
    return weights;
  }

 private:
  std::string file() const { return (folder_ / "adapter_model.safetensors").string(); }
  std::string tensor(const std::string& module, std::string_view end) const {
    return std::string(kPrefix) + module + std::string(end);
  }

  /// Module -> rank, of all tensors. @throws UserError for a tensor of another kind or one that is alone
  void find_modules() {
    for (const std::string& name : reader_->names()) {
      const bool is_a = name.ends_with(kA);
      if (!name.starts_with(kPrefix) || (!is_a && !name.ends_with(kB)))
        throw UserError(file(), fmt::format("tensor \"{}\" is no matrix of a LoRA", name), kMend);
      const std::string module = name.substr(kPrefix.size(), name.size() - kPrefix.size() - kA.size());
      if (const std::string other = tensor(module, is_a ? kB : kA); !reader_->contains(other))
        throw UserError(file(), fmt::format("\"{}\" is there without \"{}\"", name, other), kMend);
      if (!is_a) continue;
      const ConstView a = reader_->at(name);
      const int64_t rank = a.shape.rank == 2 ? a.shape[0] : 0;
      if (rank < 1 || static_cast<double>(rank) != rank_->of(module))
        throw UserError(file(),
                        fmt::format("tensor \"{}\" is {}, and adapter_config.json says rank {}", name, a.shape.text(),
                                    rank_->of(module)),
                        kMend);
      modules_.emplace_back(module, rank);
    }
    if (modules_.empty()) throw UserError(file(), "holds no matrix", kMend);
  }

  float scale(const std::string& module, int64_t rank) const {
    const auto r = static_cast<double>(rank);
    const double scale = alpha_->of(module) / (by_root_ ? std::sqrt(r) : r);
    if (!std::isfinite(static_cast<float>(scale)))
      throw UserError((folder_ / "adapter_config.json").string(), fmt::format("the scale of {} is {}", module, scale),
                      kMend);
    return static_cast<float>(scale);
  }

  [[noreturn]] void refuse_module(const std::string& module, const std::vector<std::string>& known) const {
    const std::string near = nearest_name(module, known);
    throw UserError(file(), fmt::format("the model has no linear weight \"{}\"", module),
                    (near.empty() ? "" : fmt::format("the nearest one is \"{}\"\n", near)) +
                        "it belongs to another base model: set model.path to the one that it was trained on");
  }

  ConstView matrix(const std::string& name, const Shape& shape) const {
    const ConstView stored = reader_->at(name);
    if (!is_weight_type(stored.dtype) || !(stored.shape == shape))
      throw UserError(file(),
                      fmt::format("tensor \"{}\" is {} {}, expected f32, bf16 or f16 {}", name, name_of(stored.dtype),
                                  stored.shape.text(), shape.text()),
                      "it belongs to another base model: set model.path to the one that it was trained on");
    if (const int64_t broken = first_broken(stored); broken >= 0)
      throw UserError(file(), fmt::format("element {} of \"{}\" is {}", broken, name, element(stored, broken)),
                      "the training had diverged: take an earlier checkpoint of it");
    return stored;
  }

  /// @param shape  of the weight: [out, in]
  LowRank delta_of(const std::string& module, int64_t rank, const Shape& shape, ParameterPool& pool) const {
    const std::string name_a = tensor(module, kA), name_b = tensor(module, kB);
    const ConstView a = matrix(name_a, {rank, shape[1]}), b = matrix(name_b, {shape[0], rank});
    const auto file_b = reader_->file_of(name_b);
    const SlotId slot_a = pool.reserve(
        "peft." + module + ".a",
        {.shape = {rank, shape[1]}, .trainable = false, .init = {.source = a, .file = reader_->file_of(name_a)}});
    const auto transpose = [b, file_b](TensorView bt, uint64_t) {
      for (int64_t i = 0; i < bt.shape[0]; ++i)
        for (int64_t j = 0; j < bt.shape[1]; ++j) set_element(bt, i * bt.shape[1] + j, element(b, j * bt.shape[0] + i));
    };
    const SlotId slot_bt =
        pool.reserve("peft." + module + ".bt",
                     {.shape = {rank, shape[0]}, .trainable = false, .init = {.source = {}, .formula = transpose}});
    const auto view = [&](SlotId slot, int64_t cols) {
      return std::make_shared<OwnPoolView>(std::make_shared<SliceView>(pool, slot, Shape{rank, cols}), pool);
    };
    return {.a = view(slot_a, shape[1]), .bt = view(slot_bt, shape[0]), .scale = scale(module, rank)};
  }

  fs::path folder_;
  std::string where_;
  std::optional<Pattern> rank_, alpha_;
  bool by_root_ = false;
  std::unique_ptr<const SafetensorsReader> reader_;
  std::vector<std::pair<std::string, int64_t>> modules_;
  std::string content_;
};

}  // namespace

std::unique_ptr<SavedAdapter> open_peft_adapter(const fs::path& folder, const std::string& where) {
  return std::make_unique<PeftAdapter>(folder, where);
}

}  // namespace tessera
