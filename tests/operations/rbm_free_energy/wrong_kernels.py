"""Wrong kernels of `rbm_free_energy`: see `support/wrong_kernels.py`."""

from collections.abc import Callable

import torch
from boltzbench.harness import Inputs, Launch, Status, Tensors
from support.wrong_kernels import Prepare, WrongKernel, mutants
from torch import Tensor
from torch.nn.functional import softplus

OPERATION = "rbm_free_energy"

FREE_ENERGY = "chains=70 visible=100 hidden=17 float32"
FEW_TERMS = "outliers chains=40 visible=2 hidden=1 float32"
TILES_OF_UNITS = "cold chains=65 visible=33 hidden=130 float32"


def visible_energy(inputs: Inputs) -> Tensor:
    """``-v.b`` of each chain."""
    energy: Tensor = -(inputs["states"].float() @ inputs["visible_bias"].float())
    return energy


def forgets_the_visible_bias(inputs: Inputs, x: Tensor, beta: Tensor) -> Tensor:
    return -(softplus(beta * x) / beta).sum(1)


def forgets_to_divide_by_beta(inputs: Inputs, x: Tensor, beta: Tensor) -> Tensor:
    return visible_energy(inputs) - softplus(beta * x).sum(1)


def takes_the_first_beta_for_all(inputs: Inputs, x: Tensor, beta: Tensor) -> Tensor:
    return visible_energy(inputs) - (softplus(beta[:1] * x) / beta[:1]).sum(1)


def overflows_at_large_fields(inputs: Inputs, x: Tensor, beta: Tensor) -> Tensor:
    terms = torch.log(1 + torch.exp(beta * x)) / beta
    return visible_energy(inputs) - terms.sum(1)


def rounds_fields_to_bfloat16(inputs: Inputs, x: Tensor, beta: Tensor) -> Tensor:
    terms = softplus(beta * x.to(torch.bfloat16).float()) / beta
    return visible_energy(inputs) - terms.sum(1)


def drops_the_last_hidden_unit(inputs: Inputs, x: Tensor, beta: Tensor) -> Tensor:
    return visible_energy(inputs) - (softplus(beta * x[:, :-1]) / beta).sum(1)


def _free_energy(compute: Callable[[Inputs, Tensor, Tensor], Tensor]) -> Prepare:
    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        def launch() -> Tensors:
            beta = torch.as_tensor(inputs["beta"], dtype=torch.float32).expand(len(inputs["states"]))[:, None]
            x = inputs["hidden_bias"].float() + inputs["states"].float() @ inputs["weights"].float()
            outputs["free_energy"].copy_(compute(inputs, x, beta))
            return outputs

        return launch

    return prepare


WRONG_KERNELS = (
    *(
        WrongKernel(compute.__name__, OPERATION, case, Status.WRONG_VALUES, _free_energy(compute))
        for compute, case in (
            (forgets_the_visible_bias, FREE_ENERGY),
            (forgets_to_divide_by_beta, "cold chains=65 visible=33 hidden=130 float32"),
            (takes_the_first_beta_for_all, "betas chains=65 visible=33 hidden=130 float32"),
            (overflows_at_large_fields, "outliers chains=65 visible=33 hidden=130 float32"),
            (rounds_fields_to_bfloat16, FREE_ENERGY),
            (drops_the_last_hidden_unit, FREE_ENERGY),
        )
    ),
    *mutants(
        OPERATION,
        ("rbm_free_energy.cu", "lanes < 4; lanes *= 2", "lanes < 2; lanes *= 2", FREE_ENERGY),
        ("rbm_free_energy.cu", "part < gridDim.y && mine", "part + 1 < gridDim.y && mine", TILES_OF_UNITS),
        ("common/binary_product.cuh", "PARTS<float> = 3", "PARTS<float> = 2", FEW_TERMS),
        ("triton_kernels.py", "terms, 1.0", "terms, 0.75", FREE_ENERGY),
        ("triton_kernels.py", "for other in range(tl.num_programs(1))",
         "for other in range(tl.num_programs(1) - 1)", TILES_OF_UNITS),
        ("rbm_free_energy.cpp", "i32(units - k)", "i32(LANE)", FREE_ENERGY),
        ("rbm_free_energy.cpp", "block < blocks", "block + 1 < blocks", TILES_OF_UNITS),
        ("rbm_free_energy.cpp", "for (; unit < units; ++unit)", "", FREE_ENERGY),
        ("machines/binary_products.hpp", "given = group * BITS + bit", "given = group * BITS + 3 - bit", FREE_ENERGY),
    ),
)  # fmt: skip
