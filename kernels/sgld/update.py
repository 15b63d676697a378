"""The public Langevin updates of tensors, in place."""

import math
import sys
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from ..common.derivatives import require_no_transform
from ..common.dispatch import (
    NO_GRAPH,
    backend_module,
    choose_backend,
    note_written,
    overlaps,
    require_tensor,
    running_on,
    span,
)
from ..numbers import can_check, integer, real
from ..philox import SEED_LIMIT, STEP_LIMIT, TENSOR_LIMIT, check_counter, signed_seed
from .request import DTYPES, LaunchRequest, Numbers, Place, computing_dtype

ROUNDINGS = ("nearest", "stochastic")
SMALLEST_DAMPING = 1e-12
"""With less, results would depend on square roots of subnormal float32 numbers, which kernels flush to zero."""

STATE_NAMES = {"langevin": "", "preconditioned": "squares", "hamiltonian": "momenta"}

Tensors = Tensor | Sequence[Tensor]


def sgld_update(
    parameters: Tensors,
    gradients: Tensors,
    step_size: float,
    temperature: float = 1.0,
    *,
    seed: int,
    step: int | Tensor,
    tensor_numbers: Sequence[int] | None = None,
    rounding: str = "nearest",
    backend: str = "auto",
) -> None:
    """``x <- x - (step_size / 2) g + sqrt(step_size * temperature) xi``, in place, for all tensors in one launch.

    Args:
        parameters: one tensor or several, of any shapes; float64, float32, float16 or bfloat16, also mixed; all on
            one device. 16-bit parameters are updated in float32 and rounded once.
        gradients: for each parameter a tensor of its shape and dtype; not modified.
        step_size: eps, finite and not negative. 0 changes no bit.
        temperature: T, finite and not negative. 0 is gradient descent with rate eps / 2, without noise.
        seed: the key of the random stream, in [0, 2**64).
        step: number of this update in the stream, in [0, 2**32). Reusing a step repeats its noise, also in a call for
            other tensors: several calls in a step need different ``tensor_numbers``. The kernel reads an
            int64 tensor of one element on the parameters' device, so that a CUDA graph of this call and ``step += 1``
            advances in the stream at each replay. Its value is checked on a CPU only.
        tensor_numbers: number of each tensor in the stream (default 0, 1, 2, ...), all different. The noise of a tensor
            depends on its number only, not on the other tensors of the call.
        rounding: ``nearest``, or ``stochastic``: round bfloat16 parameters up or down at random, from a separate
            stream, so that the mean is the exact value. Steps far below the spacing of bfloat16 numbers, which rounding
            to nearest loses, then count in full on average. Other dtypes are always rounded to nearest.
        backend: ``auto``, ``torch``, ``triton``, ``cupy``, or on a CPU ``native``.

    Raises:
        TypeError: a tensor is sparse, complex, integer or otherwise unsupported; the message has its index.
        ValueError: shapes, devices or lengths do not match, tensors overlap, a number is out of range, or
            ``backend`` is unknown or cannot run here.
        NotImplementedError: under a transform of ``torch.func``.

    Element ``i`` of a tensor, in the order of its indices whatever its strides, takes normal ``i % 4`` of group
    ``i // 4``. A NaN in a gradient affects its own element only. A parameter that is not contiguous is updated in a
    contiguous copy and written back; one that does not begin at a multiple of 16 bytes is updated element by element.

    Under ``torch.compile`` the update is one operator, which raises its errors when the compiled code runs.

    Source: Welling and Teh, "Bayesian learning via stochastic gradient Langevin dynamics", ICML 2011, with temperature.
    """
    _update(
        parameters, gradients, (), "langevin", (step_size, temperature), seed, step, tensor_numbers, rounding, backend
    )


def psgld_update(
    parameters: Tensors,
    gradients: Tensors,
    squares: Tensors,
    step_size: float,
    temperature: float = 1.0,
    *,
    decay: float = 0.99,
    damping: float = 1e-5,
    seed: int,
    step: int | Tensor,
    tensor_numbers: Sequence[int] | None = None,
    rounding: str = "nearest",
    backend: str = "auto",
) -> None:
    """SGLD preconditioned by a running mean of squared gradients, in place, for all tensors in one launch.

    ``V <- decay V + (1 - decay) g^2``, ``G = 1 / (damping + sqrt(V))``,
    ``x <- x - (step_size / 2) G g + sqrt(step_size * temperature * G) xi``, without the paper's correction term.

    Args:
        squares: V, for each parameter a tensor of its shape; float64 for float64 parameters, else float32; not
            negative. Updated in place.
        gradients: those of the energy, a sum over all N data. The paper's V holds squares of the mean gradient, so its
            damping and its step size correspond to N times these numbers here.
        decay: in [0, 1]. 0 sets V to ``g^2``, which suits the first update of a chain; 1 keeps V.
        damping: finite and at least 1e-12.
        parameters, step_size, temperature, seed, step, tensor_numbers, rounding, backend: as for `sgld_update`. A step
            size of 0 does not change V, either.

    Raises:
        TypeError, ValueError: as `sgld_update`.

    Source: Li, Chen, Carlson and Carin, "Preconditioned stochastic gradient Langevin dynamics for deep neural
    networks", AAAI 2016.
    """
    factors = (step_size, temperature, decay, damping)
    states = _listed("squares", squares)
    _update(parameters, gradients, states, "preconditioned", factors, seed, step, tensor_numbers, rounding, backend)


