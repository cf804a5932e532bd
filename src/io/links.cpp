#include "io/links.h"

#include "core/error.h"

namespace tessera {
namespace fs = std::filesystem;

std::string fault_of_link(const fs::path& path) {
  std::error_code fault;
  if (fs::symlink_status(path, fault).type() != fs::file_type::symlink) return "";
  const fs::file_status status = fs::status(path, fault);
  if (fs::exists(status)) return "";
  std::error_code ignored;
  const std::string target = fs::read_symlink(path, ignored).string();
  if (status.type() == fs::file_type::not_found) return fmt::format("is a link to \"{}\", which is not there", target);
  return fmt::format("is a link to \"{}\", which cannot be followed: {}", target, fault.message());
}

}  // namespace tessera
