#pragma once
// Tasks of Slurm's srun, which find each other by PMIx or not at all.

namespace tessera {

/// True when srun started this process as one of several and gave it neither PMIx nor PMI:
/// MPI would abort in its own start.
bool started_by_srun_without_pmix();

}  // namespace tessera
