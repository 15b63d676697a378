"""The build and the calls of C++ kernels, and the vectors that they are written with, on each width of vectors."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from boltzbench.kernels import native, philox
from boltzbench.kernels.builds import cache
from boltzbench.kernels.common import dispatch
from boltzbench.kernels.native import NativeCompileError, NativeModule

CPU = torch.device("cpu")
if reason := native.unavailable(CPU):
    pytest.skip(reason, allow_module_level=True)

SOURCE = """#include "random.hpp"
KERNEL void scale(const float* x, float* y, i64 count, double factor, int threads) {
    parallel(count, 4, threads, [&](i64 first, i64 end) {
        for (i64 i = first; i < end; ++i) y[i] = x[i] * (float)factor;
    });
}
KERNEL void words(u32* to, i64 groups, const Keys* keys, i64 step, i64 stream, int threads) {
    for (i64 g = 0; g < groups; g += LANES<u64>) {
        const Words found = random_words(all<u64>(g) + places<u64>(), *keys, step, stream, 5);
        U32 parts[2];
        in_order(found, parts[0], parts[1]);
        std::memcpy(to + 4 * g, parts, sizeof parts);
    }
}
KERNEL void normal_numbers(float* to, double* wide, i64 groups, const Keys* keys, int threads) {
    for (i64 g = 0; g < groups; g += 2 * LANES<u64>) {
        Words found[2];
        random_words(found, u64(g), *keys, 1, STREAM_NOISE);
        F32 z[4];
        F64 w[8];
        for (int i = 0; i < 2; ++i) normals(found[i], 1.0f, z[2 * i], z[2 * i + 1]), normals(found[i], 1.0, w + 4 * i);
        std::memcpy(to + 4 * g, z, sizeof z), std::memcpy(wide + 4 * g, w, sizeof w);
    }
}
KERNEL void functions(const float* x, float* exponentials, float* logarithms, i64 count, int threads) {
    for (i64 i = 0; i < count; i += LANES<float>) {
        store(exponentials + i, exp(load<F32>(x + i)));
        store(logarithms + i, log2(larger(load<F32>(x + i), all(1.2e-38f))));
    }
}
"""


@pytest.fixture(scope="module", params=["native", "x86-64-v3", "x86-64"])
def module(request, tmp_path_factory):
    """The functions above, built for vectors of the machine, of AVX2, and of SSE2."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if (request.param != "native" and "sse2" not in flags) or (request.param == "x86-64-v3" and "avx2" not in flags):
        pytest.skip(f"the CPU has no {request.param}")
    built = written(tmp_path_factory.mktemp(request.param), SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "_ARCHITECTURE", f"-march={request.param}")
        built.library()
    return built


def written(folder, source):
    path = folder / "some.cpp"
    path.write_text(source)
    return NativeModule(path)


def test_a_call(module):
    x, y = torch.arange(11.0), torch.zeros(12)
    module.call("scale", x, y, 11, 3.0)
    assert y.tolist() == [*(3 * x).tolist(), 0]


def test_the_stream(module):
    found = torch.zeros(64, 4, dtype=torch.int32)
    module.call("words", found, 64, native.Keys.of(2**63 + 11), 2**32 - 1, int(philox.Stream.WALKERS))
    wanted = philox.random_words(torch.arange(64), 2**63 + 11, 2**32 - 1, philox.Stream.WALKERS, 5)
    assert torch.equal(found.long() & 0xFFFFFFFF, wanted)


def test_normal_numbers(module):
    """Within 12 units of 2^-24 of the radius, as philox.cuh derives, and of 2^-53."""
    groups = 4096
    found, wide = torch.zeros(groups, 4), torch.zeros(groups, 4, dtype=torch.float64)
    module.call("normal_numbers", found, wide, groups, native.Keys.of(3))
    words = philox.random_words(torch.arange(groups), 3, 1, philox.Stream.NOISE)
    for numbers, dtype, unit in ((found, torch.float32, 2.0**-24), (wide, torch.float64, 2.0**-53)):
        exact = philox.normals(words, dtype).double().view(groups, 4)
        radius = (exact[:, 0::2] ** 2 + exact[:, 1::2] ** 2).sqrt().repeat_interleave(2, 1)
        assert float(((numbers - exact).abs() / radius).max()) <= 12 * unit


