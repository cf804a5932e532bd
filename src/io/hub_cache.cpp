#include "io/hub_cache.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <vector>

#include "io/files.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

/// Empty where it is not set.
fs::path folder_in(const char* variable) {
  const char* value = std::getenv(variable);
  return value ? value : "";
}

bool is_name(const std::string& text) {
  const auto is_allowed = [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_' || c == '.'; };
  return !text.empty() && text != "." && text != ".." && std::ranges::all_of(text, is_allowed);
}

std::vector<fs::path> folders_of(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    if (entry.is_directory(ignored)) found.push_back(entry.path());
  return found;
}

}  // namespace

fs::path hub_cache() {
  if (fs::path cache = folder_in("HF_HUB_CACHE"); !cache.empty()) return cache;
  if (fs::path home = folder_in("HF_HOME"); !home.empty()) return home / "hub";
  if (fs::path cache = folder_in("XDG_CACHE_HOME"); !cache.empty()) return cache / "huggingface" / "hub";
  const fs::path home = folder_in("HOME");
  return home.empty() ? fs::path() : home / ".cache" / "huggingface" / "hub";
}

bool is_hub_name(const std::string& text) {
  const size_t slash = text.find('/');
  return slash != std::string::npos && is_name(text.substr(0, slash)) && is_name(text.substr(slash + 1));
}

fs::path cached_model(const std::string& name) {
  if (!is_hub_name(name) || hub_cache().empty()) return {};
  const size_t slash = name.find('/');
  const fs::path model = hub_cache() / ("models--" + name.substr(0, slash) + "--" + name.substr(slash + 1));
  std::error_code ignored;
  if (fs::is_regular_file(model / "refs" / "main", ignored)) {
    std::string revision = read_text_file(model / "refs" / "main");
    while (!revision.empty() && std::isspace(static_cast<unsigned char>(revision.back()))) revision.pop_back();
    const fs::path snapshot = model / "snapshots" / revision;
    if (is_name(revision) && fs::is_directory(snapshot, ignored)) return fs::absolute(snapshot);
  }
  const auto snapshots = folders_of(model / "snapshots");
  return snapshots.size() == 1 ? fs::absolute(snapshots.front()) : fs::path();
}

std::string download_command(const std::string& name) { return "hf download " + name; }

}  // namespace tessera
