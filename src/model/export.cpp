#include "model/export.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "core/device/memory.h"
#include "core/error.h"
#include "core/stop.h"
#include "io/files.h"
#include "io/folders.h"
#include "io/hub_cache.h"
#include "io/safetensors.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "model/native_folder.h"
#include "model/sealed_folder.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

std::string module_of(const WeightSpec& spec) { return spec.name.substr(0, spec.name.rfind(".weight")); }

/// The leaf ("q_proj") where only one type of weight has it, else the whole path ("mlp.c_proj"): readers match by
/// ending.
std::string target_name(const std::string& type, std::span<const WeightSpec> specs) {
  std::string leaf = type.substr(type.rfind('.') + 1);
  for (const WeightSpec& other : specs)
    if (other.role == Role::linear && other.type != type && other.type.substr(other.type.rfind('.') + 1) == leaf)
      return type;
  return leaf;
}

/// [rows, cols] -> [cols, rows].
Tensor transposed(const ConstView& there) {
  const OnHost host(there);
  const ConstView& matrix = host.view();
  Tensor result({matrix.shape[1], matrix.shape[0]}, DType::f32);
  for (int64_t i = 0; i < matrix.shape[0]; ++i)
    for (int64_t j = 0; j < matrix.shape[1]; ++j) result.view().row<float>(j)[i] = matrix.row<float>(i)[j];
  return result;
}

Json integer_if_whole(double value) {
  return value == std::floor(value) ? Json(static_cast<int64_t>(value)) : Json(value);
}

struct Adapted {
  const WeightSpec* spec;
  const BoundAdapter::Matrices* matrices;
};

std::vector<Adapted> adapted_weights(Model& model) {
  std::vector<Adapted> adapted;
  const auto& specs = model.decoder().specs();
  for (size_t i = 0; i < specs.size(); ++i)
    for (const auto& matrices : model.bound_adapter()->deltas(static_cast<int>(i)))
      adapted.push_back({&specs[i], &matrices});
  return adapted;
}

/// PEFT computes alpha / r (or alpha / sqrt(r)) itself, for each module by its own rank.
Json peft_config(Model& model, const std::vector<Adapted>& adapted) {
  const Json descriptor = model.adapter()->descriptor();
  const int64_t rank = adapted.front().matrices->a.shape[0];
  std::set<std::string> targets;
  Json ranks = Json::object();
  for (const Adapted& a : adapted) {
    targets.insert(target_name(a.spec->type, model.decoder().specs()));
    if (a.matrices->a.shape[0] != rank) ranks.set(module_of(*a.spec), a.matrices->a.shape[0]);
  }
  Json target_modules = Json::array();
  for (const std::string& target : targets) target_modules.push_back(target);
  // A snapshot's path is of this machine alone.
  const fs::path& base = model.options().path;
  const std::string name = hub_name_of(base), revision = hub_revision_of(base);
  Json config = Json::object();
  config.set("peft_type", "LORA")
      .set("task_type", "CAUSAL_LM")
      .set("base_model_name_or_path", name.empty() ? base.string() : name)
      .set("r", rank)
      .set("lora_alpha", integer_if_whole(descriptor.at("alpha").as_number()))
      .set("lora_dropout", descriptor.at("dropout").as_number())
      .set("target_modules", target_modules)
      .set("use_rslora", descriptor.at("scale").as_string() == "rs")
      .set("rank_pattern", ranks)
      .set("alpha_pattern", Json::object())
      .set("bias", "none")
      .set("fan_in_fan_out", false)
      .set("inference_mode", true)
      .set("init_lora_weights", true);
  if (!revision.empty()) config.set("revision", revision);
  return config;
}

/// gain · W0 + scale · Btᵀ A in f32. @param gain  empty: none
Tensor merged_weight(const Context& ctx, ConstView base, ConstView gain,
                     std::span<const BoundAdapter::Matrices> deltas) {
  Tensor merged(base.shape, DType::f32, ctx.device);
  convert(ctx, base, merged);
  if (!gain.empty()) scale_rows(ctx, gain, merged);
  for (const auto& delta : deltas)
    gemm(ctx,
         {.a = delta.bt, .a_transpose = Transpose::yes, .b = delta.a, .c = merged, .alpha = delta.scale, .beta = 1});
  return merged;
}

std::span<const BoundAdapter::Matrices> deltas_of(Model& model, int weight) {
  return model.bound_adapter() ? model.bound_adapter()->deltas(weight) : std::span<const BoundAdapter::Matrices>();
}

