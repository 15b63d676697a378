"""The launches that each implementation would make on a GPU, recorded on stand-in GPUs, and what is wrong with them.

    TRITON_INTERPRET=0 python -m support.rehearsal triton [--compile-all]
    python -m support.rehearsal cupy

Host code runs as on a GPU, up to the driver: Triton specialises a kernel for its arguments and compiles nothing,
`CudaModule` packs arguments and launches a stand-in for CuPy's kernel. For Triton, all plans that a search would time
are launched. `Findings` go to standard output, as JSON.
"""

import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache, partial
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from boltzbench.harness import Case, Implementation, Unsupported
from boltzbench.kernels import cuda_module
from boltzbench.kernels.common.variants import CudaVariant
from boltzbench.kernels.cuda_module import Cubin, CudaModule, EmulatorError
from boltzbench.kernels.rows import tuning
from torch import Tensor
from torch.utils._pytree import tree_leaves

from support import TESTS, golden, operations
from support.standin_gpu import DEVICES, GPUS, Gpu, ValuesNeeded, standin_gpus

MOST_BLOCKS = (2**31 - 1, 65535, 65535)
MOST_WARPS, REGISTERS = 32, 65536
UNASKED_SHARED_BYTES = 48 * 1024
"""Static and dynamic shared memory of a block that has not asked for more."""
MOST_TENSOR_MEMORY = 512
"""Columns of an sm_100 multiprocessor's tensor memory."""
MOST_CLUSTER = 8
"""Blocks of a cluster, unless a kernel asks for a size that not every device has."""
MOST_VALUES = 1 << 16
"""A larger tensor of a bench case has no values."""
MOST_SECONDS = 2.0
"""Processor time that the host may take for a case without values."""
MOST_MEMORY = 16 << 30
"""Address space of the rehearsal: host code that makes huge tensors on the host fails at once."""
HUGE = 1 << 31
"""Elements that no int counts."""
MOST_GROWTH = 1 << 12
"""How many times as large a size may become: a case that needs more is not meant to be so large."""


@dataclass
class Findings:
    """How many launches, and launches of grown cases, by implementation; how many compilations by kernel; a sentence
    for each fault; why a case was skipped."""

    launches: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    huge: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    compiled: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    faults: dict[str, None] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def too_many_blocks(grid: Sequence[Any]) -> list[str]:
    """What is wrong with the grid of a launch."""
    if all(type(size) is int and 0 <= size <= most for size, most in zip(grid, MOST_BLOCKS, strict=False)):
        return []
    return [f"the grid {tuple(grid)} is not one to three int of at most {MOST_BLOCKS}"]


# ---- Triton


@dataclass(frozen=True)
class Specialisation:
    """A Triton kernel as a launch specialises it, for one architecture."""

    kernel: Any
    gpu: Gpu
    types: tuple[str, ...]
    constants: tuple[tuple[int, str], ...]  # place and value
    divisible: tuple[int, ...]
    options: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        return f"{self.kernel.fn.__module__.removeprefix('boltzbench.kernels.')}.{self.kernel.fn.__name__}"

    @property
    def traits(self) -> set[tuple[Any, ...]]:
        """The kernel with the type of each of its pointers, and with the options."""
        pointers = {(self.kernel, place, each) for place, each in enumerate(self.types) if each[0] == "*"}
        return {*pointers, (self.kernel, self.options)}

    def __str__(self) -> str:
        given = dict(self.constants)
        arguments = (
            f"{name}={given[i] if i in given else self.types[i] + ':16' * (i in self.divisible)}"
            for i, name in enumerate(self.kernel.arg_names)
        )
        return f"{self.name}({', '.join(arguments)}) on {self.gpu.arch}"


@dataclass(frozen=True)
class Compilable:
    """What Triton's compiler takes."""

    types: Mapping[str, str]
    constants: Mapping[tuple[int, ...], Any]
    attributes: Mapping[tuple[int, ...], Any]
    options: Mapping[str, Any]


OPTIONS = ("num_warps", "num_ctas", "num_stages", "maxnreg")


