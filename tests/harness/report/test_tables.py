import io
import math
from dataclasses import replace

import pytest
from boltzbench.harness import Status
from boltzbench.harness.api.records import Control, DeviceState, Measurement, Record, Run
from boltzbench.harness.cli.listing import details
from boltzbench.harness.cli.listing import tables as list_tables
from boltzbench.harness.discovery.registry import Plugin, Registry
from boltzbench.harness.discovery.signature import Signature, signature
from boltzbench.harness.report import tables
from boltzbench.harness.report.rows import Row, environment
from rich.console import Console
from support.fakes import CPU, implementation, operation
from support.wrong_samplers import gaussian, langevin

LONG = "outliers_transposed_noncontiguous batch=1024 rows=100003 columns=65537 bfloat16"


def text(what, width=80):
    file = io.StringIO()
    Console(file=file, width=width, markup=False, highlight=False, emoji=False).print(what)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines), default=0) <= width
    assert "…" not in file.getvalue(), "nothing is cut"
    return "\n".join(line.rstrip() for line in lines)


def record(
    name="torch",
    status=Status.PASSED,
    case="n=3 float32",
    purpose="check",
    operation="double",
    backend="torch",
    **fields,
):
    return Record(operation, name, backend, "p (d 1)", case, purpose, status, **fields)


def measurement(median=1.23e-5, rate=5.2e6, throughput=3.35e12, unit="rows"):
    return Measurement("cpu", "cold", (median,), median, median * 0.9, median * 1.1, rate, unit, throughput, 1.0)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "0 s"),
        (1.0, "1.00 s"),
        (12.3e-6, "12.3 µs"),
        (0.123e-3, "123 µs"),
        (999.9e-6, "1.00 ms"),
        (99.96e-6, "100 µs"),
        (1e-15, "0.001 ps"),
        (5.2e6, "5.20 Ms"),
        (1e18, "1000 Ps"),
        (-2.5e-3, "-2.50 ms"),
        (math.inf, "inf s"),
        (math.nan, "nan s"),
    ],
)
def test_si(value, words):
    assert tables.si(value, "s") == words


def test_si_of_a_plain_number():
    assert tables.si(12345) == "12.3 k"
    small = {0.657: "0.657", 0.0123: "0.0123", 0.9994: "0.999", 0.9996: "1.00", 1e-6: "1e-06"}
    assert {each: tables.si(each) for each in small} == small
    assert tables.si(12) == "12.0"


@pytest.mark.parametrize(
    ("error", "bound", "share"),
    [
        (1.0, 4.0, 0.25),
        (8.0, 4.0, 2.0),
        (0.0, 0.0, 0.0),
        (1.0, 0.0, math.inf),
        (math.inf, 1.0, math.inf),
        (None, 1.0, None),
    ],
)
def test_share_of_bound(error, bound, share):
    assert tables.share_of_bound(record(error=error, bound=bound)) == share


def test_check_summary_counts_and_names_the_worst_case():
    shown = text(
        tables.check_summary(
            [
                record(error=1.0, bound=4.0),
                record("bad", Status.WRONG_VALUES, error=8.0, bound=4.0),
                record(case="n=7 float32", error=3.0, bound=4.0),
                record("bad", case="n=7 float32", error=0.0, bound=4.0),
                record("gone", Status.UNAVAILABLE, message="no [GPU] here"),
                record(case="law: one", purpose="law", error=99.0, bound=100.0),
                record("exact", error=0.0, bound=0.0),
            ]
        )
    )
    rows = {line.split()[1]: line.split()[2:] for line in shown.splitlines() if line.startswith("double")}
    assert rows["torch"] == ["2/2", "1/1", "0.75", "n=7", "float32"]
    assert rows["bad"] == ["1/2", "2", "n=3", "float32"]
    assert rows["gone"] == ["-"]
    assert rows["exact"] == ["1/1", "0", "every", "case", "exact"]
    assert "unavailable: gone (1 check): no [GPU] here" in shown


def spread(p10, median, p90, others=()):
    """A measurement with this spread, whose blocks of ten samples were taken while others used so much."""
    states = tuple(DeviceState(10 * place, others=share) for place, share in enumerate(others))
    samples = (median,) * max(10 * len(others), 1)
    return replace(measurement(median), p10=p10, p90=p90, samples=samples, states=states)


