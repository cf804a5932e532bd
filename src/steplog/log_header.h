#pragma once
// header.json of a log's folder: the text whose SHA-256 is the run's id.

#include <filesystem>
#include <string>

#include "steplog/chain_rules.h"

namespace tessera {

std::filesystem::path header_file(const std::filesystem::path& folder);
bool has_log_header(const std::filesystem::path& folder);

/// @throws UserError when the folder has none
std::string read_log_header(const std::filesystem::path& folder);

/// @throws UserError when there are records, and no header says whose they are
void refuse_headerless_records(const std::filesystem::path& folder);

/// Writes it into a folder that has neither header nor records, or finds it there.
/// @throws UserError when another one is there, naming the first key that differs; when there are records and no header
void keep_log_header(const std::filesystem::path& folder, const std::string& header_json);

/// @param there  the header of the log at `place`
/// @param other  how to choose another log: "choose another folder"
/// @throws UserError when the two texts differ, naming the first key that does
void require_same_header(const std::string& place, const std::string& there, const std::string& here,
                         const std::string& other);

/// The limits that every reader of a log with this header judges by. A header of format 2 says them itself
/// (`alpha_max`, `signers`, `stale_max`, `unit`); an older one leaves them as they are.
/// @param limits  of a log of format 1; its run is kept
/// @throws UserError naming `where` when the text is no JSON or of a newer format, or a header of format 2 lacks a key
/// or says what cannot be
ChainRules::Limits limits_of_header(const std::string& header_json, const std::string& where,
                                    const ChainRules::Limits& limits);

}  // namespace tessera