def test_functions(module):
    x = torch.cat([torch.linspace(-87.3, 88.7, 4000), torch.logspace(-37, 38, 64), -torch.logspace(-37, 1.9, 32)])
    exponentials, logarithms = torch.zeros_like(x), torch.zeros_like(x)
    module.call("functions", x, exponentials, logarithms, len(x))
    exact = x.double().exp()
    fits = exact < 3.4e38
    assert float(((exponentials - exact).abs() / exact)[fits].max()) <= 2 * 2.0**-24
    assert bool(exponentials[~fits].isinf().all())
    exact = x.double().clamp(min=1.2e-38).log2()
    assert float(((logarithms - exact).abs() / exact.abs().clamp(min=0.4)).max()) <= 3 * 2.0**-24
    special = torch.tensor([torch.inf, -torch.inf, torch.nan, -200.0, 0.0, 89.0] + [0.0] * 10)
    module.call("functions", special, exponentials, logarithms, 16)
    assert exponentials[:6].nan_to_num(7.0, posinf=9.0).tolist() == [9.0, 0.0, 7.0, 0.0, 1.0, 9.0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((torch.zeros(3), torch.zeros(3), 3), "scale of some.cpp takes 4 arguments, got 3"),
        ((torch.zeros(3), torch.zeros(3), 3.0, 1.0), "argument 2 of scale must be an int, got float"),
        ((torch.zeros(3), torch.zeros(3), True, 1.0), "argument 2 of scale must be an int, got bool"),
        ((torch.zeros(3), torch.zeros(3), 3, 1), "argument 3 of scale must be a float, got int"),
        ((3, torch.zeros(3), 3, 1.0), "argument 0 of scale must be a tensor, None or a ctypes.Structure, got int"),
    ],
)
def test_arguments_that_do_not_match_are_refused(tmp_path, arguments, words):
    with pytest.raises(TypeError, match=words):
        written(tmp_path, SOURCE).call("scale", *arguments)


def test_a_wrong_declaration_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the last parameter of f must be `int threads`, got `i64 n`"):
        written(tmp_path, "KERNEL void f(float* x, i64 n) {}").call("f", torch.zeros(1))
    with pytest.raises(ValueError, match="a parameter of f must be a pointer, i64 or double, got `float x`"):
        written(tmp_path, "KERNEL void f(float x, int threads) {}").call("f", 1.0)


def test_a_file_is_built_once_and_again_when_anything_changes(tmp_path, monkeypatch):
    commands = []
    run = cache.run_compiler
    monkeypatch.setattr(cache, "run_compiler", lambda *given: commands.append(given) or run(*given))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def built():
        before = len(commands)
        written(tmp_path, text).library()
        return len(commands) - before

    text = '#include "vectors.hpp"\n#include "beside.hpp"\nKERNEL void f(int threads) {}'
    (tmp_path / "beside.hpp").write_text("")
    assert [built(), built()] == [1, 0]
    (tmp_path / "beside.hpp").write_text("// changed")
    assert [built(), built()] == [1, 0]
    with monkeypatch.context() as other:
        other.setattr(native, "_cpu", lambda: ("another CPU",))
        assert [built(), built()] == [1, 0]
    with monkeypatch.context() as other:
        other.setattr(native, "compiler_version", lambda path: "another version")
        assert built() == 1
    monkeypatch.setattr(native, "_FLAGS", (*native._FLAGS, "-O1"))
    assert built() == 1


def test_a_copy_is_not_built_again_unless_what_it_includes_differs(tmp_path):
    text = (
        '#include "vectors.hpp"\n#include "one.hpp"\n#include <two.hpp>\n'
        "KERNEL void f(i64* to, int threads) { *to = one + two; }\n"
        "KERNEL void name(char* to, i64 most, int threads) { std::strncpy(to, __FILE__, most); }\n"
    )
    paths, found = [], []
    for place, (one, two) in {"a": (1, 2), "b": (1, 2), "c": (10, 2), "d": (1, 20)}.items():
        (tmp_path / place).mkdir()
        (tmp_path / place / "one.hpp").write_text(f"constexpr i64 one = {one};\n")
        (tmp_path / place / "two.hpp").write_text(f"constexpr i64 two = {two};\n")
        module, to, name = written(tmp_path / place, text), torch.zeros(1, dtype=torch.int64), torch.zeros(99).byte()
        paths.append(module.library()._name)
        module.call("f", to)
        module.call("name", name, len(name))
        found.append((int(to), bytes(name.tolist()).rstrip(b"\0").decode()))
    assert paths[0] == paths[1]
    assert len({*paths}) == 3
    assert found == [(3, "some.cpp"), (3, "some.cpp"), (12, "some.cpp"), (21, "some.cpp")]


def test_a_file_that_does_not_compile_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(NativeCompileError, match=r"some\.cpp does not compile: (?s:.*)nonsense"):
        written(tmp_path, '#include "vectors.hpp"\nKERNEL void f(int threads) { nonsense; }').library()
    assert list((tmp_path / "cache" / "boltzbench" / "native").iterdir()) == []


