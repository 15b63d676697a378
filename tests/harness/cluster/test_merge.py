"""`merge`: nothing is lost, counted twice or preferred without a word. Imports no torch."""

import json
import resource
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from boltzbench.harness.api.operations import Status
from boltzbench.harness.api.records import BenchOptions, Claim, Shard, Standing, UsedDevice
from boltzbench.harness.cli import app
from boltzbench.harness.cluster.merge import merge
from boltzbench.harness.report.markdown import markdown
from boltzbench.harness.report.rows import rows
from boltzbench.harness.results.compare import compare, read_summary
from boltzbench.harness.results.file import read_run
from boltzbench.harness.results.history import read_history
from support.timed_runs import CPU, timed_run, write

CASES = [f"softmax {name} n={n}" for n in (1, 2, 3) for name in ("torch", "triton")]


@pytest.fixture
def merged(tmp_path, monkeypatch, capsys):
    """Runs `merge`: its status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            app.main(["merge", *arguments])
        return ended.value.code, *capsys.readouterr()

    return run


def shard(number, of=3, *, plan="9f3a", cases=None, steps=2, name="", status="complete", seed=1, **environment):
    """Writes a shard of `CASES`, which has two of them."""
    own = cases if cases is not None else CASES[2 * number - 2 : 2 * number]
    run = timed_run(dict.fromkeys(own, 1e-3), 1, np.random.default_rng(seed), **environment)
    run = replace(run, shard=Shard(number, of, plan, steps), seconds={"check": 2.0}, status=status)
    return str(write(Path(), run, name or f"{number}.json"))


def cases_of(run):
    return [f"{each.operation} {each.implementation} {each.case}" for each in run.records]


def test_all_shards_are_one_complete_run(merged):
    files = [shard(number, cores=4) for number in (1, 2, 3)]
    assert merged(*files, "--out", "m.json") == (0, "Merged 6 records of 3 runs: m.json\n", "")
    run = read_run(Path("m.json"))
    assert cases_of(run) == CASES
    assert [record for file in files for record in read_run(Path(file)).records] == list(run.records)
    assert (run.status, run.shard, run.seconds, len(run.controls)) == ("complete", None, {"check": 6.0}, 3)
    assert [(part.file, part.shard.number, part.records) for part in run.parts] == [
        ("1.json", 1, 2),
        ("2.json", 2, 2),
        ("3.json", 3, 2),
    ]


def test_a_merged_run_serves_the_other_commands(merged):
    files = [shard(number) for number in (1, 2, 3)]
    merged(*files, "--out", "m.json")
    whole = write(Path("whole"), timed_run(dict.fromkeys(CASES, 1e-3), 2, np.random.default_rng(1)))
    comparison = compare(read_summary(whole), read_summary(Path("m.json")), bound=0.05)
    assert len(comparison.pairs) == 6
    assert not [pair for pair in comparison.pairs if "only" in pair.verdict]
    (machine,) = read_history(Path()).machines
    assert [run.path.name for run in machine.runs] == ["m.json", whole.name], "a merged shard counts once"
    with pytest.raises(SystemExit) as ended:
        app.main(["report", "m.json", "--markdown", "r.md"])
    assert ended.value.code == 0
    assert "1.json (shard 1/3), 2.json (shard 2/3), 3.json (shard 3/3)" in Path("r.md").read_text()


def test_merged_runs_merge_again(merged):
    one, two, three = (shard(number) for number in (1, 2, 3))
    assert merged(three, one, "--out", "some.json")[:2] == (
        1,
        "missing of 3 shards: 2\nMerged 4 records of 2 runs: some.json\n",
    )
    assert read_run(Path("some.json")).status == "incomplete"
    assert merged("some.json", two, "--out", "all.json")[0] == 0
    assert sorted(cases_of(read_run(Path("all.json")))) == sorted(CASES)


def test_what_is_missing_is_named(merged):
    files = [shard(1), shard(3, cases=CASES[4:5], status="incomplete")]
    of_bench = replace(read_run(Path("3.json")), command=BenchOptions((), (), "smoke", "cold", None))
    for way in (
        "run its command with --shard 3/3 again",
        "continue it with: boltzbench bench --resume 3.json",
    ):
        status, out, _ = merged(*files, "--out", "m.json")
        assert status == 1
        assert out.splitlines()[:2] == ["missing of 3 shards: 2", f"shard 3/3 is incomplete (1 of 2 checks); {way}"]
        write(Path(), of_bench, "3.json")
    plain = replace(read_run(Path("1.json")), shard=None, status="incomplete")
    write(Path(), plain, "plain.json")
    assert merged("plain.json", "--out", "m.json")[:2] == (
        1,
        "plain.json is incomplete\nMerged 2 records of 1 run: m.json\n",
    )


def test_a_shard_continued_on_another_card_is_complete(merged):
    first = shard(1, 1, cases=CASES[:1], status="incomplete", name="a.json", host="a")
    rest = shard(1, 1, cases=CASES[1:2], name="b.json", host="b")
    assert merged(first, rest, "--out", "m.json")[0] == 0
    assert read_run(Path("m.json")).status == "complete"


def test_an_empty_shard_is_no_gap(merged):
    files = [shard(1, 2), shard(2, 2, cases=[], steps=0)]
    assert merged(*files, "--out", "m.json")[0] == 0


def test_a_case_held_twice_is_refused_or_the_last_wins(merged):
    files = [shard(1), shard(2), shard(2, name="again.json", seed=5, cases=CASES[2:3]), shard(3)]
    status, _, err = merged(*files, "--out", "m.json")
    assert status == 2
    assert "a result is both in 2.json and in again.json, such as softmax torch, n=2: leave one out, or add" in err
    assert not Path("m.json").exists()
    status, out, _ = merged(*files, "--out", "m.json", "--last-wins")
    assert status == 0
    assert "a result is both in 2.json and in again.json, such as softmax torch, n=2: taken from the latter" in out
    run = read_run(Path("m.json"))
    assert sorted(cases_of(run)) == sorted(CASES)
    kept = {each.case + each.implementation: each for each in run.records}["n=2torch"]
    assert kept == read_run(Path("again.json")).records[0]
    assert [part.records for part in run.parts] == [2, 1, 1, 2]


def test_a_file_given_twice_is_refused_by_name(merged):
    one, two = shard(1, 2), shard(2, 2)
    for again in (one, str(Path(one).absolute())):
        for options in ((), ("--last-wins",)):
            status, out, err = merged(one, two, again, "--out", "m.json", *options)
            assert (status, out, err) == (2, "", f"boltzbench: {again} is given twice: name each file once\n")
    assert not Path("m.json").exists()


def test_shards_of_different_plans_are_refused(merged):
    one, other, many = shard(1), shard(2, plan="77aa"), shard(2, 4, name="many.json")
    status, _, err = merged(one, other, "--out", "m.json")
    assert (status, err) == (
        2,
        "boltzbench: shards of different plans cannot be merged: 1.json is shard 1/3 of plan 9f3a, "
        "2.json shard 2/3 of plan 77aa\n",
    )
    assert merged(one, many, "--out", "m.json")[0] == 2
    assert not Path("m.json").exists()


def test_devices_stay_apart(merged):
    """The same cases on two kinds of device: no overlap, and none is compared with the other's."""
    gpus = [{"device": "cuda:0", "gpu": {"name": name, "uuid": name}} for name in ("H100", "A100")]
    files = [shard(1, 1, cases=CASES, steps=6, name=f"{each['gpu']['name']}.json", **each) for each in gpus]
    status, out, _ = merged(*files, "--out", "m.json")
    assert status == 0
    assert "2 kinds of device, whose times are not comparable: H100 (6 records), A100 (6 records)" in out
    summary = read_summary(Path("m.json"))
    assert len(summary.cases) == 12
    assert ("softmax", "triton", "bench", "n=3 on A100") in summary.cases
    assert len(compare(summary, summary, bound=0.05).pairs) == 12
    assert [each.device for each in read_history(Path()).machines] == ["H100", "A100"]
    with pytest.raises(SystemExit):
        app.main(["report", "m.json", "--csv", "r.csv"])
    lines = Path("r.csv").read_text().splitlines()
    assert sum("m.json on H100" in line for line in lines) == sum("m.json on A100" in line for line in lines) == 6


