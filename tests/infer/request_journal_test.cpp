// The journal of answers: what counts after a kill, what is refused, and that the file of answers is the same however
// often the work was interrupted.

#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/crc32.h"
#include "infer/journal/request_journal.h"
#include "infer/request_files.h"
#include "io/files.h"
#include "support/random_seed.h"

namespace tessera {
namespace {

using namespace test;
using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;

JournalHead head_of(int64_t requests) {
  return {.identity = {.batch = sha256_hex(std::string_view("batch")),
                       .requests = requests,
                       .model = {{"base", sha256_hex(std::string_view("base"))}, {"tokenizer", "12"}},
                       .adapters = {{"law", sha256_hex(std::string_view("law"))}},
                       .options = {{"kv_dtype", "f32"}, {"deterministic", "true"}}},
          .made_on = {{"backend", "cpu"}, {"vector", "avx2"}}};
}

/// Answers of many lengths.
std::string answer_of(int64_t number) {
  return fmt::format(R"({{"index_of":{},"text":"{}"}})", number,
                     std::string(static_cast<size_t>(number * 37 % 91), 'x'));
}

class RequestJournals : public testing::Test {
 protected:
  RequestJournal open(int64_t requests = 5) const { return open(head_of(requests)); }
  RequestJournal open(const JournalHead& head) const { return RequestJournal(folder_.path(), "samples.jsonl", head); }
  std::string fault(const JournalHead& head) const {
    std::string message = error_text([&] { open(head); });
    const std::string prefix = folder_.path().string() + "/";
    for (size_t at; (at = message.find(prefix)) != std::string::npos;) message.erase(at, prefix.size());
    return message;
  }
  std::filesystem::path log(int rank = 0) const { return folder_ / fmt::format("journal/{}.log", rank); }
  std::filesystem::path samples() const { return folder_ / "samples.jsonl"; }
  static std::map<int64_t, std::string> answers_of(const RequestJournal& journal) {
    std::map<int64_t, std::string> answers;
    journal.for_each_answer([&](int64_t number, const std::string& answer) { answers[number] = answer; });
    return answers;
  }
  static std::string all_answers(int64_t requests) {
    std::string text;
    for (int64_t i = 0; i < requests; ++i) text += answer_of(i) + "\n";
    return text;
  }
  /// Answers what is left, as one rank would.
  void complete(int64_t requests = 5) const {
    RequestJournal journal = open(requests);
    if (journal.is_complete()) return;
    journal.begin(0);
    for (int64_t i = 0; i < requests; ++i)
      if (!journal.is_finished(i)) journal.append({{i, answer_of(i)}});
    journal.finish();
  }

