#include "cli/spsa_run.h"

#include <unistd.h>

#include <array>
#include <cctype>

#include "cli/going_on.h"
#include "cli/run_path.h"
#include "core/error.h"
#include "io/files.h"
#include "io/json_file.h"
#include "model/config_fingerprint.h"
#include "steplog/log_header.h"
#include "train/divergence.h"
#include "train/spsa/figures.h"
#include "train/spsa/header_changes.h"
#include "train/spsa/spsa_estimator.h"
#include "train/spsa/spsa_inputs.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

/// run.json beside a log: the recipe and data that the log's rounds are made with.
struct KeptRun {
  fs::path file, header;  // header: of the log
};
KeptRun kept_by_run(const fs::path& run_path) { return {run_path / "run.json", run_path / "log" / "header.json"}; }
KeptRun kept_by_shared(const fs::path& shared) { return {shared / "run.json", shared / "header.json"}; }

std::optional<CheckpointMeta> meta_of(const KeptRun& kept) {
  if (!fs::exists(kept.header) || !fs::exists(kept.file)) return std::nullopt;
  CheckpointMeta saved;
  constexpr const char* kMend =
      "put back a copy, or remove it: the same recipe then goes on by the log's header, and nothing tells of other data";
  with_mend(kept.file, kMend, [&] {
    const Json json = read_configuration(kept.file);
    for (const auto& [key, value] : json.at("recipe").members()) saved.recipe.emplace_back(key, value.as_string());
    saved.data_hash = json.at("data_hash").as_string();
    saved.base_fingerprint = json.at("base").as_string();
    saved.rules = json.find("rules") ? rules_of(json.at("rules").as_integer()) : Rules::first;
    if (const Json* config = json.find("config")) saved.config_fingerprint = config->as_string();
  });
  return saved;
}

/// Compared when a run goes on, and by each process that shares a folder with others.
void require_same_spsa_run(const StartingRun& starting, const KeptRun& kept) {
  const auto saved = meta_of(kept);
  if (!saved) return;
  const GoingOn going{.saved = *saved, .file = kept.file};
  require_same_run(starting.in, starting.data, going);
  require_same_content(starting.in, starting.model, starting.base, going);
}

/// What the log's header holds is the recipe's: of a branch, which has no run.json before it is trained, and of a run
/// whose run.json is gone. @throws UserError listing every key that has another value, in the recipe's words
void require_same_header(const StartingRun& starting, const fs::path& file, const RunHeader& header) {
  if (!fs::exists(file)) return;
  std::string text;
  for (const HeaderChange& change : header_changes(RunHeader::parse(read_text_file(file), file.string()), header))
    text += change_in_words(change.key, change.before, change.now) + "\n";
  if (!text.empty())
    throw UserError(file.string(), "this run cannot go on with another recipe",
                    fmt::format("{}undo the change, or {}", text, start_anew(starting.in)));
}

/// The same for the folder that processes share, in words for those who come later.
void require_same_as_peers(const StartingRun& starting, const KeptRun& shared, const RunHeader& header) {
  const JobConfig& config = starting.in.config;
  try {
    require_same_spsa_run(starting, shared);
    require_same_header(starting, shared.header, header);
  } catch (const UserError& error) {
    const size_t end = error.hint().rfind('\n');  // behind the keys that differ
    throw UserError(
        error.where(), "the processes that share this folder have another recipe, other data or another base",
        fmt::format("{}\ngive all of them the same, or name other folders with {}{}",
                    end == std::string::npos ? error.message() : error.hint().substr(0, end),
                    spsa_config(config.trainer).shared.empty() ? "run.dir" : "spsa.shared and run.dir",
                    config.run.resume == "never" ? ": run.resume=never leaves the shared folder as it is" : ""));
  }
}

/// A log that is begun, or that a branch brought along, is this recipe's from now on.
void keep_spsa_run(const StartingRun& starting, const KeptRun& kept, const std::string& header) {
  const bool has_log = fs::exists(kept.header);
  if (has_log && (fs::exists(kept.file) || read_text_file(kept.header) != header))
    return;  // another header is refused later on
  Json recipe = Json::object();
  for (const auto& [key, value] : starting.in.recipe.flat()) recipe.set(key, value);
  Json run = Json::object()
                 .set("base", starting.base)
                 .set("config", config_fingerprint(starting.model.config()))
                 .set("data_hash", starting.data.hash())
                 .set("recipe", recipe);
  if (starting.rules != Rules::first) run.set("rules", static_cast<int64_t>(starting.rules));
  write_text_file(kept.file, run.dump(1) + "\n");
}

void refuse_own_as_shared(const fs::path& shared, const fs::path& run_path) {
  for (const fs::path& own : {run_path, run_path / "log"})
    if (fs::weakly_canonical(shared) == fs::weakly_canonical(own))
      throw UserError("spsa.shared", fmt::format("\"{}\" is what this machine writes alone", own.string()),
                      "name a folder beside it, or leave it out");
}

/// The folder that the processes of a run share.
fs::path shared_folder(const JobInputs& in) {
  const SpsaConfig& spsa = spsa_config(in.config.trainer);
  return spsa.shared.empty() ? run_folder_path(in) / "engine" : spsa.shared;
}

std::string name_of_host() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

/// A name as servers take it: what else stands in it becomes "-".
std::string as_name(std::string text) {
  for (char& c : text)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '_') c = '-';
  return text;
}

