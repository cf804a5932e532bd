#include "model/model.h"

#include <cmath>
#include <set>

#include "core/random.h"
#include "io/files.h"

namespace tessera {
namespace {

DType parse_storage(const std::string& name, DType otherwise) {
  if (name.empty()) return otherwise;
  return name == "bf16" ? DType::bf16 : name == "f16" ? DType::f16 : DType::f32;
}

/// A weight that the model of config.json does not have would be left out in silence: another model's file, too few
/// layers, or biases.
void refuse_unknown_weights(const SafetensorsReader& source, const std::vector<WeightSpec>& specs) {
  std::set<std::string> known;
  for (const WeightSpec& spec : specs) known.insert(spec.name);  // a tied head, too, which may be stored all the same
  const std::string_view buffer = ".rotary_emb.inv_freq";        // a table of rope_theta, kept by old files
  for (const std::string& name : source.names()) {
    if (known.count(name) || (name.size() > buffer.size() && name.substr(name.size() - buffer.size()) == buffer))
      continue;
    throw UserError(source.file_of(name)->path().string(),
                    fmt::format("holds the tensor \"{}\", which the model of config.json does not have", name),
                    "config.json and the weights do not belong together");
  }
}

}  // namespace

Model::Model(const Settings& s) : options_(s.model), pool_(s.compute) {
  if (options_.path.empty())
    throw UserError(s.where_model, "model.path is not set",
                    "name a folder with config.json (and, unless init = \"random\", model.safetensors)");
  const bool drawn = options_.init == "random";
  const bool is_file = std::filesystem::is_regular_file(options_.path);  // a bare config.json will do to draw a model
  if (!std::filesystem::exists(options_.path))
    throw UserError(s.where_model, fmt::format("model.path \"{}\" does not exist", options_.path.string()));
  if (is_file && !drawn)
    throw UserError(s.where_model, fmt::format("model.path \"{}\" is a file", options_.path.string()),
                    "name the folder that holds config.json and the weights");
  config_ = read_model_config(is_file ? options_.path : options_.path / "config.json");
  if (!drawn) source_ = SafetensorsReader::open_folder(options_.path);
  const auto specs = weight_specs(config_);
  if (source_) refuse_unknown_weights(*source_, specs);
  auto weights = bind_plain(specs, pool_, source_ ? &*source_ : nullptr,
                            {.trainable = s.train_base, .storage = parse_storage(options_.dtype, config_.dtype)});
  adapter_ = make_adapter(s.adapter, s.where_adapter);
  AdapterWeights deltas;
  if (adapter_) deltas = adapter_->attach(specs, pool_);
  pool_.allocate(s.seed, s.gradients ? ParameterPool::Gradients::yes : ParameterPool::Gradients::no);
  decoder_ = std::make_unique<DecoderModel>(config_, std::move(weights), s.max_position, s.compute);
  if (adapter_) bound_ = std::make_unique<BoundAdapter>(std::move(deltas), pool_);
}

const std::string& Model::base_fingerprint() {
  if (!base_fingerprint_.empty()) return base_fingerprint_;
  std::string text;
  for (size_t i = 0; i < decoder_->specs().size(); ++i) {
    const WeightSpec& spec = decoder_->specs()[i];
    text += fmt::format("{} {} ", spec.name, spec.shape.text());
    if (spec.storage != spec.name) continue;
    const ConstView values = source_ ? source_->at(spec.name) : decoder_->weight(static_cast<int>(i))->direct({&pool_});
    text +=
        sha256_hex(std::span(static_cast<const std::byte*>(values.data), static_cast<size_t>(values.bytes()))) + "\n";
  }
  return base_fingerprint_ = sha256_hex(text);
}

std::string Model::broken_base_weight() const {
  if (!source_) return "";
  for (const WeightSpec& spec : decoder_->specs()) {
    if (spec.storage != spec.name) continue;
    const ConstView values = source_->at(spec.name);
    for (int64_t i = 0; i < values.shape.count(); ++i)
      if (const double value = element(values, i); !std::isfinite(value))
        return fmt::format("element {} of \"{}\" is {} in {}", i, spec.name, value,
                           source_->file_of(spec.name)->path().string());
  }
  return "";
}

uint64_t Model::views_fingerprint() const {
  uint64_t h = 0;
  for (size_t i = 0; i < decoder_->specs().size(); ++i) {
    h = hash_key({h, decoder_->weight(static_cast<int>(i))->fingerprint()});
    if (!bound_) continue;
    if (const auto& delta = bound_->weights().by_weight[i])
      h = hash_key({h, delta->a->fingerprint(), delta->bt->fingerprint()});
  }
  return h;
}

int64_t Model::virtual_parameters() const {
  int64_t count = 0;
  for (size_t i = 0; i < decoder_->specs().size(); ++i) {
    const WeightSpec& spec = decoder_->specs()[i];
    if (spec.storage == spec.name) count += spec.shape.count();
    if (!bound_) continue;
    if (const auto& delta = bound_->weights().by_weight[i])
      count += delta->a->shape().count() + delta->bt->shape().count();
  }
  return count;
}

DType Model::export_dtype() const {
  return parse_storage(options_.dtype, source_ ? source_->at(decoder_->specs().front().name).dtype : config_.dtype);
}

}  // namespace tessera
