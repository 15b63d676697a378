"""Heat-bath Gibbs sampling of a fully visible Boltzmann machine with any couplings: many sweeps of many chains.

Energy ``E(x) = -1/2 x.W.x - b.x`` of units 0/1, with ``p(x)`` proportional to ``exp(-beta E)``. Spins -1 and +1 with
``E(s) = -1/2 s.J.s - h.s`` are the same machine up to a constant; `boltzbench.kernels.ising` has the map. One sweep
draws every unit once, ``x_i ~ Bernoulli(sigmoid(beta (b_i + sum_j W_ij x_j)))``. Units of one colour are not coupled to
each other, so a sweep draws them all at once.

Sources: Ackley, Hinton and Sejnowski, Cognitive Science 9 (1985); Geman and Geman, IEEE PAMI 6 (1984); Gonzalez, Low,
Gretton and Guestrin, AISTATS 2011 (sweeps by colours).
"""

import torch
from torch import Tensor

from ..common.derivatives import require_no_transform
from ..common.dispatch import backend_module, choose_backend, note_written, require_output, require_tensor, running_on
from ..machines.chain_checks import beta_faults, require_beta, require_chains, require_clamped, require_no_fault
from ..numbers import integer
from ..philox import STEP_LIMIT, check_counter
from .prepared import PreparedMachine, prepare_spins, prepare_units
from .reference import draw_uniforms
from .request import LaunchRequest

__all__ = ["PreparedMachine", "boltzmann_gibbs", "draw_uniforms", "prepare_spins", "prepare_units"]


def boltzmann_gibbs(
    states: Tensor,
    machine: PreparedMachine,
    sweeps: int = 1,
    beta: float | Tensor = 1.0,
    *,
    seed: int,
    first_sweep: int = 0,
    first_chain: int = 0,
    clamped: Tensor | None = None,
    out: Tensor | None = None,
    check_values: bool = True,
    backend: str = "auto",
) -> Tensor:
    """Advance every chain by ``sweeps`` sweeps and return the new states.

    Args:
        states: (chains, n), not modified: uint8 units 0 or 1 for a machine of `prepare_units`, int8 spins -1 or +1 for
            one of `prepare_spins`.
        machine: the result of one of these two. Its sources must not have been written to since.
        sweeps: the number of sweeps, at least 1.
        beta: the inverse temperature, from 0 to the largest float32 number: a number, or one for each chain, shape
            (chains,), float32 or float64.
        seed: the key of the random stream, in [0, 2**64).
        first_sweep: the number of the first sweep in the stream. To continue a run, pass the number of sweeps done so
            far.
        first_chain: the number of the first chain in the stream. A batch split over calls draws the same states.
        clamped: bool, shape (n,) or (chains, n): these units keep their state.
        out: contiguous tensor to write to. It shares no memory with the arguments.
        check_values: check the states and the values of a tensor ``beta``. On a GPU this waits for the device; a loop
            over its own states can switch it off.
        backend: ``auto``, ``torch``, ``triton``, ``cupy``, or on a CPU ``native``. With ``cupy`` a machine has at most
            57088 units, which fill the shared memory of an H200.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype, or ``machine`` is not prepared.
        ValueError: shapes do not match, a state is not one of the two values, a number is out of range, the machine is
            out of date or too large, or ``backend`` is unknown or cannot run here.
        NotImplementedError: under a transform of ``torch.func``.

    The unit at place ``k`` of the machine's order draws word ``k % 4`` of group ``(first_chain + i) * ceil(n / 4) + k
    // 4`` for chain ``i``, at step ``first_sweep + t`` of the stream ``BOLTZMANN_UNITS``, and is 1 if ``u (1 +
    exp(-x)) < 1``. Both forms of a machine draw the same states.
    """
    if not isinstance(machine, PreparedMachine):
        raise TypeError(f"machine must come from prepare_units or prepare_spins, got {type(machine).__name__}")
    if not machine.is_current:
        raise ValueError("machine is out of date, its sources were written to: prepare it again")
    require_no_transform("boltzmann_gibbs")
    require_tensor("states", states, (torch.int8 if machine.spins else torch.uint8,), machine.biases.device)
    if states.ndim != 2 or states.shape[1] != machine.units:
        raise ValueError(f"states must have shape (chains, {machine.units}), got {tuple(states.shape)}")
    chains, units = states.shape
    sweeps = integer("sweeps", sweeps, 1, STEP_LIMIT)
    seed, first_sweep, _ = check_counter(seed, first_sweep, steps=sweeps, step_name="first_sweep")
    first_chain = require_chains(first_chain, chains, units)
    inputs = {"states": states, "clamped": clamped, "beta": beta}
    clamped = require_clamped(clamped, states.shape, states.device)
    beta = require_beta(beta, chains, states.device)
    if check_values:
        low = -1 if machine.spins else 0
        faults = {f"states must hold only {low} and 1": ((states != low) & (states != 1)).any()}
        require_no_fault(faults | beta_faults(beta))
    chosen = choose_backend(backend, states.device, __name__)
    result = torch.empty_like(states, memory_format=torch.contiguous_format) if out is None else out
    require_tensor("out", result, (states.dtype,), states.device)
    require_output("out", result, states.shape, {name: x for name, x in inputs.items() if isinstance(x, Tensor)})
    if chains and units:
        work = LaunchRequest(
            states.contiguous().view(torch.uint8), result.view(torch.uint8), machine, sweeps, beta, seed, first_sweep,
            first_chain, clamped,
        )  # fmt: skip
        with running_on(states.device):
            backend_module(chosen, __name__).run(work)
    note_written(result)
    return result