def test_a_slow_device_is_said_and_stays_with_its_part(merged):
    used = UsedDevice("cuda:1", slow="7 % slower than the others")
    for number, devices in ((1, ()), (2, (used,))):
        write(Path(), replace(read_run(Path(shard(number, 2))), devices=devices), f"{number}.json")
    status, out, _ = merged("1.json", "2.json", "--out", "m.json")
    assert (status, out.splitlines()[0]) == (0, "cuda:1 of 2.json is 7 % slower than the others")
    run = read_run(Path("m.json"))
    assert [run.devices, *(part.devices for part in run.parts)] == [(), (), (used,)]


def test_a_card_that_is_slow_beside_those_of_other_parts_is_named_everywhere(merged):
    for number, seconds in ((1, 1.0), (2, 1.1)):
        gpu = {"name": "H200", "uuid": f"GPU-{number}"}
        run = read_run(Path(shard(number, 2, device="cuda:0", gpu=gpu, harness="5ce")))
        records = tuple(replace(record, device="cuda:0") for record in run.records)
        used = UsedDevice("cuda:0", gpu, reference={"copy": seconds})
        write(Path(), replace(run, devices=(used,), records=records), f"{number}.json")
    words = "10% slower than the median of the others (copy)"
    assert merged("1.json", "2.json", "--out", "m.json")[:2] == (
        0, f"cuda:0 of 2.json is {words}\nMerged 4 records of 2 runs: m.json\n",
    )  # fmt: skip
    run = read_run(Path("m.json"))
    assert [row.slow_device for row in rows([("m.json", run)])] == ["", "", words, words]
    assert f"**Slow device:** cuda:0 of 2.json is {words}" in markdown([("m.json", run)])
    summary = read_summary(Path("m.json"))
    assert f"new: cuda:0 of 2.json is {words}" in compare(summary, summary, bound=0.05).notes


