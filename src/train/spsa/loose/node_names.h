#pragma once
// Who had which number, for people: records hold numbers alone. nodes.json in the run folder keeps what the engine has
// told of it.

#include <filesystem>
#include <map>
#include <string>

#include "steplog/record.h"

namespace tessera {

using NamesOfMachines = std::map<uint32_t, std::string>;  // by number

/// {"nodes": {"3735928559": "a", ...}, "run": SHA-256 of the header}. What it holds is shown and never believed.
class NodeNames {
 public:
  /// Goes on with what the file holds of this run.
  NodeNames(std::filesystem::path file, const RunId&);

  const NamesOfMachines& names() const { return names_; }
  void add(uint32_t machine, const std::string& name);
  /// Replaces the file when something was added. A disk that takes nothing costs the names and no more.
  void write();

 private:
  std::filesystem::path file_;
  std::string run_;
  NamesOfMachines names_;
  bool is_changed_ = false;
};

/// What the file says of that run (hexadecimal); of another run, damaged, or absent: nothing. A name that is none, say
/// one with a terminal's control characters, is left out.
NamesOfMachines read_node_names(const std::filesystem::path& file, const std::string& run);

/// "3735928559 (a)", or the number alone where no name is known.
std::string machine_in_words(uint32_t machine, const NamesOfMachines&);

}  // namespace tessera
