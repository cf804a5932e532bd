// The journal of stages: what counts as done, what a kill may leave, and what is refused.

#include "compress/journal.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "io/files.h"
#include "support/paths.h"

namespace tessera {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class Journals : public testing::Test {
 protected:
  JournalLine line(const std::string& stage, const std::string& contents) const {
    test::write_file(folder_ / (stage + ".json"), contents);
    return {.stage = stage,
            .reads = {{"base", "9f31"}, {"fold.remove", "0.125"}},
            .file = stage + ".json",
            .sha256 = sha256_hex(contents),
            .seconds = 1.5,
            .tokens = 640};
  }
  std::string text() const { return test::read_file(folder_ / "journal.jsonl"); }
  static std::string fault(const std::function<void()>& work) {
    try {
      work();
    } catch (const UserError& error) {
      return error.what();
    }
    return "nothing was thrown";
  }

  test::TemporaryFolder folder_;
};

TEST_F(Journals, AStageIsDoneWhileItsFileIsAsItWas) {
  Journal journal(folder_.path());
  EXPECT_EQ(journal.done("probe"), nullptr);
  journal.append(line("probe", "{\"bi\": []}"));
  for (const Journal& seen : {journal, Journal(folder_.path())}) {
    const JournalLine* done = seen.done("probe");
    ASSERT_NE(done, nullptr);
    EXPECT_EQ(done->reads, line("probe", "{\"bi\": []}").reads);
    EXPECT_EQ(done->seconds, 1.5);
    EXPECT_EQ(done->tokens, 640);
  }
  test::write_file(folder_ / "probe.json", "{\"bi\": [1]}");
  EXPECT_EQ(journal.done("probe"), nullptr) << "another file";
  std::filesystem::remove(folder_ / "probe.json");
  EXPECT_EQ(journal.done("probe"), nullptr) << "no file";
}

TEST_F(Journals, AStageIsDoneWhileFurtherFilesOfItAreAsTheyWere) {
  std::filesystem::create_directories(folder_ / "beside");
  const auto write = [&](const std::string& contents) { test::write_file(folder_ / "beside/sharing.json", contents); };
  write("whole");
  JournalLine shared = line("share", "a");
  shared.beside = {{"beside/sharing.json", sha256_hex(std::string_view("whole"))}};
  Journal(folder_.path()).append(shared);
  const Journal seen(folder_.path());
  ASSERT_NE(seen.done("share"), nullptr);
  EXPECT_EQ(seen.done("share")->beside, shared.beside);
  write("another");
  EXPECT_EQ(seen.done("share"), nullptr);
  std::filesystem::remove(folder_ / "beside/sharing.json");
  EXPECT_EQ(seen.done("share"), nullptr);
  write("whole");
  EXPECT_NE(seen.done("share"), nullptr);
}

TEST_F(Journals, ATornLastLineIsCutOffWhereverItWasTorn) {
  Journal(folder_.path()).append(line("probe", "a"));
  const std::string whole = text();
  Journal(folder_.path()).append(line("gates", "b"));
  const std::string both = text();
  for (size_t length = whole.size(); length < both.size(); ++length) {
    test::write_file(folder_ / "journal.jsonl", both.substr(0, length));
    Journal journal(folder_.path());
    ASSERT_EQ(journal.lines().size(), 1u) << length;
    EXPECT_EQ(text().size(), length) << "reading alone changes nothing";
    journal.mend();
    EXPECT_EQ(text(), whole);
    journal.append(line("gates", "b"));
    ASSERT_EQ(text(), both);
  }
}

TEST_F(Journals, ADamagedWholeLineIsNamedAndDoesNotCount) {
  Journal(folder_.path()).append(line("probe", "a"));
  test::write_file(folder_ / "journal.jsonl", text() + "{\"stage\": \"gates\"}\n");
  Journal(folder_.path()).append(line("group", "b"));
  const Journal journal(folder_.path());
  EXPECT_THAT(journal.notices(),
              testing::ElementsAre(AllOf(HasSubstr("journal.jsonl:2: this line of the journal is damaged"),
                                         HasSubstr("\"reads\""), HasSubstr("Remove the line"))));
  EXPECT_NE(journal.done("probe"), nullptr);
  EXPECT_EQ(journal.done("gates"), nullptr);
  EXPECT_NE(journal.done("group"), nullptr) << "lines behind it count";
}

/// Every bit of a line: what is done then has read what the line said when it was written.
TEST_F(Journals, NoFlippedBitMakesAStageDoneThatHasReadSomethingElse) {
  const JournalLine whole = line("probe", "a");
  Journal(folder_.path()).append(whole);
  Journal(folder_.path()).append(line("gates", "b"));
  const std::string before = text();
  const size_t end = before.find('\n');
  for (size_t place = 0; place <= end; ++place)
    for (int bit = 1; bit < 256; bit *= 2) {
      std::string flipped = before;
      flipped[place] = static_cast<char>(flipped[place] ^ bit);
      test::write_file(folder_ / "journal.jsonl", flipped);
      const Journal journal(folder_.path());
      if (const JournalLine* done = journal.done("probe")) {
        ASSERT_EQ(done->reads, whole.reads) << place;
      }
      ASSERT_TRUE(journal.done("gates") || place == end) << place;
    }
}

TEST_F(Journals, KnowsTheFilesThatItsStagesHaveLeftBeside) {
  JournalLine shared = line("share", "a");
  shared.beside = {{"shared/sharing.json", "9f"}};
  Journal journal(folder_.path());
  EXPECT_FALSE(journal.knows("shared/sharing.json", "9f"));
  journal.append(shared);
  shared.beside = {{"shared/sharing.json", "31"}};
  journal.append(shared);
  EXPECT_TRUE(journal.knows("shared/sharing.json", "9f")) << "also of lines that others have replaced";
  EXPECT_FALSE(journal.knows("cured/sharing.json", "9f"));
}

TEST_F(Journals, ReadsAreTheSameInWhateverOrder) {
  EXPECT_TRUE(are_same_reads({{"a", "1"}, {"b", "2"}}, {{"b", "2"}, {"a", "1"}}));
  EXPECT_TRUE(are_same_reads({{"a", "1"}, {"b", ""}}, {{"a", "1"}})) << "not set";
  EXPECT_FALSE(are_same_reads({{"a", "1"}}, {{"a", "2"}}));
}

TEST_F(Journals, InputsOfAnotherRecipeAreRefusedWithBothValues) {
  const StageReads before = {{"base", "9f31"}, {"fold.remove", "0.125"}, {"probe.json", "aa"}, {"train.seed", "1"}};
  const StageReads now = {{"base", "9f31"}, {"fold.remove", "0.25"}, {"train.seed", "1"}, {"gates.json", "bb"}};
  require_same_reads("j", "remove", before, before);
  EXPECT_THAT(fault([&] { require_same_reads("run/journal.jsonl", "remove", before, now); }),
              AllOf(HasSubstr("run/journal.jsonl: stage remove cannot go on: the recipe differs"),
                    HasSubstr("fold.remove was 0.125, now 0.25\n"), HasSubstr("probe.json was aa, now not set\n"),
                    HasSubstr("gates.json was not set, now bb\n"), HasSubstr("fold.reuse"),
                    Not(HasSubstr("train.seed")), Not(HasSubstr("base was"))));
}

TEST_F(Journals, TheHashOfInputsTellsNamesAndValuesApart) {
  const std::string hash = inputs_hash({{"a", "1"}, {"b", "2"}});
  EXPECT_EQ(hash, sha256_hex(std::string_view("a=1\nb=2\n")));
  EXPECT_NE(hash, inputs_hash({{"a", "1"}, {"b", "3"}}));
  EXPECT_NE(hash, inputs_hash({{"a", "1"}, {"c", "2"}}));
}

}  // namespace
}  // namespace tessera
