"""Every hook has a docstring for plugin authors, and a test here with its name."""

import inspect
import re
from collections.abc import Callable
from dataclasses import replace

import pluggy
import pytest
from boltzbench import harness
from boltzbench.harness import Ceiling, DistributedAlgorithm, Status, hookimpl
from boltzbench.harness.api import hookspecs
from boltzbench.harness.cli.distributed.measure import measure
from boltzbench.harness.discovery.faults import registration_faults
from boltzbench.harness.discovery.registry import PLUGINS_VARIABLE, load_registry
from boltzbench.harness.execution.plan import plan
from boltzbench.harness.validation.experiments import conduct
from boltzbench.harness.validation.judge import validate
from boltzbench.kernels.distributed import Ranks, join
from support import ROOT
from support.fakes import CPU, carried_out, experiment, implementation, install, operation
from support.wrong_samplers import gaussian, langevin

HOOKS = [name for name, thing in vars(hookspecs).items() if hasattr(thing, "boltzbench_spec")]


def manager_with(plugin):
    manager = pluggy.PluginManager("boltzbench")
    manager.add_hookspecs(hookspecs)
    manager.register(plugin)
    manager.check_pending()
    return manager


def test_there_are_hooks():
    assert HOOKS == [
        "register_operations",
        "register_implementations",
        "register_ceilings",
        "register_targets",
        "register_samplers",
        "register_experiments",
        "register_distributed",
    ]


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_documented(hook):
    doc = inspect.getdoc(getattr(hookspecs, hook))
    assert doc
    assert "``register(" in doc


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_takes_a_typed_register(hook):
    signature = inspect.signature(getattr(hookspecs, hook))
    assert list(signature.parameters) == ["register"]
    assert signature.parameters["register"].annotation is not inspect.Parameter.empty


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_has_a_test(hook):
    assert f"test_{hook}" in globals()


def test_register_operations():
    class Plugin:
        @hookimpl
        def register_operations(self, register):
            register(operation("one"))
            register(operation("two"))

    given = []
    assert manager_with(Plugin()).hook.register_operations(register=given.append) == []
    assert [each.name for each in given] == ["one", "two"]


def test_register_implementations():
    class Plugin:
        @hookimpl
        def register_implementations(self, register):
            register(implementation("mine"))

    given = []
    assert manager_with(Plugin()).hook.register_implementations(register=given.append) == []
    assert [each.name for each in given] == ["mine"]


def test_register_ceilings():
    class Plugin:
        @hookimpl
        def register_ceilings(self, register):
            register(Ceiling("copy", "mine", "torch", 8, prepare=lambda device: (lambda: None, lambda: None)))

    given = []
    assert manager_with(Plugin()).hook.register_ceilings(register=given.append) == []
    assert [each.name for each in given] == ["mine"]


def test_register_targets():
    class Plugin:
        @hookimpl
        def register_targets(self, register):
            register(gaussian())

    given = []
    assert manager_with(Plugin()).hook.register_targets(register=given.append) == []
    assert [each.name for each in given] == ["gaussian"]


def test_register_samplers():
    class Plugin:
        @hookimpl
        def register_samplers(self, register):
            register(langevin("mine"))

    given = []
    assert manager_with(Plugin()).hook.register_samplers(register=given.append) == []
    assert [each.name for each in given] == ["mine"]


def test_register_experiments():
    class Plugin:
        @hookimpl
        def register_experiments(self, register):
            register(experiment())

    given = []
    assert manager_with(Plugin()).hook.register_experiments(register=given.append) == []
    assert [each.name for each in given] == ["dice"]


def test_register_distributed():
    def start(ranks, device):
        raise ValueError

    class Plugin:
        @hookimpl
        def register_distributed(self, register):
            register(DistributedAlgorithm("mine", "", "step", 1, join, start))

    given = []
    assert manager_with(Plugin()).hook.register_distributed(register=given.append) == []
    assert [each.name for each in given] == ["mine"]


# ---- the guide


@pytest.fixture
def guide(tmp_path, monkeypatch):
    """The registry of the examples, installed as plugins with the names of their hooks."""
    text = (ROOT / "plugins" / "README.md").read_text()
    shown = re.findall(
        r"^### `(\w+)\(register: Callable\[\[(\w+)\], None\]\)`\n\n(.+?)\n```python\n(.*?)```", text, re.M | re.S
    )
    for hook, kind, sentence, source in shown:
        assert getattr(hookspecs, hook).__annotations__["register"] == Callable[[getattr(harness, kind)], None]
        assert sentence.strip().endswith(".")
        assert f"@hookimpl\ndef {hook}(register):" in source
    assert sorted(hook for hook, *_ in shown) == sorted(HOOKS)
    assert len(re.findall("```python", text)) == len(HOOKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv(PLUGINS_VARIABLE, raising=False)
    registry = load_registry(install(tmp_path, {hook: source for hook, _, _, source in shown}))
    assert registry.problems == ()
    return registry


def test_the_operation_and_the_implementation_of_the_guide_agree(guide):
    steps = plan(guide.select(), ("check", "bench"))
    records = carried_out(steps)
    assert [str(record.status) for record in records] == ["passed"] * len(steps) == ["passed"] * 2
    assert {record.purpose: bool(record.measurements) for record in records} == {"check": False, "bench": True}


def test_the_sampler_and_the_target_of_the_guide_are_sound(guide):
    claims = validate(guide.samplers["walk"], guide.targets["one_well"], CPU, 0, chains=3000)
    assert {each.status for each in claims} <= {Status.PASSED, Status.UNAVAILABLE}  # too few for the most skewed
    assert any(each.claim.startswith("law of x") for each in claims)
    assert any(each.claim.startswith("mean of Z(T") for each in claims)


def test_the_experiment_of_the_guide_finds_the_exact_value(guide):
    outcome = conduct(guide.experiments["one_level"], CPU, 0)
    assert outcome.status is Status.PASSED, outcome.message
    assert len(outcome.tried) == 3


def test_the_ceiling_of_the_guide_does_its_work(guide):
    (ceiling,) = guide.ceilings
    launch, check = ceiling.prepare(CPU)
    assert check() is not None
    launch()
    assert check() is None


def test_the_distributed_algorithm_of_the_guide_has_the_same_bits(guide):
    row = measure(guide.distributed["walkers"], Ranks(), CPU)
    assert (row.ranks, row.same_bits) == (1, True)


def test_a_distributed_algorithm_without_steps_is_refused(guide):
    wrong = replace(guide.distributed["walkers"], steps=0)
    faults = [*registration_faults(DistributedAlgorithm, [wrong], {})]
    assert faults == [(0, "distributed algorithm 'walkers': steps should be at least 1, got 0")]