NatsSettings nats_settings(const JobInputs& in) {
  const LooseConfig& loose = spsa_config(in.config.trainer).loose;
  NatsSettings settings;
  settings.servers = loose.server;
  settings.name = loose.name.empty() ? as_name(in.recipe.name()) : loose.name;
  settings.node = loose.node.empty() ? as_name(name_of_host()) : loose.node;
  settings.credentials = loose.credentials;
  settings.tls_ca = loose.tls_ca;
  settings.tls_cert = loose.tls_cert;
  settings.tls_key = loose.tls_key;
  settings.require_header = [](const std::string& there, const std::string& here) {
    std::string text;
    for (const HeaderChange& change :
         header_changes(RunHeader::parse(there, spsa_key("name")), RunHeader::parse(here, "the run's header")))
      text += change_in_words(change.key, change.before, change.now) + "\n";
    if (!text.empty())
      throw UserError(spsa_key("name"), "the run of this name at the server has another recipe",
                      text + "undo the change, or choose another name");
  };
  check(settings);
  return settings;
}

std::optional<Rules> rules_of_log(const fs::path& log) {
  const fs::path header = log / "header.json";
  if (!fs::exists(header)) return std::nullopt;
  return RunHeader::parse(read_text_file(header), header.string()).rules;
}

/// This process's number in the shared folder. The first process there makes the log and says whose it is.
std::unique_ptr<Seat> take_seat(const StartingRun& starting, const SpsaInputs& spsa, const Transport& transport,
                                const RunHeader& header) {
  refuse_own_as_shared(spsa.shared, starting.path);
  const KeptRun kept = kept_by_shared(spsa.shared);
  return std::make_unique<Seat>(spsa.shared, spsa.members->machine(), spsa.members->machines(), [&] {
    require_same_as_peers(starting, kept, header);
    transport.make({.world = starting.in.world, .folder = spsa.shared, .header_json = header.text()});
    keep_spsa_run(starting, kept, header.text());
  });
}

/// The header and every record, as they are read when a run goes on.
void look_at_log(const fs::path& folder) {
  refuse_headerless_records(folder);
  if (!has_log_header(folder)) return;
  RunHeader::parse(read_log_header(folder), (folder / "header.json").string());
  StepLog::open(folder, {.access = StepLog::Access::read});
}

/// A log that leads back to every round, and the recipe and figures beside it.
class SpsaRun final : public EstimatorRun {
 public:
  fs::path own_path(const JobInputs& in) const override {
    const fs::path folder = run_folder_path(in);
    const Transport& transport = transport_of(in);
    const uint32_t machine = members_of(in)->machine();
    return transport.shares_folder() && machine > 0 ? folder / fmt::format("machine-{:05}", machine) : folder;
  }

  Leaves leaves() const override { return {.files = {"run.json", kFiguresFile}, .folders = {"log"}}; }

  void look(const JobInputs& in, const fs::path& run) const override {
    look_at_log(run / "log");
    if (transport_of(in).shares_folder()) look_at_log(shared_folder(in));
  }

  std::optional<Rules> known_rules(const JobInputs& in, const fs::path&, const fs::path& run) const override {
    if (const auto own = rules_of_log(rank_log_folder(run, in.world.rank()))) return own;
    return transport_of(in).shares_folder() ? rules_of_log(shared_folder(in)) : std::nullopt;
  }

  bool can_be_lengthened() const override { return false; }  // its log has ended

  /// The run's header, the same on every rank, and what probes with.
  std::unique_ptr<Preparation> prepare(const StartingRun& starting) const override {
    const JobInputs& in = starting.in;
    const SpsaConfig& config = spsa_config(in.config.trainer);
    auto spsa = std::make_unique<SpsaInputs>();
    spsa->members = members_of(in);
    spsa->shared = shared_folder(in);
    if (transport_of(in).is_loose()) spsa->nats = nats_settings(in);
    std::string text;
    if (in.world.rank() == 0) {
      const KeptRun own = kept_by_run(starting.path);
      require_same_spsa_run(starting, own);
      const RunHeader header =
          make_header(config, in.config.trainer.train, in.config.trainer.optimizer, starting.model, starting.base,
                      static_cast<int>(spsa->members->machines()), starting.rules, starting.path / "log", starting.ctx);
      require_same_header(starting, own.header, header);
      text = header.text();
      if (const Transport& transport = transport_of(in); transport.shares_folder())
        spsa->seat = take_seat(starting, *spsa, transport, header);
      // A header that the server refuses must leave nothing in the folder.
      if (transport_of(in).is_loose())
        spsa->accepted = [starting, own, text] { keep_spsa_run(starting, own, text); };
      else
        keep_spsa_run(starting, own, text);
    }
    spsa->header = RunHeader::parse(broadcast_text(in.world, text), "the run's header");
    spsa->prober = make_prober(config, starting.model);
    return spsa;
  }

  std::string how_to_write_f32(const fs::path& run, int64_t) const override {
    return fmt::format("job=replay model.dtype=f32 {} run.dir=FOLDER writes them in f32",
                       shell_word("replay.log=" + run.string()));
  }

 private:
  static const Transport& transport_of(const JobInputs& in) {
    return transport_named(spsa_config(in.config.trainer).transport);
  }
  static std::unique_ptr<Membership> members_of(const JobInputs& in) {
    return transport_of(in).join(standing_of(spsa_config(in.config.trainer), in.share));
  }
};

}  // namespace

const EstimatorRun& spsa_run() {
  static const SpsaRun run;
  return run;
}

std::optional<CheckpointMeta> meta_of_log(const fs::path& run_path) { return meta_of(kept_by_run(run_path)); }

}  // namespace tessera
