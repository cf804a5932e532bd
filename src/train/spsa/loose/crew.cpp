#include "train/spsa/loose/crew.h"

#include <cstring>

#include "core/error.h"
#include "steplog/wire.h"
#include "train/divergence.h"
#include "train/spsa/restored_run.h"
#include "train/spsa/spsa_inputs.h"

namespace tessera {
namespace {

/// @param bytes  CrewOrder | the state, or records with their u32 lengths in front
CrewOrder order_of(std::span<const std::byte> bytes) {
  CrewOrder order;
  TS_CHECK(bytes.size() >= sizeof(order), "an order of {} bytes", bytes.size());
  std::memcpy(static_cast<void*>(&order), bytes.data(), sizeof(order));
  return order;
}

/// For ranks of one job: the same program on the same kind of machine.
std::vector<std::byte> bytes_of(const Probed& probed) {
  std::vector<std::byte> bytes(sizeof(double) + sizeof(int64_t) + probed.bytes.size());
  std::memcpy(bytes.data(), &probed.loss, sizeof(double));
  std::memcpy(bytes.data() + sizeof(double), &probed.scored, sizeof(int64_t));
  std::memcpy(bytes.data() + sizeof(double) + sizeof(int64_t), probed.bytes.data(), probed.bytes.size());
  return bytes;
}

Probed probed_of(std::span<const std::byte> bytes) {
  Probed probed;
  std::memcpy(&probed.loss, bytes.data(), sizeof(double));
  std::memcpy(&probed.scored, bytes.data() + sizeof(double), sizeof(int64_t));
  for (const std::byte b : bytes.subspan(sizeof(double) + sizeof(int64_t)))
    probed.bytes.push_back(std::to_integer<uint8_t>(b));
  return probed;
}

void require_same_digest(Communicator& world, const StateDigest& digest) {
  require_equal(world, "the digests of the trained weights", digest.text());
}

/// The step of a rank that has neither the engine nor the log.
class CrewStepper final : public Stepper {
 public:
  CrewStepper(const TrainerInputs& in, const SpsaInputs& spsa, const SpsaConfig& config)
      : in_(in), spsa_(spsa), config_(config), replica_(spsa.header, in.model.pool().trainable()) {}

  std::optional<Restored> restore() override {
    const CrewOrder order = receive();
    if (replica_.round() == 0) return std::nullopt;
    auto run = restored_run(in_, replica_, nullptr, {config_.rows_of_machine(in_.config.train.batch), order.machines});
    run.steps = replica_.header().terms->rounds;
    return run;
  }

  std::optional<StepReport> take(int64_t) override {
    for (;;) {
      const CrewOrder order = receive();
      if (order.kind == CrewOrder::Kind::left) return std::nullopt;
      if (order.kind == CrewOrder::Kind::measure) measure(order);
      if (order.kind != CrewOrder::Kind::step_done) continue;
      StepReport report;
      report.loss = order.loss;
      report.lr = order.lr;
      report.rows = order.rows;
      report.scored = order.scored;
      report.stop = order.stop;
      return report;
    }
  }

  void checkpoint(const CheckpointMeta&, bool) override {}
  std::string way_out_of_divergence() const override { return lower_rate_from_start(in_); }

  void finish() override {
    receive();
    require_same_digest(in_.world, replica_.digest(in_.ctx));
  }

 private:
  /// The weights are those of rank 0 when this returns.
  CrewOrder receive() {
    std::vector<std::byte> bytes;
    in_.world.broadcast(bytes, 0);
    const CrewOrder order = order_of(bytes);
    const auto rest = std::span(bytes).subspan(sizeof(order));
    if (rest.empty()) return order;
    if (order.has_state)
      replica_.unpack(rest);
    else
      apply(rest);
    in_.model.assemble(in_.ctx);
    return order;
  }

  void apply(std::span<const std::byte> bytes) {
    std::vector<Record> records;
    for (ByteReader reader(bytes); !reader.rest().empty();) {
      const auto length = reader.get<uint32_t>();
      const auto decoded = decode_record(reader.take(length));
      TS_CHECK(std::holds_alternative<Record>(decoded), "rank 0 has read a record of {} bytes", length);
      records.push_back(std::get<Record>(decoded));
    }
    replica_.apply(in_.ctx, records);
  }

  void measure(const CrewOrder& order) {
    const Voter voter({.ctx = in_.ctx,
                       .data = in_.data,
                       .train = in_.config.train,
                       .spsa = config_,
                       .header = replica_.header(),
                       .prober = *spsa_.prober},
                      order.machine, order.lane);
    (void)measure_together(in_.world, voter, replica_.header(), order.round, order.unit);
  }

  const TrainerInputs& in_;
  const SpsaInputs& spsa_;
  const SpsaConfig& config_;
  Replica replica_;
};

}  // namespace

Measured measure_together(Communicator& world, const Voter& voter, const RunHeader& header, uint32_t round, int unit) {
  std::vector<std::byte> mine;
  const auto ranks = static_cast<size_t>(world.size()), probes = static_cast<size_t>(header.m);
  for (size_t s = static_cast<size_t>(world.rank()); s < probes; s += ranks) {
    const auto bytes = bytes_of(voter.probe(round, unit, static_cast<uint16_t>(s)));
    mine.insert(mine.end(), bytes.begin(), bytes.end());
  }
  const auto shares = world.all_gather(mine);
  const size_t size = sizeof(double) + sizeof(int64_t) + static_cast<size_t>(header.bytes_per_probe());
  std::vector<Probed> all;
  for (size_t s = 0; s < probes; ++s)
    all.push_back(probed_of(std::span(shares[s % ranks]).subspan(s / ranks * size, size)));
  return measured_of(all);
}

void CrewLeader::send(CrewOrder order) {
  order.has_state = has_new_state_;
  std::vector<std::byte> bytes(sizeof(order));
  std::memcpy(bytes.data(), &order, sizeof(order));
  if (has_new_state_) {
    const auto state = replica_.pack();
    bytes.insert(bytes.end(), state.begin(), state.end());
  } else {
    ByteWriter writer;
    for (const Bytes& record : records_) {
      writer.put(static_cast<uint32_t>(record.size()));
      writer.put(record);
    }
    bytes.insert(bytes.end(), writer.bytes().begin(), writer.bytes().end());
  }
  has_new_state_ = false;
  records_.clear();
  world_.broadcast(bytes, 0);
}

Measured CrewLeader::measure(const Voter& voter, uint32_t round, int unit, uint32_t machine, uint32_t lane) {
  send({.kind = CrewOrder::Kind::measure, .round = round, .machine = machine, .lane = lane, .unit = unit});
  return measure_together(world_, voter, replica_.header(), round, unit);
}

void CrewLeader::end_step(const StepReport& report) {
  send({.kind = CrewOrder::Kind::step_done,
        .stop = report.stop,
        .lr = report.lr,
        .loss = report.loss,
        .rows = report.rows,
        .scored = report.scored});
}

void CrewLeader::finish(const StateDigest& digest) {
  send({.kind = CrewOrder::Kind::level});
  require_same_digest(world_, digest);
}

std::unique_ptr<Stepper> make_crew_stepper(const TrainerInputs& in, const SpsaInputs& spsa, const SpsaConfig& config) {
  return std::make_unique<CrewStepper>(in, spsa, config);
}

}  // namespace tessera