class TritonRecorder:
    """Within it, launches of Triton kernels are recorded: ``specialisations``, and ``faults`` of single launches."""

    def __init__(self) -> None:
        self.specialisations: dict[Specialisation, Compilable] = {}
        self.faults: list[str] = []
        self.launches = 0

    @contextmanager
    def recording(self) -> Iterator[None]:
        from triton.backends.compiler import GPUTarget
        from triton.runtime import driver
        from triton.runtime.jit import JITFunction

        def target() -> Any:
            major, minor = torch.cuda.get_device_capability()
            return GPUTarget("cuda", 10 * major + minor, 32)

        device = SimpleNamespace(
            get_current_device=lambda: torch.cuda.current_device(),
            get_current_stream=lambda device: 0,
            get_current_target=target,
        )

        def compile(kernel: Any, key: Any, types: Any, device: int, constants: Any, options: Any, attributes: Any,
                    warmup: bool) -> Any:  # fmt: skip
            of = Specialisation(
                kernel, GPUS[device], tuple(types.values()), tuple((i, repr(each)) for (i,), each in constants.items()),
                tuple(i for (i,), each in attributes.items() if each),
                tuple((name, str(getattr(options, name))) for name in OPTIONS),
            )  # fmt: skip
            self.specialisations[of] = Compilable(types, constants, attributes, options.__dict__)
            launcher = SimpleNamespace(
                run=partial(self._launch, of), function=None, packed_metadata=None, launch_metadata=lambda *_: None
            )
            kernel.device_caches[device][0][key] = launcher
            return launcher

        with (
            mock.patch.object(driver, "_active", device),
            mock.patch.object(JITFunction, "_do_compile", compile),
        ):
            yield

    def _launch(self, of: Specialisation, x: Any, y: Any, z: Any, *rest: Any) -> None:
        """``rest``: stream, function, metadata, metadata of the launch and two hooks, then the arguments."""
        self.launches += 1
        arguments = rest[6:]
        faults = too_many_blocks((x, y, z))
        for name, value in zip(of.kernel.arg_names, arguments, strict=True):
            if isinstance(value, Tensor) and value.device != DEVICES[of.gpu.arch]:
                faults.append(f"{name} is on {value.device}")
        warps = int(dict(of.options)["num_warps"])
        if warps > MOST_WARPS or warps & (warps - 1):
            faults.append(f"num_warps is {warps}")
        self.faults += [f"{of}: {fault}" for fault in faults]


def named_traits(variants: Iterable[Any]) -> set[tuple[Any, ...]]:
    """The traits of `TritonVariant`s, whose machine code other tests read."""
    traits = set()
    for each in variants:
        types, _, _ = each._specialisation()
        options = {"num_ctas": 1, "num_stages": 3, "maxnreg": None, **(each.options or {})}
        options["num_warps"] = each.threads // 32
        named = tuple((name, str(options[name])) for name in OPTIONS)
        traits |= Specialisation(each.kernel, GPUS[0], tuple(types.values()), (), (), named).traits
    return traits


def sample(specialisations: Iterable[Specialisation], known: set[tuple[Any, ...]]) -> list[Specialisation]:
    """Few specialisations that have all traits except the ``known`` ones: each time one with the most new traits."""
    chosen, known, left = [], set(known), list(specialisations)
    while left := [each for each in left if each.traits - known]:
        chosen.append(max(left, key=lambda each: len(each.traits - known)))
        known |= chosen[-1].traits
    return chosen


