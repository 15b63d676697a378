"""The compiled baselines agree with the operations, compile separately, and say which cases they do not support."""

import sysconfig

import pytest
import torch
from boltzbench.harness import Case, Implementation, Status
from boltzbench.harness.agreement.agreement import check_case
from boltzbench.harness.discovery.registry import load_registry
from boltzbench.kernels.common import triton_runtime
from boltzbench.kernels.philox import philox4x32
from boltzbench.plugins.baselines import torch_compile
from boltzbench.plugins.operations.rows import logsumexp
from support import operations
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch._inductor import config as inductor_config

CPU = torch.device("cpu")
OPERATIONS = [operations.registry().operations[name] for name in torch_compile.PREPARE]
SMALL = [
    pytest.param(operation, case, id=f"{operation.name} {case.label}")
    for operation in OPERATIONS
    for case in operation.cases
    if case.purpose == "check" and (operation.name, case.sizes.get("columns")) != ("thermodynamics", 0)
]
"""An empty row is too small to be compiled; of these functions only the thermodynamics fail on one."""


def judge(operation, case: Case):
    implementation = Implementation(operation.name, "torch_compile", "torch", torch_compile.PREPARE[operation.name])
    return check_case(operation, implementation, case, CPU, [0])


def test_every_operation_lists_compiled_and_eager_torch():
    found = {(each.operation, each.name, each.backend) for each in load_registry().implementations}
    for operation in OPERATIONS:
        assert {(operation.name, name, "torch") for name in ("torch", "torch_compile")} <= found


@pytest.mark.parametrize(("operation", "case"), SMALL)
def test_the_functions_agree_uncompiled(operation, case, monkeypatch):
    """On every case. The harness checks the compiled functions before each timing."""
    monkeypatch.setattr(torch_compile, "compiled", lambda function: function)
    monkeypatch.setattr(torch_compile, "SMALLEST", 0)
    monkeypatch.setattr(torch_compile, "SMALLEST_MACHINE", 0)
    monkeypatch.setattr(torch_compile, "SMALLEST_BATCH", 0)
    agreement = judge(operation, case)
    langevin = operation.name in ("sgld", "psgld", "sghmc")
    unmade = "clamped" in case.label or (langevin and case.scenario in ("expanded", "stochastic"))
    assert agreement.status is (Status.UNAVAILABLE if unmade else Status.PASSED), agreement.message


@inductor_config.patch({"cpp.threads": 1})
def test_a_compiled_case_agrees():
    """One thread adds all of a long row, in which a plain sum is off by 80 unit roundoffs."""
    if reason := torch_compile.unavailable(CPU):
        pytest.skip(reason)
    agreement = judge(logsumexp.OPERATION, Case("logsumexp", {"rows": 8, "columns": 65535}, "float32", seed=2))
    assert agreement.status is Status.PASSED, agreement.message


def test_random_words_of_a_second_seed_compile():
    """The seed is a constant. Dynamo would make the second one a variable, whose shifts do not compile on a CPU."""

    def first_word(groups, seed, out):
        out.copy_(philox4x32((groups, groups >> 32, 0 * groups, 0 * groups), seed)[0])

    groups = torch.arange(64)
    for seed in (1, 2):
        found, expected = torch.empty_like(groups), torch.empty_like(groups)
        torch_compile.compiled(first_word)(groups, seed, found)
        first_word(groups, seed, expected)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_a_small_case_is_unavailable_with_the_reason(operation):
    agreement = judge(operation, operation.cases[0])
    assert agreement.status is Status.UNAVAILABLE
    assert "too small to compile: " in agreement.message


def traced(shapes, monkeypatch):
    """How many graphs dynamo traced when the function was compiled and called for each of the shapes."""
    graphs = []

    def backend(graph, examples):
        graphs.append(graph)
        return graph.forward

    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compile(function, backend=backend, **options))
    for n in shapes:
        y = torch.empty(n)
        torch_compile.compiled(double)(torch.ones(n), y, n)
        assert bool((y == 2).all())
    return len(graphs)


def double(x, y, number):
    y.copy_(x * 2 + 0 * number)


def test_every_case_is_compiled_beyond_the_recompile_limit(monkeypatch):
    assert traced(range(2, 2 + 2 * torch._dynamo.config.recompile_limit), monkeypatch) == (
        2 * torch._dynamo.config.recompile_limit
    )


def test_exceeding_the_recompile_limit_raises_instead_of_running_uncompiled(monkeypatch):
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compile(function, backend="eager", **options))
    compiled = torch_compile.compiled(double)

    def call_with_ever_more_dimensions():
        for number in range(3 * torch._dynamo.config.recompile_limit):
            x = torch.ones((1,) * number, dtype=torch.float64)
            compiled(x, torch.empty_like(x), 1.0)

    with pytest.raises(FailOnRecompileLimitHit):
        call_with_ever_more_dimensions()


def test_missing_tools_are_named(monkeypatch):
    for found in (triton_runtime.missing_compiler, triton_runtime.missing_headers):
        monkeypatch.setattr(torch_compile, found.__name__, found.__wrapped__)  # without its cache
    monkeypatch.setattr(sysconfig, "get_paths", lambda scheme: {"include": "/nowhere"})
    assert torch_compile.unavailable(CPU) == (
        "torch.compile needs Python's headers, and /nowhere/Python.h does not exist: install python3-dev"
    )
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert "C++ compiler" in torch_compile.unavailable(CPU)
