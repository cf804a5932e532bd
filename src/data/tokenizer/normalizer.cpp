#include "data/tokenizer/normalizer.h"

#include <vector>

#include "core/error.h"
#include "data/tokenizer/component.h"
#include "data/tokenizer/unicode.h"

namespace tessera::tokenizer {
namespace {

/// One after the other, each within the bound of the whole.
class Sequence : public Normalizer {
 public:
  explicit Sequence(const Json& json) {
    for (const Json& part : json.at("normalizers").items()) parts_.push_back(make_normalizer(part));
  }
  std::string apply_within(size_t most, std::string text) const override {
    for (const auto& part : parts_) text = part->apply_within(most, std::move(text));
    return text;
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> parts_;
};

class ToNormalForm : public Normalizer {
 public:
  explicit ToNormalForm(NormalForm form) : form_(form) {}
  std::string apply_within(size_t, std::string text) const override { return normal_form(text, form_); }

 private:
  NormalForm form_;
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(const Json& json) : prefix_(json.at("prepend").as_string()) {}
  std::string apply_within(size_t most, std::string text) const override {
    if (text.empty()) return text;
    if (prefix_.size() + text.size() > most)
      throw UserError("", fmt::format("the tokenizer would make {} bytes of text, at most {} are allowed",
                                      prefix_.size() + text.size(), most));
    return prefix_ + text;
  }

 private:
  std::string prefix_;
};

class Replace : public Normalizer {
 public:
  explicit Replace(const Json& json)
      : pattern_(read_pattern(json.at("pattern"))), content_(json.at("content").as_string()) {}
  std::string apply_within(size_t most, std::string text) const override {
    return pattern_.replace_all(text, content_, most);
  }

 private:
  Regex pattern_;
  std::string content_;
};

class Strip : public Normalizer {
 public:
  explicit Strip(const Json& json)
      : left_(flag_or(json, "strip_left", true)), right_(flag_or(json, "strip_right", true)) {}
  std::string apply_within(size_t, std::string text) const override {
    const size_t begin = left_ ? leading_white_space(text) : 0;
    // Of a text of white space alone both ends take all: what is left is empty, not negative.
    const size_t end = right_ ? std::max(begin, text.size() - trailing_white_space(text)) : text.size();
    return text.substr(begin, end - begin);
  }

 private:
  bool left_, right_;
};

/// Characters one by one, without the rules for the ends of words that some alphabets have.
class Lowercase : public Normalizer {
 public:
  std::string apply_within(size_t, std::string text) const override { return lowercase(text); }
};

}  // namespace

std::unique_ptr<Normalizer> make_normalizer(const Json& json) {
  const std::string& type = type_of(json);
  if (type == "Sequence") return std::make_unique<Sequence>(json);
  if (type == "NFC") return std::make_unique<ToNormalForm>(NormalForm::nfc);
  if (type == "NFD") return std::make_unique<ToNormalForm>(NormalForm::nfd);
  if (type == "NFKC") return std::make_unique<ToNormalForm>(NormalForm::nfkc);
  if (type == "NFKD") return std::make_unique<ToNormalForm>(NormalForm::nfkd);
  if (type == "Prepend") return std::make_unique<Prepend>(json);
  if (type == "Replace") return std::make_unique<Replace>(json);
  if (type == "Strip") return std::make_unique<Strip>(json);
  if (type == "Lowercase") return std::make_unique<Lowercase>();
  not_supported("normalizer", type, "Sequence, NFC, NFD, NFKC, NFKD, Prepend, Replace, Strip, Lowercase");
}

}  // namespace tessera::tokenizer
