#pragma once
// The recipe's section on data.

#include "core/fields.h"

namespace tessera {

/// [data]: where text comes from and how a record becomes tokens.
struct DataConfig {
  std::filesystem::path train;  // .jsonl or text file
  std::filesystem::path eval;   // empty: eval_fraction of the training documents, chosen by hash
  double eval_fraction = 0.0;
  std::filesystem::path cache;  // prepared token files, by content hash
  std::string text_field = "text", prompt_field = "prompt", completion_field = "completion";
  std::string prompt_template;  // empty: the prompt as it is; else text with {field} placeholders of the record
  std::string completion_template;
  std::string label_field = "label";
  std::vector<std::string> label_words,
      labels;                 // a word for each class; labels: what label_field says for each, else "0", "1", ...
  int64_t max_documents = 0;  // 0: all

  bool has_eval() const { return !eval.empty() || eval_fraction > 0; }
  bool has_template() const { return !prompt_template.empty() || !completion_template.empty(); }
  bool has_choices() const { return !label_words.empty(); }
  /// What label_field says in the records of that choice.
  std::string label(size_t choice) const { return labels.empty() ? std::to_string(choice) : labels.at(choice); }

  void visit(Fields& v) {
    v("train", train, anything(),
      "training data: a .jsonl file (text, or prompt and completion) or a text file (one document a file)",
      OnResume::same_data);
    v("eval", eval, anything(), "held-out data in the same formats; empty: eval_fraction of the training documents",
      OnResume::same_data);
    v("eval_fraction", eval_fraction, in_range(0, 0.5),
      "share of training documents held out by content hash when eval is empty", OnResume::in_branch);
    v("cache", cache, anything(),
      "folder of prepared token files, named by content hash; empty: .cache beside the run's folder", OnResume::free);
    v("text_field", text_field, anything(), "JSONL member that holds a whole document", OnResume::in_branch);
    v("prompt_field", prompt_field, anything(), "JSONL member that is read but not scored", OnResume::in_branch);
    v("completion_field", completion_field, anything(), "JSONL member that is scored", OnResume::in_branch);
    v("prompt_template", prompt_template, anything(), "prompt made from a record: text with {member} placeholders",
      OnResume::in_branch);
    v("completion_template", completion_template, anything(),
      "completion made from a record: text with {member} placeholders", OnResume::in_branch);
    v("label_field", label_field, anything(), "with label_words: JSONL member that says which of them is right",
      OnResume::in_branch);
    v("label_words", label_words, anything(),
      "classification: a completion for each class, for example [\" terrible\", \" great\"]; evaluation compares them all",
      OnResume::in_branch);
    v("labels", labels, anything(), "values of label_field in the order of label_words; empty: 0, 1, ...",
      OnResume::in_branch);
    v("max_documents", max_documents, at_least(0), "use only the first documents of each file; 0: all",
      OnResume::in_branch);
  }
  void check(SectionCheck&) const;
};

}  // namespace tessera
