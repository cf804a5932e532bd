#include "model/config_agreement.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <set>

#include "core/error.h"
#include "model/config_reasons.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kRotaryTable = ".rotary_emb.inv_freq";  // made from rope_theta, kept by old files
constexpr size_t kMostShown = 3;

/// Tensors that contradict config.json in one way: the same weight of several layers, or layers as a whole.
struct Fault {
  std::string text;  // of the first
  fs::path file;     // or folder
  int64_t tensors = 1;
  bool tells_all = false;  // the text speaks of all of them
};

class Comparison {
 public:
  Comparison(const SafetensorsReader& source, const ModelConfig& config, std::span<const WeightSpec> specs,
             const TensorNames& names)
      : source_(source), config_(config), specs_(specs), names_(names) {
    for (const WeightSpec& spec : specs) {
      known_.insert(spec.name);
      if (spec.layer == 0 && layers_.empty()) layers_ = spec.name.substr(0, spec.name.find(".0.") + 1);
    }
    for (const std::string& stored : source.names())
      if (const int64_t layer = layer_of(names.own(stored)); layer >= 0) layers_there_.insert(layer);
  }

  void run() {
    for (const WeightSpec& spec : specs_) {
      const std::string stored = names_.in_files(spec.name);
      if (source_.contains(stored))
        compare_shape(spec, stored);
      else if (spec.storage == spec.name && !is_tied_to_another(spec))
        add_missing(spec, stored);
    }
    add_unexpected();
    if (!faults_.empty()) tell();
  }

 private:
  /// The number in "model.layers.3.…"; -1: outside of layers.
  int64_t layer_of(const std::string& own) const {
    int64_t layer = -1;
    if (!own.starts_with(layers_)) return -1;
    const char *begin = own.data() + layers_.size(), *end = own.data() + own.size();
    const auto [stop, fault] = std::from_chars(begin, end, layer);
    return fault == std::errc() && stop != end && *stop == '.' && layer >= 0 ? layer : -1;
  }

  /// The name with the layer's number left out: of one kind are the same weights of several layers.
  std::string kind_of(const std::string& own) const {
    if (layer_of(own) < 0) return own;
    return layers_ + own.substr(own.find('.', layers_.size()));
  }

  const ConfigReasons& reasons() const { return made_reasons_ ? *made_reasons_ : made_reasons_.emplace(config_); }

  std::string because_of(const std::string& own) const {
    const std::string reason = reasons().of_presence(own);
    return reason.empty() ? "" : ": " + reason;
  }

  /// A tied matrix lies in the file once, under this name or another.
  bool is_tied_to_another(const WeightSpec& spec) const {
    return std::ranges::any_of(specs_, [&](const WeightSpec& other) {
      return other.storage == spec.storage && source_.contains(names_.in_files(other.name));
    });
  }

  /// Where a tensor lies; of one that is missing, where it should.
  fs::path place_of(const std::string& stored) const {
    if (source_.contains(stored)) return source_.file_of(stored)->path();
    const auto files = source_.files();
    return files.size() == 1 ? files.front()->path() : files.front()->path().parent_path();
  }

  /// @param text  made of the first of a kind alone
  template <class Text>
  void add(const std::string& kind, const std::string& stored, const Text& text, bool tells_all = false) {
    const auto known = by_kind_.find(kind);
    if (known == by_kind_.end()) {
      by_kind_[kind] = faults_.size();
      faults_.push_back({.text = text(), .file = place_of(stored), .tells_all = tells_all});
      return;
    }
    Fault& fault = faults_[known->second];
    ++fault.tensors;
    if (fault.file != place_of(stored)) fault.file = source_.files().front()->path().parent_path();
  }

  void compare_shape(const WeightSpec& spec, const std::string& stored) {
    const Shape found = source_.at(stored).shape;
    if (found == spec.shape) return;
    add("shape " + kind_of(spec.name) + found.text(), stored, [&] {
      std::string keys;
      for (int axis = 0; axis < spec.shape.rank; ++axis)
        if (found.rank != spec.shape.rank || found[axis] != spec.shape[axis])
          keys += (keys.empty() ? "" : ", ") + reasons().of_size(spec.name, axis);
      return fmt::format("tensor \"{}\" is {}, config.json says {}: {}", stored, found.text(), spec.shape.text(), keys);
    });
  }

