"""Predictions for the suite's kernels beside those of others for the same work, without a GPU.

Liger, FlagGems, QuACK and cuRAND take part where they are installed: their kernels are variants of ordinary baselines.

Inductor lowers the code of the baseline ``torch_compile`` for tensors of a GPU that does not exist, and writes Triton
source. Each of the configurations that it would try on the GPU is compiled and read like any kernel, and the one that
the model expects to be fastest stands in the table:

    python -m support.peers      # from tests/; writes ../results/predictions/

Inductor has no public interface for that, so this works with the pinned version of torch and may not with another.
FlagGems asks for a GPU on import, so it gets the same one.
"""

import contextlib
import importlib.metadata
import json
import os
import re
import tempfile
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

if __name__ == "__main__":
    os.environ["TRITON_INTERPRET"] = "0"  # before Triton is imported
    os.environ["GEMS_VENDOR"] = "nvidia"

import torch
from boltzbench.harness.inspection.architectures import architecture
from boltzbench.harness.inspection.inputs import GivenKernel
from boltzbench.harness.inspection.inspect import KernelReport, inspect_variants
from boltzbench.harness.inspection.pipes import CATEGORIES
from boltzbench.harness.inspection.prediction import SPREAD
from boltzbench.harness.results.source_hash import source_hash
from boltzbench.kernels.logsumexp import reference as logsumexp_reference
from boltzbench.kernels.sgld import Numbers, updated
from boltzbench.kernels.thermodynamics import reference as thermodynamics_reference
from boltzbench.plugins.baselines import torch_compile

from support import ROOT, operations

README = """# Predictions beside peers

Nothing here was measured on a GPU. For the same work, the machine code of the suite's kernels (`cupy`, `triton`), of
the kernel that torch.compile writes, and of kernels of other libraries, all for sm_90, with the rate that the model
expects on one {device}. Its interval allows a standard deviation of {spread:.0%} and held nine of ten published rates
(`boltzbench inspect --calibration`), so rates that differ by less are a tie.

{table}

The columns count instructions per item by kind on the inner loop's path, where loops inside it count once. B is the
widest load and store in bytes. Of the configurations that Inductor or FlagGems would time on the GPU, the one with the
highest expected rate stands here. Cross-entropy is the generalised one at q = 0; QuACK and the suite also write the
log-sum-exp. QuACK keeps rows in shared memory and has no loop. cuRAND's generators stand in a loop like that of `sgld`.

torch.compile takes one step of `annealed_langevin` in a launch, the suite all of them. It goes over long rows in two
loops, of which the analysis would read one, so it is left out there.
The path of its Langevin kernels includes the code of sine and cosine for huge angles, in local memory. The angles here
are small and skip it, so the counts are too high and the rates too low.

`sm_90.json` holds the records. To write both again, run `python -m support.peers` in `tests/`.
Made with {versions}.
"""
ARCH = architecture("sm_90")
FOLDER = ROOT / "results" / "predictions"
ROWS, COLUMNS = 65536, 1024
ELEMENTS = 1 << 24
DEVICE = types.SimpleNamespace(
    name="NVIDIA H200", major=9, minor=0, multi_processor_count=ARCH.multiprocessors, warp_size=32,
    regs_per_multiprocessor=65536, max_threads_per_multi_processor=2048, max_threads_per_block=1024,
    total_memory=141 << 30, L2_cache_size=50 << 20, gcnArchName="", shared_memory_per_block=48 << 10,
    shared_memory_per_block_optin=227 << 10, shared_memory_per_multiprocessor=228 << 10,
)  # fmt: skip


@dataclass(frozen=True)
class Work:
    """Lines of the table: an operation, the suite's kernels in CUDA C and in Triton by the first part of their name,
    torch code for Inductor, and the kernels of baselines by the first part of theirs.

    ``bytes_per_item`` is what the code of torch.compile reads and writes: it takes one step in a launch where the
    suite's kernels keep the state in registers.
    """

    operation: str
    title: str
    names: tuple[str, ...]
    bytes_per_item: float = 0.0
    function: Callable[..., Any] | None = None
    arguments: Callable[[], Sequence[Any]] = tuple
    theirs: Mapping[str, str] = field(default_factory=dict)


def _gpu(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="cuda:0")


def _noise(x: torch.Tensor, step: torch.Tensor, stream: torch.Tensor) -> torch.Tensor:
    """A normal number for each element, as the baseline draws them."""
    index = torch.arange(x.numel(), device=x.device)
    return torch_compile._normal_numbers(index, step, stream, 7, torch.float32)


