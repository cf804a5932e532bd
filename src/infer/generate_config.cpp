#include "infer/generate_config.h"

#include "core/section_check.h"

namespace tessera {

void GenerateConfig::check(SectionCheck& own) const {
  const std::filesystem::path file = output;
  if (output.size() > 255)
    own.fault("output", fmt::format("generate.output is a name of {} bytes", output.size()),
              "a file's name has 255 at most");
  if (file.filename() != file || file.extension() != ".jsonl" || output == "metrics.jsonl")
    own.fault("output", fmt::format("generate.output is \"{}\"", output),
              "give a plain file name that ends in .jsonl, and not metrics.jsonl: it is written into the run's folder");
}

}  // namespace tessera
