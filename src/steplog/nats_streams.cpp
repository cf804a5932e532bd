#include "steplog/nats_streams.h"

#include <nats/nats.h>

#include "core/error.h"

namespace tessera {
namespace {

constexpr int64_t kSecond = 1'000'000'000;  // JetStream counts nanoseconds
constexpr int64_t kDuplicateWindow = 120 * kSecond;
constexpr int32_t kLargestMessage = 1 << 20;

template <auto destroy> struct Free {
  template <class T> void operator()(T* object) const { destroy(object); }
};
using Info = std::unique_ptr<jsStreamInfo, Free<jsStreamInfo_Destroy>>;
using Ack = std::unique_ptr<jsPubAck, Free<jsPubAck_Destroy>>;
using Consumer = std::unique_ptr<jsConsumerInfo, Free<jsConsumerInfo_Destroy>>;
using Message = std::unique_ptr<natsMsg, Free<natsMsg_Destroy>>;

void require(natsStatus status) {
  if (status != NATS_OK) throw EngineSilent(nats_words(status));
}

Bytes bytes_of(natsMsg* message) {
  const auto* data = reinterpret_cast<const std::byte*>(natsMsg_GetData(message));
  return Bytes(data, data + natsMsg_GetDataLength(message));
}

}  // namespace

NatsStreams::NatsStreams(NatsConnection& connection) : connection_(connection) {
  jsOptions options;
  jsOptions_Init(&options);
  options.Wait = connection.settings().patience.count();
  require(natsConnection_JetStream(&context_, connection.handle(), &options));
}

NatsStreams::~NatsStreams() { jsCtx_Destroy(context_); }

void NatsStreams::create(const Shape& shape) {
  const char* subject = shape.subject.c_str();
  jsStreamConfig config;
  jsStreamConfig_Init(&config);
  config.Name = shape.name.c_str();
  config.Subjects = &subject;
  config.SubjectsLen = 1;
  config.Storage = js_FileStorage;
  config.Retention = js_LimitsPolicy;
  config.MaxMsgsPerSubject = shape.messages_of_subject;
  config.MaxMsgSize = kLargestMessage;
  // The log refuses rather than forgets; of the other, older messages of a subject make room for newer ones.
  config.Discard = shape.messages_of_subject < 0 ? js_DiscardNew : js_DiscardOld;
  config.Duplicates = kDuplicateWindow;
  config.DenyDelete = true;
  config.DenyPurge = true;
  config.Replicas = 1;
  jsErrCode code{};
  const auto wait = connection_.waiting();
  const natsStatus status = js_AddStream(nullptr, context_, &config, nullptr, &code);
  if (status != NATS_OK && code != JSStreamNameExistErr) throw EngineSilent(nats_words(status));
}

std::optional<NatsStreams::Contents> NatsStreams::contents(const std::string& stream) {
  jsStreamInfo* found = nullptr;
  jsErrCode code{};
  const auto wait = connection_.waiting();
  const natsStatus status = js_GetStreamInfo(&found, context_, stream.c_str(), nullptr, &code);
  if (code == JSStreamNotFoundErr) return std::nullopt;
  require(status);
  const Info info(found);
  return Contents{info->State.Msgs, info->State.FirstSeq, info->State.LastSeq};
}

std::optional<NatsStreams::Stored> NatsStreams::message(const std::string& stream, uint64_t sequence) {
  natsMsg* found = nullptr;
  jsErrCode code{};
  const auto wait = connection_.waiting();
  const natsStatus status = js_GetMsg(&found, context_, stream.c_str(), sequence, nullptr, &code);
  if (code == JSNoMessageFoundErr || code == JSStreamNotFoundErr || status == NATS_NOT_FOUND) return std::nullopt;
  require(status);
  const Message message(found);
  return Stored{natsMsg_GetSubject(found), bytes_of(found)};
}

NatsStreams::Published NatsStreams::publish(const std::string& subject, std::span<const std::byte> bytes,
                                            std::optional<uint64_t> expected, const std::string& id) {
  using Result = Published::Result;
  natsMsg* made = nullptr;
  require(natsMsg_Create(&made, subject.c_str(), nullptr, reinterpret_cast<const char*>(bytes.data()),
                         static_cast<int>(bytes.size())));
  const Message message(made);
  jsPubOptions options;
  jsPubOptions_Init(&options);
  options.MsgId = id.c_str();
  // As a header of our own: of the library's option a zero means that nothing is expected.
  if (expected) require(natsMsgHeader_Set(made, "Nats-Expected-Last-Sequence", std::to_string(*expected).c_str()));
  jsPubAck* answer = nullptr;
  jsErrCode code{};
  const natsStatus status = [&] {
    const auto wait = connection_.waiting();
    return js_PublishMsg(&answer, context_, made, &options, &code);
  }();
  const Ack ack(answer);
  if (status == NATS_OK) return {ack->Duplicate ? Result::duplicate : Result::stored, ack->Sequence, ""};
  if (code == JSStreamWrongLastSequenceErr) return {Result::conflict, 0, ""};
  const std::string trouble = nats_words(status);
  // The server gives no answer to what it refuses but an error of the connection.
  if (status == NATS_TIMEOUT && connection_.connected())
    if (const std::string refusal = connection_.refusal_of(subject); !refusal.empty())
      throw UserError(spsa_key("credentials"),
                      fmt::format("the engine refuses node \"{}\": {}", connection_.settings().node, refusal),
                      "its permissions are in the server's file: scripts/start_nats --nodes ... --packers ...");
  return {Result::silent, 0, trouble};
}

uint64_t NatsStreams::follow(const std::string& stream, const std::string& inbox, uint64_t from) {
  jsConsumerConfig config;
  jsConsumerConfig_Init(&config);
  config.DeliverSubject = inbox.c_str();
  config.DeliverPolicy = js_DeliverByStartSequence;
  config.OptStartSeq = from;
  config.AckPolicy = js_AckNone;
  config.MaxDeliver = 1;
  config.FlowControl = true;  // a long log is sent no faster than it is read
  config.Heartbeat = connection_.settings().heartbeat.count() * (kSecond / 1000);
  config.MemoryStorage = true;
  config.Replicas = 1;
  jsConsumerInfo* made = nullptr;
  const auto wait = connection_.waiting();
  require(js_AddConsumer(&made, context_, stream.c_str(), &config, nullptr, nullptr));
  return Consumer(made)->NumPending;
}

}  // namespace tessera