LOSSES = dict.fromkeys(("quack", "liger"), f"forward float32, rows of {COLUMNS}")
WORK = (
    Work(
        "logsumexp", f"forward float32, rows of {COLUMNS}", ("forward float, 32 lanes", "forward fp32, 32 lanes"), 4,
        lambda x: logsumexp_reference.logsumexp(x, -1, 1.0),
        lambda: (_gpu(ROWS, COLUMNS),),
    ),
    Work(
        "logsumexp", f"backward float32, rows of {COLUMNS}", ("backward float, 32 lanes", "backward fp32, 32 lanes"), 8,
        lambda grad, x, total, peak: logsumexp_reference.gradient(grad, x, total, peak, -1, 1.0),
        lambda: (_gpu(ROWS), _gpu(ROWS, COLUMNS), _gpu(ROWS), _gpu(ROWS)),
    ),
    Work(
        "thermodynamics", f"float32, rows of {COLUMNS}", ("forward float, 32 lanes", "forward fp32, 32 lanes"), 4,
        lambda x: thermodynamics_reference.thermodynamics(x, -1, 1.0),
        lambda: (_gpu(ROWS, COLUMNS),),
    ),
    Work(
        "generalised_cross_entropy", f"forward float32, rows of {COLUMNS}",
        ("forward float, 32 lanes", "forward fp32, 32 lanes"), 4,
        lambda x, labels: torch.nn.functional.cross_entropy(x, labels, reduction="none"),
        lambda: (_gpu(ROWS, COLUMNS), _gpu(ROWS, dtype=torch.int64)),
        theirs=LOSSES | {"flag_gems": "forward float32"},
    ),
    Work(
        "generalised_cross_entropy", "forward float32, rows of 32768",
        ("forward float, block per row", "forward fp32, block per row"), 4,
        theirs={**dict.fromkeys(LOSSES, "forward float32, rows of 32768"), "flag_gems": "forward float32"},
    ),
    Work(
        "generalised_cross_entropy", "forward bfloat16, rows of 32768",
        ("forward bfloat16, block per row", "forward bf16, block per row"), 2,
        theirs={**dict.fromkeys(LOSSES, "forward bfloat16, rows of 32768"), "flag_gems": "forward bfloat16"},
    ),
    Work(
        "sgld", "float32, with noise", ("langevin float32, with noise", "langevin float32, with noise"), 12,
        lambda x, g, step, stream: updated(x, g, x, _noise(x, step, stream), Numbers("langevin", 0.5, 0.1))[0],
        lambda: (_gpu(ELEMENTS), _gpu(ELEMENTS), _gpu(dtype=torch.int64), _gpu(dtype=torch.int64)),
        theirs={"curand": "langevin float32"},
    ),
    Work(
        "annealed_langevin", "positions, a step", ("positions", "positions"), 8,
        lambda x, step, stream: x + (-0.1 * x) * (x * x - 1.0) + 0.3 * _noise(x, step, stream),
        lambda: (_gpu(ELEMENTS), _gpu(dtype=torch.int64), _gpu(dtype=torch.int64)),
    ),
    Work("logsumexp", "forward bfloat16, long rows", ("forward bfloat16, block", "forward bf16, block")),
    Work("logsumexp", "backward bfloat16, long rows", ("backward bfloat16, block", "backward bf16, block")),
    Work("sgld", "bfloat16, with noise", ("langevin bfloat16, with noise", "langevin bfloat16, with noise")),
    Work("ising", "heat bath", ("heat bath", "heat bath")),
    Work("ising", "heat bath, resident", ("heat bath, resident",)),
    Work("ising", "Metropolis", ("Metropolis", "Metropolis")),
    Work("ising", "Metropolis, resident", ("Metropolis, resident",)),
    Work("spin_glass", "heat bath, 4 bonds", ("heat bath, 4 bonds",)),
)  # fmt: skip


@contextlib.contextmanager
def pretended_gpu() -> Iterator[None]:
    """torch takes `DEVICE` for a GPU that is there, as far as Inductor asks."""
    import torch._dynamo.device_interface as interface
    import torch.utils._triton

    cuda, worker = interface.CudaInterface, interface.CudaInterface.Worker
    answers: list[tuple[Any, dict[str, Any]]] = [
        (torch.cuda, {"is_available": True, "current_device": 0, "device_count": 1, "get_device_properties": DEVICE}),
        (torch.cuda, {"get_device_capability": (9, 0), "_lazy_init": None}),
        (cuda, {"is_available": True, "current_device": 0, "get_device_properties": DEVICE}),
        (cuda, {"get_compute_capability": 90, "is_triton_capable": True, "raise_if_triton_unavailable": None}),
        (worker, {"current_device": 0, "get_device_properties": DEVICE}),
        (torch.utils._triton, {"triton_hash_with_backend": "none"}),
    ]
    with contextlib.ExitStack() as stack:
        for owner, named in answers:
            for name, answer in named.items():
                fake = lambda *_, answer=answer, **__: answer  # noqa: E731
                stack.enter_context(
                    mock.patch.object(owner, name, staticmethod(fake) if owner in (cuda, worker) else fake)
                )
        yield


