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

/// What refs/main names; empty where it is not there.
std::string revision_of_main(const fs::path& model) {
  std::error_code ignored;
  if (!fs::is_regular_file(model / "refs" / "main", ignored)) return "";
  std::string revision = read_text_file(model / "refs" / "main");
  while (!revision.empty() && std::isspace(static_cast<unsigned char>(revision.back()))) revision.pop_back();
  return revision;
}

/// "org/name" of a folder "models--org--name"; empty for others.
std::string name_of_folder(const std::string& folder) {
  if (!folder.starts_with(kModels)) return "";
  const std::string joined = folder.substr(kModels.size());
  const size_t mark = joined.find("--");
  if (mark == std::string::npos) return "";
  const std::string name = joined.substr(0, mark) + "/" + joined.substr(mark + 2);
  return is_hub_name(name) ? name : "";
}

/// Of the models that can be taken, in the alphabet's order.
std::vector<std::string> cached_names() {
  std::vector<std::string> names;
  for (const fs::path& folder : folders_of(hub_cache()))
    if (const std::string name = name_of_folder(folder.filename().string());
        !name.empty() && !snapshot_in(folder).empty())
      names.push_back(name);
  std::ranges::sort(names);
  return names;
}

/// Why a model of the cache has no snapshot to take.
std::string snapshot_fault(const fs::path& model, const std::string& name) {
  std::vector<fs::path> snapshots = folders_of(model / "snapshots");
  if (snapshots.empty())
    return "the cache of Hugging Face has nothing of it, its download was broken off: " + download_command(name);
  std::ranges::sort(snapshots);
  const fs::path main = model / "refs" / "main";
  const std::string revision = revision_of_main(model);
  std::string there;
  for (const fs::path& snapshot : snapshots) there += "\n  " + fs::absolute(snapshot).string();
  return fmt::format(
      "the cache of Hugging Face has {} of it, and {}: {}, or name the folder of the one that you want:{}",
      snapshots.size() == 1 ? "one snapshot" : fmt::format("{} snapshots", snapshots.size()),
      revision.empty() ? main.string() + ", which would name one, is not there"
                       : fmt::format("{} names another, \"{:.60}\", which is not there", main.string(), revision),
      download_command(name), there);
}

/// Absolute and without a slash at its end; empty if it is.
fs::path whole_path(const fs::path& folder) {
  return folder.empty() ? fs::path() : fs::absolute(folder / "").lexically_normal().parent_path();
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

std::string hub_name_in_url(const std::string& text) {
  for (const std::string_view site :
       {"https://huggingface.co/", "http://huggingface.co/", "https://www.huggingface.co/", "huggingface.co/",
        "https://hf.co/", "hf.co/", "hf://"}) {
    if (!text.starts_with(site)) continue;
    const std::string rest = text.substr(site.size());
    const size_t slash = rest.find('/'),
                 end = slash == std::string::npos ? slash : rest.find_first_of("/?#", slash + 1);
    const std::string name = rest.substr(0, end);
    return is_hub_name(name) ? name : "";
  }
  return "";
}

fs::path snapshot_in(const fs::path& model) {
  std::error_code ignored;
  if (fs::exists(model / "refs" / "main", ignored)) {
    const std::string revision = revision_of_main(model);
    const fs::path snapshot = model / "snapshots" / revision;
    return is_name(revision) && fs::is_directory(snapshot, ignored) ? fs::absolute(snapshot) : fs::path();
  }
  const auto snapshots = folders_of(model / "snapshots");
  return snapshots.size() == 1 ? fs::absolute(snapshots.front()) : fs::path();
}

fs::path cached_model(const std::string& name) {
  if (!is_hub_name(name) || hub_cache().empty()) return {};
  return snapshot_in(folder_of_model(name));
}

std::string not_in_cache(const std::string& name) {
  if (hub_cache().empty())
    return "none of HF_HUB_CACHE, HF_HOME and HOME is set, so that nobody knows where the cache of Hugging Face lies: set "
           "one, or name the model's folder";
  const fs::path model = folder_of_model(name);
  std::error_code ignored;
  if (!fs::is_directory(model, ignored)) {
    const std::string near = nearest_name(name, cached_names());
    return fmt::format("nor is it in the cache of Hugging Face, {}: {}{}", hub_cache().string(), download_command(name),
                       near.empty() ? "" : fmt::format("\ndid you mean \"{}\", which is there?", near));
  }
  return snapshot_fault(model, name);
}

std::string hub_name_of(const fs::path& folder) {
  const fs::path whole = whole_path(folder);
  return whole.parent_path().filename() == "snapshots" ? name_of_folder(whole.parent_path().parent_path().filename())
                                                       : "";
}

std::string hub_revision_of(const fs::path& folder) {
  return hub_name_of(folder).empty() ? "" : whole_path(folder).filename().string();
}

std::string title_of_model(const fs::path& folder) {
  constexpr size_t kShort = 7;  // letters of a commit, as git shows them
  const std::string name = hub_name_of(folder);
  return name.empty() ? whole_path(folder).filename().string()
                      : fmt::format("{} ({})", name, hub_revision_of(folder).substr(0, kShort));
}

std::string way_into_cache_folder(const fs::path& folder) {
  const fs::path whole = whole_path(folder);
  for (const fs::path& model : {whole, whole.parent_path()}) {
    const std::string name = name_of_folder(model.filename());
    if (name.empty()) continue;
    const fs::path snapshot = snapshot_in(model);
    if (snapshot.empty()) return snapshot_fault(model, name);
    const bool is_ours = cached_model(name) == snapshot;
    return fmt::format("this folder is the cache's, with all versions of the model: say model.path={}",
                       is_ours ? name : snapshot.string());
  }
  return "";
}

std::vector<fs::path> unfinished_downloads(const fs::path& folder) {
  const fs::path there = hub_name_of(folder).empty() ? folder / ".cache" / "huggingface" / "download"
                                                     : whole_path(folder) / ".." / ".." / "blobs";
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
