"""Wrong kernels of `thermodynamics`: see `support/wrong_kernels.py`."""

from collections.abc import Callable

import torch
from boltzbench.harness import Inputs, Launch, Status, Tensors
from support.wrong_kernels import Prepare, WrongKernel, mutants
from torch import Tensor

OPERATION = "thermodynamics"

LOGSUMEXP = "rows=37 columns=1031 float32"
SPLIT = "split rows=3 columns=70001 float32"
FLAT = "beta-zero far split rows=1 columns=70003 float32"


def subtracts_large_squares(x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    mean = (p * x).sum(1)
    return -mean, (p * x * x).sum(1) - mean * mean


def squares_distances_from_the_peak(x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    distance = x - x.amax(1, keepdim=True)
    mean = (p * distance).sum(1)
    return -(x.amax(1) + mean), (p * distance**2).sum(1) - mean**2


def weighs_all_alike(x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    return -x.mean(1), x.var(1, correction=0)


def takes_the_sample_variance(x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    energy = -(p * x).sum(1)
    n = x.shape[1]
    return energy, (p * (x + energy[:, None]) ** 2).sum(1) * n / (n - 1)


def has_the_sign_of_energy_wrong(x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    energy = (p * x).sum(1)
    return energy, (p * (x - energy[:, None]) ** 2).sum(1)


def lets_weightless_states_count(x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    energy = -(p * x).sum(1)
    return energy, (p * (x + energy[:, None]) ** 2).sum(1)


def _moments(compute: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Prepare:
    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        def launch() -> Tensors:
            x = inputs["x"].to(outputs["log_z"].dtype)
            log_z = torch.logsumexp(x * inputs["beta"], 1)
            energy, variance = compute(x, torch.softmax(x * inputs["beta"], 1))
            for name, value in (("log_z", log_z), ("energy", energy), ("variance", variance)):
                outputs[name].copy_(torch.where(log_z.isfinite() | (value is log_z), value, torch.nan))
            return outputs

        return launch

    return prepare


WRONG_KERNELS = (
    *(
        WrongKernel(compute.__name__, OPERATION, case, Status.WRONG_VALUES, _moments(compute))
        for compute, case in (
            (subtracts_large_squares, "shifted rows=5 columns=512 float32"),
            (squares_distances_from_the_peak, FLAT),
            (weighs_all_alike, LOGSUMEXP),
            (takes_the_sample_variance, LOGSUMEXP),
            (has_the_sign_of_energy_wrong, LOGSUMEXP),
            (lets_weightless_states_count, "infinities rows=5 columns=512 float32"),
        )
    ),
    *mutants(
        OPERATION,
        ("thermodynamics.cu", "+ (difference * (share * total)) * difference", "", SPLIT),
        ("thermodynamics.cu", "spread *= factor;", "", SPLIT),
        ("thermodynamics.cu", "finite(mean + moved)", "mean", SPLIT),
        ("thermodynamics.cu", "return larger(distance, ",
         "return larger(distance, -1 / Real(0) + ", "infinities rows=5 columns=512 float32"),
        ("triton_kernels.py", "+ total * difference * difference", "", LOGSUMEXP),
        ("triton_kernels.py", "spread * factor", "spread", SPLIT),
        ("triton_kernels.py", "    distance = finite(distance)\n", "", "infinities rows=5 columns=512 float32"),
        ("thermodynamics.cpp", "+ difference * (part * total) * difference", "", SPLIT),
        ("thermodynamics.cpp", "finite(mean + moved)", "mean", SPLIT),
        ("thermodynamics.cpp", "return larger(all(std::numeric_limits<Real>::lowest()), distance);",
         "return distance;", "infinities rows=5 columns=512 float32"),
        ("thermodynamics.cpp", "MOST = 16", "MOST = 1 << 20", FLAT),
    ),
)  # fmt: skip