def sghmc_update(
    parameters: Tensors,
    gradients: Tensors,
    momenta: Tensors,
    step_size: float,
    temperature: float = 1.0,
    *,
    friction: float = 0.1,
    seed: int,
    step: int | Tensor,
    tensor_numbers: Sequence[int] | None = None,
    rounding: str = "nearest",
    backend: str = "auto",
) -> None:
    """Hamiltonian dynamics with friction and noise, in place, for all tensors in one launch.

    ``p <- (1 - friction) p - step_size g + sqrt(2 friction * step_size * temperature) xi``, then ``x <- x + p``.

    Args:
        momenta: p, for each parameter a tensor of its shape; float64 for float64 parameters, else float32. Updated in
            place.
        step_size: eta, finite and not negative. 0 changes no bit, not of p either.
        friction: a, in [0, 1]. With 1 the update is SGLD with a step size of ``2 eta``.
        parameters, gradients, temperature, seed, step, tensor_numbers, rounding, backend: as for `sgld_update`.

    Raises:
        TypeError, ValueError: as `sgld_update`.

    Source: Chen, Fox and Guestrin, "Stochastic gradient Hamiltonian Monte Carlo", ICML 2014, equation 15, with
    temperature.
    """
    factors = (step_size, temperature, friction)
    states = _listed("momenta", momenta)
    _update(parameters, gradients, states, "hamiltonian", factors, seed, step, tensor_numbers, rounding, backend)


def _listed(name: str, tensors: object) -> list[Tensor]:
    if isinstance(tensors, str) or not isinstance(tensors, Iterable):
        raise TypeError(f"{name} must be a torch tensor or a sequence of them, got {type(tensors).__name__}")
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def _not_negative(name: str, value: float) -> float:
    return real(name, value, least=0)


def _fraction(name: str, value: float) -> float:
    return real(name, value, least=0, most=1)


def _damping(name: str, value: float) -> float:
    return real(name, value, least=SMALLEST_DAMPING)


ARGUMENTS: dict[str, dict[str, Callable[[str, float], float]]] = {
    "langevin": {"step_size": _not_negative, "temperature": _not_negative},
    "preconditioned": {
        "step_size": _not_negative, "temperature": _not_negative, "decay": _fraction, "damping": _damping,
    },
    "hamiltonian": {"step_size": _not_negative, "temperature": _not_negative, "friction": _fraction},
}  # fmt: skip
"""The real arguments of each update, with their checks."""


def _checked(kind: str, values: Sequence[float]) -> list[float]:
    return [check(name, value) for (name, check), value in zip(ARGUMENTS[kind].items(), values, strict=True)]


def _numbers(kind: str, step_size: float, temperature: float, *more: float) -> Numbers:
    """The factors of an update, from its arguments."""
    scale = _root(step_size, temperature)
    if kind == "langevin":
        return Numbers(kind, 0.5 * step_size, scale)
    if kind == "preconditioned":
        decay, damping = more
        return Numbers(kind, 0.5 * step_size, scale, decay, 1 - decay, damping)
    (friction,) = more
    return Numbers(kind, step_size, _root(2 * friction * step_size, temperature), keep=1 - friction)


def _root(a: float, b: float) -> float:
    """``sqrt(a b)``, also where the product is beyond the range of floats."""
    product = a * b
    return math.sqrt(product) if sys.float_info.min <= product < math.inf else math.sqrt(a) * math.sqrt(b)


def _update(
    parameters: Tensors,
    gradients: Tensors,
    states: Sequence[Tensor],
    kind: str,
    factors: Sequence[float],
    seed: int,
    step: int | Tensor,
    tensor_numbers: Sequence[int] | None,
    rounding: str,
    backend: str,
) -> None:
    factors = _checked(kind, factors)
    xs, gs = _listed("parameters", parameters), _listed("gradients", gradients)
    require_no_transform("an update in place")
    stream_numbers = list(range(len(xs))) if tensor_numbers is None else _require_numbers(tensor_numbers)
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding must be one of {', '.join(ROUNDINGS)}; got {rounding!r}")
    device_step = step if isinstance(step, Tensor) else None
    number = 0 if isinstance(step, Tensor) else step
    seed, number, _ = check_counter(seed, number)
    arguments = (kind, factors, signed_seed(seed), number, device_step, stream_numbers, rounding, backend)
    with torch.no_grad():
        if torch.compiler.is_compiling():  # it cannot trace addresses, compilers and kernels
            _operator(xs, gs, list(states), *arguments)
        else:
            _run(xs, gs, list(states), *arguments)
            for x in (*xs, *states):
                note_written(x)


