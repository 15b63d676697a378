"""Run an experiment and compare its estimates with the exact values.

A correct experiment fails with probability at most `claims.FALSE_ALARM`. This level is divided by the number of
estimates that are judged by their standard error (Bonferroni).
"""

from dataclasses import replace
from time import perf_counter

import torch

from ..api.experiments import Estimate, Experiment, Findings
from ..api.messages import describe_error
from ..api.operations import Status
from ..api.records import Outcome
from ..api.statistics import within
from ..discovery.faults import findings_faults
from .claims import FALSE_ALARM


def conduct(experiment: Experiment, device: torch.device, seed: int) -> Outcome:
    """Run ``experiment`` and judge its estimates. An error of the experiment is an outcome and is not raised."""
    begun = perf_counter()

    def outcome(status: Status, message: str = "", findings: Findings | None = None) -> Outcome:
        of = experiment.name, experiment.summary, experiment.source, experiment.plugin
        return Outcome(*of, status, message, perf_counter() - begun, findings)

    threads = torch.get_num_threads()
    try:
        if device.type == "cpu":  # the problems are small there: threads would mostly wait for each other
            torch.set_num_threads(1)
        findings = experiment.run(device, seed)
    except (Exception, SystemExit) as error:
        return outcome(Status.ERROR, describe_error(error))
    finally:
        torch.set_num_threads(threads)
    if faults := "; ".join(findings_faults(findings)):
        return outcome(Status.ERROR, faults)
    tests = sum(each.exact is not None and each.bound is None for each in findings.estimates)
    level = FALSE_ALARM / max(tests, 1)
    judged = replace(findings, estimates=tuple(_judged(each, level) for each in findings.estimates))
    right = all(each.status in (Status.PASSED, None) for each in judged.estimates)
    return outcome(Status.PASSED if right else Status.WRONG_LAW, findings=judged)


def _judged(estimate: Estimate, level: float) -> Estimate:
    exact, measured = estimate.exact, estimate.measured
    if exact is None:
        return estimate
    if estimate.bound is not None:
        right = abs(measured - exact) <= estimate.bound  # false for NaN
        words = f"measured {measured:.9g}, exact {exact:.9g}, bound {estimate.bound:.2g}"
        return replace(estimate, status=Status.PASSED if right else Status.WRONG_VALUES, message=words)
    assert estimate.stderr is not None  # `findings_faults` has checked it
    verdict = within(measured, exact, estimate.stderr, false_alarm=level)
    z = (measured - exact) / estimate.stderr if estimate.stderr else None
    status, message, p_value = verdict.status, verdict.message, verdict.p_value
    if estimate.p_value is not None:
        p_value = estimate.p_value
        status = Status.PASSED if p_value >= level else Status.WRONG_LAW
        message = f"measured {measured:.9g} ± {estimate.stderr:.2g}, exact {exact:.9g}, p = {p_value:.2g}"
    return replace(estimate, status=status, message=message, z=z, p_value=p_value, false_alarm=level)
