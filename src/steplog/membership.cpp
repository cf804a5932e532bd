#include "steplog/membership.h"

#include "core/error.h"

namespace tessera {
namespace {

class FixedMembership final : public Membership {
 public:
  FixedMembership(uint32_t machine, uint32_t machines) : machine_(machine), machines_(machines) {}
  uint32_t machine() const override { return machine_; }
  uint32_t machines() const override { return machines_; }

 private:
  uint32_t machine_, machines_;
};

}  // namespace

std::unique_ptr<Membership> fixed_membership(int64_t machine, int64_t machines) {
  return std::make_unique<FixedMembership>(static_cast<uint32_t>(machine), static_cast<uint32_t>(machines));
}

}  // namespace tessera
