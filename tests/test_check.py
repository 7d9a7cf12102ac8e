"""The gate: a damaged model fails it, a change within noise does not; on runs of the demo."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bge_eval.cli.pytest_plugin import _as_option
from bge_eval.errors import DamagedError, MissingError, UsageError
from bge_eval.gate.baseline import Baseline, read_baseline, write_baseline
from bge_eval.gate.entry import Entry, entry_of
from bge_eval.gate.gate import Request, judge, update
from bge_eval.gate.github import workflow_commands
from bge_eval.gate.junit import write_junit
from bge_eval.gate.outcome import Finding, Outcome, Status
from bge_eval.gate.rules import Rule, Rules
from bge_eval.gate.selection import Selection, select_runs
from bge_eval.gate.verdict import check
from bge_eval.measures.measure import Measure
from bge_eval.measures.per_query import per_query
from bge_eval.results.saved import SavedResult, find_results
from conftest import BUILTIN, ROOT, CommandLine
from saved import without_checksums

DEMO = "BgeEvalDemo"
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "damaged": {"query_prompt": "xyzzy plugh "},
    "near": {"query_prompt": "query: "},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real runs of the demo: the model itself, damaged, and changed a little."""
    from bge_eval.encode.settings import Overrides
    from bge_eval.evaluation.evaluate import evaluate
    from bge_eval.evaluation.options import Options
    from bge_eval.models.kinds import ModelOptions
    from bge_eval.models.opening import open_model
    from bge_eval.suites.catalogue import plan

    folder = tmp_path_factory.mktemp("runs")
    for name, settings in VARIANTS.items():
        # Not from the store: each is to have encoded as much as the others.
        options = ModelOptions(None, Overrides(**settings), store=False, offline=True)
        model = open_model(BUILTIN, options)
        evaluate(model, plan(["demo"]), Options(output=folder / name, offline=True))
    return folder


@pytest.fixture
def baseline(runs: Path, tmp_path: Path) -> Baseline:
    return update(Request(str(tmp_path / "main.json"), (runs / "base",)))[1]


def request(baseline: Baseline, runs: Path, **more: Any) -> Request:
    return Request(str(baseline.path), (runs,), **more)


def only(outcome: Outcome) -> Finding:
    (finding,) = outcome.findings
    return finding


def judged(baseline: Baseline, runs: Path, toml: str) -> dict[str, Finding]:
    baseline.path.with_suffix(".toml").write_text(toml, encoding="utf-8")
    outcome = judge(request(baseline, runs))
    return {f"{found.task} {found.what}".strip(): found for found in outcome.findings}


def entry(runs: Path, name: str) -> Entry:
    return entry_of(SavedResult(find_results([runs / name])[0]))


def test_a_damaged_prompt_fails_the_build(
    bge_eval: CommandLine, runs: Path, baseline: Baseline, tmp_path: Path
) -> None:
    summary, junit = tmp_path / "summary.md", tmp_path / "reports" / "check.xml"
    actions = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(summary),
        "GITHUB_WORKSPACE": str(tmp_path),
    }
    done = bge_eval(
        *("check", runs / "damaged", "--baseline", baseline.path, "--junit", junit), env=actions
    )
    assert done.returncode == 1
    assert re.search(rf"{DEMO} .* 0\.58925 .* 0\.5\d+ .* regressed", done.stdout)
    errors = [line for line in done.stderr.splitlines() if line.startswith("::error ")]
    assert len(errors) == 1
    assert errors[0].startswith(f"::error file=main.json,title={DEMO} nDCG@10 regressed::0.58925 →")
    assert "::warning file=main.json" in done.stderr
    assert "model.prompts.query differs: baseline '', run 'xyzzy plugh '" in done.stderr
    assert f"| ❌ | {DEMO} | nDCG@10 | 0.58925 |" in summary.read_text(encoding="utf-8")
    suite = ElementTree.parse(junit).getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("1", "1", "0")
    case = suite.find("testcase")
    assert case is not None
    assert case.get("name") == f"{DEMO} nDCG@10"
    failure = case.find("failure")
    assert failure is not None
    assert "more than the 0.00500 allowed, p = 0.0" in failure.get("message", "")


