#include "model/model.h"

#include <cmath>

#include "core/device/memory.h"
#include "core/error.h"
#include "core/random.h"
#include "core/section_check.h"
#include "io/files.h"
#include "model/base_files.h"
#include "model/foreign_folder.h"
#include "model/sealed_folder.h"
#include "model/sharing/binding.h"
#include "model/sharing_io.h"

namespace tessera {

void ModelOptions::check(SectionCheck& own) const {
  if (path.empty()) own.fault("path", "model.path is not set", "name a Hugging Face folder");
}
namespace {

DType parse_storage(const std::string& name, DType otherwise) {
  if (name.empty()) return otherwise;
  return name == "bf16" ? DType::bf16 : name == "f16" ? DType::f16 : DType::f32;
}

std::string hash_of(const ConstView& values) {
  const OnHost host(values);
  return sha256_hex(std::span(static_cast<const std::byte*>(host.view().data), static_cast<size_t>(values.bytes())));
}

}  // namespace

Model::Model(const Settings& s)
    : options_(s.model), is_shared_(s.sharing.method != "none"), pool_(s.parameters, s.memory, s.device) {
  TS_CHECK(s.parameters == s.activations,
           "a pool in {} and activations in {}: no op reads the one and writes the other", name_of(s.parameters),
           name_of(s.activations));
  open_weights(s);
  SharingConfig sharing = s.sharing;
  sharing.rules = sharing_rules_ = saved_ ? saved_->rules() : s.sharing.rules;
  sharing_ = make_sharing(sharing, s.where_sharing);
  layers_ = sharing_->layers(base_config_);
  config_ = config_of_layers(base_config_, layers_);
  const auto specs = weight_specs(base_config_, layers_);
  const BaseOptions base{.trainable = s.train_base,
                         .freeze = s.freeze,
                         .storage = parse_storage(options_.dtype, config_.dtype),
                         .source = source_.get(),
                         .saved = saved_ ? &*saved_ : nullptr,
                         .seed = s.seed,
                         .where_freeze = s.where_freeze};
  require_sensible_freeze(specs, base);
  // First all that reads the pool says what it needs, then the memory is laid out once: bind and attach only reserve.
  auto weights = sharing_->bind(specs, pool_, base);
  if (saved_) saved_->require_same_config(base_config_);
  if (source_) require_equal_ties(*source_, specs);
  adapter_ = make_adapter(s.adapter, s.where_adapter);
  AdapterWeights deltas = deltas_with(adapter_ ? adapter_->attach(specs, pool_) : AdapterWeights());
  pool_.allocate(s.seed, s.gradients ? ParameterPool::Gradients::yes : ParameterPool::Gradients::no, s.sharing.rules);
  decoder_ = std::make_unique<DecoderModel>(config_, specs, std::move(weights), s.max_position, s.activations, s.memory,
                                            s.device);
  if (!deltas.by_weight.empty()) bound_ = std::make_unique<BoundAdapter>(std::move(deltas), pool_);
}

AdapterWeights Model::deltas_with(AdapterWeights adapter) const {
  AdapterWeights all = sharing_->deltas();
  if (all.by_weight.empty()) return adapter;
  for (size_t i = 0; i < adapter.by_weight.size(); ++i)
    for (LowRank& delta : adapter.by_weight[i]) all.by_weight[i].push_back(std::move(delta));
  return all;
}

void Model::open_weights(const Settings& s) {
  if (options_.path.empty())
    throw UserError(s.where_model, "model.path is not set",
                    "name a folder with config.json (and, unless init = \"random\", model.safetensors)");
  const bool drawn = options_.init == "random" || !s.sharing.load.empty();
  const bool is_file = std::filesystem::is_regular_file(options_.path);  // a bare config.json will do to draw a model
  if (!std::filesystem::exists(options_.path))
    throw UserError(s.where_model, fmt::format("model.path \"{}\" does not exist", options_.path.string()));
  const ModelPart part = drawn ? ModelPart::config : ModelPart::weights;
  if (is_file) refuse_foreign_file(options_.path, part, s.where_model);
  refuse_other_folder(options_.path, s.where_model);
  if (!is_file) refuse_foreign_folder(options_.path, part, s.where_model);
  if (!drawn && s.check_seal && !s.source) require_seal(options_.path);
  base_config_ = read_model_config(is_file ? options_.path : options_.path / "config.json");
  if (!drawn)
    source_ = s.source ? s.source : std::make_shared<const SafetensorsReader>(open_base(options_.path, base_config_));
  if (!s.sharing.load.empty()) saved_.emplace(s.sharing.load, s.sharing.method, s.where_sharing.of("load"));
}

/// Names and bytes of the slots that are not trained.
std::string Model::frozen_text() const {
  std::string text;
  for (SlotId id = 0; id < pool_.count(); ++id) {
    if (pool_.is_trainable(id)) continue;
    text += pool_.name(id) + " " + hash_of(pool_.values(id)) + "\n";
  }
  return text;
}

std::vector<std::shared_ptr<const MappedFile>> Model::mapped_files() const {
  return source_  ? source_->files()
         : saved_ ? saved_->tensors().files()
                  : std::vector<std::shared_ptr<const MappedFile>>();
}

std::string Model::check_files() {
  if (pool_.frozen_mapped_bytes() == 0) return "";  // all was copied when it was opened
  std::string replaced;
  for (const auto& file : mapped_files()) {
    const MappedFile::Change change = file->change();
    if (change == MappedFile::Change::none) continue;
    if (change == MappedFile::Change::replaced) {
      replaced =
          fmt::format("{}: was replaced or removed; this run keeps the old contents, and to go on it needs them there",
                      file->path().string());
      continue;
    }
    const std::string before = base_fingerprint_;  // empty: nobody has asked, and what the bytes were is not known
    base_fingerprint_.clear();
    if (!before.empty() && base_fingerprint() == before) continue;  // another time, the same bytes
    throw UserError(file->path().string(), "was written to while the run read its weights from it",
                    "the steps since the last checkpoint are lost: put the old contents back and go on from there");
  }
  return replaced;
}

std::vector<std::string> Model::notes() const {
  std::vector<std::string> lines = sharing_->notes();
  for (const auto& file : mapped_files())
    if (!file->is_mapped())
      lines.push_back(fmt::format("{}: its file system cannot map files: each rank holds a copy of {} bytes",
                                  file->path().string(), file->bytes().size()));
  if (adapter_)
    for (const std::string& line : adapter_->notes()) lines.push_back(line);
  return lines;
}

std::string Model::readers(const std::string& slot, int64_t index) const {
  return adapter_ ? adapter_->readers(slot, index) : sharing_->readers(slot, index);
}

// Every saved adapter holds it: what is hashed, and in which order, may never change. It reads all of the base once, so
// that it is made when it is first asked for.
const std::string& Model::base_fingerprint() {
  if (!base_fingerprint_.empty()) return base_fingerprint_;
  if (is_shared_) return base_fingerprint_ = sha256_hex(sharing_->descriptor().dump() + "\n" + frozen_text());
  std::string text;
  for (size_t i = 0; i < decoder_->specs().size(); ++i) {
    const WeightSpec& spec = decoder_->specs()[i];
    text += fmt::format("{} {} ", spec.name, spec.shape.text());
    if (spec.storage != spec.name) continue;
    const ViewLease lease(*decoder_->weight(static_cast<int>(i)));
    const ConstView values = source_ ? source_->at(spec.name) : decoder_->weight(static_cast<int>(i))->direct({&pool_});
    text += hash_of(values) + "\n";
  }
  return base_fingerprint_ = sha256_hex(text);
}

std::string Model::start_fingerprint() {
  if (adapter_) return base_fingerprint();
  const std::string layout =
      is_shared_ ? fmt::format("{} {:016x}", sharing_->descriptor().at("method").as_string(), views_fingerprint()) : "";
  return pool_.frozen_count() > 0 ? sha256_hex(layout + frozen_text()) : layout;
}

/// Looked for only once a loss has come out not finite: going through all weights takes as long as a pass.
std::string Model::broken_base_weight() const {
  if (!source_) return "";
  for (const WeightSpec& spec : decoder_->specs()) {
    if (spec.storage != spec.name) continue;
    const std::string& name = spec.name_in_files();
    const ConstView values = source_->at(name);
    for (int64_t i = 0; i < values.shape.count(); ++i)
      if (const double value = element(values, i); !std::isfinite(value))
        return fmt::format("element {} of \"{}\" is {} in {}", i, name, value, source_->file_of(name)->path().string());
  }
  return "";
}

uint64_t Model::views_fingerprint() const {
  uint64_t h = 0;
  for (size_t i = 0; i < decoder_->specs().size(); ++i) {
    h = hash_key({h, decoder_->weight(static_cast<int>(i))->fingerprint()});
    if (const ViewPtr& gain = decoder_->gain(static_cast<int>(i))) h = hash_key({h, gain->fingerprint()});
    if (!bound_) continue;
    for (const LowRank& delta : bound_->weights().by_weight[i])
      h = hash_key({h, delta.a->fingerprint(), delta.bt->fingerprint()});
  }
  return h;
}

int64_t Model::virtual_parameters() const {
  int64_t count = 0;
  for (size_t i = 0; i < decoder_->specs().size(); ++i) {
    const WeightSpec& spec = decoder_->specs()[i];
    if (spec.storage == spec.name) count += spec.shape.count();
    if (!bound_) continue;
    for (const LowRank& delta : bound_->weights().by_weight[i])
      if (delta.a->is_trainable()) count += delta.a->shape().count() + delta.bt->shape().count();
  }
  return count;
}

DType Model::export_dtype() const {
  return parse_storage(options_.dtype, source_ ? source_->at(decoder_->specs().front().name).dtype : config_.dtype);
}

}  // namespace tessera
