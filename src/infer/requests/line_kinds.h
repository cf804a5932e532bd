#pragma once
// Of which kind the lines of a file of requests are, by the names of their members.

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "data/data_config.h"
#include "infer/requests/request_file.h"

namespace tessera {

/// Names that a batch line may have: options, and what says its prompt and its number.
const std::vector<std::string>& batch_names();

/// Tells the lines of a file apart.
///   no JSON object                                                  text
///   an object with method, url and body                             openai
///   with custom_id, prompt_token_ids or prefix; or only names of    batch
///   requests, and not only members that [data] reads
///   else                                                            records
/// An object with names of requests and with others could be both of the last ones: that is for the user to say.
class LineKinds {
 public:
  explicit LineKinds(const DataConfig&);

  /// @throws UserError, without a place, when the line could be of two kinds
  RequestKind kind_of(std::string_view line) const;

  /// @param first  "FILE:LINE" of the line by which the file is of that kind
  /// @throws UserError, without a place, when the line is of another kind, with both
  void require(RequestKind kind, std::string_view line, const std::string& first) const;

 private:
  struct Found {
    RequestKind kind;
    std::string option{}, other{};  // of an object without marks: a name of requests, and one that is none
  };
  Found look_at(std::string_view line) const;

  std::set<std::string, std::less<>> data_members_;  // that [data] reads
};

/// "text", "records of data", "batch lines", "lines of OpenAI's batches"
std::string_view in_words(RequestKind);

}  // namespace tessera