def compile_fault(of: Specialisation, given: Compilable) -> str | None:
    """What Triton's compiler or the architecture says against it, in a sentence."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    major, minor = of.gpu.capability
    source = ASTSource(of.kernel, given.types, given.constants, given.attributes)
    try:
        metadata = triton.compile(source, GPUTarget("cuda", 10 * major + minor, 32), given.options).metadata
    except Exception as error:
        return f"{of} does not compile: {' '.join(str(error).split())[-600:]}"
    if metadata.shared > of.gpu.shared_bytes:
        return f"{of} needs {metadata.shared} bytes of shared memory, and a block has {of.gpu.shared_bytes}"
    if (metadata.tmem_size or 0) > MOST_TENSOR_MEMORY:
        return f"{of} needs {metadata.tmem_size} columns of tensor memory"
    return None


# ---- CUDA C


class CudaRecorder:
    """Within it, launches of CUDA C kernels are recorded, and judged: ``faults``, a sentence each."""

    def __init__(self, variants: Iterable[Any], used: Mapping[tuple[str, str], tuple[int, int]]) -> None:
        """``variants`` are `CudaVariant`s. ``used``: their registers and static shared memory, by name and
        architecture, as far as they are known."""
        self.faults: list[str] = []
        self.launches = 0
        self._variants: dict[tuple[Path, str], CudaVariant] = {}
        for each in variants:
            known = self._variants.setdefault((each.module.source, each.kernel), each)
            if each.threads > known.threads:
                self._variants[each.module.source, each.kernel] = each
        self._used = used
        self._accepted: set[tuple[Any, ...]] = set()

    @contextmanager
    def recording(self) -> Iterator[None]:
        import cupy

        launch = CudaModule.launch

        def noted(module: CudaModule, kernel: str, grid: Any, block: Any, args: Any, **named: Any) -> None:
            packed = [cuda_module._pack(i, each, kernel, named["device"]) for i, each in enumerate(args)]
            self._pending = module, kernel, "".join(kind for kind, _ in packed)
            launch(module, kernel, grid, block, args, **named)

        def cubin(module: CudaModule, arch: str, kernels: Any = None) -> Cubin:
            return Cubin(arch, b"", {name: name for name in module.kernels}, module.source)

        with ExitStack() as stack:
            for owner, name, standin in (
                (CudaModule, "launch", noted),
                (CudaModule, "cubin", cubin),
                (cupy, "RawModule", lambda path: SimpleNamespace(get_function=partial(_StandinKernel, self, path))),
                (cupy.cuda.Stream, "from_external", lambda stream: nullcontext()),
            ):
                stack.enter_context(mock.patch.object(owner, name, standin))
            yield

    def used(self, source: str, kernel: str, gpu: Gpu) -> tuple[int, int]:
        variant = self._variants.get((Path(source), kernel))
        return self._used.get((variant.name if variant else "", gpu.arch), (0, 0))

    def judge(self, of: "_StandinKernel", grid: Any, block: Any, values: Sequence[Any], shared_bytes: int) -> None:
        module, kernel, kinds = self._pending
        self.launches += 1
        gpu, threads = GPUS[torch.cuda.current_device()], prod(block)
        registers, static = self.used(str(module.source), kernel, gpu)
        faults = too_many_blocks(grid)
        variant = self._variants.get((module.source, kernel))
        if kernel != of.name or gpu is not of.gpu:
            faults.append(f"{of.name} was loaded, for {of.gpu.arch}")
        if variant is None:
            faults.append("no variant names it")
        elif threads > variant.threads:
            faults.append(f"a block has {threads} threads, the variant {variant.threads}")
        elif variant.archs and gpu.arch not in variant.archs:
            faults.append(f"its variant is for {variant.archs}")
        if static + shared_bytes > min(gpu.shared_bytes, static + of.max_dynamic_shared_size_bytes):
            faults.append(
                f"a block has {static} + {shared_bytes} bytes of shared memory, the kernel has asked for "
                f"{of.max_dynamic_shared_size_bytes} dynamic ones, the device has {gpu.shared_bytes}"
            )
        if registers * -(-threads // 32) * 32 > REGISTERS:
            faults.append(f"{threads} threads of {registers} registers")
        for other in GPUS:
            registers, static = self.used(str(module.source), kernel, other)
            if static + shared_bytes > other.shared_bytes or registers * -(-threads // 32) * 32 > REGISTERS:
                torch.cuda.get_device_properties()  # as if it asked, so that `rehearse` tries the other GPUs
        cluster = cluster_of(module.source, kernel)
        if cluster > MOST_CLUSTER or grid[0] % cluster or (cluster > 1 and gpu.capability < (9, 0)):
            faults.append(f"a grid of {grid} in clusters of {cluster}")
        arguments = tuple(bytes(each.tobytes()) for each in values)
        taken = (module.source, kernel, kinds, tuple(map(len, arguments)))
        if taken not in self._accepted:
            try:  # a grid of no blocks: the emulator compares the arguments with the kernel's parameters, and runs none
                module._emulate().launch(kernel, (0, 1, 1), (1, 1, 1), arguments, kinds, 0)
                self._accepted.add(taken)
            except EmulatorError as error:
                faults.append(str(error))
        self.faults += [f"{module.source.name}: {kernel} on {gpu.arch}: {fault}" for fault in faults]


class _StandinKernel:
    """Stands in for CuPy's RawKernel, of which `CudaModule` uses this much."""

    def __init__(self, recorder: CudaRecorder, source: str, name: str) -> None:
        self._recorder, self.name, self.gpu = recorder, name, GPUS[torch.cuda.current_device()]
        self.shared_size_bytes = recorder.used(source, name, self.gpu)[1]
        self.max_dynamic_shared_size_bytes = UNASKED_SHARED_BYTES - self.shared_size_bytes

    def __call__(self, grid: Any, block: Any, values: Sequence[Any], shared_mem: int = 0) -> None:
        self._recorder.judge(self, grid, block, values, shared_mem)


