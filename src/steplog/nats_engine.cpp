// The library's threads put what arrives into a mailbox. All else happens in the caller's thread, when it calls:
// messages are taken in, and whatever the connection or the server has lost is asked for again.

#include "steplog/nats_engine.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "io/files.h"
#include "steplog/control_message.h"
#include "steplog/log_header.h"
#include "steplog/nats_mailbox.h"
#include "steplog/nats_reader.h"
#include "steplog/stream_records.h"

namespace tessera {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kHeaderSequence = 1;
constexpr int64_t kControlsKept = 64;         // of a node, in its stream
constexpr size_t kLargestRecord = 1'048'000;  // the stream's limit of 1 MiB counts the message's headers
constexpr milliseconds kHurried{1000};
constexpr milliseconds kRetry{200}, kSlice{100};  // between two tries at a server that does not do as asked; of a wait

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

std::string text_of(const Bytes& bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

class NatsEngine : public LogEngine {
 public:
  NatsEngine(const NatsSettings& settings, std::string header_json)
      : settings_(settings),
        names_(settings),
        header_json_(std::move(header_json)),
        run_(sha256_hex(header_json_).substr(0, 8)),
        connection_(settings, [box = mailbox_] { box->ring(); }),
        streams_(connection_),
        log_(reader(names_.log_stream, NatsArrival::From::log)),
        joins_(reader(names_.join_stream, NatsArrival::From::join)) {
    const auto listen = [&](const std::string& subject, NatsArrival::From from) {
      return connection_.subscribe(
          subject, [box = mailbox_, from](NatsMessage message) { box->put(from, 0, std::move(message)); });
    };
    have_subscription_ = listen(names_.haves, NatsArrival::From::have);
    vote_subscription_ = listen(names_.votes, NatsArrival::From::vote);
    // Who may not hear votes is no packer.
    may_pack_ = connection_.refusal_of(names_.votes).empty();
    if (!may_pack_) vote_subscription_ = {};
    wait_for_run();
  }

  void publish_vote(std::span<const std::byte> vote) override { send(names_.vote, vote); }

  std::vector<Bytes> take_votes() override {
    std::vector<Bytes> votes;
    for (Sent& sent : take_sent_votes()) votes.push_back(std::move(sent.bytes));
    return votes;
  }

  std::vector<Sent> take_sent_votes() override {
    take_in();
    return std::exchange(votes_, {});
  }

  void publish_control(std::span<const std::byte> message) override {
    const auto decoded = decode_control_message(message);
    const auto* control = std::get_if<ControlMessage>(&decoded);
    TS_CHECK(control, "a control message of {} bytes is well formed", message.size());
    if (std::holds_alternative<HaveRecords>(*control)) return send(names_.have, message);
    if (!connection_.connected()) return;
    traffic_.up += static_cast<int64_t>(message.size());
    try {
      // The id is of this one message: a node may say the same again, and is heard again.
      const std::string id = connection_.new_inbox();
      note(streams_.publish(names_.join, message, std::nullopt, id).trouble);
    } catch (const EngineSilent& silent) {
      note(silent.what());
    }
  }

  std::vector<Sent> take_controls() override {
    take_in();
    return std::exchange(controls_, {});
  }

  Append append(uint64_t expected, std::span<const std::byte> record) override {
    if (record.size() > kLargestRecord)
      throw UserError(
          "", fmt::format("record {} has {} bytes, and the engine takes {}", expected, record.size(), kLargestRecord),
          fmt::format("fewer probes ({}) or machines", spsa_key("probes")));
    const auto decoded = decode_record(record);
    const auto* form = std::get_if<Record>(&decoded);
    TS_CHECK(form && form->index == expected, "record {} is well formed and has this number", expected);
    const auto end = Clock::now() + settings_.patience;
    do {
      take_in();
      // What is there decides, and not what became of an earlier try.
      if (const auto same = records_.holds(expected, record)) {
        note("");
        return *same ? Append::won : Append::conflict;
      }
      if (complete() && expected != records_.next_index()) return Append::conflict;
      if (!complete())
        pump(end);
      else if (try_to_append(expected, record))
        return Append::won;
      else
        read_to_the_end(end);
    } while (!is_over(end));
    return Append::unknown;
  }

  std::vector<Bytes> read(uint64_t from) override {
    take_in();
    if (from < records_.first_kept()) {
      records_ = StreamRecords();
      log_.lose();
      mend();
      return {};
    }
    return records_.read(from);
  }

  void wait(milliseconds timeout) override {
    const auto end = Clock::now() + timeout;
    for (;;) {
      take_in();
      if (std::exchange(news_, false) || Clock::now() >= end) return;
      mailbox_->wait_until(std::min(end, Clock::now() + kSlice));
    }
  }

  LogState log_state() override {
    return {.reachable = connection_.connected(),
            .may_pack = may_pack_,
            .connections = connection_.connections(),
            .complete = complete(),
            .records = records_.next_index(),
            .gap = records_.gap(),
            .losses = losses_,
            .fork = records_.fork(),
            .last_sequence = records_.last_sequence(),
            .trouble = trouble_};
  }

 private:
  NatsReader reader(const std::string& stream, NatsArrival::From from) {
    return NatsReader(connection_, streams_, stream, [box = mailbox_, from](int64_t subscription, NatsMessage message) {
      box->put(from, subscription, std::move(message));
    });
  }

  void note(const std::string& trouble) { trouble_ = trouble; }

  void send(const std::string& subject, std::span<const std::byte> message) {
    if (connection_.publish(subject, message)) traffic_.up += static_cast<int64_t>(message.size());
  }

  bool complete() const {
    return connection_.connected() && connection_.connections() == seen_connections_ && log_.complete() &&
           !log_.lost(Clock::now());
  }

  /// Everything that has come, and what the connection lost is asked for.
  void take_in() {
    for (const NatsArrival& arrival : mailbox_->take()) take(arrival);
    mend();
  }

  /// @param end  of the server's patience. Who was asked to stop has a second of it
  bool is_over(Clock::time_point end) const {
    const auto now = Clock::now();
    return now >= end || (settings_.is_asked_to_stop() && now >= end - settings_.patience + kHurried);
  }

  void pump(Clock::time_point end) {
    mailbox_->wait_until(std::min(end, Clock::now() + kSlice));
    take_in();
  }

  void take(const NatsArrival& arrival) {
    const NatsMessage& message = arrival.message;
    switch (arrival.from) {
      case NatsArrival::From::log:
        if (const auto sequence = log_.take(arrival.subscription, message, arrival.came))
          take_record(*sequence, message);
        return;
      case NatsArrival::From::join:
        if (joins_.take(arrival.subscription, message, arrival.came)) take_sent(controls_, "join", message);
        return;
      case NatsArrival::From::vote:
        return take_sent(votes_, "vote", message);
      case NatsArrival::From::have:
        return take_sent(controls_, "have", message);
    }
  }

  void take_record(uint64_t sequence, const NatsMessage& message) {
    traffic_.down += static_cast<int64_t>(message.bytes.size());
    news_ = true;
    // A node can have the server deliver into the log what it has published elsewhere. It keeps its own subject, by
    // which everyone knows alike that it is no record.
    if (message.subject == names_.log)
      records_.take(sequence, message.bytes);
    else
      records_.skip(sequence);
  }

  void take_sent(std::vector<Sent>& list, std::string_view kind, const NatsMessage& message) {
    traffic_.down += static_cast<int64_t>(message.bytes.size());
    const auto node = names_.sender(kind, message.subject);
    if (!node) return;
    news_ = true;
    list.push_back({*node, message.bytes});
  }

  /// After a new connection, and when a reader has lost its way.
  void mend() {
    connection_.check_open();
    const auto now = Clock::now();
    if (!connection_.connected() || now < next_try_) return;
    if (connection_.connections() == seen_connections_ && !log_.lost(now) && !joins_.lost(now)) return;
    // Behind a success, too: a server that is not understood would else be asked without a pause.
    next_try_ = now + kRetry;
    try {
      const int64_t connections = connection_.connections();
      if (!open_streams()) return note("the run has not begun yet");
      compare();
      seen_connections_ = connections;
      news_ = true;
      note("");
    } catch (const EngineSilent& silent) {
      note(silent.what());
    }
  }

  /// Both streams are there, and the log begins with this run's header. False: not yet, and this node may not begin it.
  bool open_streams() {
    auto contents = streams_.contents(names_.log_stream);
    if (may_pack_ && (!contents || !streams_.contents(names_.join_stream))) {
      streams_.create({names_.join_stream, names_.any_join, kControlsKept});
      streams_.create({names_.log_stream, names_.log});
      contents = streams_.contents(names_.log_stream);
    }
    if (!contents) return false;
    if (contents->last == 0) {
      // Who comes second has a conflict, and reads what the first wrote.
      if (!may_pack_) return false;
      note(streams_.publish(names_.log, bytes_of(header_json_), 0, run_ + "-header").trouble);
    }
    const auto first = streams_.message(names_.log_stream, kHeaderSequence);
    if (!first && contents->last == 0) return false;
    if (!first || first->subject != names_.log)
      throw UserError(spsa_key("name"),
                      fmt::format("the stream {} does not begin with a run's header", names_.log_stream),
                      "choose another name; the machines' own logs have what it had");
    if (settings_.require_header) settings_.require_header(text_of(first->bytes), header_json_);
    require_same_header(spsa_key("name"), text_of(first->bytes), header_json_, "choose another name");
    return true;
  }

  /// The stream against what was read of it before. What is missing now is lost, and all is read anew.
  void compare() {
    const auto contents = streams_.contents(names_.log_stream);
    if (!contents) throw EngineSilent("the stream is gone");
    if (has_lost(*contents)) {
      ++losses_;
      records_ = StreamRecords();
    }
    missing_ = contents->missing();
    const auto joins = streams_.contents(names_.join_stream);
    if (!joins) throw EngineSilent("the stream of joins is gone");
    // Of these nothing depends on what was lost: they are handed out again.
    joins_.start(joins->last < joins_.last_sequence() ? 1 : joins_.last_sequence() + 1, joins->last);
    // Last of all: over a thin line answers would stand in a queue behind a long log, longer than they are waited for.
    log_.start(std::max(records_.last_sequence(), kHeaderSequence) + 1, contents->last);
  }

  bool has_lost(const NatsStreams::Contents& contents) {
    if (seen_connections_ == 0) return false;
    if (contents.last < records_.last_sequence() || contents.missing() > missing_) return true;
    // As long as before, or longer: with the same messages? One hash tells for all before it, as each record holds the
    // hash of its predecessor.
    const auto& taken = records_.last_taken();
    if (!taken) return false;
    const auto stored = streams_.message(names_.log_stream, taken->sequence);
    return !stored || chain_hash(stored->bytes) != taken->hash;
  }

  /// One try. False: another message came first, or there is no answer, which is to be read.
  bool try_to_append(uint64_t expected, std::span<const std::byte> record) {
    using Result = NatsStreams::Published::Result;
    try {
      const std::string id = fmt::format("{}-{:x}", run_, expected);
      const auto published =
          streams_.publish(names_.log, record, std::max(records_.last_sequence(), kHeaderSequence), id);
      note(published.trouble);
      if (published.result != Result::stored) return false;
      records_.take(published.sequence, record);
      traffic_.up += static_cast<int64_t>(record.size());
      return true;
    } catch (const EngineSilent& silent) {
      note(silent.what());
      return false;
    }
  }

  /// Reads until all is read that the stream holds now.
  void read_to_the_end(Clock::time_point end) {
    try {
      const auto contents = streams_.contents(names_.log_stream);
      while (contents && records_.last_sequence() < contents->last && !is_over(end)) pump(end);
    } catch (const EngineSilent& silent) {
      note(silent.what());
      pump(end);
    }
  }

  void wait_for_run() {
    const auto end = Clock::now() + (may_pack_ ? settings_.patience : settings_.first_patience);
    for (;;) {
      take_in();
      if (seen_connections_ != 0) return;
      if (settings_.is_asked_to_stop()) throw Stopped("stopped while waiting for the server's log");
      if (Clock::now() >= end) break;
      mailbox_->wait_until(std::min(end, Clock::now() + kSlice));
    }
    if (may_pack_)
      throw UserError(spsa_key("server"), fmt::format("{} keeps no log ({})", settings_.servers.front(), trouble_),
                      "it needs JetStream: scripts/start_nats starts one that has it");
    throw UserError(spsa_key("name"),
                    fmt::format("there is no run \"{}\" at the engine, and node \"{}\" may not begin one",
                                settings_.name, settings_.node),
                    "start a node that packs first");
  }

  const NatsSettings settings_;
  const NatsNames names_;
  const std::string header_json_, run_;  // run_: its id's first bytes in hexadecimal
  const std::shared_ptr<NatsMailbox> mailbox_ = std::make_shared<NatsMailbox>();
  NatsConnection connection_;
  NatsStreams streams_;
  NatsReader log_, joins_;
  NatsConnection::Subscription have_subscription_, vote_subscription_;
  bool may_pack_ = false;

  StreamRecords records_;
  std::vector<Sent> votes_, controls_;
  bool news_ = false;
  std::string trouble_;
  int64_t seen_connections_ = 0;  // of the connection whose stream was compared
  int64_t losses_ = 0;
  uint64_t missing_ = 0;  // from the stream's middle
  Clock::time_point next_try_{};
};

}  // namespace

bool has_nats() { return true; }

std::unique_ptr<LogEngine> make_nats_engine(const NatsSettings& settings, const std::string& header_json) {
  try {
    return std::make_unique<NatsEngine>(settings, header_json);
  } catch (const EngineSilent& silent) {
    throw UserError(spsa_key("server"), fmt::format("{} fell silent ({})", settings.servers.front(), silent.what()),
                    "look at the server's log");
  }
}

}  // namespace tessera