BROKEN = {
    "no compiler": "native kernels need a C++17 compiler, but CXX=",
    "a compiler that fails": "failed on a test file: error: no licence",
    "no folder that can be written": "native kernels cannot be built or loaded: no folder for compiled kernels can be",
}


@pytest.mark.parametrize("what", BROKEN)
def test_without_a_working_compiler_auto_is_torch_and_the_reason_is_given(tmp_path, what):
    environment = dict(os.environ, XDG_CACHE_HOME=str(tmp_path / "cache"))
    if what == "no compiler":
        environment["CXX"] = str(tmp_path / "none")
    elif what == "a compiler that fails":
        failing = tmp_path / "failing"
        failing.write_text("#!/bin/sh\necho error: no licence >&2\nexit 1\n")
        failing.chmod(0o755)
        environment["CXX"] = str(failing)
    else:
        (tmp_path / "cache").write_text("")
    code = (
        f"import tempfile, torch\ntempfile.tempdir = {str(tmp_path / 'cache')!r}\n"
        "from boltzbench.kernels.common import dispatch\n"
        "cpu = torch.device('cpu')\n"
        "print(dispatch.choose_backend('auto', cpu, 'boltzbench.kernels.sgld'))\n"
        "print(dispatch.unavailable('native', cpu))\n"
        "print(dispatch.automatic(cpu, 'boltzbench.kernels.sgld'))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    chosen, reason, automatic = run.stdout.splitlines()[:3]
    assert chosen == "torch"
    assert automatic == f"torch: {reason}"
    assert BROKEN[what] in reason
    if (tmp_path / "cache").is_dir():
        assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


@pytest.mark.skipif(shutil.which("clang++") is None, reason="clang++ is not installed")
def test_clang_builds_the_kernels(tmp_path):
    code = "from boltzbench.kernels.sgld import native_kernels\nnative_kernels.MODULE.library()\n"
    environment = dict(os.environ, XDG_CACHE_HOME=str(tmp_path), CXX="clang++")
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_the_number_of_threads_does_not_change_results():
    from boltzbench.kernels.sgld import sgld_update

    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            x, g = torch.zeros(100_003), torch.ones(100_003)
            sgld_update(x, g, 0.1, seed=1, step=0, backend="native")
            found.append(x)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_kernels_take_the_threads_that_torch_may_take_from_torch_s_own_pool(tmp_path):
    """A pool of their own would compete with torch's, whose threads spin for a while after each operation."""
    module = written(
        tmp_path,
        '#include "vectors.hpp"\n'
        "KERNEL void mark(i64* used, i64 count, int threads) {\n"
        "    parallel(count, 1, threads, [&](i64, i64) { used[omp_get_thread_num()] = 1; });\n"
        "}\n",
    )
    before, pools = torch.get_num_threads(), loaded("libgomp")
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            used = torch.zeros(64, dtype=torch.int64)
            module.call("mark", used, 100_000)
            assert 1 <= int(used.sum()) <= threads
            assert not used[threads:].any()
    finally:
        torch.set_num_threads(before)
    assert loaded("libgomp") == pools
    assert all("/torch/" in path or "/scikit_learn" in path for path in pools)  # other tests import scikit-learn


def loaded(name):
    """The paths of loaded libraries with ``name`` in them."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.exists() else []
    return {line.split()[-1] for line in lines if "r-xp" in line and name in line}


def test_all_files_of_a_package_are_built_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "with_kernels"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('must not be imported')")
    for name in ("one", "two"):
        (package / f"{name}.cpp").write_text('#include "vectors.hpp"\nKERNEL void f(int threads) {}\n')
    native.build_all("with_kernels")
    built = sorted((tmp_path / "cache" / "boltzbench" / "native").iterdir())
    assert [path.name.split("-")[0] for path in built] == ["one", "two"]
    monkeypatch.setattr(cache, "run_compiler", lambda *given: pytest.fail("built again"))
    NativeModule(package / "one.cpp").library()


def test_auto_takes_native_where_the_operation_has_it():
    assert dispatch.choose_backend("auto", CPU, "boltzbench.kernels.sgld") == "native"
    assert dispatch.choose_backend("auto", CPU) == "torch"
    assert dispatch.automatic(CPU, "boltzbench.kernels.sgld") == f"native, compiled by {native.compiler_name()}"
    assert dispatch.automatic(CPU, "") == "torch: it has no native kernels"
    with pytest.raises(ValueError, match="backend must be one of auto, torch, triton, cupy; got 'native'"):
        dispatch.choose_backend("native", CPU)
