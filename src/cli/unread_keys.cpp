#include "cli/unread_keys.h"

#include <map>

#include "cli/jobs.h"
#include "core/error.h"
#include "data/jsonl.h"
#include "train/estimator.h"
#include "train/optimizers/optimizer.h"

namespace tessera {
namespace {

using Keys = std::set<std::string>;

bool same_value(const FieldTarget& a, const FieldTarget& b) {
  return std::visit(
      [&](auto* value) {
        const auto* other = std::get_if<decltype(value)>(&b);
        return other && **other == *value;
      },
      a);
}

std::string is(const std::string& key, const std::string& value) { return fmt::format("{} is \"{}\"", key, value); }

/// Keys that a registry's other entries read, and the named one does not.
template <class Kind> Keys keys_of_others(const std::vector<Kind>& kinds, std::string_view name) {
  Keys keys;
  for (const Kind& kind : kinds) keys.insert(kind.keys.begin(), kind.keys.end());
  for (const Kind& kind : kinds)
    for (const std::string_view key : kind.keys)
      if (kind.name == name) keys.erase(std::string(key));
  return keys;
}

void add_adapter(UnreadNotes& notes, const AdapterConfig& adapter) {
  Keys unread = adapter.method == "none" ? all_keys(adapter) : keys_of_others(adapter_methods(), adapter.method);
  unread.erase("method");
  notes.add("adapter", said_keys(adapter), unread, is("adapter.method", adapter.method));
}

void add_sharing(UnreadNotes& notes, const JobConfig& c) {
  const SharingConfig& sharing = c.sharing;
  const Keys said = said_keys(sharing);
  Keys unread = sharing.method == "none" ? all_keys(sharing) : keys_of_others(sharing_methods(), sharing.method);
  unread.erase("method");
  notes.add("sharing", said, unread, is("sharing.method", sharing.method));
  if (sharing.method != "rps") return;
  if (sharing.layout != "tile" && sharing.mapper != "roast-tile")
    notes.add("sharing", said, {"tile_rows", "tile_cols"},
              "sharing.layout is not \"tile\", nor sharing.mapper \"roast-tile\"");
  if (sharing.precond != "D")
    notes.add("sharing", said, {"kappa"}, is("sharing.precond", sharing.precond));
  else if (job_of(c).trains && !optimizer_kind(c.trainer.optimizer).is_adaptive)
    notes.add("sharing", said, {"kappa"}, is("optimizer.name", c.trainer.optimizer.name));
}

void add_optimizer(UnreadNotes& notes, const OptimizerConfig& optimizer) {
  Keys said = said_keys(optimizer);
  if (optimizer.momentum == 0) said.erase("momentum");  // what SPSA begins with
  notes.add("optimizer", said, keys_of_others(optimizer_kinds(), optimizer.name), is("optimizer.name", optimizer.name));
  if (optimizer.schedule == "constant")
    notes.add("optimizer", said, {"final_ratio"}, is("optimizer.schedule", optimizer.schedule));
  if (optimizer.warmup_steps > 0)
    notes.add("optimizer", said, {"warmup_ratio"}, "optimizer.warmup_steps is given, and goes before it");
}

/// The sections of estimators that the recipe does not use, and what the one that it uses does not read.
void add_estimators(UnreadNotes& notes, const JobConfig& c) {
  std::map<std::string, Keys> said{{"checkpoint", said_keys(c.trainer.checkpoint)}};
  const Estimator& used = estimator_of(c.trainer);
  const Estimators unset;
  for (size_t i = 0; i < unset.all().size(); ++i) {
    const std::string section = c.trainer.estimators.all()[i]->section();
    Fields given, defaults;
    c.trainer.estimators.all()[i]->visit(given);
    unset.all()[i]->visit(defaults);
    said[section] = said_keys(given, defaults);
    const bool is_used = c.trainer.estimators.all()[i].get() == &used;
    if (!is_used) notes.add(section, said[section], all_keys(given), is("train.estimator", c.trainer.train.estimator));
    const auto more = c.trainer.estimators.all()[i]->more_sections(), unset_more = unset.all()[i]->more_sections();
    for (size_t k = 0; k < more.size(); ++k) {
      Fields given_more, default_more;
      more[k].visit(given_more);
      unset_more[k].visit(default_more);
      said[more[k].section] = said_keys(given_more, default_more);
      if (!is_used)
        notes.add(more[k].section, said[more[k].section], all_keys(given_more),
                  is("train.estimator", c.trainer.train.estimator));
    }
  }
  for (const UnreadGroup& group : used.unread()) notes.add(group.section, said[group.section], group.keys, group.why);
}

void add_training(UnreadNotes& notes, const JobConfig& c) {
  add_optimizer(notes, c.trainer.optimizer);
  add_estimators(notes, c);
  if (!c.data.has_eval()) {
    const std::string why = "there is no held-out data: data.eval and data.eval_fraction are not set";
    notes.add("evaluate", said_keys(c.trainer.evaluate), {"every", "rows"}, why);
    if (!notes.has("checkpoint.best")) notes.add("checkpoint", said_keys(c.trainer.checkpoint), {"best"}, why);
  }
  if (c.adapter.method == "none")
    notes.add("export", said_keys(c.exports), {"peft"}, is("adapter.method", c.adapter.method));
}

/// Whether all data of the recipe are plain text.
bool is_text(const DataConfig& data) {
  bool text = true;
  for (const auto& file : {data.train, data.eval}) text = text && (file.empty() || !is_jsonl(file));
  return text && !(data.train.empty() && data.eval.empty());
}

void add_data(UnreadNotes& notes, const DataConfig& data) {
  const Keys said = said_keys(data);
  if (!data.eval.empty()) notes.add("data", said, {"eval_fraction"}, "data.eval names the held-out data");
  if (is_text(data))
    return notes.add("data", said,
                     {"text_field", "prompt_field", "completion_field", "prompt_template", "completion_template",
                      "label_field", "max_documents"},
                     "the data are plain text, a document a file, and hold no records");
  if (!data.prompt_template.empty())
    notes.add("data", said, {"prompt_field"}, "data.prompt_template says how a prompt is made");
  if (!data.completion_template.empty())
    notes.add("data", said, {"completion_field"}, "data.completion_template says how a completion is made");
}

}  // namespace

void UnreadNotes::add(const std::string& section, const Keys& said, const Keys& unread, const std::string& why) {
  std::string names;
  int count = 0;
  for (const std::string& key : unread) {
    const bool is_told = !found_.names.insert(section + "." + key).second;
    if (said.count(key) && !is_told) names += fmt::format("{}{}.{}", count++ ? ", " : "", section, key);
  }
  if (count > 0) found_.notes.push_back(fmt::format("note: {} {} nothing: {}", names, count > 1 ? "do" : "does", why));
}

std::set<std::string> said_keys(const Fields& given, const Fields& defaults) {
  std::set<std::string> keys;
  for (size_t i = 0; i < given.list.size(); ++i)
    if (!same_value(given.list[i].target, defaults.list[i].target)) keys.insert(given.list[i].key);
  return keys;
}

std::set<std::string> all_keys(const Fields& fields) {
  std::set<std::string> keys;
  for (const Field& field : fields.list) keys.insert(field.key);
  return keys;
}

UnreadKeys unread_keys(const JobConfig& c) {
  UnreadNotes notes;
  const Job& job = job_of(c);
  if (job.trains) add_training(notes, c);
  if (job.reads_data) add_data(notes, c.data);
  if (job.note_unread) job.note_unread(c, notes);
  add_sharing(notes, c);
  add_adapter(notes, c.adapter);
  return notes.take();
}

}  // namespace tessera
