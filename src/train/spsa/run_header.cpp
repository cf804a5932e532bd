// The text names the run by its hash. So it has to come out the same wherever it is written: keys in alphabetical
// order, floats as the hexadecimal of their bits, and no key that older programs did not write unless it says something
// new.

#include "train/spsa/run_header.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/error.h"
#include "core/hex.h"
#include "core/json.h"
#include "io/json_file.h"
#include "train/optimizers/optimizer.h"

namespace tessera {
namespace {

constexpr const char* kVotes[] = {"byte", "sign", "float32"};
constexpr const char* kFamilies[] = {"independent", "shared", "pool", "hadamard"};

template <size_t N> int index_of(const char* const (&names)[N], const std::string& name) {
  for (size_t i = 0; i < N; ++i)
    if (name == names[i]) return static_cast<int>(i);
  throw UserError("", fmt::format("\"{}\" is not known", name));
}

Json with_terms(const Json& header, const HeaderTerms& terms) {
  Json::Object members = header.members();
  for (auto& member : members_of(terms)) members.push_back(std::move(member));
  std::ranges::sort(members, {}, [](const auto& member) -> const std::string& { return member.first; });
  return Json(std::move(members));
}

}  // namespace

std::string RunHeader::text() const {
  Json tensors = Json::array();
  for (const std::string& line : manifest) tensors.push_back(line);
  Json json = Json::object()
                  .set("adapt_unit", adapt_unit)
                  .set("adam_eps", hex_bits(adam_eps))
                  .set("base", base)
                  .set("beta1", hex_bits(beta1))
                  .set("beta2", hex_bits(beta2))
                  .set("clip", clip)
                  .set("digest_every", digest_every)
                  .set("directions", kFamilies[static_cast<int>(family)])
                  .set("eps", hex_bits(eps))
                  .set("format", int64_t{format()})
                  .set("lanes", lanes)
                  .set("manifest", tensors)
                  .set("momentum", hex_bits(momentum))
                  .set("optimizer", optimizer)
                  .set("parent", parent)
                  .set("probes", m);
  // In its alphabetical place, and only where it says something: headers of older runs keep their hash.
  if (rules != Rules::first) json.set("rules", static_cast<int64_t>(rules));
  json.set("seed", fmt::format("{:016x}", seed))
      .set("selection", selection)
      .set("stale_max", stale_max)
      .set("start", start)
      .set("unit", int64_t{unit})
      .set("votes", kVotes[static_cast<int>(votes)]);
  return (terms ? with_terms(json, *terms) : json).dump(1) + "\n";
}

RunHeader RunHeader::parse(const std::string& text, const std::string& where) {
  RunHeader h;
  with_place(where, [&] {
    const Json json = parse_configuration(text, where);
    const int64_t format = json.at("format").as_integer();
    if (format < 1 || format > 2)
      throw UserError("", fmt::format("the log has format {}, this program reads 1 and 2", format));
    h.adapt_unit = json.at("adapt_unit").as_bool();
    h.adam_eps = double_of_hex(json.at("adam_eps").as_string());
    h.base = json.at("base").as_string();
    h.beta1 = double_of_hex(json.at("beta1").as_string());
    h.beta2 = double_of_hex(json.at("beta2").as_string());
    h.clip = json.at("clip").as_integer();
    h.digest_every = json.at("digest_every").as_integer();
    h.family = static_cast<Family>(index_of(kFamilies, json.at("directions").as_string()));
    h.eps = double_of_hex(json.at("eps").as_string());
    h.lanes = json.at("lanes").as_integer();
    for (const Json& line : json.at("manifest").items()) h.manifest.push_back(line.as_string());
    h.momentum = double_of_hex(json.at("momentum").as_string());
    h.optimizer = json.at("optimizer").as_string();
    h.parent = json.at("parent").as_string();
    h.m = json.at("probes").as_integer();
    if (const Json* rules = json.find("rules")) h.rules = rules_of(rules->as_integer());
    h.seed = std::bit_cast<uint64_t>(double_of_hex(json.at("seed").as_string()));
    h.selection = json.at("selection").as_string();
    h.stale_max = json.at("stale_max").as_integer();
    h.start = json.at("start").as_string();
    const int64_t unit = json.at("unit").as_integer();
    h.votes = static_cast<VoteKind>(index_of(kVotes, json.at("votes").as_string()));
    if (format == 2) h.terms = terms_of(json);
    // A header may come from anywhere: what later arithmetic relies on is checked here, once.
    const auto require = [](bool holds, const std::string& what) {
      if (!holds) throw UserError("", what, "the header was altered, or another program wrote it");
    };
    require(h.eps > 0 && std::isfinite(h.eps), fmt::format("eps is {}, it must be above 0", h.eps));
    // A vote's bytes are counted in a u8.
    require(h.m >= 1 && h.m <= 255 / h.bytes_per_probe(), fmt::format("{} probes, a vote holds 1 to 255 bytes", h.m));
    require(unit >= -20 && unit <= 30, fmt::format("unit {} is outside -20 .. 30", unit));
    h.unit = static_cast<int>(unit);
    require(h.clip >= 0 && h.clip <= 1000 && h.stale_max >= 0 && h.stale_max < 16 && h.digest_every >= 1,
            "clip, stale_max or digest_every is out of range");
    require(find_optimizer_kind(h.optimizer), fmt::format("the optimizer \"{}\" is not known", h.optimizer));
    for (const double decay : {h.momentum, h.beta1, h.beta2})
      require(decay >= 0 && decay < 1, fmt::format("momentum or a beta is {}, it must be 0 to 1", decay));
    require(h.adam_eps > 0 && std::isfinite(h.adam_eps), fmt::format("adam_eps is {}, it must be above 0", h.adam_eps));
    const bool power = h.lanes > 0 && (h.lanes & (h.lanes - 1)) == 0;
    require(h.family != Family::hadamard || (power && h.lanes <= 8192),
            fmt::format("K is {}, it must be a power of two up to 8192", h.lanes));
    require(!h.is_robust() || h.family == Family::shared,
            "votes along different directions cannot be compared: an aggregate other than sum needs directions = "
            "\"shared\"");
    require(h.family != Family::pool || (h.lanes >= 1 && h.lanes <= 65536),
            fmt::format("K is {}, it must be 1 to 65536", h.lanes));
  });
  return h;
}

namespace {

std::string adaptive_steps_of(const TrainableSlot& slot) {
  std::string text;
  for (const StepPiece& piece : slot.adaptive_steps) text += fmt::format(" to {} x {}", piece.end, piece.scale);
  return text.empty() ? "" : ", adaptive steps" + text;
}

}  // namespace

std::vector<std::string> manifest_of(const FlatParams& params) {
  std::vector<std::string> lines;
  for (const TrainableSlot& slot : params.slots)
    lines.push_back(fmt::format(
        "{} {} from {}{}{}{}", slot.name, slot.shape.text(), slot.begin, slot.weight_decay ? "" : " no decay",
        slot.step_scale == 1 ? "" : fmt::format(" step x {}", slot.step_scale), adaptive_steps_of(slot)));
  return lines;
}

void require_same_manifest(const RunHeader& header, const FlatParams& params, const std::string& where) {
  // Compared as text, line by line: all that decides what a weight's number means is in it.
  const auto mine = manifest_of(params);
  // The first line that differs: a name, a shape, a start or a factor.
  const auto pair = std::mismatch(mine.begin(), mine.end(), header.manifest.begin(), header.manifest.end());
  if (pair.first == mine.end() && pair.second == header.manifest.end()) return;
  const auto show = [](auto it, const auto& list) {
    return it == list.end() ? std::string("nothing") : "\"" + *it + "\"";
  };
  throw UserError(where, "the log belongs to other tensors than the recipe's model trains",
                  fmt::format("the first that differs: the log has {}, the model {}\nset [adapter], [sharing], "
                              "train.freeze and model.path as the run had them",
                              show(pair.second, header.manifest), show(pair.first, mine)));
}

Direction direction_of(const RunHeader& h, uint32_t round, uint32_t machine, uint32_t lane, uint16_t sample) {
  switch (h.family) {
    case Family::independent:
      return {.seed = h.seed, .round = round, .machine = machine, .sample = sample};
    // One stream for all: probe k of every machine goes the same way, on other rows.
    case Family::shared:
      return {.seed = h.seed, .round = round, .machine = kSharedStream, .sample = sample};
    case Family::pool: {
      // Which of the K directions a probe tries is drawn, and is the same for everyone who knows round, machine and
      // sample.
      const uint64_t key = hash_key({h.seed, kSeedPoolStream, round, machine});
      const uint64_t k = draw_below(key, sample, static_cast<uint64_t>(h.lanes));
      return {.seed = h.seed, .round = 0, .machine = kSeedPoolStream, .sample = static_cast<uint16_t>(k)};
    }
    case Family::hadamard: {
      // The votes of a round are counted through all machines. K of them share signs, orthogonal rows and a group.
      const uint64_t place = uint64_t{lane} * static_cast<uint64_t>(h.m) + sample;
      const auto lanes = static_cast<uint32_t>(h.lanes);
      return {.seed = h.seed,
              .round = round,
              .machine = kHadamardStream,
              .sample = static_cast<uint16_t>(place / lanes),
              .lane = static_cast<uint32_t>(place % lanes),
              .lanes = lanes};
    }
  }
  return {};
}

}  // namespace tessera
