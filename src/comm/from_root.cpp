#include "comm/from_root.h"

#include "comm/fault_together.h"

namespace tessera {

std::string from_root(Communicator& world, const std::function<std::string()>& find) {
  if (world.size() == 1) return find();
  std::string found;
  std::optional<UserError> fault;
  if (world.rank() == 0) fault = user_fault_of([&] { found = find(); });
  throw_together(world, fault);
  return broadcast_text(world, found);
}

}  // namespace tessera
