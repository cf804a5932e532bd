#pragma once
// A machine's part of a round, in bytes that tell little of any one document.

#include "train/spsa/privacy/privacy_ledger.h"
#include "train/spsa/privacy/system_random.h"
#include "train/spsa/voter.h"

namespace tessera {

/// For each probe every document is drawn with probability q, by itself, and for each drawn one x
///   d_x = clip( ( mean NLL of its scored tokens at w + eps z − the same at w − eps z ) / (2 eps), −C, C )
///   g = ( Σ d_x + N(0, (sigma C)²) ) / batch        batch = q · documents: the fixed number, not the number drawn
/// A document whose d_x is not finite gives 0. Draws, noise and the rounding to a byte are the system's.
/// g of a probe. @param sum  of d_x over the documents drawn
double noisy_slope(double sum, const PrivacyTerms&, int64_t batch, SystemRandom&);

class PrivateVoter {
 public:
  PrivateVoter(const Voter::Inputs& in, const PrivacyTerms& terms);

  /// @param lane  of the machine. The loss is of the documents drawn, and stays here
  Measured measure(uint32_t round, int unit, uint32_t machine, uint32_t lane);

 private:
  std::vector<int64_t> draw_documents();
  double slope_of(int64_t document, const Direction& z, Measured& found) const;

  Voter::Inputs in_;
  PrivacyTerms terms_;
  std::vector<std::vector<int64_t>> pieces_;  // by document
  SystemRandom random_;
};

}  // namespace tessera
