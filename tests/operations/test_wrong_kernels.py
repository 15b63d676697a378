"""The shipped check rejects every kernel of `wrong_kernels.py`, with the right status; honest controls pass."""

import pytest
import torch
from boltzbench.harness.agreement.agreement import check_case, check_law
from boltzbench.harness.api.operations import Agreement, Implementation
from support.wrong_kernels import MUTANTS, PLUGINS, WRONG_KERNELS, WrongKernel, mutant

CPU = torch.device("cpu")


def judge(implementation: Implementation, subject: str) -> Agreement:
    operation = PLUGINS[implementation.operation].OPERATION
    for law in operation.laws:
        if law.name == subject:
            return check_law(implementation, operation, law, CPU, seed=0)
    (case,) = (case for case in operation.cases if case.label == subject)
    return check_case(operation, implementation, case, CPU, seeds=[case.seed])


@pytest.mark.parametrize("wrong", [*WRONG_KERNELS, *MUTANTS], ids=lambda wrong: f"{wrong.operation}: {wrong.name}")
def test_is_rejected(wrong: WrongKernel) -> None:
    agreement = judge(wrong.implementation, wrong.caught_by)
    assert agreement.status is wrong.status, agreement.message


SUBJECTS = sorted({(wrong.operation, wrong.caught_by) for wrong in (*WRONG_KERNELS, *MUTANTS)})


@pytest.mark.parametrize(("operation", "subject"), SUBJECTS)
def test_what_rejects_a_kernel_passes_the_honest_one(operation: str, subject: str) -> None:
    prepare = PLUGINS[operation].prepare
    honest = Implementation(operation, "torch", "torch", lambda inputs, outputs: prepare("torch", inputs, outputs))
    assert judge(honest, subject).passed


@pytest.mark.parametrize("file", ["sgld.cu", "triton_kernels.py"])
def test_a_mutant_without_a_mutation_passes(file: str) -> None:
    control = Implementation("sgld", "control", "torch", mutant("sgld", file, "BLOCK", "BLOCK"))
    assert judge(control, "tensors=1 elements=5003 float32").passed
