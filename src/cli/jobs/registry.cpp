// The list of jobs. Each is made in the file of its name beside this one.

#include <algorithm>

#include "cli/jobs.h"
#include "core/error.h"

namespace tessera {

Job train_job();
Job prepare_job();
Job evaluate_job();
Job generate_job();
Job export_job();
Job replay_job();
Job compress_job();
Job simulate_job();

const std::vector<Job>& jobs() {
  static const std::vector<Job> all = {train_job(),  prepare_job(), evaluate_job(), generate_job(),
                                       export_job(), replay_job(),  compress_job(), simulate_job()};
  return all;
}

const Job& job_of(const JobConfig& config) {
  const auto job = std::find_if(jobs().begin(), jobs().end(), [&](const Job& j) { return j.name == config.job; });
  TS_CHECK(job != jobs().end(), "job \"{}\" passed the recipe's check", config.job);
  return *job;
}

}  // namespace tessera
