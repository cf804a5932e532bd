#include "cli/jobs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "cli/plan.h"
#include "core/error.h"

namespace tessera {
namespace {

TEST(Jobs, EachHasANameOfItsOwnAndSaysWhatItIsFor) {
  std::set<std::string_view> names;
  for (const Job& job : jobs()) {
    EXPECT_TRUE(names.insert(job.name).second) << job.name;
    EXPECT_FALSE(job.help.empty()) << job.name;
    EXPECT_TRUE(job.run && job.plan && job.smaller) << job.name;
    EXPECT_FALSE(job.smaller(JobConfig{}, MemoryPlan{}).empty()) << job.name;
  }
  EXPECT_EQ(jobs().front().name, JobConfig{}.job);
}

/// A stored recipe stands for a run whichever job is done with it, and spells out every job's keys.
TEST(Jobs, SectionsOfEachAreReadWhicheverJobIsAskedFor) {
  for (const Job& asked : jobs()) {
    Recipe recipe = Recipe::from_text(fmt::format("job = \"{}\"\n[replay]\nround = 3\n", asked.name), "a.toml",
                                      {"generate.top_k=5"});
    JobConfig config;
    EXPECT_THROW(read_job(recipe, config), UserError);  // which names no model
    EXPECT_EQ(config.job, asked.name);
    const auto flat = recipe.flat();
    EXPECT_THAT(flat, testing::Contains(testing::Pair("generate.top_k", "5"))) << asked.name;
    EXPECT_THAT(flat, testing::Contains(testing::Pair("replay.round", "3"))) << asked.name;
  }
}

TEST(Jobs, KeysOfAJobMayChangeWhenARunGoesOn) {
  Recipe recipe = Recipe::from_text("", "a.toml");
  JobConfig config;
  for (const Job& job : jobs())
    if (job.read) job.read(recipe, config);
  EXPECT_FALSE(recipe.flat().empty());
  for (const auto& [key, value] : recipe.flat()) EXPECT_EQ(recipe.on_resume(key), OnResume::free) << key;
}

/// The header of an SPSA run's log holds what its rounds are read by, which no branch of it may have otherwise.
TEST(Jobs, ABranchOfALogMayDifferInWhatItsHeaderDoesNotHold) {
  Recipe recipe = Recipe::from_text("", "a.toml");
  JobConfig config;
  EXPECT_THROW(read_job(recipe, config), UserError);  // which names no model
  std::set<std::string> fixed;                        // of [train], [optimizer] and [data]
  for (const auto& [key, value] : recipe.flat()) {
    const OnResume on_resume = recipe.on_resume(key);
    if (key.starts_with("train.") || key.starts_with("optimizer.") || key.starts_with("data."))
      if (on_resume == OnResume::same || on_resume == OnResume::same_model || on_resume == OnResume::from_checkpoint)
        fixed.insert(key);
    if (key.starts_with("sharing.") || key.starts_with("adapter.") || key.starts_with("model.")) {
      EXPECT_NE(on_resume, OnResume::in_branch) << key;
    }
  }
  EXPECT_THAT(
      fixed, testing::UnorderedElementsAre("optimizer.name", "optimizer.momentum", "optimizer.beta1", "optimizer.beta2",
                                           "optimizer.eps", "train.seed", "train.freeze", "train.estimator"));
}

struct SizeConfig {
  int64_t size = 7;
};
struct OtherConfig {
  int64_t size = 1;
};

TEST(OwnSections, HoldsAStructATypeAndItsDefaultsUntilOneIsMade) {
  OwnSections own;
  const OwnSections& seen = own;
  EXPECT_EQ(seen.of<SizeConfig>().size, 7);
  SizeConfig& size = own.of<SizeConfig>();
  size.size = 8;
  own.of<OtherConfig>().size = 2;
  EXPECT_EQ(&own.of<SizeConfig>(), &size);
  EXPECT_EQ(&seen.of<SizeConfig>(), &size);
  EXPECT_EQ(seen.of<SizeConfig>().size, 8);
  const OwnSections copy = own;
  size.size = 9;
  EXPECT_EQ(copy.of<SizeConfig>().size, 8);
}

}  // namespace
}  // namespace tessera
