#include "comm/from_root.h"

#include "core/error.h"
#include "core/json.h"

namespace tessera {
namespace {

Json found_or_refused(const std::function<std::string()>& find) {
  try {
    return Json::object().set("found", find());
  } catch (const UserError& error) {
    return Json::object().set("where", error.where()).set("what", error.message()).set("hint", error.hint());
  }
}

}  // namespace

std::string from_root(Communicator& world, const std::function<std::string()>& find) {
  if (world.size() == 1) return find();
  const std::string text = broadcast_text(world, world.rank() == 0 ? found_or_refused(find).dump() : "");
  const Json told = Json::parse(text, "what rank 0 has sent");
  if (const Json* found = told.find("found")) return found->as_string();
  throw UserError(told.at("where").as_string(), told.at("what").as_string(), told.at("hint").as_string());
}

}  // namespace tessera
