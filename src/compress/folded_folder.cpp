#include "compress/folded_folder.h"

#include <array>
#include <vector>

#include "core/error.h"
#include "io/files.h"
#include "io/folders.h"
#include "io/json_file.h"
#include "model/sharing_io.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr const char* kDescription = "sharing.json";
constexpr std::array<const char*, 2> kNames = {"shared", "cured"};  // each is made of the one in front

fs::path published(const fs::path& compress) { return compress.parent_path() / "sharing"; }

/// Whether it describes a model that a stage keeps, or by the journal's word has once kept.
bool is_ours(const fs::path& compress, const std::string& description) {
  const std::string sha256 = sha256_hex(description);
  const Journal journal(compress);
  return std::ranges::any_of(kNames, [&](const char* name) {
    const fs::path file = folded_folder(compress, name) / kDescription;
    return journal.knows(fmt::format("{}/{}", name, kDescription), sha256) ||
           (fs::exists(file) && read_text_file(file) == description);
  });
}

void link_or_copy(const fs::path& from, const fs::path& to) {
  std::error_code failure;
  fs::create_hard_link(from, to, failure);
  if (failure) fs::copy_file(from, to, failure);
  if (failure) throw UserError(to.string(), "cannot be written: " + failure.message());
}

bool has_same_files(const fs::path& kept, const fs::path& copy) {
  return std::ranges::all_of(fs::directory_iterator(kept), [&](const fs::directory_entry& entry) {
    const fs::path other = copy / entry.path().filename();
    return !entry.is_regular_file() || (fs::exists(other) && (fs::equivalent(entry.path(), other) ||
                                                              sha256_of_file(entry.path()) == sha256_of_file(other)));
  });
}

/// The folder `to` holds these files of `from`.
void put_in_place(const fs::path& from, const std::vector<std::string>& files, const fs::path& to) {
  const auto is_one = [&](const std::string& file) { return std::ranges::find(files, file) != files.end(); };
  replace_folder(to, is_one, [&](const fs::path& temporary) {
    for (const std::string& file : files) link_or_copy(from / file, temporary / file);
  });
}

void publish(const fs::path& compress, const std::string& name) {
  const fs::path from = folded_folder(compress, name);
  std::vector<std::string> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(from))
    if (entry.is_regular_file()) files.push_back(entry.path().filename().string());
  put_in_place(from, files, published(compress));
}

/// Whether RUN/sharing has all files of the line, which lie in that stage's folder.
bool is_published(const fs::path& compress, const JournalLine& line) {
  return std::ranges::all_of(line.beside, [&](const auto& beside) {
    const fs::path copy = published(compress) / fs::path(beside.first).filename();
    return fs::is_regular_file(copy) && sha256_of_file(copy) == beside.second;
  });
}

}  // namespace

fs::path folded_folder(const fs::path& compress, const std::string& name) { return compress / name; }

void require_untrained(const fs::path& compress) {
  const fs::path file = published(compress) / kDescription;
  if (!fs::exists(file)) return;
  const std::string text = read_text_file(file);
  if (is_ours(compress, text)) return;
  const Json json =
      with_mend(file, "remove it: the stage writes it again", [&] { return Json::parse(text, file.string()); });
  const Json* saved = json.find("sharing");
  const Json* state = saved ? saved->find("state") : nullptr;
  if (state && state->is_string() && state->as_string() != "cured") return;
  throw UserError(file.string(), "a trained model lies in the place of the folded one, which is to be made again",
                  "move it away, or set run.dir to another folder");
}

void keep_folded(const fs::path& compress, const std::string& name, Model& model) {
  require_untrained(compress);
  const auto* kept = std::ranges::find(kNames, name);
  TS_CHECK(kept != kNames.end(), "no stage keeps a model as \"{}\"", name);
  save_sharing(folded_folder(compress, name), model);
  publish(compress, name);
  // Last: what lies in RUN/sharing is at any moment one that is kept.
  for (const auto* later = kept + 1; later != kNames.end(); ++later) fs::remove_all(folded_folder(compress, *later));
}

void recover_folded(const fs::path& compress, const Journal& journal) {
  for (const JournalLine& line : journal.lines()) {
    if (line.beside.empty() || journal.done(line.stage) || !is_published(compress, line)) continue;
    const fs::path folder = compress / fs::path(line.beside.front().first).parent_path();
    if (std::ranges::find(kNames, folder.filename().string()) == kNames.end()) continue;
    std::vector<std::string> files;
    for (const auto& [name, sha256] : line.beside) files.push_back(fs::path(name).filename().string());
    put_in_place(published(compress), files, folder);
  }
}

void restore_folded(const fs::path& compress) {
  const auto newest = std::find_if(kNames.rbegin(), kNames.rend(), [&](const char* name) {
    return fs::exists(folded_folder(compress, name) / kDescription);
  });
  if (newest == kNames.rend()) return;
  const fs::path file = published(compress) / kDescription;
  const bool is_there = fs::exists(file);
  if (is_there && !is_ours(compress, read_text_file(file))) return;  // another model's
  if (!is_there || !has_same_files(folded_folder(compress, *newest), published(compress))) publish(compress, *newest);
}

}  // namespace tessera