def test_different_software_is_said(merged):
    files = [shard(1, 2, torch="2.13.0", commit="a" * 40), shard(2, 2, torch="2.11.0", commit="a" * 40)]
    status, out, _ = merged(*files, "--out", "m.json")
    assert status == 0
    assert out.splitlines()[0] == "torch differs: 2.13.0 in 1.json, 2.11.0 in 2.json"
    assert "commit" not in out


def test_standings_are_kept_and_held_once(merged):
    claim = Claim("mala", "well", 1.0, "mean", Status.PASSED)
    standing = Standing("mala", "well", 1.0, "torch", "p", (claim,))
    run = replace(read_run(Path(shard(1))), standings=(standing,), records=(), shard=None, environment=CPU)
    write(Path(), run, "v.json")
    write(Path(), run, "w.json")
    assert merged("v.json", "--out", "m.json")[0] == 0
    assert read_run(Path("m.json")).standings == (standing,)
    status, _, err = merged("v.json", "w.json", "--out", "m.json")
    assert (status, "mala on well, T = 1" in err) == (2, True)


def test_a_full_disk_leaves_the_inputs_and_the_old_output(merged):
    files = [shard(number) for number in (1, 2, 3)]
    merged(files[0], "--out", "m.json")
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before["m.json"]), limits[1]))
    try:
        status, _, err = merged(*files, "--out", "m.json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (status, err) == (2, "boltzbench: cannot write m.json: File too large\n")
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == before
    assert merged(*files, "--out", "/dev/full")[2] == "boltzbench: cannot write /dev/full: No space left on device\n"


def test_what_cannot_be_merged(merged):
    one = shard(1)
    assert merged(one, "--out", one)[2].startswith("boltzbench: 1.json is an input and would be overwritten")
    assert merged(one, "no.json", "--out", "m.json")[2].startswith("boltzbench: cannot read no.json: No such file")
    merged(one, "--out", "m.json")
    content = json.loads(Path("m.json").read_text())
    content["parts"][0]["records"] = 3
    Path("bad.json").write_text(json.dumps(content))
    words = "bad.json is not a valid results file: its parts have 3 records, the whole 2"
    assert words in merged("bad.json", "--out", "x.json")[2]


def test_a_run_killed_in_a_record_gives_its_whole_ones(merged):
    text = Path(shard(1, 1, status="incomplete")).read_text()
    cut = text.rindex(",\n{")
    for rest in (',\n{"operation": "soft', ",]\n}\n"):
        Path("cut.json").write_text(text[:cut] + rest)
        assert merged("cut.json", "--out", "m.json")[0] == 1
        assert cases_of(read_run(Path("m.json"))) == CASES[:1]


def test_a_file_of_another_layout(merged):
    path = Path(shard(1, 1))
    path.write_text(json.dumps(json.loads(path.read_text()), indent=2))
    assert merged(str(path), "--out", "m.json")[0] == 0
    assert read_run(Path("m.json")).records == read_run(path).records


def test_the_samples_of_one_record_are_in_memory(tmp_path):
    generator = np.random.default_rng(1)
    paths = []
    for number in (1, 2):
        run = timed_run({f"softmax torch n={n}": 1e-3 for n in range(number * 100, number * 100 + 60)}, 1, generator)
        many = tuple(float(each) for each in 1e-3 * (1 + generator.random(2000)))
        records = [replace(each, measurements=(replace(each.measurements[0], samples=many),)) for each in run.records]
        paths.append(write(tmp_path, replace(run, records=tuple(records)), f"{number}.json"))
    tracemalloc.start()
    merge(paths, tmp_path / "m.json")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (tmp_path / "m.json").stat().st_size / 8