@cache
def cluster_of(source: Path, kernel: str) -> int:
    """The blocks of a cluster: the argument of ``CLUSTER_OF`` before the kernel's name, 1 without it."""
    text, name = source.read_text(), kernel.partition("<")[0]
    found = re.search(rf"__global__[^;{{]*?CLUSTER_OF\((\w+)\)[^;{{]*?\b{name}\(", text)
    if not found:
        return 1
    value = re.search(rf"constexpr int {found[1]} = (\d+);", text)
    return int(value[1] if value else found[1])


def golden_usage(implementation: Implementation) -> dict[tuple[str, str], tuple[int, int]]:
    """Registers and static shared memory in the goldens, by variant and architecture."""
    pattern = r"(.+): (?!error).*?registers (\d+),.*? shared (\d+)\+"
    return {
        (found[1], each.arch): (int(found[2]), int(found[3]))
        for each in golden.goldens()
        if each.implementation is implementation
        for line in each.lines()[2:]
        if (found := re.match(pattern, line))
    }


# ---- what is launched


@contextmanager
def every_plan() -> Iterator[None]:
    """Launches each plan that a search on a GPU would time, for every shape."""

    def choice(operation: str, key: str, plans: Sequence[Any], launch: Callable[[Any], None], device: Any) -> int:
        for plan in plans:
            launch(plan)
        return 0

    with mock.patch.object(tuning, "choice", choice):
        yield


class TooSlow(Exception):
    """The host works longer than `MOST_SECONDS` on a case."""


@contextmanager
def in_time(most: float) -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise TooSlow(f"the host works longer than {MOST_SECONDS} s")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0 if most == float("inf") else MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def launch_case(implementation: Implementation, case: Case, device: torch.device) -> None:
    """Prepare the case on ``device`` and launch it once. Raises what that raises."""
    operation = operations.registry().operations[implementation.operation]
    inputs = operation.make_inputs(case, device)
    outputs = operation.make_outputs(inputs)
    for name in outputs.keys() & inputs.keys():
        outputs[name].copy_(inputs[name])
    implementation.prepare(inputs, outputs)()


def rehearse(
    implementation: Implementation, purpose: str, archs: Sequence[str], most: float, findings: Findings, all_archs: bool
) -> None:
    """Launch each case of a purpose on GPUs; tensors of more than ``most`` elements have no values.

    Unless ``all_archs``, a case runs only on the first of ``archs`` if nothing asks there which GPU it is. The first
    launch of each kernel asks.
    """
    cases = operations.registry().operations[implementation.operation].cases
    with standin_gpus(most) as asked, every_plan():
        for case in (each for each in cases if each.purpose == purpose):
            asked.clear()
            for arch in archs:
                if arch != archs[0] and not (asked or all_archs):
                    break
                device = DEVICES[arch]
                where = f"{implementation.operation} {implementation.name} {case.label} on {arch}"
                try:
                    with in_time(most):
                        launch_case(implementation, case, device)
                except (Unsupported, ValuesNeeded, TooSlow) as error:
                    findings.skipped[where] = f"{type(error).__name__}: {error}"
                except Exception as error:
                    findings.faults[f"{where}: {type(error).__name__}: {str(error)[:600]}"] = None


