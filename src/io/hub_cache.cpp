#include "io/hub_cache.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <vector>

#include "core/error.h"
#include "io/files.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kModels = "models--";

/// Empty where it is not set.
fs::path folder_in(const char* variable) {
  const char* value = std::getenv(variable);
  const std::string text = value ? value : "";
  const char* home = std::getenv("HOME");
  if (!home || (text != "~" && !text.starts_with("~/"))) return text;
  return home + text.substr(1);
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

/// Where the cache keeps a model, by its name.
fs::path folder_of_model(const std::string& name) {
  const size_t slash = name.find('/');
  return hub_cache() / (std::string(kModels) + name.substr(0, slash) + "--" + name.substr(slash + 1));
}

std::string revision_of_main(const fs::path& model) {
  std::string revision = read_text_file(model / "refs" / "main");
  while (!revision.empty() && std::isspace(static_cast<unsigned char>(revision.back()))) revision.pop_back();
  return revision;
}

}  // namespace

fs::path hub_cache() {
  for (const char* variable : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"})
    if (fs::path cache = folder_in(variable); !cache.empty()) return cache;
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
  const fs::path model = folder_of_model(name);
  std::error_code ignored;
  if (fs::is_regular_file(model / "refs" / "main", ignored)) {
    const std::string revision = revision_of_main(model);
    const fs::path snapshot = model / "snapshots" / revision;
    if (is_name(revision) && fs::is_directory(snapshot, ignored)) return fs::absolute(snapshot);
  }
  const auto snapshots = folders_of(model / "snapshots");
  return snapshots.size() == 1 ? fs::absolute(snapshots.front()) : fs::path();
}

std::string not_in_cache(const std::string& name) {
  const fs::path model = folder_of_model(name);
  std::error_code ignored;
  if (!fs::is_directory(model, ignored))
    return fmt::format("nor is it in the cache of Hugging Face, {}: {}", hub_cache().string(), download_command(name));
  const size_t snapshots = folders_of(model / "snapshots").size();
  if (snapshots < 2)
    return fmt::format("the cache of Hugging Face has nothing of it, its download was broken off: {}",
                       download_command(name));
  return fmt::format(
      "the cache of Hugging Face has {} snapshots of it, and {} names none of them: name one with its whole path, or {}",
      snapshots, (model / "refs" / "main").string(), download_command(name));
}

std::string hub_name_of(const fs::path& folder) {
  const fs::path whole = fs::absolute(folder / "").lexically_normal().parent_path();
  const std::string model = whole.parent_path().parent_path().filename().string();
  if (whole.parent_path().filename() != "snapshots" || !model.starts_with(kModels)) return "";
  const std::string joined = model.substr(kModels.size());
  const size_t mark = joined.find("--");
  if (mark == std::string::npos) return "";
  const std::string name = joined.substr(0, mark) + "/" + joined.substr(mark + 2);
  return is_hub_name(name) ? name : "";
}

std::vector<fs::path> unfinished_downloads(const fs::path& folder) {
  const fs::path there = hub_name_of(folder).empty()
                             ? folder / ".cache" / "huggingface" / "download"
                             : fs::absolute(folder / "").lexically_normal().parent_path() / ".." / ".." / "blobs";
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(there, ignored))
    if (entry.path().extension() == ".incomplete") found.push_back(entry.path().lexically_normal());
  std::ranges::sort(found);
  return found;
}

std::string download_command(const std::string& name) { return "hf download " + name; }

std::string download_again(const fs::path& folder) {
  const std::string name = hub_name_of(folder);
  return name.empty() ? "download it again, to the end" : download_command(name);
}

}  // namespace tessera