def triton_source(function: Callable[..., Any], arguments: Callable[[], Sequence[Any]]) -> str:
    """The module that Inductor writes for the function."""
    from torch._inductor.debug import DebugContext
    from torch._inductor.decomposition import select_decomp_table
    from torch._inductor.graph import GraphLowering
    from torch._inductor.virtualized import V
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.passes.fake_tensor_prop import FakeTensorProp

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with pretended_gpu(), mode:
        given = arguments()
        # Traced on the CPU, because torch without CUDA cannot trace operations in place on a GPU's tensors.
        pure = torch.func.functionalize(function, remove="mutations_and_views")
        on_cpu = [torch.empty_like(each, device="cpu") for each in given]
        traced = make_fx(pure, decomposition_table=select_decomp_table())(*on_cpu)
        for node in traced.graph.nodes:
            if "device" in node.kwargs:
                node.update_kwarg("device", torch.device("cuda:0"))
        FakeTensorProp(traced, mode).propagate_dont_convert_inputs(*given)
        with V.set_fake_mode(mode):
            graph = GraphLowering(traced, example_inputs=list(given))
            with V.set_graph_handler(graph), V.set_debug_handler(DebugContext()):
                graph.run(*given)
                return str(graph.codegen()[0].value)


class _Heuristics:
    """Stands for ``triton_heuristics`` in the source: keeps what a kernel is decorated with."""

    def __getattr__(self, name: str) -> Callable[..., Callable[[Any], Any]]:
        from torch._inductor.runtime import triton_heuristics

        def decorate(*arguments: Any, **named: Any) -> Callable[[Any], Any]:
            with pretended_gpu():
                configurations = getattr(triton_heuristics, name)(*arguments, **named, return_configs=True)
            return lambda kernel: (kernel, named["triton_meta"], configurations)

        return decorate


def inductor_kernels(work: Work) -> list[list[KernelReport]]:
    """For each kernel that Inductor writes, the reports on its configurations."""
    found = []
    assert work.function is not None
    source = triton_source(work.function, work.arguments)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in re.findall(r"async_compile\.triton\('(\w+)', '''(.*?)'''", source, re.S):
            lines = [line for line in text.splitlines() if "set_driver_to_gpu" not in line]
            path = Path(folder) / f"{name}.py"  # Triton reads the source of a kernel from its file
            path.write_text("\n".join(lines).replace("triton_helpers, triton_heuristics", "triton_helpers"))
            namespace: dict[str, Any] = {"triton_heuristics": _Heuristics(), "__name__": name, "__file__": str(path)}
            exec(compile(path.read_text(), str(path), "exec"), namespace)
            kernel, meta, configurations = namespace[name]
            found.append([_report(work, kernel, meta, each) for each in configurations])
    return found


