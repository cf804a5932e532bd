// Text is decoded in a window: some tokens whose text is known, and behind them those whose text may change. The text
// of the latter is what the whole window reads as, less what its known front reads as alone.
//
//   prompt ... | t t t | t t t t | t t           a window at its start holds the end of the prompt
//                known   fixed     open
//                        known   | open          once the text of the open tokens is fixed, they are the next front
//
// Text is fixed behind a token that added some, unless it is a byte token (<0x0A>: a whole run of them is read again
// with each one more) or the text ends with U+FFFD (bytes that may become a character).

#include "infer/stop_text.h"

#include <algorithm>
#include <span>
#include <utility>

#include "core/error.h"

namespace tessera {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD
constexpr size_t kPromptEnd = 32;                          // tokens of a prompt that show how a continuation begins

bool is_byte_token(const Tokenizer& tokenizer, int32_t id) {
  const std::string_view token = tokenizer.token(id);
  return token.size() == 6 && token.starts_with("<0x") && token.back() == '>';
}

/// The end of a prompt, long enough that what comes behind it reads as behind the whole.
std::span<const int32_t> end_of_prompt(const Tokenizer& tokenizer, const Request& request) {
  const std::span<const int32_t> prompt = request.prompt;
  size_t count = std::min(kPromptEnd, prompt.size());
  // It does not begin within a run of byte tokens, and it has text: the first piece of a text may lose its space.
  while (count < prompt.size() && (is_byte_token(tokenizer, prompt[prompt.size() - count]) ||
                                   tokenizer.decode(prompt.last(count), request.skip_special_tokens).empty()))
    ++count;
  return prompt.last(count);
}

size_t common_front(std::string_view a, std::string_view b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

/// Without characters at the end that may yet change.
std::string_view certain(std::string_view text) {
  while (text.ends_with(kReplacement)) text.remove_suffix(kReplacement.size());
  return text;
}

}  // namespace

ContinuationText::ContinuationText(const Tokenizer& tokenizer, const Request& request)
    : tokenizer_(&tokenizer), request_(&request) {
  for (const std::string& stop : request.stop) {
    TS_CHECK(!stop.empty(), "a stop string without characters");
    longest_stop_ = std::max(longest_stop_, stop.size());
  }
  const auto end = end_of_prompt(tokenizer, request);
  window_.assign(end.begin(), end.end());
  known_ = window_.size();
  known_text_ = tokenizer.decode(window_, request.skip_special_tokens);
}

bool ContinuationText::append(int32_t id) {
  TS_CHECK(!stopped_, "a token behind a stop string");
  if (!tokenizer_) return false;
  const std::string before = std::exchange(open_, {});
  window_.push_back(id);
  ++tokens_;
  read_open();
  if (tokens_ > request_->sampling.min_tokens) find_stop(common_front(certain(before), certain(open_)));
  if (!stopped_ && open_ != before && !open_.ends_with(kReplacement) && !is_byte_token(*tokenizer_, id)) fix_open();
  return stopped_;
}

void ContinuationText::read_open() {
  const bool skip = request_->skip_special_tokens;
  const std::string whole = tokenizer_->decode(window_, skip);
  // A prompt may end within a character; then the continuation is read alone, as decode_after does.
  open_ = whole.starts_with(known_text_) ? whole.substr(known_text_.size())
                                         : tokenizer_->decode(std::span(window_).subspan(known_), skip);
}

void ContinuationText::fix_open() {
  fixed_ += std::exchange(open_, {});
  window_.erase(window_.begin(), window_.begin() + static_cast<ptrdiff_t>(known_));
  known_ = window_.size();
  known_text_ = tokenizer_->decode(window_, request_->skip_special_tokens);
}

/// Looks for a stop string that ends behind the first `read` bytes of the open text.
void ContinuationText::find_stop(size_t read) {
  // Only so much of the fixed text can belong to it.
  const size_t from = fixed_.size() - std::min(fixed_.size(), longest_stop_);
  const std::string text = fixed_.substr(from) + std::string(certain(open_));
  const size_t old_end = fixed_.size() - from + read;
  size_t begin = 0, end = std::string::npos;
  for (const std::string& stop : request_->stop) {
    const size_t at = text.find(stop, old_end + 1 - std::min(old_end + 1, stop.size()));
    if (at == std::string::npos) continue;
    const size_t behind = at + stop.size();
    if (behind > end || (behind == end && at > begin)) continue;
    begin = at;
    end = behind;
  }
  if (end == std::string::npos) return;
  stopped_ = true;
  fixed_ += std::exchange(open_, {});
  fixed_.resize(from + (request_->include_stop_str_in_output ? end : begin));
}

std::string ContinuationText::text() const { return fixed_ + open_; }

std::string_view ContinuationText::settled() const {
  const std::string_view text = fixed_;
  if (stopped_ || !request_) return text;
  size_t held = 0;
  for (const std::string_view stop : request_->stop)
    for (size_t length = std::min(stop.size() - 1, text.size()); length > held; --length)
      if (text.ends_with(stop.substr(0, length))) held = length;
  return text.substr(0, text.size() - held);
}

}  // namespace tessera
