#include "steplog/wire.h"

namespace tessera {

void ByteWriter::put(std::span<const std::byte> bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }

void ByteWriter::put_bits(const std::vector<bool>& bits) {
  const size_t start = bytes_.size();
  bytes_.resize(start + (bits.size() + 7) / 8);
  for (size_t i = 0; i < bits.size(); ++i)
    if (bits[i]) bytes_[start + i / 8] |= std::byte{1} << (i % 8);
}

}  // namespace tessera
