#pragma once
// From a line's prompt and options to its request, with what can only be checked with both.

#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "infer/requests/request_file.h"
#include "infer/requests/request_options.h"

namespace tessera {

class RequestBuilder {
 public:
  RequestBuilder(const DataConfig&, const Tokenizer&, const RequestDefaults&, RequestFile&);

  /// The tokens of a prompt's text. @throws UserError, without a place, when there are none
  std::vector<int32_t> tokens_of(const std::string& prompt) const;

  /// A line of the file has this custom_id, if any. @throws UserError, without a place, when another one has it
  void claim_id(const std::string& custom_id);

  /// Adds a request and its line of answers. @throws UserError, without a place
  void add(LineOptions, std::vector<int32_t> prompt, AskedLine line);

  /// A line of answers whose requests follow, each with a custom_id of its own.
  void begin_line(AskedLine line);
  void add_to_last(LineOptions, std::vector<int32_t> prompt, const std::string& custom_id);

  const DataConfig& config() const { return config_; }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  const RequestDefaults& defaults() const { return defaults_; }
  /// Names of other programs that lines have used.
  std::set<std::string>& told_names() { return told_names_; }

 private:
  Request finished(LineOptions, std::vector<int32_t> prompt, const std::string& custom_id);
  uint64_t seed_of(const Request&);
  int64_t& earlier_with(const std::vector<int32_t>& prompt);

  const DataConfig& config_;
  const Tokenizer& tokenizer_;
  const RequestDefaults& defaults_;
  RequestFile& file_;
  std::set<std::string> told_names_{};
  std::set<std::string> line_ids_{}, request_ids_{};  // of a line with several requests they differ
  struct Repeated {
    std::vector<int32_t> prompt;
    int64_t requests = 0;
  };
  std::unordered_map<uint64_t, std::vector<Repeated>>
      unnamed_{};  // requests without a custom_id, by their prompt's hash
};

}  // namespace tessera
