#include "comm/communicator.h"

namespace tessera {

std::string broadcast_text(Communicator& world, const std::string& chosen) {
  std::vector<std::byte> bytes(reinterpret_cast<const std::byte*>(chosen.data()),
                               reinterpret_cast<const std::byte*>(chosen.data()) + chosen.size());
  world.broadcast(bytes, 0);
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

}  // namespace tessera