@pytest.mark.parametrize("name", ["base", "near"])
def test_a_change_within_noise_passes(
    bge_eval: CommandLine, runs: Path, baseline: Baseline, name: str, tmp_path: Path
) -> None:
    junit = tmp_path / "check.xml"
    done = bge_eval(
        *("check", runs / name, "--baseline", baseline.path, "--junit", junit),
        env={"GITHUB_ACTIONS": "true"},
    )
    assert done.returncode == 0, done.stdout
    assert "::error" not in done.stderr
    suite = ElementTree.parse(junit).getroot()[0]
    assert (suite.get("failures"), suite.get("errors")) == ("0", "0")


def test_an_insignificant_drop_fails_only_without_significance(
    runs: Path, baseline: Baseline
) -> None:
    finding = only(judge(request(baseline, runs / "near")))
    assert finding.status is Status.DROPPED
    assert finding.comparison is not None
    assert finding.comparison.interval is not None
    assert finding.comparison.interval.low < finding.comparison.difference < 0
    assert finding.p_value is not None and finding.p_value > 0.05
    strict = judged(baseline, runs / "near", "[default]\nsignificant = false\n")
    assert strict[f"{DEMO} nDCG@10"].status is Status.REGRESSED
    wide = "[default]\nsignificant = false\nmax_relative_drop = 0.05\n"
    assert judged(baseline, runs / "near", wide)[f"{DEMO} nDCG@10"].status is Status.PASSED


def test_differences_between_identities_are_noted(runs: Path, baseline: Baseline) -> None:
    before = entry(runs, "base")
    model = {**before.identity["model"], "dtype": "bfloat16", "revision": "f" * 40}
    packages = {**before.identity["packages"], "mteb": "2.0"}
    identity = {**before.identity, "model": model, "packages": packages}
    write_baseline(replace(baseline, entries={DEMO: replace(before, identity=identity)}))
    outcome = judge(request(baseline, runs / "base"))
    version = before.identity["packages"]["mteb"]
    assert {note.text: note.warning for note in outcome.notes} == {
        "model.dtype differs: baseline bfloat16, run float32.": True,
        "model.revision differs: baseline ffffffffffff, run 3c28bf45824d.": False,
        f"mteb differs: baseline 2.0, run {version}.": False,
    }
    assert outcome.exit_code == 0


def test_an_improvement_is_pointed_out(runs: Path, tmp_path: Path) -> None:
    worse = update(Request(str(tmp_path / "worse.json"), (runs / "damaged",)))[1]
    outcome = judge(request(worse, runs / "base"))
    assert only(outcome).status is Status.IMPROVED
    assert "update the baseline" in only(outcome).reason
    assert outcome.exit_code == 0
    assert any(line.startswith("::notice ") for line in workflow_commands(outcome))


def test_a_run_is_a_baseline_too(runs: Path) -> None:
    outcome = judge(Request(str(runs / "base"), (runs / "damaged",)))
    assert outcome.exit_code == 1


def test_baseline_round_trip_keeps_its_bytes(runs: Path, baseline: Baseline) -> None:
    made = entry(runs, "base")
    read = read_baseline(baseline.path).entries[DEMO]
    assert read.seconds == pytest.approx(made.seconds, abs=0.006)
    assert read.memory_bytes is not None and read.memory_bytes > 2**27
    assert replace(read, seconds=made.seconds, source=made.source) == made
    first = baseline.path.read_bytes()
    write_baseline(baseline)
    assert baseline.path.read_bytes() == first
    assert len(first) < 5000
    content = json.loads(first)
    assert (
        first.decode() == json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    )
    # What a person would type to see the values of the queries.
    packed = content["tasks"][DEMO]["queries"]["default/test"]
    shown = subprocess.run(
        ["bash", "-c", "base64 -d | gunzip"], input=packed.encode(), capture_output=True, check=True
    )
    assert shown.stdout.decode().splitlines()[0] == "query-id\tnDCG@10\tRR@10\tR@100"
    assert len(shown.stdout.decode().splitlines()) == 1 + 68


