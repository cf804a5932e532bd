#pragma once
// The recipe's section on one-byte SPSA.

// The keys of [spsa].

#include "core/fields.h"
#include "steplog/transport.h"
#include "train/spsa/loose/loose_config.h"
#include "train/spsa/privacy/privacy_config.h"

namespace tessera {

/// [spsa]: one-byte SPSA, forward passes only (train.estimator = "spsa").
struct SpsaConfig {
  int64_t probes = 16, pool_size = 4096, clip = 8, side_by_side = 2, digest_every = 256, machine = 0, machines = 1;
  // How far a probe goes; every weight moves by eps, since directions are of +1 and -1.
  double eps = 1e-3;
  std::optional<int64_t> unit;
  bool adapt_unit = true, normalise = false, log_loss = true;
  std::string sides = "two", votes = "byte", directions = "independent", perturb = "auto", transport = "auto",
              logs = "node", compact = "keep", aggregate = "sum";
  int64_t trim_percent = 10;
  std::filesystem::path shared;
  LooseConfig loose;
  PrivacyConfig privacy;  // a section of its own

  /// Votes are multiples of 2^-unit: 9, or 6 for normalised votes.
  int unit_exponent() const { return static_cast<int>(unit.value_or(normalise ? 6 : 9)); }

  /// Rounds that a vote may be late by.
  int64_t stale_max() const { return loose.stale_max.value_or(transport_named(transport).is_loose() ? 2 : 0); }

  /// Rows that a machine takes in a round. @param batch  of a probe
  int64_t rows_of_machine(int64_t batch) const { return batch * (sides == "one" ? 1 : probes); }

  void visit(Fields& v) {
    v("probes", probes, in_range(1, 255), "directions that each machine (rank) tries in a round: votes, a byte each");
    v("eps", eps, above(0), "how far a probe goes along its direction: loss at w + eps z and w - eps z");
    v("sides", sides, one_of({"two", "one"}),
      "two: each probe looks both ways, on rows of its own; one: the probes of a round share their rows and the loss at w: "
      "probes + 1 passes in place of 2 probes",
      OnResume::in_branch);
    v("votes", votes, one_of({"byte", "sign", "float32"}),
      "byte: eight bits a gradient; sign: its sign; float32: four bytes, to compare with");
    v("normalise", normalise, anything(),
      "sides = \"one\": votes are divided by the deviation of the machine's losses");
    v("unit", unit, in_range(-20, 30),
      "a vote is a multiple of 2^-unit: byte votes reach from there to 245760 times as much; default 9, normalised 6");
    v("adapt_unit", adapt_unit, anything(), "move the unit when the votes leave the range in which the byte is best");
    v("clip", clip, in_range(0, 1000),
      "largest vote, in medians of the round's votes (from 8 votes on); 0: no clipping");
    v("directions", directions, one_of({"independent", "shared", "pool", "hadamard"}),
      "independent: each vote its own; shared: all machines try the same; pool: pool_size directions for the whole run; "
      "hadamard: orthogonal in a round, an update costs the same for any number of votes");
    v("aggregate", aggregate, one_of({"sum", "median", "trimmed"}),
      "directions = \"shared\": what the machines' votes for one direction become; median and trimmed bear voters that lie");
    v("trim_percent", trim_percent, in_range(0, 49), "aggregate = \"trimmed\": share left out at each end");
    v("pool_size", pool_size, in_range(1, 65536), "directions = \"pool\": how many");
    v("perturb", perturb, one_of({"auto", "copies", "layers"}),
      "copies: of the trained values, one a point; layers: each matrix just before it is used; auto: copies for adapters",
      OnResume::free);
    v("side_by_side", side_by_side, in_range(1, 64), "points evaluated in one pass, which reads frozen weights once",
      OnResume::free);
    v("transport", transport, one_of(transport_choices()), transport_help(), OnResume::in_branch);
    v("shared", shared, path_as_typed(), "transport = \"file\": the folder; empty: engine in run.dir", OnResume::free);
    v("machine", machine, in_range(0, 0xfffffe), "transport = \"file\": this process's number, 0 .. machines-1",
      OnResume::free);
    v("machines", machines, in_range(1, 65535), "transport = \"file\": how many processes vote", OnResume::free);
    v("logs", logs, one_of({"node", "every"}), "who keeps a copy of the log: a rank of each node, or every rank",
      OnResume::free);
    v("log_loss", log_loss, anything(),
      "the log keeps the machines' mean losses, two bytes a machine and round; false: only metrics.jsonl tells of them",
      OnResume::in_branch);
    v("digest_every", digest_every, at_least(1), "rounds between checks that all machines hold the same bits");
    v("compact", compact, one_of({"keep", "archive", "drop"}),
      "rounds before the oldest kept snapshot: keep them, archive (the same rounds in fewer bytes), or drop them",
      OnResume::free);
    loose.visit(v);
  }
};

}  // namespace tessera