@pytest.mark.parametrize("width", [80, 40])
def test_noisy_rows_are_marked_and_the_mark_is_explained(width):
    rows = {
        "quiet": spread(4.0e-3, 4.1e-3, 4.2e-3, (0.05, 0.02)),
        "wide": spread(16e-3, 55.7e-3, 160e-3),
        "widest": spread(1.64e-3, 4.17e-3, 5.31e-3),
        "disturbed": spread(4.0e-3, 4.1e-3, 4.2e-3, (0.57, 0.02, 0.31)),
        "imprecise": replace(spread(3.9e-3, 4.1e-3, 4.3e-3), noise=0.03),
        "for_a_moment": spread(4.0e-3, 4.1e-3, 4.2e-3, (0.57, 0.02, 0.03, 0.04)),
    }
    records = [record(name, purpose="bench", measurements=(each,)) for name, each in rows.items()]
    shown = text(tables.bench_tables(records), width)
    words = " ".join(shown.split())
    for marked in ("~16..160 ms", "~1.64..5.31 ms", "~4.00..4.20 ms", "~3.90..4.30 ms"):
        assert marked in words
    assert words.count("~") == 4 + 1, "and the legend"
    assert "~ noisy (4 of 6 timings): p90 is above 2 times p10, the median is uncertain by over 2%, or the" in words
    assert "Busy host or device during 1 timing: other processes used 44% of it, at most 57%." in words
    quiet = text(tables.bench_tables(records[:1]), width)
    assert "~" not in quiet


def test_a_page_names_the_noise_of_a_measurement():
    row = Row(0, "a", record(), spread(16e-3, 55.7e-3, 160e-3, (0.57, 0.02)))
    assert row.warnings == [
        "noisy: p10 to p90 spans a factor of 10",
        "noisy: the device was disturbed during 50% of the samples: other processes used 57% of it, at most 57%",
    ]
    assert tables.noise_words(spread(1e-3, 55e-3, 296e-3))[0] == "p10 to p90 spans a factor of 300"
    throttled = replace(spread(1.0, 1.0, 1.0), samples=(1.0,) * 4, states=(DeviceState(0, throttled=("power cap",)),))
    assert tables.noise_words(throttled) == ["the device was disturbed during 100% of the samples"]


def test_the_noise_floor_in_a_line():
    run = Run(2, "complete", {}, (), controls=(Control("double", "torch", "n=3", "cold", (1.0,), 1.02, 0.001),))
    assert "noise floor: 4 % (the same code timed twice in 1 case differed by less in 19 of 20)" in " ".join(
        text(tables.limits(run)).split()
    )
    assert environment(run)["noise floor"].startswith("4 % (the same code")
    failed = Control("double", "torch", "n=3", "cold", message="error: it hung")
    assert tables.noise_floor_line(replace(run, controls=(failed,))) == (
        "the control of double torch failed: error: it hung"
    )
    wild = Control("double", "torch", "n=3", "cold", (1.0,), 3.0, 0.001)
    assert tables.noise_floor_line(replace(run, controls=(wild,))).startswith("noise floor: 761 %")
    assert tables.noise_floor_line(replace(run, controls=())) == ""