def _run(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    states: Sequence[Tensor],
    kind: str,
    factors: Sequence[float],
    seed: int,
    step: int,
    device_step: Tensor | None,
    tensor_numbers: Sequence[int],
    rounding: str,
    backend: str,
) -> None:
    numbers = _numbers(kind, *_checked(kind, factors))
    _require_matching(parameters, gradients, states, tensor_numbers, STATE_NAMES[kind])
    device = parameters[0].device if parameters else torch.device("cpu")
    if device_step is not None:
        require_tensor("step", device_step, (torch.int64,), device)
        if device_step.numel() != 1:
            raise ValueError(f"step must have one element, got shape {tuple(device_step.shape)}")
        if can_check(device_step):
            integer("step", device_step.item(), 0, STEP_LIMIT - 1)
    chosen = choose_backend(backend, device, __package__ or "")
    updates = LaunchRequest.of(parameters, gradients, states, tensor_numbers, rounding == "stochastic")
    if numbers.drift == 0 or updates.elements == 0:
        return
    with running_on(device):
        backend_module(chosen, __package__ or "").update(updates, numbers, Place(seed % SEED_LIMIT, step, device_step))
        updates.write_back()


_operator = torch.library.custom_op(
    "boltzbench::langevin_update", _run, mutates_args=("parameters", "states"), tags=NO_GRAPH
)
"""An update, as one operator for torch.compile."""


@_operator.register_fake
def _nothing(*arguments: object) -> None:
    """The operator returns nothing: it writes in place."""


def _require_numbers(numbers: object) -> list[int]:
    if isinstance(numbers, str) or not isinstance(numbers, Iterable):
        raise TypeError(f"tensor_numbers must be a sequence of integers, got {numbers!r}")
    return [integer(f"tensor_numbers[{i}]", number, 0, TENSOR_LIMIT - 1) for i, number in enumerate(numbers)]


def _require_matching(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    states: Sequence[Tensor],
    numbers: Sequence[int],
    state_name: str,
) -> None:
    if len(gradients) != len(parameters):
        raise ValueError(f"gradients must match parameters: {len(gradients)} for {len(parameters)}")
    if state_name and len(states) != len(parameters):
        raise ValueError(f"{state_name} must match parameters: {len(states)} for {len(parameters)}")
    if len(numbers) != len(parameters) or len(set(numbers)) != len(numbers):
        raise ValueError(f"tensor_numbers must be {len(parameters)} different numbers, got {numbers}")
    device = None
    for index, (x, g) in enumerate(zip(parameters, gradients, strict=True)):
        require_tensor(f"parameters[{index}]", x, DTYPES, device)
        device = x.device
        _require_like(f"gradients[{index}]", g, x.dtype, x)
        _require_places(f"parameters[{index}]", x)
        if state_name:
            name, state = f"{state_name}[{index}]", states[index]
            _require_like(name, state, computing_dtype(x.dtype), x)
            _require_places(name, state)
    _require_apart(parameters, gradients, states, state_name)


def _require_like(name: str, x: Tensor, dtype: torch.dtype, parameter: Tensor) -> None:
    """Raise unless ``x`` has ``dtype``, and the device and the shape of ``parameter``."""
    require_tensor(name, x, (dtype,), parameter.device)
    if x.shape != parameter.shape:
        raise ValueError(f"{name} must have shape {tuple(parameter.shape)}, got {tuple(x.shape)}")


def _require_places(name: str, x: Tensor) -> None:
    """Raise ValueError if elements share memory: each stride must pass the extent of the closer dimensions."""
    extent = 1
    for stride, size in sorted((stride, size) for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1):
        if stride < extent:
            raise ValueError(f"{name} must not be expanded or unfolded: elements would share memory")
        extent += stride * (size - 1)


def _require_apart(
    parameters: Sequence[Tensor], gradients: Sequence[Tensor], states: Sequence[Tensor], state_name: str
) -> None:
    """Raise ValueError if a tensor that is written shares memory with another one.

    In order of address, each tensor is compared with the one that reaches furthest so far: if it overlaps any earlier
    tensor, it overlaps that one.
    """
    kinds = (("parameters", parameters, True), ("gradients", gradients, False), (state_name, states, True))
    named = [
        (f"{kind}[{i}]", x, written) for kind, tensors, written in kinds for i, x in enumerate(tensors) if x.numel()
    ]
    named.sort(key=lambda entry: entry[1].data_ptr())
    furthest = named[:1]
    for name, tensor, written in named[1:]:
        other_name, other, other_written = furthest[0]
        if (written or other_written) and overlaps(tensor, other):
            raise ValueError(f"{name} must not share memory with {other_name}")
        if span(tensor)[1] > span(other)[1]:
            furthest = [(name, tensor, written)]