def grown(implementation: Implementation, case: Case) -> Case | None:
    """The case with one size so large that a tensor has `HUGE` elements; None if none does in reason.

    No tensor may grow faster than the size: the couplings of twice as many units would be four times as many.
    """
    operation = operations.registry().operations[implementation.operation]

    def counts(case: Case) -> list[int]:
        inputs = operation.make_inputs(case, DEVICES["sm_80"])
        tensors = tree_leaves([dict(inputs), dict(operation.make_outputs(inputs))])
        return [each.numel() for each in tensors if isinstance(each, Tensor)]

    before = counts(case)
    times = -(-HUGE // max(before))
    if times > MOST_GROWTH or sum(before) * times > 8 * HUGE:
        return None
    for name, size in case.sizes.items():
        after = counts(replace(case, sizes={**case.sizes, name: 2 * size}))
        if len(after) != len(before) or any(new > 2 * old for old, new in zip(before, after, strict=True)):
            continue
        if max(after) == 2 * max(before):
            return replace(case, sizes={**case.sizes, name: size * times})
    return None


def rehearse_huge(implementation: Implementation, findings: Findings) -> None:
    """Launch, grown, the last bench case of each scenario and dtype that can grow. A public function may refuse it by a
    ValueError."""
    operation = operations.registry().operations[implementation.operation]
    alike = defaultdict(list)
    for case in reversed([case for case in operation.cases if case.purpose == "bench"]):
        alike[case.scenario, case.dtype].append(case)
    with standin_gpus(MOST_VALUES), every_plan():
        for cases in alike.values():
            where = f"{implementation.operation} {implementation.name} {cases[0].label}, grown"
            try:
                with in_time(MOST_VALUES):
                    huge = next(filter(None, (grown(implementation, case) for case in cases)), None)
                    if huge is None:
                        raise Unsupported("no size makes one tensor huge")
                    launch_case(implementation, huge, DEVICES["sm_80"])
                findings.huge[f"{implementation.operation} {implementation.name}"] += 1
            except (Unsupported, ValuesNeeded, TooSlow, ValueError) as error:
                findings.skipped[where] = f"{type(error).__name__}: {error}"
            except Exception as error:
                if "can't allocate memory" in str(error):
                    findings.skipped[where] = "the host itself needs too much memory"
                    continue
                findings.faults[f"{where}: {type(error).__name__}: {str(error)[:600]}"] = None


def rehearse_backend(backend: str, compile_all: bool = False) -> Findings:
    """Launch all cases of every implementation of the backend, then compile Triton kernels.

    By default a `sample` is compiled for sm_90, for what no variant has: the machine code of the variants is read by
    other tests. ``compile_all`` launches every check case and compiles every specialisation for every architecture.
    """
    findings = Findings()
    specialisations: dict[Specialisation, Compilable] = {}
    traits: set[tuple[Any, ...]] = set()
    for each in operations.inspectable():
        if each.backend != backend:
            continue
        recorder: Any
        if backend == "triton":
            recorder = TritonRecorder()
            traits |= named_traits(each.variants())
        else:
            recorder = CudaRecorder(each.variants(), golden_usage(each))
        with recorder.recording():
            rehearse(each, "check", golden.ARCHITECTURES, float("inf"), findings, compile_all)
            rehearse(each, "bench", ["sm_90"], MOST_VALUES, findings, compile_all)
            rehearse_huge(each, findings)
        findings.launches[f"{each.operation} {each.name}"] = recorder.launches
        findings.faults |= dict.fromkeys(recorder.faults)
        if backend == "triton":
            specialisations |= recorder.specialisations
    on_sm_90 = [of for of in specialisations if of.gpu.arch == "sm_90"]
    for of in specialisations if compile_all else sample(on_sm_90, traits):
        findings.compiled[of.name] += 1
        if fault := compile_fault(of, specialisations[of]):
            findings.faults[fault] = None
    return findings


def findings_of(backend: str, *options: str) -> Findings:
    """`rehearse_backend` in a process of its own, which compiles Triton kernels and keeps no stand-in of a GPU."""
    run = subprocess.run(
        [sys.executable, "-m", "support.rehearsal", backend, *options], capture_output=True, text=True, check=False,
        cwd=TESTS, env=os.environ | {"TRITON_INTERPRET": "0"},
    )  # fmt: skip
    if run.returncode:
        raise RuntimeError(run.stderr[-4000:])
    return Findings(**json.loads(run.stdout))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    print(json.dumps(vars(rehearse_backend(sys.argv[1], "--compile-all" in sys.argv))))