def test_bench_tables_show_times_rates_or_why_not():
    odd = measurement(1.0, 3.0, 1e5)
    odd = replace(odd, mode="hot", limit="copy", roofline_share=0.832, suspicions=("too good",))
    shown = text(
        tables.bench_tables(
            [
                record(measurements=(measurement(),), purpose="bench"),
                record("triton", backend="triton", untimed="interpreted on the CPU: correctness only", purpose="bench"),
                record("cupy", Status.WRONG_VALUES, backend="cupy", purpose="bench"),
                record("mine", Status.UNAVAILABLE, message="needs a GPU", purpose="bench"),
                record(case="n=9 float32", measurements=(odd,), purpose="bench"),
            ]
        )
    )
    lines = shown.splitlines()
    assert lines[0] == "double (rows; cold and hot)"
    assert lines[1].split() == ["implementation", "status", "median", "p10..p90", "items/s", "GB/s", "of", "limit"]
    assert lines[2] == "n=3 float32"
    found = {line.split()[0]: line.split() for line in lines[3:6]}
    assert list(found) == ["torch", "cupy", "triton"], "that of torch comes first"
    assert found["torch"] == ["torch", "passed,", "cold", "12.3", "µs", "11.1..13.5", "µs", "5.20", "M", "3350"]
    assert found["triton"] == ["triton", "passed", "-", "-", "-", "-"]
    assert found["cupy"] == ["cupy", "wrong_values", "-", "-", "-", "-"]
    assert lines[6] == "n=9 float32"
    assert lines[7].split() == [
        "torch",
        "passed,",
        "hot",
        "1.00",
        "s",
        "0.90..1.10",
        "s",
        "3.00",
        "<0.001",
        "83%",
        "copy",
    ]
    assert "not timed: triton (1 check): interpreted on the CPU: correctness only" in shown
    assert "unavailable: mine (1 check): needs a GPU" in shown
    assert "suspect: torch, n=9 float32, hot: too good" in shown
    assert lines[3].index("12.3") + len("12.3 µs") == lines[7].index("1.00 s") + len("1.00 s"), "cases line up"


@pytest.mark.parametrize("unit", ["unit updates", "parameters", "spin flips or more"])
def test_long_names_fold_at_80_columns(unit):
    name = "a_sampler_with_a_very_long_name_indeed"
    records = [
        record(name, status, LONG, "bench", name, message="why " * 50, error=1.23456789e-300, bound=9.87654321e300)
        for status in Status
    ]
    records.append(
        record("torch", case=LONG, purpose="bench", measurements=(measurement(0.98765, 9.99e14, 9.9e14, unit),))
    )
    records.append(record("torch", case=LONG, purpose="real", measurements=(measurement(1.0, unit="other units"),)))
    assert "why" in text(tables.check_summary(records))
    assert "990000" in text(tables.bench_tables(records))
    shown = text(tables.failure_details(records))
    assert shown.count("why") == 50 * tables.FAILURES


def test_failures_are_shown_in_full():
    shown = text(
        tables.failure_details(
            [
                record(),
                record("gone", Status.UNAVAILABLE),
                record("bad", Status.WRONG_VALUES, "outliers n=3 float32", message="y[0] is off", error=2.0, bound=1.0),
                record("bad", Status.WRONG_LAW, "law: one", message="chi", error=2.0, bound=1.0, p_value=1e-9),
                record("bad", Status.ERROR, message="[red]no markup[/red] :smile:"),
            ]
        )
    )
    assert shown.splitlines() == [
        "wrong_values: double bad, outliers n=3 float32",
        "  y[0] is off",
        "  error 2, bound 1",
        "wrong_law: double bad, law: one",
        "  chi",
        "  error 2, bound 1, p = 1e-09",
        "error: double bad, n=3 float32",
        "  [red]no markup[/red] :smile:",
    ]


def test_failures_of_one_message_are_one_and_of_many_messages_the_first_are_shown():
    same = [record("bad", Status.ERROR, f"n={n} float32", message="no such thing") for n in range(42)]
    others = [record("odd", Status.WRONG_VALUES, f"n={n} float32", message=f"y[{n}] is off") for n in range(9)]
    assert text(tables.failure_details([*same, *others])).splitlines() == [
        "error: double bad, 42 times",
        "  no such thing",
        "  n=0 float32, n=1 float32, n=2 float32, and 39 more",
        *(line for n in range(5) for line in (f"wrong_values: double odd, n={n} float32", f"  y[{n}] is off")),
        "and 4 other failures of double odd; JSON (--json FILE) has them all",
    ]


