"""Block Gibbs with prepared weights in CUDA C: products on tensor cores, and the draw in the same kernel.

Three plans: a launch for each half sweep (`tensor_cores.cu`), all sweeps in one launch by clusters of blocks
(`clusters.cu`), and all sweeps in one launch with the weights in shared memory (`resident.cu`). The first two share
the tile of `tile.cuh`; all three share the draw of `tensor_cores.cuh`.
"""
