"""Block Gibbs with prepared weights: products on tensor cores, and the draw in the same kernel.

Three plans in CUDA C: a launch for each half sweep (`tensor_cores.cu`), all sweeps in one launch by clusters of blocks
(`clusters.cu`), and all sweeps in one launch with the weights in shared memory (`resident.cu`). The first two share
the tile of `tile.cuh`; all three share the draw of `tensor_cores.cuh`.

In Triton, `triton_resident.py` has all sweeps in one launch; `triton_tile.py` is what it shares with the half sweeps.
"""