@pytest.mark.parametrize(
    ("records", "problems", "line"),
    [
        ([record()], [], "All agree: 1 check passed."),
        (
            [record(), record(), record("gone", Status.UNAVAILABLE)],
            ["oh"],
            "1 problem, see above. All agree: 2 checks passed (1 skipped: unavailable here).",
        ),
        (
            [record(), record("bad", Status.ERROR)],
            [],
            "1 of 2 checks failed. Look closer: boltzbench check -o double -i bad",
        ),
        (
            [record("bad", Status.ERROR, purpose="real")],
            ["a", "b"],
            "2 problems, see above. 1 of 1 check failed. Look closer: boltzbench bench -o double -i bad",
        ),
        ([], [], "Nothing was checked. See what is installed: boltzbench list"),
        (
            [record("gone", Status.UNAVAILABLE)],
            [],
            "Nothing was checked (1 skipped: unavailable here). See what is installed: boltzbench list",
        ),
    ],
)
def test_the_closing_line(records, problems, line):
    assert tables.closing_line(records, problems) == line


def test_the_list_of_operations():
    implementations = (
        implementation(plugin="fake (d 1)"),
        implementation("cupy", backend="cupy", plugin="fake (d 1)", note="slower where strides are odd"),
    )
    plugin = Plugin("fake", "fake_module", "distribution", "1.2", ("oh",), ("double", "lonely"))
    target, sampler = replace(gaussian(), plugin="fake (d 1)"), replace(langevin("mine"), plugin="fake (d 1)")
    wordy = operation("lonely", summary="of a law whose words are " * 6)
    registry = Registry(
        {"double": operation(), "lonely": wordy}, implementations, (plugin,),
        targets={"gaussian": target}, samplers={"mine": sampler},
    )  # fmt: skip
    reasons = {
        (list_tables.SAMPLER, "mine"): {"cpu": None, "cuda": "no GPU"},
        ("double", "torch"): {"cpu": None, "cuda": "no GPU"},
        ("double", "cupy"): {"cpu": "no compiler", "cuda": "no GPU"},
    }
    lines = text(list_tables.list_tables(registry, reasons, "cpu")).splitlines()
    assert max(map(len, lines)) <= 80
    words = [line.split() for line in lines]
    assert ["double", "1/2", "Twice", "the", "input."] in words
    (long,) = (line for line in words if line[:2] == ["lonely", "0/0"])
    assert long[-1] == "..."
    assert ["mine", "yes"] in [line[:2] for line in words]
    assert ["gaussian", target.kind] in [line[:2] for line in words]
    assert "Nothing runs on cuda here: no GPU" in lines
    assert "1 plugin of distribution 1.2: fake" in lines

    found = signature(operation(), CPU)
    shown = text(details.about_operation(operation(), registry, found, reasons, "native, by g++ 12", "cpu"))
    for line in (
        "y = 2 x",
        "source: arithmetic",
        "plugin: fake (distribution 1.2)",
        "auto on cpu: native, by g++ 12",
        "not on cpu: cupy: no compiler",
        "not on cuda: torch, cupy: no GPU",
        "cupy: slower where strides are odd",
        "check one: boltzbench check -o double -i torch",
    ):
        assert line in shown
    words = [line.split() for line in shown.splitlines()]
    assert ["x", "float32", "(n)"] in words
    assert ["torch", "torch", "yes", "no", "fake", "(d", "1)"] in words
    assert ["cupy", "cupy", "no", "no", "fake", "(d", "1)"] in words
    failed = Signature(problem="its inputs and outputs cannot be made: boom")
    assert "made: boom" in text(details.about_operation(wordy, registry, failed, reasons, "", "cpu"))
    words = [line.split() for line in text(details.about_sampler(sampler, registry, reasons)).splitlines()]
    assert ["gaussian", "yes"] in words
    words = [line.split() for line in text(details.about_target(target, registry)).splitlines()]
    assert ["mine", "yes"] in words


def test_limits_overheads_and_phases():
    run = Run(
        2, "complete", {}, (),
        ceilings={"copy": 1.03e10, "philox": 2e9},
        overheads={"timer": 4.1e-8},
        seconds={"check": 1.25, "sampling": 61.0},
    )  # fmt: skip
    assert text(tables.limits(run)).splitlines() == [
        "measurement overhead: timer 41.0 ns",
        "limits of this device: copy 10.3 GB/s, philox 2.00 Gwords/s",
        "time spent: check 1.2 s, sampling 61.0 s",
    ]
    assert text(tables.limits(Run(2, "complete", {}, ()))) == ""