/// The gain of a weight in f32; without one, of no shape.
Tensor gain_of(const Context& ctx, Model& model, int weight) {
  const ViewPtr& view = model.decoder().gain(weight);
  if (!view) return {};
  Tensor gain(view->shape(), DType::f32, ctx.device);
  const ViewLease lease(*view);
  view->gather(ctx, {&model.pool()}, gain);
  return gain;
}

bool are_equal(const ConstView& a, const ConstView& b) {
  const OnHost x(a), y(b);
  for (int64_t i = 0; i < a.shape.count(); ++i)
    if (element(x.view(), i) != element(y.view(), i)) return false;
  return true;
}

void check_finite(const ConstView& weight, const std::string& name) {
  if (const int64_t i = first_broken(weight); i >= 0)
    throw UserError("",
                    fmt::format("element {} of \"{}\" is {} in {}", i, name, element(OnHost(weight).view(), i),
                                name_of(weight.dtype)),
                    weight.dtype == DType::f16
                        ? "f16 ends at 65504: set model.dtype = \"bf16\" or \"f32\""
                        : "the run has diverged: job=export run.resume=FILE exports an earlier checkpoint of it");
}

/// What a dense model has and a folded one may do without: the weights of removed halves of layers.
std::vector<WeightSpec> removed_weights(Model& model) {
  std::set<std::string> there;
  for (const WeightSpec& spec : model.decoder().specs()) there.insert(spec.name);
  std::vector<WeightSpec> removed;
  for (WeightSpec& spec : weight_specs(model.config()))
    if (!there.count(spec.name)) removed.push_back(std::move(spec));
  return removed;
}

Json config_of(const Model& model, DType dtype) {
  const char* name = dtype == DType::bf16 ? "bfloat16" : dtype == DType::f16 ? "float16" : "float32";
  Json config = model.config().source;
  config.set(config.find("dtype") ? "dtype" : "torch_dtype", name);  // transformers 5 writes "dtype"
  return config;
}

constexpr const char* kGeneration = "generation_config.json";

/// What tokenizers of Hugging Face folders are kept in, whichever class reads them.
constexpr std::array kTokenizerFiles = {"tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "tokenizer.model",
                                        "merges.txt",
                                        "vocab.json",
                                        "vocab.txt",
                                        "spiece.model",
                                        "sentencepiece.bpe.model",
                                        "chat_template.jinja",
                                        "chat_template.json"};

bool is_model_file(const std::string& name) {
  return name == "config.json" || name == "model.safetensors" || name == kGeneration || name == kSealFile ||
         std::find(kTokenizerFiles.begin(), kTokenizerFiles.end(), name) != kTokenizerFiles.end();
}

bool is_peft_file(const std::string& name) {
  return name == "adapter_config.json" || name == "adapter_model.safetensors";
}

void copy_if_there(const fs::path& from, const fs::path& to, const std::string& name) {
  if (fs::is_regular_file(from / name)) write_text_file(to / name, read_text_file(from / name));
}

/// @param base  the base model's folder or config.json, whose generation_config.json goes before the tokenizer's
void copy_companions(const fs::path& base, const fs::path& tokenizer, const fs::path& to) {
  for (const char* name : kTokenizerFiles) copy_if_there(tokenizer, to, name);
  copy_if_there(tokenizer, to, kGeneration);
  if (fs::is_directory(base)) copy_if_there(base, to, kGeneration);
}

}  // namespace

void refuse_own_folder(const fs::path& folder, const fs::path& base) {
  const fs::path own = fs::is_directory(base) ? base : base.parent_path();
  std::error_code failure;
  if (fs::equivalent(folder, own.empty() ? "." : own, failure) && !failure)
    throw UserError("", fmt::format("the export would overwrite the base model in \"{}\"", folder.string()),
                    "name another folder with run.dir");
}

void refuse_foreign_model(const fs::path& folder) { refuse_foreign_weights(folder, is_model_file); }
void refuse_foreign_peft(const fs::path& folder) { refuse_foreign_weights(folder, is_peft_file); }

void export_peft(const fs::path& folder, Model& model) {
  TS_CHECK(model.adapter(), "export_peft: the model has no adapter");
  const auto adapted = adapted_weights(model);
  std::vector<Tensor> transposes;
  std::vector<std::pair<std::string, ConstView>> tensors;
  for (const Adapted& a : adapted) {
    leave_if_asked("exporting");
    TS_CHECK(!a.spec->transposed, "{}: transposed storage", a.spec->name);
    const std::string name = "base_model.model." + module_of(*a.spec);
    transposes.push_back(transposed(a.matrices->bt));
    tensors.emplace_back(name + ".lora_A.weight", a.matrices->a);
    tensors.emplace_back(name + ".lora_B.weight", transposes.back().view());
  }
  with_place(folder.string(), [&] { require_finite("PEFT adapter", tensors); });
  refuse_foreign_peft(folder);
  replace_folder(folder, is_peft_file, [&](const fs::path& to) {
    write_safetensors(to / "adapter_model.safetensors", tensors, {{"format", "pt"}});
    write_text_file(to / "adapter_config.json", peft_config(model, adapted).dump(2) + "\n");
  });
}

