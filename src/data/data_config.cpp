#include "data/data_config.h"

#include "core/error.h"
#include "core/section_check.h"
#include "data/jsonl.h"

namespace tessera {
namespace fs = std::filesystem;

namespace {

void check_label_words(const DataConfig& data, SectionCheck& own) {
  // Keys that do not hold their defaults: a resolved recipe spells these out, and they contradict nothing.
  const std::set<std::string> said = own.said();
  if (data.label_words.empty()) {
    for (const char* key : {"label_field", "labels"})
      if (said.count(key))
        own.fault(key, fmt::format("data.{} is given, but data.label_words is not", key),
                  "give a word for each label, for example label_words = [\" terrible\", \" great\"]");
    return;
  }
  for (const char* key : {"text_field", "completion_field", "completion_template"})
    if (said.count(key))
      own.fault(key, fmt::format("data.{} and data.label_words are both given", key),
                "the label words are the completions: leave the other out");
  if (data.label_words.size() < 2)
    own.fault("label_words", "data.label_words has one word", "give a word for each class, at least two");
  if (!data.labels.empty() && data.labels.size() != data.label_words.size()) {
    own.fault("labels",
              fmt::format("data.labels has {} labels for {} label words", data.labels.size(), data.label_words.size()),
              "give one for each word, in the same order");
    return;
  }
  // All pairs: there are a few words, and each fault is to be named.
  for (size_t i = 0; i < data.label_words.size(); ++i) {
    if (data.label_words[i].empty())
      own.fault("label_words", "a label word is empty", "name what the model is to predict");
    for (size_t j = 0; j < i; ++j) {
      if (data.label_words[i] == data.label_words[j])
        own.fault("label_words", fmt::format("the label word \"{}\" is given twice", data.label_words[i]),
                  "each class has its own");
      if (data.label(i) == data.label(j))
        own.fault("labels", fmt::format("the label \"{}\" is given twice", data.label(i)), "each label has one word");
    }
  }
}

}  // namespace

void DataConfig::check(SectionCheck& own) const {
  check_label_words(*this, own);
  for (const auto& [key, text] :
       // Only to see whether they can be read: a fault is told with the recipe's others, before any data is opened.
       {std::pair{"prompt_template", &prompt_template}, std::pair{"completion_template", &completion_template}})
    try {
      RecordTemplate(*text, "");
    } catch (const UserError& error) {
      own.pass_on(key, error);
    }
  std::error_code ignored;
  if (!cache.empty() && fs::exists(cache, ignored) && !fs::is_directory(cache, ignored))
    own.fault("cache", fmt::format("data.cache \"{}\" is a file", cache.string()), "name a folder");
}

}  // namespace tessera
