"""Wrong kernels of `rbm_gradient`: see `support/wrong_kernels.py`."""

from collections.abc import Callable

import torch
from boltzbench.harness import Inputs, Launch, Status, Tensors
from support.wrong_kernels import Prepare, WrongKernel, mutants, shipped
from torch import Tensor

OPERATION = "rbm_gradient"

GRADIENT = "data=70 model=41 visible=100 hidden=17 float32"
COLD = "cold data=65 model=33 visible=33 hidden=70 float32"
FEW_CHAINS = "sampled model data=2 model=1 visible=3 hidden=40 float32"
PARTS_OF_CHAINS = "data=300 model=700 visible=18 hidden=21 float32"


def has_the_phases_swapped(v: Tensor, h: Tensor, v_model: Tensor, h_model: Tensor) -> Tensor:
    return v_model.t() @ h_model / len(v_model) - v.t() @ h / len(v)


def divides_by_the_wrong_count(v: Tensor, h: Tensor, v_model: Tensor, h_model: Tensor) -> Tensor:
    return (v.t() @ h - v_model.t() @ h_model) / len(v)


def forgets_the_negative_phase(v: Tensor, h: Tensor, v_model: Tensor, h_model: Tensor) -> Tensor:
    return v.t() @ h / len(v)


def takes_states_for_probabilities(v: Tensor, h: Tensor, v_model: Tensor, h_model: Tensor) -> Tensor:
    return v.t() @ h.round() / len(v) - v_model.t() @ h_model.round() / len(v_model)


def drops_the_last_chain(v: Tensor, h: Tensor, v_model: Tensor, h_model: Tensor) -> Tensor:
    return v[:-1].t() @ h[:-1] / len(v) - v_model.t() @ h_model / len(v_model)


def rounds_probabilities_to_bfloat16(v: Tensor, h: Tensor, v_model: Tensor, h_model: Tensor) -> Tensor:
    h, h_model = h.to(torch.bfloat16).float(), h_model.to(torch.bfloat16).float()
    return v.t() @ h / len(v) - v_model.t() @ h_model / len(v_model)


def adds_chains_as_they_come(v: Tensor, h: Tensor, v_model: Tensor, h_model: Tensor) -> Tensor:
    order = torch.randperm(len(v_model))
    return v.t() @ h / len(v) - (v_model[order, :, None] * h_model[order, None, :]).cumsum(0)[-1] / len(v_model)


def _gradient(compute: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Prepare:
    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        def launch() -> Tensors:
            shipped(OPERATION)(inputs, outputs)()
            phases = []
            for name in ("data", "model"):
                v = inputs[name].float()
                x = inputs["hidden_bias"].float() + v @ inputs["weights"].float()
                given = inputs.get(f"{name}_hidden")
                phases += [v, torch.sigmoid(inputs["beta"] * x) if given is None else given.float()]
            outputs["weights_gradient"].copy_(compute(*phases))
            return outputs

        return launch

    return prepare


WRONG_KERNELS = (
    *(
        WrongKernel(compute.__name__, OPERATION, case, status, _gradient(compute))
        for compute, case, status in (
            (has_the_phases_swapped, GRADIENT, Status.WRONG_VALUES),
            (divides_by_the_wrong_count, GRADIENT, Status.WRONG_VALUES),
            (forgets_the_negative_phase, GRADIENT, Status.WRONG_VALUES),
            (takes_states_for_probabilities, GRADIENT, Status.WRONG_VALUES),
            (drops_the_last_chain, GRADIENT, Status.WRONG_VALUES),
            (rounds_probabilities_to_bfloat16, GRADIENT, Status.WRONG_VALUES),
            (adds_chains_as_they_come, "equal phases", Status.WRONG_LAW),
        )
    ),
    *mutants(
        OPERATION,
        ("rbm_gradient.cu", "other += UNITS)", "other += 2 * UNITS)", GRADIENT),
        ("rbm_gradient.cu", "blockIdx.z * model_part", "0", PARTS_OF_CHAINS),
        ("common/binary_product.cuh", "PARTS<float> = 3", "PARTS<float> = 2", FEW_CHAINS),
        ("common/binary_product.cuh", "term + t + 1, row + r, end)", "term + t, row + r, end)", GRADIENT),
        ("triton_kernels.py", "inside = row < end - start", "inside = row < end - start - 1", GRADIENT),
        ("triton_kernels.py", "part * data_part, part * model_part", "part * data_part, 0", PARTS_OF_CHAINS),
        ("rbm_gradient.cpp", "to[units] |=", "to[units] =", GRADIENT),
        ("rbm_gradient.cpp", "chains - (begin + group) * BITS", "chains - (begin + group) * BITS - 1", GRADIENT),
        ("rbm_gradient.cpp", "mean = float(count)", "mean = float(count + 1)", PARTS_OF_CHAINS),
        ("rbm_gradient.cpp", "float(-beta)", "-1.0f", COLD),
    ),
)  # fmt: skip