bool export_merged(const fs::path& folder, Model& model, const fs::path& tokenizer_folder, const Context& ctx) {
  refuse_own_folder(folder, model.options().path);
  refuse_foreign_model(folder);
  model.assemble(ctx);
  const DType dtype = model.export_dtype();
  const auto& specs = model.decoder().specs();
  bool is_exact = true;
  std::vector<Tensor> owned;
  WeightLease leases;  // tensors may be written from where they lie
  std::vector<std::pair<std::string, ConstView>> tensors;
  for (size_t i = 0; i < specs.size(); ++i) {
    if (specs[i].storage != specs[i].name) continue;  // a tied head is its embedding
    leave_if_asked("exporting");
    TS_CHECK(!specs[i].transposed, "{}: transposed storage", specs[i].name);
    const WeightView& view = *model.decoder().weight(static_cast<int>(i));
    leases.emplace_back(view);
    ConstView base = view.direct({&model.pool()});
    Tensor gathered;
    if (base.empty()) {
      gathered = Tensor(view.shape(), DType::f32, ctx.device);
      view.gather(ctx, {&model.pool()}, gathered);
      base = gathered.view();
    }
    if (model.bound_adapter()) model.bound_adapter()->lease(static_cast<int>(i), leases);
    const auto deltas = deltas_of(model, static_cast<int>(i));
    const Tensor gain = gain_of(ctx, model, static_cast<int>(i));
    const bool has_gain = gain.shape().rank > 0, is_stored_alone = deltas.empty() && !has_gain;
    if (is_stored_alone && base.dtype == dtype) {
      check_finite(base, specs[i].name);
      if (gathered.shape().rank) owned.push_back(std::move(gathered));  // the view stays where it is
      tensors.emplace_back(specs[i].name, base);
      continue;
    }
    owned.emplace_back(base.shape, dtype, ctx.device);
    convert(ctx, merged_weight(ctx, base, has_gain ? gain.view() : ConstView(), deltas).view(), owned.back());
    check_finite(owned.back().view(), specs[i].name);
    is_exact = is_exact && is_stored_alone && are_equal(base, owned.back());
    tensors.emplace_back(specs[i].name, owned.back().view());
  }
  for (const WeightSpec& spec : removed_weights(model)) {  // a half of zeros adds exactly nothing
    owned.emplace_back(spec.shape, dtype, ctx.device);
    tensors.emplace_back(spec.name, owned.back().view());
  }
  replace_folder(folder, is_model_file, [&](const fs::path& to) {
    copy_companions(model.options().path, tokenizer_folder, to);
    write_text_file(to / "config.json", config_of(model, dtype).dump(2) + "\n");
    write_safetensors(to / "model.safetensors", tensors, {{"format", "pt"}}, [] { leave_if_asked("exporting"); });
    seal_folder(to);
  });
  return is_exact;
}

int64_t plan_peft_bytes(Model& model) {
  int64_t bytes = 0;
  for (const Adapted& a : adapted_weights(model)) bytes += a.matrices->bt.bytes();
  return bytes;
}

int64_t plan_merged_bytes(Model& model) {
  const DType dtype = model.export_dtype();
  int64_t kept = 0, passing = 0;  // passing: what is let go before the next tensor
  const auto& specs = model.decoder().specs();
  for (size_t i = 0; i < specs.size(); ++i) {
    if (specs[i].storage != specs[i].name) continue;
    const int number = static_cast<int>(i);
    const ConstView direct = model.decoder().weight(number)->direct({&model.pool()});
    const int64_t count = specs[i].shape.count(), gathered = direct.empty() ? count * size_of(DType::f32) : 0;
    const bool is_stored_alone = deltas_of(model, number).empty() && !model.decoder().gain(number);
    const bool as_it_is = is_stored_alone && (direct.empty() ? DType::f32 : direct.dtype) == dtype;
    kept += as_it_is ? gathered : count * size_of(dtype);
    if (!as_it_is) passing = std::max(passing, gathered + count * size_of(DType::f32));
  }
  for (const WeightSpec& spec : removed_weights(model)) kept += spec.shape.count() * size_of(dtype);
  return kept + passing;
}

}  // namespace tessera