def test_update_keeps_other_tasks(runs: Path, baseline: Baseline) -> None:
    other = replace(baseline.entries[DEMO], task="Another")
    write_baseline(replace(baseline, entries={**baseline.entries, "Another": other}))
    before, after = update(request(baseline, runs / "near"))
    assert before is not None
    assert set(after.entries) == {DEMO, "Another"}
    assert after.entries[DEMO].scores["main"] < before.entries[DEMO].scores["main"]
    assert after.entries["Another"].scores == other.scores


def test_several_runs_need_a_selection(
    bge_eval: CommandLine, runs: Path, baseline: Baseline, tmp_path: Path
) -> None:
    together = tmp_path / "together"
    for name in VARIANTS:
        shutil.copytree(runs / name, together, dirs_exist_ok=True)
    done = bge_eval("check", together, "--baseline", baseline.path)
    assert done.returncode == 2
    assert f"There are 3 runs of {DEMO}; select one." in done.stderr
    assert "- builtin/all-MiniLM-L6-v2 [query_prompt=" in done.stderr
    assert "--latest" in done.stderr
    done = bge_eval("check", together, "--baseline", baseline.path, env={"GITHUB_ACTIONS": "true"})
    assert f"::error title=bge-eval check::There are 3 runs of {DEMO}" in done.stderr

    def selected(**selection: Any) -> str:
        return select_runs([together], Selection(**selection))[DEMO].label

    name = "builtin/all-MiniLM-L6-v2"
    assert selected(model=name) == name
    near = entry(runs, "near").model
    assert selected(model=near.removeprefix(name).upper()) == near
    assert selected(model="query_prompt", latest=True) == near
    assert selected(latest=True) == near
    with pytest.raises(UsageError, match=r"contains 'e5'.*Saved runs: builtin/all"):
        selected(model="e5")
    path = select_runs([together], Selection(model=name))[DEMO].path
    assert only(judge(request(baseline, path))).status is Status.PASSED


def test_a_missing_task_is_no_pass(
    bge_eval: CommandLine, runs: Path, baseline: Baseline, tmp_path: Path
) -> None:
    other = replace(baseline.entries[DEMO], task="SciFact")
    write_baseline(replace(baseline, entries={**baseline.entries, "SciFact": other}))
    junit = tmp_path / "check.xml"
    arguments = ("check", runs / "base", "--baseline", baseline.path, "--junit", junit)
    done = bge_eval(*arguments, env={"GITHUB_ACTIONS": "true"})
    assert done.returncode == 3
    assert "title=SciFact missing::No saved run of this task." in done.stderr
    assert ElementTree.parse(junit).getroot()[0].get("errors") == "1"
    # A regression weighs more than what is missing.
    assert judge(request(baseline, runs / "damaged")).exit_code == 1
    assert judge(request(baseline, runs / "base", tasks=("demo",))).exit_code == 0


def test_other_data_are_not_compared(runs: Path, baseline: Baseline) -> None:
    before = baseline.entries[DEMO]
    data = {**before.identity["data"], "fingerprint": "0123456789abcdef"}
    other = replace(before, identity={**before.identity, "data": data})
    write_baseline(replace(baseline, entries={DEMO: other}))
    outcome = judge(request(baseline, runs / "base"))
    assert only(outcome).status is Status.MISSING
    assert (
        "different data (data.fingerprint: baseline 0123456789abcdef, run " in only(outcome).reason
    )
    assert outcome.exit_code == 3
    told = judge(request(baseline, runs / "base", other_data=True))
    assert told.exit_code == 0
    assert any("data.fingerprint" in note.text and note.warning for note in told.notes)


def test_without_values_of_queries_the_score_alone_decides(runs: Path) -> None:
    before = replace(entry(runs, "base"), queries={})
    outcome = check(Baseline("b", Path("b"), {DEMO: before}), {DEMO: entry(runs, "near")}, Rules())
    assert only(outcome).status is Status.REGRESSED
    assert "judged by the score alone" in only(outcome).reason


