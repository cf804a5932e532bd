#include "io/links.h"

#include "core/error.h"
#include "io/hub_cache.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

std::string hint_for(const fs::path& link) {
  if (hub_name_of(link.parent_path()).empty())
    return "mend the link, or copy the folder with what its links lead to (cp -rL)";
  return "the cache has lost what it kept of the model: " + download_again(link.parent_path());
}

}  // namespace

void require_sound_link(const fs::path& path) {
  std::error_code fault;
  if (fs::symlink_status(path, fault).type() != fs::file_type::symlink) return;
  const fs::file_status status = fs::status(path, fault);
  if (fs::exists(status)) return;
  std::error_code ignored;
  const std::string target = fs::read_symlink(path, ignored).string();
  throw UserError(path.string(),
                  status.type() == fs::file_type::not_found
                      ? fmt::format("is a link to \"{}\", which is not there", target)
                      : fmt::format("is a link to \"{}\", which cannot be followed: {}", target, fault.message()),
                  hint_for(path));
}

}  // namespace tessera
