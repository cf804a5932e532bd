#include "comm/fault_together.h"

#include <cstring>

#include "core/json.h"

namespace tessera {

std::optional<UserError> user_fault_of(const std::function<void()>& work) {
  try {
    work();
    return std::nullopt;
  } catch (const UserError& error) {
    return error;
  }
}

void throw_together(Communicator& world, const std::optional<UserError>& mine) {
  const std::string text =
      mine ? Json(Json::Array{Json(mine->where()), Json(mine->message()), Json(mine->hint())}).dump() : "";
  for (const auto& bytes : world.all_gather(std::as_bytes(std::span(text)))) {
    if (bytes.empty()) continue;
    const Json fault =
        Json::parse(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()), "a rank's error");
    const auto& parts = fault.items();
    throw UserError(parts[0].as_string(), parts[1].as_string(), parts[2].as_string());
  }
}

}  // namespace tessera
