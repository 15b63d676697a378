"""The operation ``enumeration``: log Z of a Boltzmann machine by a sum over all states."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Unpack

import torch
from boltzbench.harness import (
    Advance,
    Agreement,
    Case,
    CaseOptions,
    Cost,
    Expected,
    Inputs,
    Launch,
    Law,
    Operation,
    Status,
    Tensors,
)
from boltzbench.kernels.enumeration import log_partition, rbm_log_partition
from boltzbench.kernels.ising import lattice_couplings, units_of
from boltzbench.plugins.exact.ising import kaufman
from boltzbench.plugins.exact.rbm import LOG_Z, fixture
from boltzbench.plugins.exact.rbm import log_partition as log_partition_of_rbm
from boltzbench.plugins.exact.states import all_units
from boltzbench.plugins.support import digits
from boltzbench.plugins.support.machines import near_log_z
from boltzbench.plugins.support.operations import operation_hooks
from torch import Tensor

BOLTZBENCH_API = 1

BETAS = {"hot": 0.1, "cold": 3.0}
SCALES = {"frustrated": 5.0, "sharp": 4.0}
"""Scales of the weights at which kernels must normalize exponents after each factor."""
BLOCK = 8
"""Size of independent blocks in machines that are too large for the reference: log Z is the sum over blocks."""
LATTICE_BETA = 0.4


def _rbm(visible: int, hidden: int, dtype: str = "float32", scenario: str = "", **more: Unpack[CaseOptions]) -> Case:
    sizes = {"visible": visible, "hidden": hidden}
    return Case("enumeration", sizes, dtype, scenario, **more)


def _machine(units: int, dtype: str = "float32", scenario: str = "machine", **more: Unpack[CaseOptions]) -> Case:
    return Case("enumeration", {"units": units}, dtype, scenario, **more)


MOST_TOGETHER = 22
"""The most units of which the reference stores all states; of more it needs independent blocks."""


def _case(
    visible: int | None = None,
    hidden: int | None = None,
    units: int | None = None,
    dtype: str = "float32",
    scenario: str | None = None,
) -> Case:
    """A restricted machine, or a general one of ``units``."""
    if visible is not None and hidden is not None and units is None:
        case, together = _rbm(visible, hidden, dtype, scenario or ""), min(visible, hidden)
        other = "blocks"
    elif units is not None and visible is None and hidden is None:
        case, together = _machine(units, dtype, "machine" if scenario is None else scenario), units
        other = "blocks machine"
        if case.scenario == "lattice":
            if units != math.isqrt(units) ** 2:
                raise ValueError("units must be a square number, those of a torus")
            return case
    else:
        raise ValueError("give visible and hidden for a restricted machine, or units for a general one")
    words = case.scenario.split()
    if ("machine" in words) != (units is not None):
        raise ValueError("scenarios with 'machine' have units, the others visible and hidden")
    if together > MOST_TOGETHER and "blocks" not in words:
        raise ValueError(
            f"the reference sums over at most 2**{MOST_TOGETHER} states; of more units take the scenario {other!r}"
        )
    return case


CASES = (
    _rbm(10, 8),
    _rbm(13, 30, "float64"),
    _rbm(21, 9, "bfloat16"),
    _rbm(15, 17),
    *(_rbm(12, 33, scenario=scenario) for scenario in ("transposed", *BETAS, "frustrated")),
    _rbm(1, 1),
    _rbm(0, 5),
    _rbm(5, 0),
    _machine(1),
    _machine(9, "float64"),
    _machine(18),
    _machine(21, "bfloat16", "blocks machine"),
    _machine(17, scenario="sharp machine"),
    _rbm(16, 16, purpose="bench"),
    _machine(16, purpose="bench"),
    _rbm(30, 32, scenario="blocks", purpose="bench", preset="quick"),
    _machine(36, "float64", "lattice", purpose="bench", preset="quick"),
    *(_rbm(34, units, scenario="blocks", purpose="bench", preset="full") for units in (34, 128)),
    _machine(38, scenario="blocks machine", purpose="bench", preset="full"),
    _rbm(digits.PIXELS, digits.HIDDEN_UNITS, scenario="digits", purpose="real"),
)


def make_inputs(case: Case, device: torch.device) -> Inputs:
    """Weights of scale 1 (2 / sqrt(units) in a general machine), all connected or in independent blocks; or a torus."""
    generator = torch.Generator().manual_seed(case.seed)
    random = partial(torch.randn, generator=generator, dtype=torch.float64)
    words = case.scenario.split()
    scale = next((SCALES[word] for word in words if word in SCALES), 1.0)
    beta = next((BETAS[word] for word in words if word in BETAS), 1.0)
    blocks = "blocks" in words
    if "lattice" in words:
        side = math.isqrt(case.sizes["units"])
        machine = units_of(lattice_couplings(side, side), torch.zeros(side * side, dtype=torch.float64))
        parameters = {"weights": machine.weights, "biases": machine.biases}
        beta = LATTICE_BETA
    elif "units" in case.sizes:
        n = case.sizes["units"]
        above = scale * 2 / math.sqrt(n) * random(n, n).triu(1)
        if blocks:
            place = torch.arange(n) // BLOCK
            above = torch.where(place[:, None] == place, above, 0.0)
        parameters = {"weights": above + above.t(), "biases": random(n)}
    else:
        visible, hidden = case.sizes["visible"], case.sizes["hidden"]
        weights = scale * random(visible, hidden)
        if case.scenario == "digits":
            weights, visible_bias, hidden_bias = (
                digits.jittered(part.double(), case.seed) for part in digits.machine()
            )
        else:
            visible_bias, hidden_bias = random(visible), random(hidden)
        if blocks:
            of_visible, of_hidden = (
                _blocks_of(units, -(-min(visible, hidden) // BLOCK)) for units in (visible, hidden)
            )
            weights = torch.where(of_visible[:, None] == of_hidden, weights, 0.0)
        if case.scenario == "transposed":
            weights = weights.t().contiguous().t()
        parameters = {"weights": weights, "visible_bias": visible_bias, "hidden_bias": hidden_bias}
    return {
        **{name: part.to(device, case.torch_dtype) for name, part in parameters.items()},
        "beta": beta,
        "blocks": blocks,
        "lattice": "lattice" in words,
    }


def _blocks_of(units: int, blocks: int) -> Tensor:
    """The block of each unit of a layer."""
    return torch.arange(units) * blocks // units


def make_outputs(inputs: Inputs) -> Tensors:
    return {"log_z": inputs["weights"].new_empty((), dtype=torch.float64)}


def _of_machine(w: Tensor, b: Tensor) -> Tensor:
    x = all_units(len(w), w.device).double()
    return torch.logsumexp(0.5 * ((x @ w) * x).sum(1) + x @ b, 0)


U, U_DOUBLE = 2.0**-24, 2.0**-53


def expected(inputs: Inputs, outputs: Tensors) -> Mapping[str, Expected]:
    """The sum over all states in float64, by blocks if these are independent; Kaufman's formula for the torus.

    For a restricted machine with m units in the larger layer the relative error of Z is at most ``(4 m + 64) u``, with
    u = 2**-24. Terms are positive, so relative errors do not grow. A factor takes 3 u for its table entries and the
    fma, its product 1 u more, the biases 4 u, and a thread's sum of 32 terms 32 u; the rest is float64.

    For other machines, with U = 2**-53, exponents are sums of n numbers with magnitudes of sum S, ``8 (n + 4) S U``.
    Some 2000 products and sums follow, and one for each 500 states of the top units.
    """
    w, beta = inputs["beta"] * inputs["weights"].double(), inputs["beta"]
    if "biases" in inputs:
        n, b = len(w), beta * inputs["biases"].double()
        if inputs["lattice"]:
            side = math.isqrt(n)
            couplings = lattice_couplings(side, side)
            constant = float(units_of(couplings, couplings.new_zeros(n)).constant)
            value = torch.tensor(kaufman(side, side, beta).log_z + beta * constant, dtype=torch.float64)
        else:
            size = BLOCK if inputs["blocks"] else max(n, 1)
            cuts = [slice(first, first + size) for first in range(0, n, size)]
            value = torch.stack([_of_machine(w[part, part], b[part]) for part in cuts]).sum()
        bound = U_DOUBLE * float(8 * (n + 4) * (w.abs().sum() + b.abs().sum()) + 2000 + (1 << max(n - 16, 0)) // 500)
    else:
        b, c = beta * inputs["visible_bias"].double(), beta * inputs["hidden_bias"].double()
        if inputs["blocks"]:
            count = -(-min(w.shape) // BLOCK)
            of_b, of_c = (_blocks_of(units, count).to(w.device) for units in w.shape)
            parts = [(of_b == block, of_c == block) for block in range(count)]
            value = torch.stack([log_partition_of_rbm(w[i][:, j], b[i], c[j]) for i, j in parts]).sum()
        else:
            value = log_partition_of_rbm(w, b, c)
        bound = (4 * max(w.shape) + 64) * U
    return {"log_z": Expected(value.to(w.device), bound)}


def cost(case: Case) -> Cost:
    """In a restricted machine a term is a factor of a state and takes a multiply-add and a product.

    In a general machine each state takes a multiply-add.
    """
    sizes, size = case.sizes, case.torch_dtype.itemsize
    if "units" in sizes:
        n = sizes["units"]
        return Cost(1 << n, "states", bytes_read=size * n * (n + 1), bytes_written=8, flops=2 << n)
    visible, hidden = sizes["visible"], sizes["hidden"]
    terms = (1 << min(visible, hidden)) * max(visible, hidden)
    return Cost(terms, "terms", size * (visible * hidden + visible + hidden), 8, flops=3 * terms)


def prepare(backend: str, inputs: Inputs, outputs: Tensors) -> Launch:
    numbers = {"beta": inputs["beta"], "check_values": False, "backend": backend}
    if "biases" in inputs:
        run = partial(log_partition, inputs["weights"], inputs["biases"], **numbers)
    else:
        run = partial(rbm_log_partition, inputs["weights"], inputs["visible_bias"], inputs["hidden_bias"], **numbers)

    def launch() -> Tensors:
        outputs["log_z"].copy_(run())
        return outputs

    return launch


def is_the_fixtures(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """log Z of `fixture` is the known one. Its visible units are the larger layer."""
    machine = {name: part.to(device) for name, part in fixture().items()}
    found = advance({**machine, "beta": 1.0})["log_z"]
    return near_log_z(float(found), LOG_Z, (4 * 10 + 64) * U)


def is_kaufmans(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """log Z of tori of several shapes and temperatures, as machines of units 0 and 1, is Kaufman's."""
    worst = Agreement(Status.PASSED, error=0.0, bound=0.0)
    for height, width in ((4, 4), (2, 6), (4, 5)):
        for beta in (0.1, 0.44, 1.0):
            machine = units_of(lattice_couplings(height, width), torch.zeros(height * width, dtype=torch.float64))
            inputs = {"weights": machine.weights.to(device), "biases": machine.biases.to(device), "beta": beta}
            found = float(advance(inputs)["log_z"]) - beta * float(machine.constant)
            worst = near_log_z(found, kaufman(height, width, beta).log_z, 1e-10)
            if not worst.passed:
                return worst
    return worst


OPERATION = Operation(
    name="enumeration",
    summary="log Z of all states of a machine, their energies never stored.",
    formula="log sum_x exp(beta b.x) prod_j (1 + exp(beta (c + x W)_j)), or log sum_x exp(beta (1/2 x.W.x + b.x))",
    source="Salakhutdinov and Murray, ICML 2008; Kaufman, Phys. Rev. 76 (1949)",
    kind="map",
    cases=CASES,
    make_inputs=make_inputs,
    make_outputs=make_outputs,
    reference=expected,
    cost=cost,
    case=_case,
    laws=(
        Law("fixture", "log Z of a small machine is the one enumerated in extended precision", is_the_fixtures),
        Law("Kaufman", "log Z of Ising models on a torus is Kaufman's", is_kaufmans),
    ),
)


register_operations, register_implementations = operation_hooks(OPERATION, prepare, "boltzbench.kernels.enumeration")
