#pragma once
// Where the folded models of a run lie. Stages keep theirs, "shared" and "cured", in folders of that name in
// RUN/compress; RUN/sharing, which other jobs read, is the newest of them: the same files under other names, where the
// file system knows such links, else copies.

#include <filesystem>
#include <string>

#include "compress/journal.h"
#include "model/model.h"

namespace tessera {

/// The folder that a stage keeps its model in. @param compress  RUN/compress
std::filesystem::path folded_folder(const std::filesystem::path& compress, const std::string& name);

/// Keeps the model under that name, and as RUN/sharing. What was kept behind it, "cured" behind "shared", goes: it was
/// made of another. On rank 0. @throws UserError as require_untrained; naming what cannot be written
void keep_folded(const std::filesystem::path& compress, const std::string& name, Model&);

/// A stage's folder that is gone or damaged is made again of RUN/sharing, where that has the very files that the
/// journal knows of it.
void recover_folded(const std::filesystem::path& compress, const Journal&);

/// RUN/sharing is made again of the newest that is kept, where it is gone or a file of it is missing or altered.
void restore_folded(const std::filesystem::path& compress);

/// @throws UserError when another job has trained the model in RUN/sharing since
void require_untrained(const std::filesystem::path& compress);

}  // namespace tessera
