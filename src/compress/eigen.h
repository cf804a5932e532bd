#pragma once
// Eigenvalues and eigenvectors of a symmetric matrix, in f64 on the host.

#include <vector>

#include "compress/matrix.h"

namespace tessera {

struct SymmetricEigen {
  std::vector<double> values;  // descending
  Matrix vectors;              // row i belongs to value i; orthonormal rows
};

/// symmetric = sum over i of values[i] · vectors.row(i)ᵀ vectors.row(i).
///
/// Householder reflections to a tridiagonal matrix, then QL steps with implicit shifts (Wilkinson & Reinsch 1971, II/2
/// and II/4). Values are exact to about 1e-15 of the largest; rows are orthonormal to 1e-13. All loops over n² elements
/// are laid out by rows, so that they run in vectors. About 10 n³ operations, two matrices of n² beside the argument.
/// (One-sided Jacobi rotations, which also give the smallest singular values to full relative precision, take ten times
/// as long. Starts do not need that: low_rank_start projects on the vectors.)
/// @param symmetric  finite
SymmetricEigen symmetric_eigen(Matrix symmetric);

}  // namespace tessera