  void add_missing(const WeightSpec& spec, const std::string& stored) {
    const bool whole = spec.layer >= 0 && !layers_there_.count(spec.layer);
    if (spec.part == Part::head) lacks_head_ = true;
    add(
        whole ? "missing layers" : "missing " + kind_of(spec.name), stored,
        [&] {
          if (!whole)
            return fmt::format("tensor \"{}\" {} is missing{}", stored, spec.shape.text(), because_of(spec.name));
          return fmt::format("tensor \"{}\" {} is missing, and all others of {}: num_hidden_layers is {}", stored,
                             spec.shape.text(), missing_layers(), config_.num_hidden_layers);
        },
        whole);
  }

  /// "layers 2 to 3" that the files do not have.
  std::string missing_layers() const {
    std::vector<int64_t> missing;
    for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer)
      if (!layers_there_.count(layer)) missing.push_back(layer);
    if (missing.size() == 1) return fmt::format("layer {}", missing.front());
    const bool is_run = missing.back() - missing.front() + 1 == static_cast<int64_t>(missing.size());
    return is_run ? fmt::format("layers {} to {}", missing.front(), missing.back())
                  : fmt::format("{} layers", missing.size());
  }

  void add_unexpected() {
    std::vector<std::string> unexpected;
    for (const std::string& stored : source_.names())
      if (!known_.count(names_.own(stored)) && !stored.ends_with(kRotaryTable)) unexpected.push_back(stored);
    // Sorted as texts, layer 10 would come before layer 2.
    std::ranges::stable_sort(unexpected, {}, [&](const std::string& stored) { return layer_of(names_.own(stored)); });
    for (const std::string& stored : unexpected) {
      const std::string own = names_.own(stored);
      const bool whole = layer_of(own) >= config_.num_hidden_layers;
      add(
          whole ? "unexpected layers" : "unexpected " + kind_of(own), stored,
          [&] { return whole ? text_of_more_layers(stored) : text_of_unexpected(stored, own); }, whole);
    }
  }

  std::string text_of_unexpected(const std::string& stored, const std::string& own) const {
    return fmt::format("tensor \"{}\" {} has no place in the model of config.json{}", stored,
                       source_.at(stored).shape.text(), because_of(own));
  }

  std::string text_of_more_layers(const std::string& stored) const {
    return fmt::format(
        "tensor \"{}\" {} has no place in the model of config.json: num_hidden_layers is {}, the files have {} layers",
        stored, source_.at(stored).shape.text(), config_.num_hidden_layers, layers_there_.size());
  }

  [[noreturn]] void tell() const {
    int64_t tensors = 0, shown = 0;
    std::string lines;
    fs::path place = faults_.front().file;
    for (size_t i = 0; i < faults_.size(); ++i) {
      const Fault& fault = faults_[i];
      tensors += fault.tensors;
      if (fault.file != place) place = source_.files().front()->path().parent_path();
      if (i >= kMostShown) continue;
      shown += fault.tensors;
      lines += "\n  " + fault.text;
      if (fault.tensors > 1 && !fault.tells_all) lines += fmt::format("; {} more like it", fault.tensors - 1);
    }
    if (tensors > shown) lines += fmt::format("\n  and {} more", tensors - shown);
    const bool is_bare = lacks_head_ && tensors == 1;
    throw UserError(
        place.string(),
        tensors == 1 ? faults_.front().text : fmt::format("{} tensors are not as config.json says{}", tensors, lines),
        is_bare ? "the model was saved without its head: save it as AutoModelForCausalLM; \"tie_word_embeddings\": "
                  "true is right only if it was trained so"
                : "config.json and the weights do not belong together");
  }

  const SafetensorsReader& source_;
  const ModelConfig& config_;
  std::span<const WeightSpec> specs_;
  const TensorNames& names_;
  mutable std::optional<ConfigReasons> made_reasons_;  // only once there is something to give reasons for
  std::string layers_;                                 // "model.layers."
  std::set<std::string> known_;
  std::set<int64_t> layers_there_;
  std::vector<Fault> faults_;
  std::map<std::string, size_t> by_kind_;
  bool lacks_head_ = false;
};

}  // namespace

void require_agreement(const SafetensorsReader& source, const ModelConfig& config, std::span<const WeightSpec> specs,
                       const TensorNames& names) {
  Comparison(source, config, specs, names).run();
}

}  // namespace tessera