def _report(work: Work, kernel: Any, meta: Any, chosen: Any) -> KernelReport:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {**meta["constants"], **chosen.kwargs}
    types_ = {name: "constexpr" if name in constants else each for name, each in meta["signature"].items()}
    options = {"num_warps": chosen.num_warps, "num_stages": chosen.num_stages}
    attributes = meta["configs"][0]
    compiled = triton.compile(ASTSource(kernel, types_, constants, attributes), GPUTarget("cuda", 90, 32), options)
    block = chosen.kwargs.get("XBLOCK", 1) * chosen.kwargs.get("R0_BLOCK", 1)
    if "r0_numel" in meta["signature"] and "R0_BLOCK" not in chosen.kwargs:  # a whole row at once
        block *= COLUMNS
    given = GivenKernel(
        name=f"{kernel.__name__} {chosen}", arch="sm_90", elf=compiled.asm["cubin"], symbol=compiled.metadata.name,
        threads=32 * chosen.num_warps, items=max(1, block // (32 * chosen.num_warps)),
        bytes_per_item=work.bytes_per_item, dynamic_shared_bytes=compiled.metadata.shared,
    )  # fmt: skip
    (found,) = inspect_variants([given], ARCH)
    return found


def ours(work: Work, implementation: str, name: str) -> KernelReport:
    """The suite's kernel of this name."""
    variants = [
        each
        for each in operations.implementation(work.operation, implementation).variants()
        if each.name.startswith(name) and "any strides" not in each.name and "closer" not in each.name
    ]
    (found,) = inspect_variants(variants[:1], ARCH)
    return found


def source(operation: str, implementation: str) -> str:
    """The hash of the source of the suite's kernels, which says whether the records are up to date."""
    return source_hash(operations.kernels_of(operations.implementation(operation, implementation)).module.variants)


def _row(work: Work, who: str, found: KernelReport, kernels: int = 1) -> dict[str, Any]:
    if found.status == "error":
        raise RuntimeError(f"{work.operation} {work.title}, {who}: {found.message}")
    fields = asdict(found)
    return {"operation": work.operation, "work": work.title, "kernel": who, "kernels": kernels, **fields}


def rows() -> list[dict[str, Any]]:
    """Ours, Inductor's and those of other libraries, for each of `WORK`."""
    found = []
    for work in WORK:
        for implementation, name in zip(("cupy", "triton"), work.names, strict=False):
            own = {"source": source(work.operation, implementation)}
            found.append(_row(work, implementation, ours(work, implementation, name)) | own)
        if work.function:
            kernels = inductor_kernels(work)
            (configurations,) = kernels if len(kernels) == 1 else [max(kernels, key=lambda k: sum(k[0].mix.values()))]
            found.append(_row(work, "torch.compile", _fastest(configurations), len(kernels)))
        for name, first in work.theirs.items():
            with pretended_gpu():
                every = operations.implementation(work.operation, name).variants()
            if chosen := [each for each in every if each.name.startswith(first)]:
                found.append(_row(work, name, _fastest(inspect_variants(chosen, ARCH))))
    return found


def _fastest(found: Sequence[KernelReport]) -> KernelReport:
    """The one with the highest expected rate."""
    return max(found, key=lambda each: each.prediction.rate if each.prediction else 0.0)


def table(found: Sequence[dict[str, Any]]) -> list[str]:
    """The rows as Markdown."""
    kinds = [kind for kind in CATEGORIES if any(each["mix"].get(kind) for each in found)]
    lines = [
        f"| work | kernel | per item | {' | '.join(kinds)} | B | registers | spills | expected, G items/s | decides |"
    ]
    lines.append("|---" * (8 + len(kinds)) + "|")
    for each in found:
        shares = [f"{each['mix'].get(kind, 0) / each['items']:.2g}" for kind in kinds]
        widths = "/".join(str(max(map(int, each[what]), default="-")) for what in ("loads", "stores"))
        guess = each["prediction"]
        rate = (
            "{:.0f} ({:.0f} to {:.0f})".format(*(guess[name] / 1e9 for name in ("rate", "low", "high")))
            if guess
            else "-"
        )
        decides = guess["decides"] if guess else "-"
        total = f"{sum(each['mix'].values()) / each['items']:.3g}"
        lines.append(
            f"| `{each['operation']}` {each['work']} | {each['kernel']} | {total} | {' | '.join(shares)} | {widths} | "
            f"{each['registers']} | {each['stack_bytes'] or each['local_accesses']} | {rate} | {decides} |"
        )
    return lines


PACKAGES = (
    *("torch", "triton", "nvidia-cuda-nvrtc", "liger-kernel", "flag-gems", "quack-kernels", "nvidia-cutlass-dsl"),
    "nvidia-curand",
)


def _version(package: str) -> str:
    """That of an installed package, or nothing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def readme(whole: Mapping[str, Any]) -> str:
    """The table with its explanation, from the records."""
    versions = textwrap.fill(", ".join(f"{name} {version}" for name, version in whole["versions"].items()), 110)
    lines = "\n".join(table(whole["kernels"]))
    return README.format(device=whole["device"], spread=whole["spread"], versions=versions, table=lines)


def write() -> None:
    """`results/predictions/`: the records, and the table."""
    versions = {name: version for name in PACKAGES if (version := _version(name))}
    FOLDER.mkdir(parents=True, exist_ok=True)
    whole = {"device": ARCH.device, "versions": versions, "spread": SPREAD, "kernels": rows()}
    (FOLDER / "sm_90.json").write_text(json.dumps(whole, indent=1) + "\n")
    (FOLDER / "README.md").write_text(readme(json.loads(json.dumps(whole))))
    print(readme(whole))


if __name__ == "__main__":
    write()
