"""What a rank of `test_two_machines.py` runs: prints the sums of a lattice, and goes on until another rank is lost."""

import os
import sys
import time
from pathlib import Path

import torch
from boltzbench.kernels.distributed import IsingLattice, RankError, join
from boltzbench.kernels.ising import ising_sweeps
from boltzbench.kernels.machines.states import random_spins

torch.set_num_threads(1)
folder = Path(sys.argv[2])
(folder / os.environ["RANK"]).touch()
while len(list(folder.iterdir())) < 2:  # the imports of one may take longer than ranks wait for another
    time.sleep(0.01)
try:
    with join(timeout=float(sys.argv[1]), device="cpu") as (ranks, _):
        lattice = IsingLattice(16, 70, 0.44, seed=1, ranks=ranks, backend="torch")
        lattice.advance(3)
        wanted = ising_sweeps(random_spins(16, 70, 1, seed=1), 70, 3, 0.44, seed=1, backend="torch")
        print(f"{ranks}: {'same' if torch.equal(lattice.gather(), wanted) else 'other'} bits", flush=True)
        while True:
            lattice.advance(20)
except RankError as error:
    print(f"lost: {error}", flush=True)
    sys.exit(2)
