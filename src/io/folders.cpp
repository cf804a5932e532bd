//   new folder beside it -> write -> exchange the two names -> move what is not ours -> remove the old one
// A folder cannot be renamed over one that holds something, as a file can: hence the exchange.

#include "io/folders.h"

#include <fcntl.h>
#include <stdio.h>

#include <array>

#include "core/error.h"
#include "io/files.h"

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE 2
#endif

namespace tessera {
namespace {

namespace fs = std::filesystem;

/// Where the folder really lies.
fs::path place_of(const fs::path& folder) {
  std::error_code failure;
  // A link is followed: the folder behind it is replaced, and the link stays.
  const fs::path real = fs::canonical(folder, failure);
  const fs::path place = failure ? fs::absolute(folder).lexically_normal() : real;
  return place.has_filename() ? place : place.parent_path();
}

[[noreturn]] void fail(const fs::path& folder, const std::error_code& failure) {
  throw UserError(folder.string(), "the folder cannot be written: " + failure.message());
}

void rename_or_fail(const fs::path& from, const fs::path& to, const fs::path& folder) {
  std::error_code failure;
  fs::rename(from, to, failure);
  if (failure) fail(folder, failure);
}

/// Puts `made` in the place of `folder`. @return where the old one is now; empty when there was none
fs::path put_in_place(const fs::path& made, const fs::path& folder) {
  if (!fs::exists(fs::symlink_status(folder))) {
    rename_or_fail(made, folder, folder);
    return {};
  }
  // Exchanges two names in one step: nobody finds the folder missing.
  if (::renameat2(AT_FDCWD, made.c_str(), AT_FDCWD, folder.c_str(), RENAME_EXCHANGE) == 0) return made;
  // Not on every file system. Two renames then, with an instant between them.
  fs::path old = temporary_beside(folder);
  rename_or_fail(folder, old, folder);
  rename_or_fail(made, folder, folder);
  return old;
}

bool is_temporary_name(const std::string& name) { return name[0] == '.' && name.find(".tmp-") != std::string::npos; }

/// Whether readers look for a file of that name, or could take it for weights.
bool holds_weights(const std::string& name) {
  constexpr std::array<std::string_view, 8> kEndings = {".safetensors", ".bin", ".pt",      ".pth",
                                                        ".gguf",        ".h5",  ".msgpack", ".index.json"};
  for (const std::string_view ending : kEndings)
    if (name.size() >= ending.size() && name.substr(name.size() - ending.size()) == ending) return true;
  return name == "adapter_config.json";
}

void keep_what_is_not_ours(const fs::path& old, const fs::path& folder, const IsOurs& is_ours) {
  std::error_code failure;
  for (const fs::directory_entry& entry : fs::directory_iterator(old, failure)) {
    const std::string name = entry.path().filename().string();
    if (!is_ours(name) && !is_temporary_name(name)) fs::rename(entry.path(), folder / name, failure);
    if (failure) fail(folder, failure);
  }
  if (failure) fail(folder, failure);
}

}  // namespace

void replace_folder(const fs::path& folder, const IsOurs& is_ours, const std::function<void(const fs::path&)>& write) {
  const fs::path place = place_of(folder), made = temporary_beside(place);
  create_folder(place.parent_path());
  try {
    create_folder(made);
    write(made);
    sync_folder(made);
  } catch (const UserError& error) {
    fs::remove_all(made);
    // Errors about the temporary folder speak of the one that the user named.
    if (error.where().rfind(made.string(), 0) != 0) throw;
    throw UserError(folder.string() + error.where().substr(made.string().size()), error.message(), error.hint());
  } catch (...) {
    fs::remove_all(made);
    throw;
  }
  if (const fs::path old = put_in_place(made, place); !old.empty()) {
    // Before the old folder goes: what is not ours has no other copy.
    keep_what_is_not_ours(old, place, is_ours);
    fs::remove_all(old);
  }
  sync_folder(place.parent_path());
}

void refuse_foreign_weights(const fs::path& folder, const IsOurs& is_ours) {
  std::error_code failure;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, failure)) {
    const std::string name = entry.path().filename().string();
    if (is_ours(name) || is_temporary_name(name) || !holds_weights(name)) continue;
    throw UserError(
        folder.string(),
        fmt::format("holds \"{}\", which this program did not write and readers would take for its own", name),
        "move it to another folder, or name another one with run.dir");
  }
}

}  // namespace tessera
