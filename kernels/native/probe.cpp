// A file that needs what all kernels need: the headers, OpenMP, and a place for the result.
#include "vectors.hpp"

KERNEL void probe(i64* threads_seen, int threads) {
#pragma omp parallel num_threads(threads)
#pragma omp atomic
    ++*threads_seen;
}
