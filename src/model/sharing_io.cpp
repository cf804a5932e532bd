#include "model/sharing_io.h"

#include "core/error.h"
#include "model/config_fingerprint.h"
#include "model/model.h"
#include "model/sharing/binding.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr NativeKind kSharing{"sharing", "tessera sharing", "sharing.json"};

NativeFolder described(const fs::path& folder, const std::string& where) {
  NativeFolder saved(kSharing, sharing_folder(folder), where);
  saved.read("name the folder that a run saved its shared weights to");
  return saved;
}

}  // namespace

fs::path sharing_folder(const fs::path& folder) {
  const fs::path inside = folder / "sharing";
  return !fs::exists(folder / kSharing.description) && fs::exists(inside / kSharing.description) ? inside : folder;
}

SavedSharing::SavedSharing(const fs::path& folder, const std::string& method, const std::string& where)
    : folder_(described(folder, where)), tensors_([&] {
        const Json ours(method);
        folder_.require_equal("method", folder_.json().at(kSharing.what).find("method"), &ours,
                              "set sharing.method to the saved value, or leave sharing.load out");
        return folder_.open_tensors(method + ".safetensors");
      }()) {}

const Json& SavedSharing::description() const { return folder_.json().at(kSharing.what); }

Rules SavedSharing::rules() const {
  const Json* number = folder_.json().find("rules");
  return number ? rules_of(number->as_integer()) : Rules::first;
}

void SavedSharing::require_same(const Json& descriptor) const {
  const Json& saved = folder_.json().at(kSharing.what);
  for (const auto& [key, hint] :
       {std::pair{"weights", "other tensors are shared: compare model.path, sharing.shared and sharing.min_numel"},
        std::pair{"cells", "set sharing.pool to the saved number, or sharing.compression to what it was"}})
    folder_.require_equal(key, saved.find(key), descriptor.find(key), hint);
  folder_.require_same(descriptor, {}, [](const std::string&) {
    return "the tensors lie elsewhere in its pool: compare model.path, sharing.shared, min_numel, scale and sigma_0";
  });
}

ConstView SavedSharing::at(const std::string& name, const Shape& shape,
                           const std::function<std::string(int64_t)>& readers) const {
  const ConstView view = tensors_.at(name);
  const std::string file = tensors_.file_of(name)->path().string();
  if (!is_weight_type(view.dtype) || !(view.shape == shape))
    throw UserError(file,
                    fmt::format("tensor \"{}\" is {} {}, expected f32 {}", name, name_of(view.dtype), view.shape.text(),
                                shape.text()),
                    "it belongs to another model");
  if (const int64_t broken = first_broken(view); broken >= 0)
    throw UserError(
        file, fmt::format("holds {}: {}", element(view, broken), readers(broken)),
        "the run that wrote it had diverged: job=export run.resume=RUN/checkpoints/step-N.h5 writes the one of an earlier checkpoint");
  return view;
}

void save_sharing(const fs::path& folder, Model& model) {
  std::vector<std::pair<std::string, ConstView>> tensors;
  tensors.reserve(static_cast<size_t>(model.pool().count()));
  for (SlotId id = 0; id < model.pool().count(); ++id)
    tensors.emplace_back(model.pool().name(id), model.pool().values(id));
  const Json description = model.sharing().descriptor();
  std::vector<std::pair<std::string, Json>> extra = {{"config_fingerprint", config_fingerprint(model.base_config())},
                                                     {"config_numbers", config_numbers(model.base_config())}};
  if (model.sharing_rules() != Rules::first) extra.emplace_back("rules", static_cast<int64_t>(model.sharing_rules()));
  NativeFolder::write(kSharing, folder, description.at("method").as_string() + ".safetensors", tensors, description,
                      extra, model.sharing().files());
}

}  // namespace tessera