def test_queries_that_are_not_the_scores_parts_are_not_used(runs: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(runs / "base", tmp_path / "copy")
    path = find_results([copy])[0]
    assert "nDCG@10" in entry_of(SavedResult(path)).queries
    without_checksums(path.parent / DEMO / "run.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    content["scores"]["test"][0]["ndcg_at_10"] += 0.001
    path.write_text(json.dumps(content), encoding="utf-8")
    assert "nDCG@10" not in entry_of(SavedResult(path)).queries


def test_an_aggregate_is_tested_over_its_parts(runs: Path, tmp_path: Path) -> None:
    entries = {}
    for name in ("base", "damaged"):
        folder = shutil.copytree(runs / name, tmp_path / name)
        first = find_results([folder])[0]
        record = without_checksums(first.parent / DEMO / "run.json")
        for task, parts in (("Second", []), ("Whole", [DEMO, "Second"])):
            shutil.copy(first, first.with_name(f"{task}.json"))
            (first.parent / task).mkdir()
            own = {**record, "aggregate_of": parts, "files": [] if parts else record["files"]}
            text = json.dumps(own)
            (first.parent / task / "run.json").write_text(text, encoding="utf-8")
        entries[name] = entry_of(SavedResult(first.with_name("Whole.json")))
    assert set(entries["base"].values("main")) == {f"{DEMO}:default/test", "Second:default/test"}
    whole = Baseline("b", tmp_path / "b.json", {"Whole": entries["base"]})
    write_baseline(whole)
    finding = only(check(read_baseline(whole.path), {"Whole": entries["damaged"]}, Rules()))
    assert finding.comparison is not None and finding.comparison.queries == 2 * 68
    assert finding.status is Status.REGRESSED
    # Other data of a part are other data.
    second = find_results([tmp_path / "damaged"])[0].parent / "Second" / "run.json"
    record = json.loads(second.read_text(encoding="utf-8"))
    record["identity"]["data"]["fingerprint"] = "another"
    second.write_text(json.dumps(record), encoding="utf-8")
    changed = entry_of(SavedResult(second.parents[1] / "Whole.json"))
    assert only(check(whole, {"Whole": changed}, Rules())).status is Status.MISSING
    # Written from a folder, the aggregate stands for its parts.
    written = update(Request(str(tmp_path / "c.json"), (tmp_path / "base",)))[1]
    assert list(written.entries) == ["Whole"]
    assert judge(Request(str(written.path), (tmp_path / "base",))).notes == ()


def test_a_main_measure_with_another_cutoff(runs: Path, tmp_path: Path) -> None:
    """mteb's LIMIT tasks are judged by recall at 2."""
    path = find_results([shutil.copytree(runs / "base", tmp_path / "copy")])[0]
    record = path.parent / DEMO / "run.json"
    content = without_checksums(record)
    record.write_text(json.dumps(content | {"main_measure": "recall_at_2"}), encoding="utf-8")
    scores = json.loads(path.read_text(encoding="utf-8"))
    found = entry_of(SavedResult(path))
    assert found.main == "R@2" and "R@2" not in found.scores
    judged = SavedResult(path)
    value = per_query(
        judged.run(("default", "test")), judged.qrels(("default", "test")), [Measure("R", 2)]
    )
    mean = sum(row[0] for row in value.values()) / len(value)
    scores["scores"]["test"][0] |= {"recall_at_2": mean, "main_score": mean}
    path.write_text(json.dumps(scores), encoding="utf-8")
    assert entry_of(SavedResult(path)).values("main")


def test_a_result_of_mtebs_own_is_compared_with_doubt(
    runs: Path, baseline: Baseline, tmp_path: Path
) -> None:
    folder = shutil.copytree(runs / "base", tmp_path / "mteb")
    shutil.rmtree(find_results([folder])[0].parent / DEMO)
    outcome = judge(request(baseline, folder))
    assert only(outcome).status is Status.PASSED
    assert [note.text for note in outcome.notes if note.warning] == [
        "The run has no recorded identity, so its data cannot be verified."
    ]


def test_rules_of_queries_time_and_memory(runs: Path, baseline: Baseline) -> None:
    before, after = (
        entry(runs, name).values("nDCG@10")["default/test"]
        for name in VARIANTS
        if name in ("base", "damaged")
    )
    lost = next(query for query in before if after[query] < before[query])
    kept = next(query for query in before if after[query] >= before[query])
    rules = (
        f'[task.{DEMO}]\nmax_drop = 0.5\nqueries = ["{kept}", "{lost}"]\n'
        "max_time_ratio = 1e6\nmax_memory_gib = 0.01\n"
    )
    found = judged(baseline, runs / "damaged", rules)
    assert found[f"{DEMO} nDCG@10"].status is Status.PASSED
    queries = found[f"{DEMO} 2 queries"]
    assert queries.status is Status.REGRESSED
    assert f"{lost} (nDCG@10 " in queries.reason and f"{kept} (" not in queries.reason
    assert found[f"{DEMO} seconds"].status is Status.PASSED
    assert found[f"{DEMO} memory, GiB"].status is Status.REGRESSED
    fine = judged(
        baseline, runs / "damaged", rules.replace(f', "{lost}"', "").replace("0.01", "99")
    )
    assert fine[f"{DEMO} 1 query"].status is Status.PASSED
    assert fine[f"{DEMO} memory, GiB"].status is Status.PASSED
    slow = judged(baseline, runs / "damaged", rules.replace("1e6", "0.0001"))
    assert slow[f"{DEMO} seconds"].status is Status.REGRESSED
    with pytest.raises(UsageError, match="the baseline has no query nosuch"):
        judged(baseline, runs / "base", rules.replace(lost, "nosuch"))


def test_times_of_another_machine_are_not_compared(runs: Path) -> None:
    before = replace(entry(runs, "base"), machine="Abacus, 1 cores", seconds=1e-6)
    rules = Rules(default=Rule(max_time_ratio=1.0))
    outcome = check(Baseline("b", Path("b"), {DEMO: before}), {DEMO: entry(runs, "base")}, rules)
    assert [finding.status for finding in outcome.findings] == [Status.PASSED, Status.NOT_JUDGED]
    assert "Abacus" in outcome.findings[1].reason
    assert outcome.exit_code == 0
    stored = replace(entry(runs, "base"), tokens=0)
    before = replace(stored, tokens=9000)
    outcome = check(Baseline("b", Path("b"), {DEMO: before}), {DEMO: stored}, rules)
    assert outcome.findings[1].status is Status.NOT_JUDGED
    assert "Encoded 0 tokens, the baseline 9,000" in outcome.findings[1].reason


def test_measures_and_averages(runs: Path, baseline: Baseline) -> None:
    rules = (
        '[default]\nmeasures = ["main", "R@100", "MAP@10"]\nmax_drop = 0.9\n'
        "[suite.demo]\naverage = { max_drop = 0.01 }\n[average]\nmax_drop = 0.9\n"
    )
    found = judged(baseline, runs / "damaged", rules)
    assert found[f"{DEMO} R@100"].status is Status.PASSED
    assert found[f"{DEMO} MAP@10"].status is Status.MISSING
    assert "--update with these rules adds it" in found[f"{DEMO} MAP@10"].reason
    assert found["average of demo nDCG@10"].status is Status.REGRESSED
    assert found["average of the baseline's tasks nDCG@10"].status is Status.PASSED
    update(request(baseline, runs / "base"))
    map10 = judged(baseline, runs / "damaged", rules)[f"{DEMO} MAP@10"]
    assert map10.comparison is not None and map10.comparison.queries == 68
    assert map10.comparison.before == pytest.approx(map10.before, abs=1e-5)


def test_holm_corrects_for_several_tasks(runs: Path) -> None:
    one, two = entry(runs, "base"), entry(runs, "near")
    tasks = [f"Task{number}" for number in range(5)]
    many = check(
        Baseline("b", Path("b"), {task: replace(one, task=task) for task in tasks}),
        {task: replace(two, task=task) for task in tasks},
        Rules(),
    )
    single = check(Baseline("b", Path("b"), {DEMO: one}), {DEMO: two}, Rules())
    p = only(single).p_value
    assert p is not None
    assert [finding.p_value for finding in many.findings] == [pytest.approx(min(1.0, 5 * p))] * 5


def test_missing_and_damaged_files(
    runs: Path, baseline: Baseline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingError, match=r"no baseline mian .*check --update --baseline mian"):
        judge(Request("mian", (runs / "base",)))
    with pytest.raises(UsageError, match=r"rules name an unknown suite 'bier'.* Did you mean beir"):
        judged(baseline, runs / "base", "[suite.bier]\n")
    baseline.path.with_suffix(".toml").write_text("x =", encoding="utf-8")
    with pytest.raises(DamagedError, match="is not TOML"):
        judge(request(baseline, runs / "base"))
    with pytest.raises(MissingError, match=r"rules file .*none\.toml does not exist"):
        judge(request(baseline, runs / "base", rules=tmp_path / "none.toml"))
    with pytest.raises(UsageError, match="--update cannot write"):
        update(Request(str(runs), (runs / "base",)))
    text = baseline.path.read_text(encoding="utf-8")
    for wrong in (
        text.replace('"format": 1', '"format": 9'),
        text.replace("H4sI", "H4sX"),
        text.replace('"main": 0.58925', '"main": "x"'),
        text.replace('"scores"', '"points"'),
        text[:100],
    ):
        baseline.path.write_text(wrong, encoding="utf-8")
        with pytest.raises(DamagedError, match=re.escape(str(baseline.path))):
            read_baseline(baseline.path)


def test_markup_in_names_stays_text(runs: Path, tmp_path: Path) -> None:
    from bge_eval.cli.show_check import markdown, text

    nasty = "a|b\x00<script>%,::error::[red]\n"
    before = replace(entry(runs, "base"), task=nasty)
    after = replace(entry(runs, "damaged"), task=nasty)
    outcome = check(Baseline("b", tmp_path / "b", {nasty: before}), {nasty: after}, Rules())
    write_junit(outcome, tmp_path / "check.xml")
    case = ElementTree.parse(tmp_path / "check.xml").getroot()[0].find("testcase")
    assert case is not None and "<script>" in case.get("name", "")
    lines = workflow_commands(outcome)
    assert lines[0].startswith("::error title=a|b\x00<script>%25%2C%3A%3Aerror%3A%3A[red]%0A nDCG")
    assert all("\n" not in line for line in lines)
    assert "<script>" not in markdown(outcome).replace("\\<script\\>", "")
    assert "[red]" in text(outcome)


def test_github_shows_ten_annotations_of_a_kind(runs: Path) -> None:
    tasks = [f"Task{number:02}" for number in range(15)]
    one = entry(runs, "base")
    entries = {task: replace(one, task=task) for task in tasks}
    lines = workflow_commands(check(Baseline("b", Path("b"), entries), {}, Rules()))
    assert len(lines) == 10
    assert "title=6 more::Task09 missing: No saved run of this task.%0ATask10" in lines[-1]


def test_the_committed_baseline_holds(runs: Path) -> None:
    demo = ROOT / "results" / "baselines" / "demo.json"
    assert judge(Request(str(demo), (runs / "base",))).exit_code == 0
    assert judge(Request(str(demo), (runs / "damaged",))).exit_code == 1


@pytest.mark.slow
def test_documented_workflow(tmp_path: Path) -> None:
    import yaml

    page = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")
    (block,) = [b for b in re.findall(r"```yaml\n(.*?)```", page, re.S) if "bge-eval check" in b]
    steps = yaml.safe_load(block)["jobs"]["scores"]["steps"]
    commands = [step["run"] for step in steps if "bge-eval" in step.get("run", "")]
    assert len(commands) == 2
    command = tmp_path / "bin" / "bge-eval"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bge_eval "$@"\n', encoding="utf-8")
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    shutil.copytree(ROOT / "results" / "baselines", tmp_path / "results" / "baselines")
    done = subprocess.run(
        ["bash", "-ec", "\n".join(commands)],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "check.xml").is_file()


def pytest_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_gate_in_a_test_suite(runs: Path, baseline: Baseline, tmp_path: Path) -> None:
    suite = f"""
        def test_same(bge_eval):
            assert bge_eval.check({str(baseline.path)!r}, {str(runs / "base")!r}).exit_code == 0

        def test_near(bge_eval):
            bge_eval.check({str(baseline.path)!r}, {str(runs / "near")!r})

        def test_damaged(bge_eval):
            bge_eval.check({str(baseline.path)!r}, {str(runs / "damaged")!r})

        def test_no_baseline(bge_eval):
            bge_eval.check("nosuch", {str(runs / "base")!r})

        def test_evaluated(bge_eval):
            folder = bge_eval.run({BUILTIN!r}, "demo", offline=True, max_length=256)
            bge_eval.check({str(baseline.path)!r}, folder)

        def test_not_evaluated(bge_eval):
            bge_eval.run({BUILTIN!r}, "demo", pooling="most", data_dir=["a", "b"])
        """
    place = tmp_path / "suite"
    place.mkdir()
    lines = [line.removeprefix(" " * 8) for line in suite.splitlines()]
    (place / "test_model.py").write_text("\n".join(lines), encoding="utf-8")
    done = pytest_in(place, "-rA")
    assert set(re.findall(r"^PASSED test_model.py::(\w+)", done.stdout, re.M)) == {
        "test_same",
        "test_near",
        "test_evaluated",
    }, done.stdout
    assert "3 failed, 3 passed" in done.stdout
    assert f"{DEMO} nDCG@10: Lost 0.06" in done.stdout
    assert "There is no baseline nosuch" in done.stdout
    assert "bge-eval run: " in done.stdout and "--pooling" in done.stdout
    assert "not significantly" in done.stdout.split("= bge-eval =")[1]
    assert "Traceback" not in done.stdout


def test_the_plugin_costs_nothing() -> None:
    heavy = ("torch", "mteb", "numpy", "pandas", "typer", "rich", "bge_eval.gate")
    code = (
        "import sys, bge_eval.cli.pytest_plugin;"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("offline", True, ["--offline"]),
        ("offline", False, []),
        ("normalize", False, ["--no-normalize"]),
        ("store", False, ["--no-store"]),
        ("store", "here", ["--store", "here"]),
        ("lang", ["zho", "deu"], ["--lang", "zho", "--lang", "deu"]),
    ],
)
def test_options_of_the_fixture(name: str, value: Any, words: list[str]) -> None:
    assert _as_option(name, value) == words


def test_a_rule_of_an_unknown_task_is_refused(runs: Path, baseline: Baseline) -> None:
    with pytest.raises(UsageError, match=r"\[task.BgeEvalDem\].*no such task.*BgeEvalDemo"):
        judged(baseline, runs / "base", "[task.BgeEvalDem]\nmax_drop = 0.5\n")


def test_scores_that_are_not_their_queries_are_refused(baseline: Baseline) -> None:
    content = json.loads(baseline.path.read_text(encoding="utf-8"))
    scores = content["tasks"][DEMO]["scores"]
    for measure in ("main", "R@100"):
        edited = {**scores, measure: scores[measure] - 0.01}
        content["tasks"][DEMO]["scores"] = edited
        baseline.path.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(DamagedError, match=rf"{measure}.*but the mean of its queries is"):
            read_baseline(baseline.path)


def test_the_detectable_drop_is_printed(bge_eval: CommandLine, runs: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    done = bge_eval("check", "--update", "--baseline", path, runs / "base")
    assert "drop of this size with power 0.8" in " ".join(done.stdout.split())
    assert re.search(rf"{DEMO} .* 0\.\d{{4}} \*", done.stdout)
    done = bge_eval("check", "--update", "--baseline", path, runs / "near")
    assert re.search(rf"{DEMO} .* 0\.\d{{4}} [│|]", done.stdout), done.stdout
