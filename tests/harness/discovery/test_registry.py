"""Discovery: what each plugin registers, what is refused and why, packages of plugins, and selection by name."""

import re
import sys
import textwrap
import warnings
from importlib import metadata

import pytest
from boltzbench.harness.api.messages import unknown
from boltzbench.harness.discovery.registry import PLUGINS_VARIABLE, Plugin, UnknownName, load_registry
from support.fakes import CPU, IMPORTS, install

GOOD = """
    @hookimpl
    def register_operations(register):
        register(fakes.operation("good"))

    @hookimpl
    def register_implementations(register):
        register(fakes.implementation("triton", of="good", backend="triton"))
        register(fakes.implementation("reference", of="good"))
        register(fakes.implementation("cupy", of="good", backend="cupy"))
    """


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder on sys.path; the modules imported from it are removed afterwards."""
    monkeypatch.delenv(PLUGINS_VARIABLE, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def load_beside_good(folder, source, name="bad"):
    """Load a good plugin and one of this source. Returns the registry, and the problems of the latter.

    Asserts that the good plugin is complete.
    """
    registry = load_registry([*install(folder, {"agood": GOOD, name: source})])
    assert "good" in registry.operations
    assert {"reference", "cupy", "triton"} <= {each.name for each in registry.implementations_of("good")}
    plugins = {plugin.name: plugin for plugin in registry.plugins}
    assert plugins["agood"].problems == ()
    for problem in plugins[name].problems:
        assert problem.startswith(f"{name} (fake-samplers 1.2): ")
    assert registry.problems == plugins[name].problems
    return registry, plugins[name].problems


def hook(body, name="register_operations"):
    return f"@hookimpl\ndef {name}(register):\n    {body}\n"


def test_a_plugin_that_is_sound(folder):
    registry = load_registry(install(folder, {"good": GOOD}))
    assert registry.problems == ()
    assert list(registry.operations) == ["good"]
    assert [each.name for each in registry.implementations] == ["reference", "cupy", "triton"]
    assert {each.plugin for each in registry.implementations} == {"good (fake-samplers 1.2)"}
    (plugin,) = registry.plugins
    assert plugin == Plugin("good", "fake_samplers_1_2_good", "fake-samplers", "1.2", (), ("good",))
    assert plugin.label == "good (fake-samplers 1.2)"


def test_order_is_that_of_distributions_and_names_whatever_the_order_found(folder):
    source = hook("register(fakes.operation(__name__))")
    entry_points = [
        *install(folder / "b", {"x": source}, "bbb"),
        *install(folder / "a", {"z": source, "y": source}, "aaa"),
        *install(folder / "s", {"q": source}, "boltzbench"),
    ]
    sys.path[:0] = [str(folder / name) for name in "bas"]
    wanted = ["q", "y", "z", "x"]
    for found in (entry_points, entry_points[::-1]):
        registry = load_registry(found)
        assert registry.problems == ()
        assert [plugin.name for plugin in registry.plugins] == wanted
        assert [name[-1] for name in registry.operations] == wanted


def test_a_plugin_may_implement_the_operation_of_another(folder):
    source = hook('register(fakes.implementation("mine", of="good", backend="torch"))', "register_implementations")
    registry, problems = load_beside_good(folder, source, "another")
    assert problems == ()
    assert [each.name for each in registry.implementations_of("good")] == ["mine", "reference", "cupy", "triton"]
    assert registry.implementations[0].plugin == "another (fake-samplers 1.2)"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import no_such_module", "cannot be imported from fake_samplers_1_2_bad: ModuleNotFoundError: No module"),
        ("1 / 0", "ZeroDivisionError: division by zero (fake_samplers_1_2_bad.py:5)"),
        ("raise SystemExit('needs a licence')", "SystemExit: needs a licence"),
        ("def broken(:", "SyntaxError: invalid syntax (fake_samplers_1_2_bad.py, line 5)"),
        ("#BOLTZBENCH_API", "must state BOLTZBENCH_API = 1"),
        ("BOLTZBENCH_API = 0", "written for BOLTZBENCH_API = 0, while this boltzbench has 1; install a version of"),
        ("BOLTZBENCH_API = 2", "written for BOLTZBENCH_API = 2, while this boltzbench has 1"),
        ("BOLTZBENCH_API = True", "written for BOLTZBENCH_API = True"),
        ("BOLTZBENCH_API = '1'", "written for BOLTZBENCH_API = '1'"),
        ("", "brings nothing: no function of fake_samplers_1_2_bad is marked with @hookimpl"),
        ("def register_operations(register): pass", "hook never called: register_operations lacks @hookimpl"),
        (
            hook("pass", "register_operation"),
            "hook never called: unknown hook 'register_operation': did you mean register_operations",
        ),
        ("@hookimpl\ndef register_operations(add): pass", "not loaded: PluginValidationError"),
    ],
)
def test_a_plugin_that_cannot_be_used(folder, source, words):
    registry, (problem,) = load_beside_good(folder, source)
    assert words in problem
    assert list(registry.operations) == ["good"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "raise RuntimeError('no luck')",
            "register_operations failed: RuntimeError: no luck (fake_samplers_1_2_bad.py:7)",
        ),
        ("raise SystemExit(3)", "register_operations failed: SystemExit: 3"),
        ("register(fakes.implementation())", "TypeError: register takes an Operation, got Implementatio"),
        ("register('sgld')", "TypeError: register takes an Operation, got 'sgld' (str)"),
        ("register(Operation)", "register takes an Operation, got <class"),
        ("return [fakes.operation()]", "must call register and return None: it returned [Operation("),
        ("return 0", "must call register and return None: it returned 0"),
        ("yield fakes.operation()", "it is a generator function (it has a yield), which is not run"),
        ("register(fakes.operation('good'))", "operation 'good': that name is taken"),
        ("register(fakes.operation('b')); register(fakes.operation('b'))", "operation 'b': that name is taken"),
        ("register(fakes.operation('b', cases=()))", "operation 'b': it has no cases"),
        (
            "register(fakes.operation('b', cases=[fakes.case(3), fakes.case(3, seed=1)]))",
            "operation 'b': two cases are labelled 'n=3 float32'",
        ),
        (
            "import dataclasses; register(dataclasses.replace(fakes.operation('b'), cases=(fakes.case(3),)))",
            "operation 'b': case 'n=3 float32' says that it belongs to operation 'double'",
        ),
        (
            "register(fakes.operation('b', cases=[fakes.case(3, dtype='float33')]))",
            "operation 'b': case 'n=3 float33': torch has no dtype 'float33'",
        ),
        (
            "register(fakes.operation('b', cases=[fakes.case(3, dtype='nn')]))",
            "operation 'b': case 'n=3 nn': torch has no dtype 'nn'",
        ),
        (
            "register(fakes.operation('b', cases=[fakes.case(3.5)]))",
            "operation 'b': case 0: sizes.n should be a valid integer, got 3.5",
        ),
        (
            "register(fakes.operation('b', cases=[fakes.case(preset='huge')]))",
            "operation 'b': case 0: preset should be 'smoke', 'quick' or 'full', got 'huge'",
        ),
        ("register(fakes.operation('b', kind='best'))", "operation 'b': kind should be 'map' or 'sampler', got 'best'"),
        ("register(fakes.operation('b', cost=3))", "operation 'b': cost should be callable, got 3"),
        ("register(fakes.operation(3))", "operation 3: name should be a valid string, got 3"),
        ("register(fakes.operation(''))", "an operation has an empty name"),
        ("register(fakes.operation('b', laws=(3,)))", "operation 'b': laws.0 should be an instance of Law, got 3"),
        (
            "register(fakes.operation('b', laws=(fakes.law(), fakes.law())))",
            "operation 'b': it has two laws named 'doubles one'",
        ),
        ("register(fakes.operation('b', laws=(fakes.law(7),)))", "operation 'b': law 7: name should be a valid string"),
    ],
)
def test_a_bad_operation_leaves_its_neighbours_alone(folder, body, words):
    source = hook(f"register(fakes.operation('before')); {body}")
    registry, (problem,) = load_beside_good(folder, source)
    assert words in problem
    kept = [] if "yield" in body else ["before", "b"] if "'b')); register" in body else ["before"]
    assert list(registry.operations) == ["good", *kept]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise RuntimeError('no luck')", "register_implementations failed: RuntimeError: no luck"),
        ("register(fakes.operation())", "TypeError: register takes an Implementation, got Operation("),
        ("return 1", "register_implementations must call register and return None: it returned 1"),
        (
            "register(fakes.implementation('x', of='goood'))",
            "implementation 'x': unknown operation 'goood': did you mean good?",
        ),
        (
            "register(fakes.implementation('triton', of='good'))",
            "operation 'good' has an implementation of that name already",
        ),
        (
            "register(fakes.implementation('mine', of='good'))",
            "operation 'good' has an implementation of that name already",
        ),
        (
            "register(fakes.implementation('x', of='good', varients=()))",
            "failed: TypeError: Implementation.__init__() got an unexpected keyword argument 'varients'",
        ),
        ("register(fakes.implementation('x', of='good', prepare=None))", "'x': prepare should be callable, got None"),
        ("register(fakes.implementation('x', of='good', variants=()))", "'x': variants should be callable, got ()"),
        ("register(fakes.implementation('', of='good'))", "an implementation has an empty name"),
        (
            "register(fakes.implementation('x', of='good', own_stream=True))",
            "'x': it has a random stream of its own (own_stream), but operation 'good' has no judge_draws",
        ),
    ],
)
def test_a_bad_implementation_leaves_its_neighbours_alone(folder, body, words):
    source = hook(f"register(fakes.implementation('mine', of='good')); {body}", "register_implementations")
    source += hook("register(fakes.operation('other'))")
    registry, (problem,) = load_beside_good(folder, source, "zz_bad")
    assert words in problem
    assert [each.name for each in registry.implementations_of("good")] == ["mine", "reference", "cupy", "triton"]
    assert "other" in registry.operations


def test_an_implementation_with_a_stream_of_its_own_and_an_operation_that_judges_it(folder):
    source = hook("register(fakes.operation('b', judge_draws=lambda inputs, outputs: None))")
    source += hook("register(fakes.implementation('x', of='b', own_stream=True))", "register_implementations")
    registry, problems = load_beside_good(folder, source)
    assert problems == ()
    assert [each.name for each in registry.implementations_of("b")] == ["x"]


CEILING = """
    from boltzbench.harness import Ceiling

    def ceiling(resource="copy", name="mine", amount=8, **fields):
        return Ceiling(resource, name, "torch", amount, **{"prepare": lambda device: (print, print), **fields})
    """


def ceilings(body):
    return textwrap.dedent(CEILING) + hook(body, "register_ceilings")


def test_a_plugin_may_bring_nothing_but_ceilings(folder):
    source = ceilings("for name in ('b', 'a'): register(ceiling(name=name)); register(ceiling('read', name))")
    registry, problems = load_beside_good(folder, source, "limits")
    assert problems == ()
    found = [(each.resource, each.name, each.plugin) for each in registry.ceilings]
    assert found == [(resource, name, "limits (fake-samplers 1.2)") for resource in ("read", "copy") for name in "ab"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise RuntimeError('no luck')", "register_ceilings failed: RuntimeError: no luck"),
        ("register(fakes.operation())", "TypeError: register takes a Ceiling, got Operation("),
        ("return 1", "register_ceilings must call register and return None: it returned 1"),
        ("register(ceiling('copying', 'x'))", "ceiling 'x': unknown resource 'copying': did you mean copy?"),
        ("register(ceiling(name='x', amount=0))", "ceiling 'x': amount should be greater than 0, got 0"),
        ("register(ceiling(name='x', amount=1.5))", "ceiling 'x': amount should be a valid integer, got 1.5"),
        ("register(ceiling(name='x', prepare=3))", "ceiling 'x': prepare should be callable, got 3"),
        ("register(ceiling(name=''))", "a ceiling has an empty name"),
        ("register(ceiling())", "ceiling 'mine': resource 'copy' has a ceiling of that name already"),
    ],
)
def test_a_bad_ceiling_leaves_its_neighbours_alone(folder, body, words):
    source = ceilings(f"register(ceiling()); {body}") + hook("register(fakes.operation('other'))")
    registry, (problem,) = load_beside_good(folder, source)
    assert words in problem
    assert [(each.resource, each.name) for each in registry.ceilings] == [("copy", "mine")]
    assert "other" in registry.operations


def test_a_name_is_free_again_for_another_resource_but_not_for_another_plugin(folder):
    second = install(folder / "2", {"b": ceilings("register(ceiling('copy'))")}, "second")
    first = install(folder / "3", {"a": ceilings("register(ceiling()); register(ceiling('read'))")}, "third")
    sys.path[:0] = [str(folder / "2"), str(folder / "3")]
    registry = load_registry([*first, *second])
    found = [(each.resource, each.plugin) for each in registry.ceilings]
    assert found == [("read", "a (third 1.2)"), ("copy", "b (second 1.2)")]
    (problem,) = registry.problems
    assert problem.startswith("a (third 1.2): ceiling 'mine': resource 'copy' has a ceiling")


LAWS = """
    from boltzbench.harness import Sampler, Target

    def target(name="mine", **fields):
        return Target(name, "", "", "", **{
            "kind": "continuous", "shape": (1,), "dtype": "float32", "parameters": {}, "energy": print, "law": print,
            **fields,
        })

    def sampler(name="mine", **fields):
        return Sampler(name, "", "", **{"backend": "torch", "init": print, "advance": print, **fields})
    """


def laws(body, name):
    return textwrap.dedent(LAWS) + hook(body, name)


def test_targets_and_samplers_know_their_plugin(folder):
    source = laws("register(target('b')); register(target('a'))", "register_targets")
    source += hook("register(sampler('d')); register(sampler('c'))", "register_samplers")
    registry, problems = load_beside_good(folder, source, "chains")
    assert problems == ()
    assert list(registry.targets) == ["b", "a"]
    assert list(registry.samplers) == ["d", "c"]
    for each in (*registry.targets.values(), *registry.samplers.values()):
        assert each.plugin == "chains (fake-samplers 1.2)"
    with pytest.raises(TypeError):
        registry.targets["c"] = None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise RuntimeError('no luck')", "register_targets failed: RuntimeError: no luck"),
        ("register(sampler())", "TypeError: register takes a Target, got Sampler("),
        ("return [target()]", "register_targets must call register and return None: it returned [Target("),
        ("register(target())", "target 'mine': that name is taken; target names are unique over all plugins"),
        ("register(target(''))", "a target has an empty name"),
        ("register(target(3))", "target 3: name should be a valid string, got 3"),
        ("register(target('x', energy=3))", "target 'x': energy should be callable, got 3"),
        ("register(target('x', shape=(1.5,)))", "target 'x': shape.0 should be a valid integer, got 1.5"),
        ("register(target('x', shape=(2, 0)))", "target 'x': shape should have sizes greater than 0, got (2, 0)"),
        ("register(target('x', dtype='float33'))", "target 'x': torch has no dtype 'float33'"),
        ("register(target('x', temperatures=()))", "target 'x': it has no temperatures"),
        ("register(target('x', temperatures=(1.0, 0.0)))", "'x': temperatures should be finite and greater than 0, go"),
    ],
)
def test_a_bad_target_leaves_its_neighbours_alone(folder, body, words):
    source = laws(f"register(target()); {body}", "register_targets")
    source += hook("register(sampler('stays'))", "register_samplers")
    registry, (problem,) = load_beside_good(folder, source)
    assert words in problem
    assert list(registry.targets) == ["mine"]
    assert list(registry.samplers) == ["stays"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise RuntimeError('no luck')", "register_samplers failed: RuntimeError: no luck"),
        ("register(target())", "TypeError: register takes a Sampler, got Target("),
        ("return 1", "register_samplers must call register and return None: it returned 1"),
        ("register(sampler())", "sampler 'mine': that name is taken; sampler names are unique over all plugins"),
        ("register(sampler(''))", "a sampler has an empty name"),
        ("register(sampler([]))", "sampler []: name should be a valid string, got []"),
        ("register(sampler('x', advance=None))", "sampler 'x': advance should be callable, got None"),
        ("register(sampler('x', accepted=0.5))", "sampler 'x': accepted should be callable, got 0.5"),
    ],
)
def test_a_bad_sampler_leaves_its_neighbours_alone(folder, body, words):
    source = laws(f"register(sampler()); {body}", "register_samplers")
    registry, (problem,) = load_beside_good(folder, source)
    assert words in problem
    assert list(registry.samplers) == ["mine"]


@pytest.mark.parametrize("kind", ["target", "sampler"])
def test_the_name_of_a_target_or_sampler_is_taken_by_the_first_plugin(folder, kind):
    source = laws(f"register({kind}())", f"register_{kind}s")
    second = install(folder / "2", {"b": source}, "second")
    first = install(folder / "1", {"a": source}, "first")
    sys.path[:0] = [str(folder / "1"), str(folder / "2")]
    registry = load_registry([*second, *first])
    assert [each.plugin for each in getattr(registry, f"{kind}s").values()] == ["a (first 1.2)"]
    (problem,) = registry.problems
    assert problem.startswith(f"b (second 1.2): {kind} 'mine': that name is taken")


def test_of_several_registrations_only_the_bad_ones_are_dropped(folder):
    source = laws("for name in ('a', '', 'b', 'a'): register(sampler(name))", "register_samplers")
    registry, problems = load_beside_good(folder, source)
    assert list(registry.samplers) == ["a", "b"]
    assert problems == (
        "bad (fake-samplers 1.2): a sampler has an empty name",
        "bad (fake-samplers 1.2): sampler 'a': that name is taken; sampler names are unique over all plugins",
    )


def test_one_object_registered_twice_is_registered_once(folder):
    registry, (problem,) = load_beside_good(
        folder, laws("one = sampler(); register(one); register(one)", "register_samplers")
    )
    assert list(registry.samplers) == ["mine"]
    assert "that name is taken" in problem


def test_the_problem_of_a_failing_hook_names_what_it_had_registered(folder):
    source = laws("register(sampler()); raise RuntimeError('no luck')", "register_samplers")
    _, (problem,) = load_beside_good(folder, source)
    assert "register_samplers failed: RuntimeError: no luck" in problem
    assert problem.endswith("; it had registered mine, and nothing after")


def test_a_coroutine_hook_is_not_run_and_not_warned_about(folder):
    source = "@hookimpl\nasync def register_operations(register):\n    register(fakes.operation('b'))\n"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry, (problem,) = load_beside_good(folder, source)
    assert "it is a coroutine function (async def), which is not run" in problem
    assert list(registry.operations) == ["good"]


def test_a_plugin_that_hides_the_type_error_is_refused_all_the_same(folder):
    source = hook("try:\n        register(3)\n    except TypeError:\n        pass")
    _, (problem,) = load_beside_good(folder, source)
    assert "register takes an Operation, got 3 (int)" in problem


def test_an_optional_hook_may_be_one_that_this_version_lacks(folder):
    source = GOOD + "\n    @hookimpl(optionalhook=True)\n    def register_reports(register): pass\n"
    assert load_registry(install(folder, {"newer": source})).problems == ()


def test_every_fault_is_reported(folder):
    source = hook("register(fakes.operation('', cases=()))")
    _, problems = load_beside_good(folder, source)
    assert len(problems) == 2


def test_a_name_given_twice_is_loaded_once(folder):
    first = install(folder / "1", {"same": hook("register(fakes.operation('one'))")}, "first")
    second = install(folder / "2", {"same": hook("register(fakes.operation('two'))")}, "second", "3.0")
    sys.path[:0] = [str(folder / "1"), str(folder / "2")]
    registry = load_registry([*second, *first])
    assert list(registry.operations) == ["one"]
    assert registry.problems == ("same (second 3.0): not loaded: same (first 1.2) has the same name",)


def test_no_plugin_displaces_an_operation_of_the_suite(folder):
    own = install(folder / "1", {"sgld": hook("register(fakes.operation('sgld'))")}, "boltzbench", "0.1.0")
    other = install(folder / "2", {"a": hook("register(fakes.operation('sgld'))")}, "aaa")
    sys.path[:0] = [str(folder / "1"), str(folder / "2")]
    registry = load_registry([*other, *own])
    assert registry.plugins[0].operations == ("sgld",)
    assert registry.problems == (
        "a (aaa 1.2): operation 'sgld': that name is taken; operation names are unique over all plugins",
    )


@pytest.mark.parametrize("source", ["raise KeyboardInterrupt", hook("raise KeyboardInterrupt")])
def test_ctrl_c_passes_through(folder, source):
    with pytest.raises(KeyboardInterrupt):
        load_registry(install(folder, {"bad": source}))


def test_the_environment_variable_limits_what_is_loaded(folder, monkeypatch):
    entry_points = install(folder, {"good": GOOD, "bad": "1 / 0"})
    monkeypatch.setenv(PLUGINS_VARIABLE, " good ,")
    registry = load_registry(entry_points)
    assert [plugin.name for plugin in registry.plugins] == ["good"]
    assert registry.problems == ()


def test_an_unknown_name_in_the_environment_variable(folder, monkeypatch):
    entry_points = install(folder, {"good": GOOD})
    monkeypatch.setenv(PLUGINS_VARIABLE, "goood")
    with pytest.raises(UnknownName, match=r"unknown plugin in BOLTZBENCH_PLUGINS 'goood': did you mean good\?"):
        load_registry(entry_points)


def test_an_empty_environment_variable_limits_nothing(folder, monkeypatch):
    monkeypatch.setenv(PLUGINS_VARIABLE, "")
    assert len(load_registry(install(folder, {"good": GOOD})).plugins) == 1


def test_installed_plugins_are_found(folder, monkeypatch):
    install(folder, {"good": GOOD})
    monkeypatch.setenv(PLUGINS_VARIABLE, "good")  # others that are installed may do anything
    assert [plugin.label for plugin in load_registry().plugins] == ["good (fake-samplers 1.2)"]


def install_package(folder, files, package="bag", distribution="fake-bag"):
    """Install a distribution with an entry point ``package`` that names the package of that name.

    ``files`` are its sources by path. Those that contain ``{imports}`` get the usual imports.
    """
    (entry_point,) = install(folder, {"unused": ""}, distribution)
    for path, source in {"__init__.py": "", **files}.items():
        file = folder / package / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source.replace("{imports}", IMPORTS))
    return [metadata.EntryPoint(package, package, "boltzbench")._for(entry_point.dist)]


def defines(name):
    """The source of a plugin that defines this operation."""
    return "{imports}\nBOLTZBENCH_API = 1\n" + hook(f"register(fakes.operation({name!r}))")


def test_the_modules_of_a_package_are_plugins(folder):
    files = {"b.py": defines("b"), "a.py": defines("a"), "_shared.py": "1 / 0", "__main__.py": "1 / 0"}
    registry = load_registry(install_package(folder, files))
    assert registry.problems == ()
    assert registry.loaded == ("bag.a", "bag.b")
    assert list(registry.operations) == ["a", "b"]
    assert registry.plugins[0] == Plugin("bag.a", "bag.a", "fake-bag", "1.2", (), ("a",))


def test_packages_nest(folder):
    files = {
        "inner/__init__.py": "",
        "inner/deep/__init__.py": "",
        "inner/deep/a.py": defines("a"),
        "inner/b.py": defines("b"),
        "_private/__init__.py": "1 / 0",
        "c.py": defines("c"),
        "no_package/d.py": defines("d"),
    }
    registry = load_registry(install_package(folder, files))
    assert registry.problems == ()
    assert registry.loaded == ("bag.c", "bag.inner.b", "bag.inner.deep.a")
    assert [plugin.module for plugin in registry.plugins] == ["bag.c", "bag.inner.b", "bag.inner.deep.a"]


def test_a_package_with_an_api_version_is_one_plugin(folder):
    registry = load_registry(install_package(folder, {"__init__.py": defines("a"), "b.py": "1 / 0"}))
    assert (registry.problems, registry.loaded) == ((), ("bag",))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"helper.py": "x = 1"},
            "bag.helper (fake-bag 1.2): not loaded: module bag.helper of package bag must state BOLTZBENCH_API = 1; or "
            "begin its name with _ if it is no plugin",
        ),
        (
            {"hooks.py": "def register_samplers(register): pass"},
            "bag.hooks (fake-bag 1.2): not loaded: module bag.hooks of package bag must state BOLTZBENCH_API = 1",
        ),
        ({"bad.py": "def broken(:"}, "bag.bad (fake-bag 1.2): cannot be imported from bag.bad: SyntaxError: "),
        (
            {"inner/__init__.py": "1 / 0", "inner/b.py": "1 / 0"},
            "bag.inner (fake-bag 1.2): cannot be imported from bag.inner: ZeroDivisionError",
        ),
        (
            {"inner/__init__.py": "", "inner/_b.py": ""},
            "bag.inner (fake-bag 1.2): brings nothing: package bag.inner has neither hooks nor modules (names that "
            "begin with _ do not count); add a module that states BOLTZBENCH_API = 1",
        ),
        (
            {"inner/__init__.py": "def register_samplers(register): pass", "inner/b.py": "1 / 0"},
            "bag.inner (fake-bag 1.2): not loaded: module bag.inner of package bag must state BOLTZBENCH_API = 1",
        ),
    ],
)
def test_a_faulty_module_of_a_package_does_not_hide_its_neighbours(folder, files, words):
    registry = load_registry(install_package(folder, {"a.py": defines("a"), "z.py": defines("z"), **files}))
    (problem,) = registry.problems
    assert problem.startswith(words)
    assert registry.loaded == ("bag.a", "bag.z")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "bag (fake-bag 1.2): brings nothing: package bag has neither hooks nor modules"),
        ("def register_samplers(register): pass", "bag (fake-bag 1.2): not loaded: bag must state BOLTZBENCH_API = 1"),
    ],
)
def test_an_entry_point_that_names_a_package_without_plugins(folder, source, words):
    registry = load_registry(install_package(folder, {"__init__.py": source}))
    (problem,) = registry.problems
    assert problem.startswith(words)
    assert registry.loaded == ()


@pytest.fixture
def bag(folder):
    """The entry points of a package of three plugins, two of them in a subpackage, and of a plugin without package."""
    inner = {"inner/__init__.py": "", "inner/one.py": defines("one"), "inner/two.py": defines("two")}
    return install_package(folder, {**inner, "three.py": defines("three")}) + install(folder, {"good": GOOD})


@pytest.mark.parametrize(
    ("wanted", "loaded"),
    [
        ("bag", ("bag.inner.one", "bag.inner.two", "bag.three")),
        ("bag.inner", ("bag.inner.one", "bag.inner.two")),
        ("bag.inner.two", ("bag.inner.two",)),
        ("bag.three, good", ("bag.three", "good")),
        ("bag.three,bag", ("bag.inner.one", "bag.inner.two", "bag.three")),
    ],
)
def test_the_environment_variable_names_a_package_or_one_of_its_modules(monkeypatch, bag, wanted, loaded):
    monkeypatch.setenv(PLUGINS_VARIABLE, wanted)
    registry = load_registry(bag)
    assert registry.problems == ()
    assert registry.loaded == loaded
    imported = {name for name in sys.modules if name.startswith("bag.") and "_" not in name} - {"bag.inner"}
    assert imported == {name for name in loaded if name.startswith("bag.")}, (
        "no other module of the package is imported"
    )


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("bga", "unknown plugin in BOLTZBENCH_PLUGINS 'bga': did you mean bag?"),
        ("bag.inner.twoo", "'bag.inner.twoo': did you mean bag.inner.two or bag.inner"),
        ("bag.thre", "'bag.thre': did you mean bag.three"),
        ("good.module", "'good.module': choose from bag, good"),
        ("nothing", "'nothing': choose from bag, good"),
    ],
)
def test_an_unknown_module_in_the_environment_variable(monkeypatch, bag, wanted, words):
    monkeypatch.setenv(PLUGINS_VARIABLE, wanted)
    with pytest.raises(UnknownName) as caught:
        load_registry(bag)
    assert words in str(caught.value)


def test_an_unknown_module_of_a_package_that_failed_points_to_the_failure(folder, monkeypatch):
    entry_points = install_package(folder, {"__init__.py": "1 / 0", "a.py": defines("a")})
    monkeypatch.setenv(PLUGINS_VARIABLE, "bag.a")
    with pytest.raises(UnknownName) as caught:
        load_registry(entry_points)
    first, why, problem = str(caught.value).splitlines()
    assert first == "unknown plugin in BOLTZBENCH_PLUGINS 'bag.a': did you mean bag?"
    assert why == "A plugin that failed may be why this plugin is missing:"
    assert problem.startswith("bag (fake-bag 1.2): cannot be imported from bag: ZeroDivisionError")


def test_a_module_and_an_entry_point_of_the_same_name(folder):
    bag = install_package(folder, {"a.py": defines("a")})
    other = install(folder, {"x": hook("register(fakes.operation('x'))")}, "other")
    other = [metadata.EntryPoint("bag.a", other[0].value, "boltzbench")._for(other[0].dist)]
    registry = load_registry([*other, *bag])
    assert list(registry.operations) == ["a"]
    assert registry.problems == ("bag.a (other 1.2): not loaded: bag.a (fake-bag 1.2) has the same name",)


@pytest.fixture
def two(folder):
    other = """
        @hookimpl
        def register_operations(register):
            register(fakes.operation("other"))

        @hookimpl
        def register_implementations(register):
            register(fakes.implementation("torch", of="other"))
        """
    return load_registry(install(folder, {"a": GOOD, "b": other}))


def names(selection):
    return {operation.name: [each.name for each in found] for operation, found in selection}


def test_select(two):
    everything = {"good": ["reference", "cupy", "triton"], "other": ["torch"]}
    assert names(two.select()) == everything
    assert names(two.select(["other"])) == {"other": ["torch"]}
    assert names(two.select([], ["triton"])) == {"good": ["triton"]}
    assert names(two.select(["good"], ["triton", "cupy"])) == {"good": ["cupy", "triton"]}
    assert names(two.select(["other", "good", "good"])) == everything


@pytest.mark.parametrize(
    ("operations", "implementations", "words"),
    [
        (["othr"], [], "unknown operation 'othr': did you mean other?"),
        (["zzz"], [], "unknown operation 'zzz': choose from good, other"),
        ([], ["tritn"], "unknown implementation 'tritn': did you mean triton?"),
        (["other"], ["cupy"], "unknown implementation of other 'cupy': choose from torch"),
    ],
)
def test_select_refuses_unknown_names(two, operations, implementations, words):
    with pytest.raises(UnknownName) as caught:
        two.select(operations, implementations)
    assert str(caught.value) == words
    assert isinstance(caught.value, ValueError)


def test_names_with_commas_stay_apart():
    assert str(unknown("kernel", "x", ["rows, split", "rows"])) == "unknown kernel 'x': choose from rows; rows, split"
    assert str(unknown("kernel", "x", ["rows", "a"])) == "unknown kernel 'x': choose from a, rows"
    many = [f"{number}, split" for number in range(40)]
    assert str(unknown("kernel", "x", many)).endswith("there are 40, such as 0, split; 1, split; 10, split")


def test_an_unknown_name_is_followed_by_the_problems_of_plugins(folder):
    registry = load_registry(install(folder, {"good": GOOD, "sgld": "import no_such_module"}))
    for selection in (["sgld"], []), (["good"], ["sgld"]):
        with pytest.raises(UnknownName) as caught:
            registry.select(*selection)
        first, why, problem = str(caught.value).splitlines()
        assert re.fullmatch("unknown .*'sgld'", first), "no list of others before the reason"
        assert why.startswith("A plugin that failed may be why this ")
        assert problem.startswith(
            "sgld (fake-samplers 1.2): cannot be imported from fake_samplers_1_2_sgld: ModuleNotFou"
        )


def test_the_problem_with_the_unknown_name_in_it_comes_first(folder):
    registry = load_registry(install(folder, {"a": "1 / 0", "good": GOOD, "levels": "import no_such_module"}))
    with pytest.raises(UnknownName) as caught:
        registry.select(["levels"])
    assert [line.split(" ")[0] for line in str(caught.value).splitlines()[2:]] == ["levels", "a"]


def test_nothing_installed_leaves_nothing_to_choose_from():
    with pytest.raises(UnknownName, match="there is none to choose from"):
        load_registry([]).select(["sgld"])


def test_the_registry_cannot_be_changed(two):
    with pytest.raises(TypeError):
        two.operations["new"] = None
    assert two.implementations[0].unavailable(CPU) is None
