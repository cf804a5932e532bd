// Classification by label words, through the program: the same task as prompts and completions, with its accuracy.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "support/workbench.h"

namespace tessera {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

constexpr int kExamples = 64;

/// Which of three syllables a line began with, as a label and as a completion.
class Classification : public test::Workbench {
 protected:
  Classification() {
    const std::vector<std::string> classes = {"ba", "ke", "lu"};
    std::mt19937 random(3);
    std::string labelled, completed;
    for (int i = 0; i < kExamples; ++i) {
      const size_t label = random() % 3;
      const std::string words = classes[label] + " " + classes[random() % 3] + " " + classes[random() % 3];
      labelled += Json::object().set("words", words).set("label", static_cast<int64_t>(label)).dump() + "\n";
      completed += Json::object().set("words", words).set("completion", " " + classes[label]).dump() + "\n";
    }
    test::write_file(*this / "labelled.jsonl", labelled);
    test::write_file(*this / "completed.jsonl", completed);
  }
  Words with(const Words& more, const std::string& data = "labelled") const {
    Words all = {"full.toml",      "data.train=" + data + ".jsonl",       "data.eval=" + data + ".jsonl",
                 "train.steps=12", "data.prompt_template=copy {words} =", "train.batch=8"};
    if (data == "labelled") all.push_back("data.label_words=[\" ba\", \" ke\", \" lu\"]");
    return joined(all, more);
  }
  std::string fault(const Words& more) { return Workbench::fault(with(more)); }
};

TEST_F(Classification, TrainsOnTheRightWordsAsOnCompletionsBitForBitAndTellsTheAccuracy) {
  const std::string said = expect_done(trainer(with({"run.dir=words"}))).out;
  expect_done(trainer(with({"run.dir=texts"}, "completed")));
  EXPECT_EQ(saved_bytes("words"), saved_bytes("texts"));
  EXPECT_EQ(losses("words"), losses("texts"));
  ASSERT_EQ(losses("words").size(), 12u);

  const auto lines = metrics("words");
  const Json &last_eval = lines[lines.size() - 2], &done = lines.back();
  ASSERT_EQ(last_eval.at("split").as_string(), "eval");
  EXPECT_EQ(last_eval.at("choices").as_integer(), kExamples);
  EXPECT_EQ(last_eval.at("completions").as_integer(), kExamples);
  const double accuracy = last_eval.at("accuracy").as_number();
  EXPECT_EQ(done.at("eval_accuracy").as_number(), accuracy);
  EXPECT_GE(accuracy, last_eval.at("exact_match").as_number())
      << "the likeliest of all words is the likeliest of three";
  EXPECT_NEAR(accuracy * kExamples, std::round(accuracy * kExamples), 1e-9);
  EXPECT_NE(done.find("eval_accuracy_before"), nullptr);
  EXPECT_THAT(said + test::read_file(*this / "words/log.txt"), HasSubstr("  choices right "));
  for (const Json& line : metrics("texts")) EXPECT_EQ(line.find("accuracy"), nullptr);

  const Json evaluated = Json::parse(
      expect_done(trainer(with({"job=evaluate", "run.dir=other", "model.path=words/model", "model.init=pretrained"})))
          .out,
      "evaluate");
  EXPECT_EQ(evaluated.at("accuracy").as_number(), accuracy);
  EXPECT_EQ(evaluated.at("choices").as_integer(), kExamples);
}

TEST_F(Classification, HasTheSameAccuracyUnderTwoRanks) {
  TESSERA_NEEDS_MPI();
  const auto evaluated = [&](const test::Command& command) {
    return Json::parse(expect_done(command).out, "evaluate");
  };
  const Json alone = evaluated(trainer(with({"job=evaluate"}))), shared = evaluated(ranks(2, with({"job=evaluate"})));
  EXPECT_EQ(alone.at("accuracy").as_number(), shared.at("accuracy").as_number());
  EXPECT_EQ(alone.at("choices").as_integer(), shared.at("choices").as_integer());
  EXPECT_NEAR(alone.at("loss").as_number(), shared.at("loss").as_number(), 1e-9);
}

TEST_F(Classification, GoesOnFromItsResolvedRecipe) {
  expect_done(trainer(with({"run.dir=first"})));
  expect_done(trainer({"first/recipe.toml", "run.dir=again"}));
  EXPECT_EQ(saved_bytes("again"), saved_bytes("first"));
}

TEST_F(Classification, ShowsTheRightWords) {
  const std::string shown = expect_done(trainer(with({"--show-batch"}))).out;
  EXPECT_THAT(shown, HasSubstr("documents, "));
  EXPECT_THAT(shown, Not(HasSubstr("wrong")));
  const std::string all =
      expect_done(trainer(with({"--show-batch", "train.objective=choices", "train.estimator=spsa"}))).out;
  EXPECT_GT(test::occurrences(all, " right  <s> copy "), 0);
  EXPECT_EQ(test::occurrences(all, " wrong  <s> copy "), 2 * test::occurrences(all, " right  <s> copy "));
}

TEST_F(Classification, LearnsToChooseByForwardPassesOnly) {
  expect_done(trainer(with({"train.objective=choices", "train.estimator=spsa", "optimizer.name=sgd",
                            "optimizer.lr=2e-3", "train.steps=60", "run.dir=choices"})));
  const auto eval = losses("choices", "eval");
  EXPECT_LT(eval.back(), 0.8 * eval.front());
  const Json done = metrics("choices").back();
  EXPECT_GT(done.at("eval_accuracy").as_number(), done.at("eval_accuracy_before").as_number());
}

TEST_F(Classification, RefusesKeysThatDoNotGoTogether) {
  EXPECT_THAT(fault({"data.completion_field=words"}),
              HasSubstr("data.completion_field and data.label_words are both given\n"
                        "  the label words are the completions: leave the other out"));
  EXPECT_THAT(fault({"data.completion_template={words}"}),
              HasSubstr("data.completion_template and data.label_words are both given"));
  EXPECT_THAT(fault({"data.labels=[\"a\", \"b\"]"}), HasSubstr("data.labels has 2 labels for 3 label words\n"));
  EXPECT_THAT(fault({"data.labels=[\"a\", \"b\", \"a\"]"}), HasSubstr("the label \"a\" is given twice\n"));
  EXPECT_THAT(fault({"data.label_words=[\" ba\"]"}), HasSubstr("data.label_words has one word\n"));
  EXPECT_THAT(fault({"data.label_words=[\" ba\", \"\"]"}), HasSubstr("a label word is empty\n"));
  EXPECT_THAT(fault({"data.label_words=[\" ba\", \" ba\"]"}), HasSubstr("the label word \" ba\" is given twice\n"));
  EXPECT_THAT(fault({"data.label_words=[]", "data.labels=[\"a\"]"}),
              HasSubstr("data.labels is given, but data.label_words is not\n"));
  EXPECT_THAT(
      fault({"data.label_words=[\" ba\", \" ke\"]"}),
      AllOf(HasSubstr("the label \"2\" is none of: \"0\", \"1\"\n"), EndsWith("in the order of data.label_words\n")));
}

TEST_F(Classification, RefusesToChooseByBackpropagationOrWithoutWords) {
  EXPECT_THAT(
      fault({"train.objective=choices"}),
      HasSubstr("train.objective = \"choices\" takes forward passes only, and train.estimator is \"backprop\"\n"
                "  set train.estimator = \"spsa\", or train.objective = \"tokens\", which trains on the right words"));
  EXPECT_THAT(fault({"train.objective=choices", "data.label_words=[]"}),
              HasSubstr("train.objective is \"choices\", but data.label_words is not set\n"));
}

}  // namespace
}  // namespace tessera