  TemporaryFolder folder_;
};

TEST_F(RequestJournals, HoldWhatWasAppended) {
  RequestJournal journal = open();
  EXPECT_FALSE(std::filesystem::exists(folder_ / "journal")) << "nothing is written yet";
  journal.begin(0);
  journal.append({{3, "{\"a\":1}"}, {1, "{\"b\":\"\\n\"}"}});
  journal.append({{0, "{}"}});
  EXPECT_TRUE(journal.is_finished(3));
  EXPECT_FALSE(journal.is_finished(2));
  EXPECT_EQ(read_file(log()), head_line(head_of(5)) + "\n" + "c3b4f93e 3 {\"a\":1}\n" +
                                  fmt::format("{:08x} 1 {{\"b\":\"\\n\"}}\n", crc32("1 {\"b\":\"\\n\"}")) +
                                  answer_line(0, "{}") + "\n");
  const RequestJournal again = open();
  EXPECT_EQ(again.finished(), 3);
  EXPECT_EQ(answers_of(again), (std::map<int64_t, std::string>{{3, "{\"a\":1}"}, {1, "{\"b\":\"\\n\"}"}, {0, "{}"}}));
  std::vector<int64_t> order;
  again.for_each_answer([&](int64_t number, const std::string&) { order.push_back(number); });
  EXPECT_THAT(order, ElementsAre(3, 1, 0));
  EXPECT_THAT(again.notices(), ElementsAre());
}

TEST_F(RequestJournals, BeginWithWhatTheyAreOf) {
  open().begin(0);
  const Json head = Json::parse(read_file(log()), "");
  std::vector<std::string> names;
  for (const auto& [name, value] : head.members()) names.push_back(name);
  EXPECT_THAT(names, ElementsAre("format", "version", "identity", "batch", "model", "adapters", "options", "requests",
                                 "made_on", "answers"));
  EXPECT_EQ(head.at("identity").as_string(), head_of(5).identity.hex());
  EXPECT_EQ(head.at("requests").as_integer(), 5);
  EXPECT_EQ(head.at("options").at("kv_dtype").as_string(), "f32");
}

TEST_F(RequestJournals, EndWithTheFileOfAnswersInOrder) {
  RequestJournal first = open(), second = open();
  first.begin(0);
  second.begin(1);
  first.append({{4, answer_of(4)}, {0, answer_of(0)}});
  second.append({{3, answer_of(3)}, {1, answer_of(1)}});
  first.append({{2, answer_of(2)}});
  first.finish();
  EXPECT_TRUE(first.is_complete());
  EXPECT_EQ(read_file(samples()), all_answers(5));
  EXPECT_EQ(read_file(log()), head_line(head_of(5)) + "\n{\"end\":\"" + sha256_hex(all_answers(5)) + "\"}\n");
  EXPECT_FALSE(std::filesystem::exists(log(1)));
  const RequestJournal again = open();
  EXPECT_TRUE(again.is_complete());
  EXPECT_EQ(again.finished(), 0);
}

TEST_F(RequestJournals, AreTornAtAnyByte) {
  {
    RequestJournal journal = open();
    journal.begin(0);
    journal.append({{0, answer_of(0)}, {1, answer_of(1)}});
    journal.append({{2, answer_of(2)}});
  }
  const std::string whole = read_file(log());
  const std::string last = answer_line(2, answer_of(2)) + "\n", head = head_line(head_of(5)) + "\n";
  ASSERT_TRUE(whole.ends_with(last));
  for (size_t bytes = whole.size() - last.size(); bytes < whole.size(); ++bytes) {
    write_file(log(), whole.substr(0, bytes));
    RequestJournal journal = open();
    EXPECT_EQ(journal.finished(), 2) << bytes;
    EXPECT_EQ(journal.notices().size(), bytes == whole.size() - last.size() ? 0u : 1u) << bytes;
    journal.begin(0);
    EXPECT_EQ(read_file(log()), whole.substr(0, whole.size() - last.size())) << "cut off";
    journal.append({{2, answer_of(2)}});
    EXPECT_EQ(read_file(log()), whole);
  }
  for (size_t bytes = 0; bytes < head.size(); ++bytes) {
    write_file(log(), whole.substr(0, bytes));
    RequestJournal journal = open();
    EXPECT_EQ(journal.finished(), 0);
    if (bytes % 50 != 0) continue;  // each start syncs
    journal.begin(0);
    EXPECT_EQ(read_file(log()), head) << "a torn first line is written anew";
  }
}

TEST_F(RequestJournals, OfOtherRanksAreReadWhateverTheirNumberWas) {
  {
    RequestJournal a = open(), b = open(), c = open();
    a.begin(0), b.begin(1), c.begin(11);
    a.append({{0, answer_of(0)}});
    b.append({{1, answer_of(1)}});
    c.append({{2, answer_of(2)}, {3, answer_of(3)}});
  }
  // The last rank was killed while it wrote, and does not come back.
  std::filesystem::resize_file(log(11), std::filesystem::file_size(log(11)) - 3);
  EXPECT_EQ(open().finished(), 3);
  complete();
  EXPECT_EQ(read_file(samples()), all_answers(5));
  EXPECT_FALSE(std::filesystem::exists(log(11)));
}

TEST_F(RequestJournals, AreRefusedWhenTheyAreDamaged) {
  {
    RequestJournal journal = open();
    journal.begin(0);
    journal.append({{0, answer_of(0)}, {1, answer_of(1)}});
  }
  const std::string whole = read_file(log());
  const size_t head = head_line(head_of(5)).size() + 1;
  // Any byte of any line changed but for line breaks: an error with its line.
  for (size_t at = 0; at < whole.size(); ++at) {
    if (whole[at] == '\n') continue;
    std::string damaged = whole;
    damaged[at] = damaged[at] == '7' ? '8' : '7';
    write_file(log(), damaged);
    const std::string message = fault(head_of(5));
    const auto line = 1 + std::count(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(at), '\n');
    if (at >= head) {
      EXPECT_THAT(message, testing::StartsWith(fmt::format("journal/0.log:{}: the journal is damaged: ", line))) << at;
    } else if (whole.substr(0, at).find("made_on") == std::string::npos) {
      EXPECT_NE(message, kNothingThrown) << "the first line tells its own identity: " << at;
    }
  }
  const auto with_line = [&](const std::string& line) {
    write_file(log(), whole + line + "\n");
    return fault(head_of(5));
  };
  EXPECT_EQ(with_line("c3b4f93e 3 {\"a\":2}"),
            fmt::format("journal/0.log:4: the journal is damaged: the checksum is {:08x}, and the line says c3b4f93e\n"
                        "  remove the line, and its request is computed again",
                        crc32("3 {\"a\":2}")));
  EXPECT_THAT(with_line(""), HasSubstr("0.log:4: the journal is damaged: the line has no checksum"));
  EXPECT_THAT(with_line(answer_line(5, "{}")), HasSubstr("the number 5 is not below 5"));
  EXPECT_THAT(with_line(answer_line(-1, "{}")), HasSubstr("the number -1 is not below 5"));
  EXPECT_THAT(with_line(answer_line(1, "{}")), HasSubstr("the answer 1 is there already"));
  EXPECT_THAT(with_line(end_line("00")), HasSubstr("0.log:4: the journal is damaged"));
  write_file(log(), whole.substr(head));
  EXPECT_THAT(fault(head_of(5)), HasSubstr("0.log:1: the journal is damaged"));
}

TEST_F(RequestJournals, OfAnotherIdentityAreRefusedWithWhatDiffers) {
  open().begin(0);
  JournalHead other = head_of(5);
  other.identity.batch = sha256_hex(std::string_view("other"));
  other.identity.model["base"] = sha256_hex(std::string_view("other"));
  other.identity.adapters = {{"tax", "9"}};
  other.identity.options["kv_dtype"] = "int8";
  const auto short_hash = [](std::string_view text) { return sha256_hex(text).substr(0, 8) + ".."; };
  EXPECT_EQ(fault(other),
            "journal/0.log: the answers that are there are to other requests, or of another model or other options\n"
            "  batch was " +
                short_hash("batch") + ", now " + short_hash("other") +
                "\n"
                "  model.base was " +
                short_hash("base") + ", now " + short_hash("other") +
                "\n"
                "  adapters.law was " +
                short_hash("law") +
                ", now not there\n"
                "  adapters.tax was not there, now 9\n"
                "  options.kv_dtype was f32, now int8\n"
                "  finish them with the command that began them, set run.dir to another folder, or remove journal: its "
                "answers are lost then");
}

TEST_F(RequestJournals, OfABatchThatHasEndedMakePlace) {
  complete();
  const std::string answers = read_file(samples());
  JournalHead other = head_of(5);
  other.identity.options["kv_dtype"] = "int8";
  write_file(samples(), answers + "\n");
  EXPECT_THAT(fault(other), HasSubstr("samples.jsonl: was changed after it was made"));
  write_file(samples(), answers);
  RequestJournal journal = open(other);
  EXPECT_FALSE(journal.is_complete());
  EXPECT_EQ(journal.finished(), 0);
  EXPECT_THAT(journal.notices(), ElementsAre(EndsWith("another batch, which has ended; this one takes its place")));
  journal.begin(0);
  for (int64_t i = 0; i < 5; ++i) journal.append({{i, answer_of(i)}});
  journal.finish();
  EXPECT_TRUE(open(other).is_complete());
  EXPECT_EQ(read_file(samples()), answers);
  EXPECT_FALSE(open().is_complete());  // of the first identity again: this batch has ended, too
}

TEST_F(RequestJournals, KnowTheFileThatTheirAnswersComeInto) {
  const auto into = [&](const char* name) { return RequestJournal(folder_.path(), name, head_of(5)); };
  {
    RequestJournal journal = open();
    journal.begin(0);
    journal.append({{0, answer_of(0)}});
  }
  EXPECT_THAT(error_text([&] { into("b.jsonl"); }), HasSubstr("generate.output was samples.jsonl, now b.jsonl"));
  {
    RequestJournal journal = open();
    journal.begin(0);
    for (int64_t i = 1; i < 5; ++i) journal.append({{i, answer_of(i)}});
    journal.finish();
  }
  // It has ended: the other file is made, and this one stays as it is.
  RequestJournal journal = into("b.jsonl");
  EXPECT_THAT(journal.notices(), ElementsAre(HasSubstr("samples.jsonl holds the answers of another batch")));
  EXPECT_FALSE(journal.is_complete());
  journal.begin(0);
  for (int64_t i = 0; i < 5; ++i) journal.append({{i, answer_of(i)}});
  journal.finish();
  EXPECT_TRUE(into("b.jsonl").is_complete());
  EXPECT_EQ(read_file(samples()), read_file(folder_ / "b.jsonl"));
  EXPECT_THAT(open().notices(), ElementsAre(HasSubstr("b.jsonl holds the answers of another batch")));
}

TEST_F(RequestJournals, GoOnOnAnotherMachineAndTellIt) {
  {
    RequestJournal journal = open();
    journal.begin(0);
    journal.append({{0, answer_of(0)}});
  }
  JournalHead other = head_of(5);
  other.made_on["vector"] = "avx512";
  const RequestJournal journal = open(other);
  EXPECT_EQ(journal.finished(), 1);
  EXPECT_THAT(journal.notices(),
              ElementsAre("note: these answers were begun on another kind of machine (backend cpu, vector avx2; here "
                          "backend cpu, vector avx512): bits may differ between requests"));
}

TEST_F(RequestJournals, RefuseAFileOfAnswersThatWasChanged) {
  complete();
  const std::string answers = read_file(samples());
  write_file(samples(), answers + "\n");
  EXPECT_EQ(fault(head_of(5)),
            "samples.jsonl: was changed after it was made, and would be overwritten\n"
            "  move it away to have it made again, or remove journal to have it overwritten");
  std::filesystem::remove(samples());
  RequestJournal journal = open();
  EXPECT_FALSE(journal.is_complete());
  EXPECT_EQ(journal.finished(), 0);
  EXPECT_THAT(journal.notices(), ElementsAre(EndsWith("samples.jsonl is gone and is made again")));
  complete();
  EXPECT_EQ(read_file(samples()), answers);
  EXPECT_TRUE(open().is_complete());
}

TEST_F(RequestJournals, AreWrittenOnceMoreWhenTheEndIsMissing) {
  {
    RequestJournal journal = open();
    journal.begin(0);
    for (int64_t i = 0; i < 5; ++i) journal.append({{i, answer_of(i)}});
  }
  // Killed behind the rename of the file of answers.
  write_file(samples(), all_answers(5));
  EXPECT_FALSE(open().is_complete());
  complete();
  EXPECT_EQ(read_file(samples()), all_answers(5));
}

TEST_F(RequestJournals, TellAFullDisk) {
  RequestJournal journal = open(200);
  journal.begin(0);
  const FileSizeLimit limit(std::filesystem::file_size(log()) + 100);
  EXPECT_THAT(error_text([&] { journal.append({{0, std::string(500, 'x')}}); }), HasSubstr("0.log: cannot be written"));
}

/// Answers what is left in groups of random sizes, until it is killed.
[[noreturn]] void answer_as_child(const std::filesystem::path& folder, int64_t requests, uint32_t seed, int rank,
                                  int ranks) {
  try {
    std::mt19937 random(seed);
    RequestJournal journal(folder, "samples.jsonl", head_of(requests));
    if (journal.is_complete()) _exit(0);
    journal.begin(rank);
    std::vector<std::pair<int64_t, std::string>> group;
    for (int64_t i = rank; i < requests; i += ranks) {
      if (journal.is_finished(i)) continue;
      group.emplace_back(i, answer_of(i));
      if (random() % 4 != 0) continue;
      journal.append(group);
      group.clear();
    }
    journal.append(group);
    _exit(0);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    _exit(1);
  }
}

/// Starts that many ranks and kills them at random; true when all of them ended by themselves.
bool run_ranks(const std::filesystem::path& folder, int64_t requests, std::mt19937& random, int ranks, bool is_killed) {
  // A rank that comes late reads what others are writing: lines that are whole or torn.
  std::vector<pid_t> children;
  for (int rank = 0; rank < ranks; ++rank) {
    const uint32_t seed = random();
    const pid_t child = fork();
    if (child == 0) answer_as_child(folder, requests, seed, rank, ranks);
    children.push_back(child);
  }
  bool all_ended = true;
  if (is_killed) usleep(random() % 15000);
  for (const pid_t child : children) {
    if (is_killed) kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_FALSE(WIFEXITED(status) && WEXITSTATUS(status) != 0);
    all_ended = all_ended && WIFEXITED(status);
  }
  return all_ended;
}

TEST_F(RequestJournals, EndWithTheSameBytesAfterAnyKills) {
  constexpr int64_t kRequests = 200;
  std::mt19937 random(random_seed());
  for (int repeat = 0; repeat < (tests_are_long() ? 20 : 1); ++repeat) {
    std::filesystem::remove_all(folder_ / "journal");
    std::filesystem::remove(samples());
    for (int kills = 0; kills < 20; ++kills) run_ranks(folder_.path(), kRequests, random, kills % 2 ? 3 : 1, true);
    EXPECT_TRUE(run_ranks(folder_.path(), kRequests, random, 3, false));
    complete(kRequests);
    ASSERT_EQ(read_file(samples()), all_answers(kRequests));
    EXPECT_TRUE(open(kRequests).is_complete());
  }
}

TEST_F(RequestJournals, AreFinishedWhereverTheEndIsKilled) {
  constexpr int64_t kRequests = 50;
  std::mt19937 random(random_seed());
  int killed = 0;
  const int repeats = tests_are_long() ? 200 : 15;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    std::filesystem::remove_all(folder_ / "journal");
    std::filesystem::remove(samples());
    {
      RequestJournal first = open(kRequests), second = open(kRequests);
      first.begin(0), second.begin(1);
      for (int64_t i = 0; i < kRequests; i += 10) {
        std::vector<std::pair<int64_t, std::string>> group;
        for (int64_t j = i; j < i + 10; ++j) group.emplace_back(j, answer_of(j));
        (i % 20 ? first : second).append(group);
      }
    }
    const pid_t child = fork();
    if (child == 0) {  // killed while it writes the file of answers, renames it or ends the journal
      RequestJournal journal = open(kRequests);
      journal.begin(0);
      journal.finish();
      _exit(0);
    }
    usleep(random() % 60000);
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    killed += WIFSIGNALED(status);
    const bool is_there = std::filesystem::exists(samples());
    EXPECT_EQ(is_there ? read_file(samples()) : all_answers(kRequests), all_answers(kRequests)) << "never a part";
    const RequestJournal after = open(kRequests);
    EXPECT_TRUE(after.is_complete() || after.finished() == kRequests);
    complete(kRequests);
    ASSERT_EQ(read_file(samples()), all_answers(kRequests));
  }
  std::printf("%d of %d were killed\n", killed, repeats);
}

TEST_F(RequestJournals, OfOtherRanksGoOnWithTheirOwnFilesAlone) {
  {
    RequestJournal first = open();
    first.begin(0);
    RequestJournal second = RequestJournal::of_rank(1, folder_.path(), "samples.jsonl", head_of(5));
    second.begin(1);
    first.append({{0, answer_of(0)}});
    second.append({{3, answer_of(3)}});
  }
  write_text_file(log(1), read_file(log(1)) + "1234");  // torn
  RequestJournal first = open();
  EXPECT_EQ(first.finished(), 2);
  first.begin(0);
  RequestJournal second = RequestJournal::of_rank(1, folder_.path(), "samples.jsonl", head_of(5));
  EXPECT_TRUE(second.is_finished(3));
  EXPECT_FALSE(second.is_finished(0)) << "that of another file";
  second.begin(1);
  second.append({{1, answer_of(1)}, {4, answer_of(4)}});
  first.append({{2, answer_of(2)}});
  first.finish();
  EXPECT_EQ(read_file(samples()), all_answers(5));
}

TEST_F(RequestJournals, AreKnownByAMarkWhoeverSeesThem) {
  EXPECT_EQ(RequestJournal::mark(folder_.path()), "");
  EXPECT_FALSE(RequestJournal::head_of(folder_.path()));
  open().begin(0);
  const std::string mark = RequestJournal::mark(folder_.path());
  EXPECT_NE(mark, "");
  EXPECT_EQ(RequestJournal::mark(folder_.path()), mark);
  EXPECT_EQ(RequestJournal::head_of(folder_.path())->identity.hex(), head_of(5).identity.hex());
  TemporaryFolder copy;
  std::filesystem::copy(folder_ / "journal", copy / "journal");
  EXPECT_NE(RequestJournal::mark(copy.path()), mark);
}

// A file of an ended batch that could not be removed does not hide the answers of those behind it.
TEST_F(RequestJournals, OfSeveralRanksReadEachFileByItsOwnHead) {
  JournalHead old = head_of(5);
  old.identity.batch = sha256_hex(std::string_view("an older batch"));
  {
    RequestJournal journal = open(old);
    journal.begin(0);
    journal.append({{0, answer_of(0)}, {1, answer_of(1)}, {2, answer_of(2)}, {3, answer_of(3)}, {4, answer_of(4)}});
    journal.finish();
  }
  const std::string stale = head_line(old) + "\n" + answer_line(0, "{}") + "\n";
  write_text_file(log(1), stale);
  RequestJournal first = open();
  EXPECT_EQ(first.finished(), 0);
  first.begin(0);
  EXPECT_FALSE(std::filesystem::exists(log(1))) << "without the end it would be refused from now on";
  RequestJournal third = RequestJournal::of_rank(2, folder_.path(), "samples.jsonl", head_of(5));
  third.begin(2);
  third.append({{0, answer_of(0)}, {1, answer_of(1)}, {2, answer_of(2)}, {3, answer_of(3)}});
  write_text_file(log(1), stale);  // another machine brings it back
  first.append({{4, answer_of(4)}});
  first.finish();
  EXPECT_EQ(read_file(samples()), all_answers(5));
}

TEST_F(RequestJournals, SayHowTheFirstAnswerIsNotOneToItsRequest) {
  {
    RequestJournal journal = open();
    journal.begin(0);
    journal.append({{2, answer_of(2)}, {4, answer_of(4)}});
  }
  JournalHead other = head_of(5);
  other.identity.batch = sha256_hex(std::string_view("another batch"));
  std::vector<int64_t> asked;
  const std::string message = error_text([&] {
    RequestJournal(folder_.path(), "samples.jsonl", other, [&](int64_t number, const std::string& answer) {
      asked.push_back(number);
      EXPECT_EQ(answer, answer_of(number));
      return number == 4 ? std::string("request 4 was another\n") : "";
    });
  });
  EXPECT_THAT(asked, ElementsAre(2, 4));
  EXPECT_THAT(message, HasSubstr("batch was "));
  EXPECT_THAT(message, HasSubstr("request 4 was another\n"));
}

}  // namespace
}  // namespace tessera
