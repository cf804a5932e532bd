#pragma once
// Runs of job = "compress" on six blocks: short ones that end without a cure, and short cures.

#include <gmock/gmock.h>

#include <set>

#include "cli/stops.h"

namespace tessera::test {

inline constexpr const char* kStageFiles[] = {"probe.json",
                                              "gates.json",
                                              "removed.json",
                                              "fold_plan.json",
                                              "deltas.json",
                                              "share.json",
                                              "../sharing/fold.safetensors",
                                              "../sharing/sharing.json"};

class Compress : public Stops {
 protected:
  Compress() { replace("base/config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 6"); }

  /// Short, and for two of six blocks.
  Words job(const std::string& run, const Words& more = {}) const {
    return joined(
        {"lora.toml", "job=compress", "run.dir=" + run, "data.cache=cache", "fold.remove=0.33", "fold.gate_steps=30",
         "fold.gate_batch=4", "fold.calibration_rows=6", "fold.keep_head=1", "checkpoint.every=7", "fold.cure=none"},
        more);
  }
  std::string file(const std::string& run, const std::string& name) const {
    return read_file(*this / run / "compress" / name);
  }
  Json json(const std::string& run, const std::string& name) const { return Json::parse(file(run, name), name); }
  std::vector<double> numbers(const Json& list) const {
    std::vector<double> values;
    for (const Json& item : list.items()) values.push_back(item.as_number());
    return values;
  }
  std::vector<std::string> stages(const std::string& run) const {
    std::vector<std::string> names;
    const std::string text = file(run, "journal.jsonl");
    for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1)
      names.push_back(Json::parse(text.substr(begin, end - begin), "journal").at("stage").as_string());
    return names;
  }
  /// What a report says but for what it measured, and for the folder's name in its commands.
  std::string report(const std::string& run) const {
    static const std::set<std::string> measured = {"peak_rss_bytes", "prefill_tokens_per_second",
                                                   "decode_tokens_per_second"};
    Json all = json(run, "report.json"), points = Json::array();
    for (const Json& point : all.at("points").items()) {
      Json kept = Json::object();
      for (const auto& [key, value] : point.members())
        if (!measured.count(key)) kept.set(key, value);
      points.push_back(kept);
    }
    return all.set("points", points).set("commands", Json::array()).dump(1);
  }
  Json point(const std::string& run, const std::string& name) const {
    const Json all = json(run, "report.json");
    for (const Json& found : all.at("points").items())
      if (found.at("name").as_string() == name) return found;
    ADD_FAILURE() << "no point " << name;
    return {};
  }
  static std::string last_line(const Ended& ended) {
    const std::string text = ended.out.substr(0, ended.out.size() - 1);
    return text.substr(text.rfind('\n') + 1);
  }
  void expect_same_files(const std::string& run, const std::string& other) const {
    for (const char* name : kStageFiles) EXPECT_EQ(file(run, name), file(other, name)) << name;
    EXPECT_EQ(report(run), report(other));
    EXPECT_THAT(temporaries(run), testing::IsEmpty());
  }
};

class Cure : public Stops {
 protected:
  Cure() { replace("base/config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 6"); }

  Words job(const std::string& run, const Words& more = {}) const {
    return joined({"lora.toml", "job=compress", "run.dir=" + run, "data.cache=cache", "fold.remove=0.33",
                   "fold.selector=bi", "fold.calibration_rows=6", "fold.keep_head=1", "checkpoint.every=7",
                   "train.batch=8", "train.steps=30", "fold.until=cure"},
                  more);
  }
  std::string file(const std::string& run, const std::string& name) const { return read_file(*this / run / name); }
  Json json(const std::string& run, const std::string& name) const { return Json::parse(file(run, name), name); }
  double perplexity(const std::string& run, const char* point) const {
    return json(run, "compress/cure.json").at("perplexity").at(point).as_number();
  }
  void expect_same_cure(const std::string& run, const std::string& other) const {
    for (const char* name : {"compress/cure.json", "compress/cured/fold.safetensors", "sharing/fold.safetensors",
                             "sharing/sharing.json", "sharing/fold_plan.json"})
      EXPECT_EQ(file(run, name), file(other, name)) << name;
    EXPECT_EQ(losses(run), losses(other));
    EXPECT_THAT(temporaries(run), testing::IsEmpty());
  }
};

}  // namespace tessera::test
