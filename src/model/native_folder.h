#pragma once
// What native folders have in common (adapter_io.h, sharing_io.h): a safetensors file of trained numbers, and a JSON
// description of what they are, which holds the file's hash and is written last.

#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/json.h"
#include "io/safetensors.h"
#include "model/model_config.h"

namespace tessera {

struct NativeKind {
  const char* what;    // "adapter": the recipe's section, in messages, and the key of the description in the JSON file
  const char* format;  // "tessera adapter"
  const char* description;  // "adapter.json"
};

/// A description against this run's: `require_same` tells the first value that differs.
class NativeFolder {
 public:
  static constexpr int64_t kFormatVersion = 1;
  NativeFolder(const NativeKind& kind, std::filesystem::path folder, std::string where)
      : kind_(kind), folder_(std::move(folder)), where_(std::move(where)) {}

  /// Reads the description file. @throws UserError when it is missing, damaged or of another format or version
  /// @param hint_of_missing  what to say when the folder holds no description
  void read(const std::string& hint_of_missing);
  const Json& json() const { return json_; }
  /// The numbers, when the file's hash is the description's. @throws UserError otherwise
  SafetensorsReader open_tensors(const std::string& file_name) const;

  /// @param hint  shown below both values
  void require_equal(const std::string& what, const Json* saved, const Json* ours, const std::string& hint) const;
  /// Every key of ours but those of `except`. Lists are compared entry by entry:
  /// a message shows the first that differs.
  /// @param hint_of_list  for a key that holds a list; otherwise the hint names the recipe's key
  void require_same(const Json& ours, const std::vector<std::string>& except,
                    const std::function<std::string(const std::string& key)>& hint_of_list) const;

  /// The numbers of config.json that the trained numbers belong to; folders of earlier versions do not tell.
  void require_same_config(const ModelConfig&) const;

  /// Writes tensors and description. @param extra  further keys of the description
  /// @param files  texts that lie beside them, by name
  static void write(const NativeKind&, const std::filesystem::path& folder, const std::string& file_name,
                    const std::vector<std::pair<std::string, ConstView>>& tensors, const Json& description,
                    const std::vector<std::pair<std::string, Json>>& extra,
                    const std::vector<std::pair<std::string, std::string>>& files = {});

 private:
  const NativeKind& kind_;
  std::filesystem::path folder_;
  std::string where_;
  Json json_;
};

/// @throws UserError naming the first number that is not finite, of tensors that are about to be saved as `what`
void require_finite(const std::string& what, const std::vector<std::pair<std::string, ConstView>>& tensors);

/// The first element that is not finite, or -1. Any floating dtype.
int64_t first_broken(const ConstView&);

}  // namespace tessera
