#pragma once
// How much memory a split will take, before it is read.

#include "data/data_source.h"

namespace tessera {

/// About how many bytes the split takes as a PackedDataset: the first part of its file is encoded, and stands for the
/// rest. 0 for files of less than a megabyte, for which the tokenizer is not read either.
/// @throws UserError as load_split does, for what is wrong in that part
int64_t plan_data_bytes(const DataConfig&, const std::filesystem::path& tokenizer_folder, Split,
                        int64_t sequence_length);

/// About how many tokens the split has; of small files, too.
/// @throws UserError as plan_data_bytes
int64_t plan_data_tokens(const DataConfig&, const std::filesystem::path& tokenizer_folder, Split);

}  // namespace tessera
