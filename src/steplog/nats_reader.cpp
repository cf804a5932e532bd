#include "steplog/nats_reader.h"

#include <charconv>
#include <string_view>

namespace tessera {
namespace {

std::vector<std::string_view> tokens_of(std::string_view subject) {
  std::vector<std::string_view> tokens;
  for (size_t dot; (dot = subject.find('.')) != std::string_view::npos; subject.remove_prefix(dot + 1))
    tokens.push_back(subject.substr(0, dot));
  tokens.push_back(subject);
  return tokens;
}

std::optional<uint64_t> number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::optional<DeliveryNumbers> parse_delivery(const std::string& reply) {
  const auto tokens = tokens_of(reply);
  if (tokens.size() < 9 || tokens[0] != "$JS" || tokens[1] != "ACK") return std::nullopt;
  // Newer servers put two tokens in front of the stream, and may put more behind.
  const size_t tries = tokens.size() == 9 ? 4 : 6;
  if (tokens.size() < tries + 5) return std::nullopt;
  const auto sequence = number(tokens[tries + 1]), delivery = number(tokens[tries + 2]),
             pending = number(tokens[tries + 4]);
  if (!sequence || !delivery || !pending) return std::nullopt;
  return DeliveryNumbers{*sequence, *delivery, *pending};
}

void NatsReader::start(uint64_t from, uint64_t last) {
  lost_ = true;
  complete_ = false;
  last_sequence_ = from - 1;
  last_delivery_ = 0;
  goal_ = last;
  const int64_t subscription = ++number_;
  const std::string inbox = connection_.new_inbox();
  // Listening begins before there is anything to hear.
  subscription_ = connection_.subscribe(
      inbox, [arrived = arrived_, subscription](NatsMessage message) { arrived(subscription, std::move(message)); });
  complete_ = streams_.follow(stream_, inbox, from) == 0 || from > last;
  lost_ = false;
  heard_ = Clock::now();
}

bool NatsReader::lost(Clock::time_point now) const {
  return lost_ || now - heard_ > connection_.settings().heartbeat * 5 / 2;
}

void NatsReader::answer(const NatsMessage& message) {
  // The server sends on when it is told that what it sent before was read.
  if (!message.reply.empty()) connection_.publish(message.reply, {});
  if (!message.stalled.empty()) connection_.publish(message.stalled, {});
  // A heartbeat says what was sent last.
  const auto sent = number(message.last_consumer);
  if (sent && *sent > last_delivery_) lost_ = true;
}

std::optional<uint64_t> NatsReader::take(int64_t subscription, const NatsMessage& message, Clock::time_point came) {
  if (subscription != number_ || lost_) return std::nullopt;
  heard_ = std::max(heard_, came);
  if (!message.status.empty()) {
    answer(message);
    return std::nullopt;
  }
  const auto numbers = parse_delivery(message.reply);
  if (!numbers || numbers->delivery != last_delivery_ + 1) {
    lost_ = true;
    return std::nullopt;
  }
  last_delivery_ = numbers->delivery;
  last_sequence_ = numbers->sequence;
  // Of a stream with gaps the server counts as pending what is not there.
  if (numbers->pending == 0 || numbers->sequence >= goal_) complete_ = true;
  return numbers->sequence;
}

}  // namespace tessera
