#include "train/spsa/loose/membership_desk.h"

#include <algorithm>

#include "core/direction.h"
#include "core/error.h"
#include "io/sha256.h"

namespace tessera {

MembershipDesk::MembershipDesk(std::filesystem::path file, std::string node, const std::string& run_name,
                               const RunId& run, std::function<uint32_t()> draw)
    : file_(std::move(file)), run_(run.prefix()), draw_(std::move(draw)) {
  const std::string id = hex_text(run.sha256);
  const auto kept = NodeFile::read(file_);
  if (kept && kept->run == id && kept->run_name != run_name)
    throw UserError(
        file_.string(),
        fmt::format("this folder's run is \"{}\" at the server, and spsa.name is \"{}\"", kept->run_name, run_name),
        "set spsa.name as it was, or take another run.dir");
  has_number_ = kept && kept->run == id && kept->name == node;
  node_ = has_number_ ? *kept : NodeFile{.name = std::move(node), .run = id, .run_name = run_name};
}

std::optional<uint32_t> MembershipDesk::lane(const RecentRounds& recent) const {
  if (!has_number_) return std::nullopt;
  return lane_of(recent.roster(), node_.machine);
}

void MembershipDesk::draw_number(const RecentRounds& recent) {
  const auto is_free = [&](uint32_t number) {
    return number < kReservedMachines && !recent.former().contains(number) && !lane_of(recent.roster(), number);
  };
  do {
    node_.machine = draw_();
  } while (!is_free(node_.machine));
  node_.last_seed_round = -1;
  node_.vote.clear();
  has_number_ = true;
  node_.write(file_);
  asked_.reset();
}

void MembershipDesk::ask(LogEngine& engine, const RecentRounds& recent, Time now, RoundClock::Seconds patience,
                         const std::function<Owner(uint32_t)>& owner_of) {
  const Owner owner = has_number_ ? owner_of(node_.machine) : Owner::nobody;
  if (lane(recent) && owner == Owner::this_node) return;
  if (!has_number_ || recent.former().contains(node_.machine) || owner == Owner::another) draw_number(recent);
  if (asked_ && now - *asked_ < patience) return;
  asked_ = now;
  engine.publish_control(encode(RosterRequest{RosterRequest::Kind::join, run_, node_.machine}));
}

void MembershipDesk::leave(LogEngine& engine) const {
  if (has_number_) engine.publish_control(encode(RosterRequest{RosterRequest::Kind::leave, run_, node_.machine}));
}

void MembershipDesk::note_vote(uint32_t round, Bytes message) {
  node_.last_seed_round = round;
  node_.vote = std::move(message);
  node_.write(file_);
}

const Bytes* MembershipDesk::vote_of(uint32_t round) const {
  return node_.last_seed_round == int64_t{round} && !node_.vote.empty() ? &node_.vote : nullptr;
}

}  // namespace tessera
