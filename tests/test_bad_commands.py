"""Command lines and the files that options name: each wrong one with its exit code and message."""

from __future__ import annotations

from pathlib import Path

import pytest

from bad_inputs import refused
from conftest import BUILTIN, CommandLine, write_beir

DEEP = "[" * 100_000
RUN = f"run -m {BUILTIN} -t demo --offline --no-store -o out"
Case = tuple[str, int, str]

COMMANDS: dict[str, Case] = {
    "an unknown command": ("evaluate", 2, "No such command 'evaluate'"),
    "an unknown option": (f"{RUN} --metrics main", 2, "No such option: --metrics"),
    "no model": ("run -t demo", 2, "model"),
    "no task": (f"run -m {BUILTIN}", 2, "No task was given"),
    "an empty model": ("run -t demo -m EMPTY --offline", 2, "model"),
    "a model that is nowhere": ("run -t demo -m no/model --offline", 3, "no/model"),
    "a folder that is nowhere": ("run -t demo -m ./no-model --offline", 2, "no-model"),
    "a folder that is none": ("run -t demo -m ./a.toml --offline", 2, "a.toml"),
    "an empty folder": ("run -t demo -m ./empty --offline", 3, "config.json|empty"),
    "an unknown builtin": ("run -t demo -m builtin:x --offline", 2, "builtin"),
    "a model of code that is nowhere": ("run -t demo -m nowhere:load --offline", 3, "nowhere"),
    "a model with a control character": ("run -t demo -m a\x1b[31m/b --offline", 2, "No model"),
    "a model that leaves": ("run -t demo -m ../../../etc/x --offline", 2, "etc/x"),
    "an unknown task": ("run -m bm25 -t SciFcat --offline", 2, "Did you mean SciFact"),
    "a task that leaves": ("run -m bm25 -t ../../nowhere", 2, "no such folder"),
    "a task with a control character": ("run -m bm25 -t \x1b[31mx", 2, "No suite or task"),
    "an empty folder as task": ("run -m bm25 -t ./empty", 3, "is no collection"),
    "a task class that is nowhere": ("run -m bm25 -t nowhere:Task", 2, "cannot be imported"),
    "a task class of a path": ("run -m bm25 -t ../x:Task", 2, "no such folder|imported"),
    "an unknown subset": ("run -m bm25 -t XQuADRetrieval --subset xx", 2, "none of the subsets xx"),
    "an unknown language": (f"{RUN} --lang klingon", 2, "klingon"),
    "an unknown measure": (f"{RUN} --metric F7", 2, "F7"),
    "an unknown cutoff": (f"{RUN} --metric nDCG@7", 2, "results hold the cutoffs"),
    "an empty measure": (f"{RUN} --metric EMPTY", 2, "measure|metric"),
    "an unknown format": (f"{RUN} --format pdf", 2, "'pdf' is not one of"),
    "an unknown pooling": (f"{RUN} --pooling median", 2, "--pooling"),
    "an unknown similarity": (f"{RUN} --similarity l2", 2, "--similarity"),
    "an unknown precision": (f"{RUN} --dtype float8", 2, "--dtype"),
    "an unknown protocol": (f"{RUN} --protocol none", 2, "--protocol"),
    "an unknown backend": (f"{RUN} --backend jax", 2, "--backend"),
    "an unknown device": (f"{RUN} --device tpu", 2, "tpu"),
    "a device that is not here": (f"{RUN} --device cuda:99", 2, "cuda:99|CUDA"),
    "a length of zero": (f"{RUN} --max-length 0", 2, "--max-length"),
    "a length below zero": (f"{RUN} --max-length -5", 2, "--max-length"),
    "a length in words": (f"{RUN} --max-length long", 2, "not a whole number"),
    "a length without room": (f"{RUN} --max-length 2", 2, "leaves no room for a text"),
    "a length beyond the model": (f"{RUN} --max-length 100000", 2, "exceeds the"),
    "a dimension of zero": (f"{RUN} --truncate-dim 0", 2, "--truncate-dim"),
    "a dimension beyond the model": (f"{RUN} --truncate-dim 4096", 2, "4096"),
    "batches of nothing": (f"{RUN} --batch-tokens 0", 2, "--batch-tokens"),
    "an index of nonsense": (f"{RUN} --index ,,,", 2, "index"),
    "a parameter without a value": (f"{RUN} --index HNSW32 --index-param efSearch", 2, "efSearch"),
    "a parameter in words": (f"{RUN} --index HNSW32 --index-param efSearch=x", 2, "efSearch"),
    "a parameter of no index": (f"{RUN} --index-param efSearch=64", 2, "efSearch|--index"),
    "rescoring of nothing": (f"{RUN} --rescore-top 0", 2, "--rescore-top"),
    "rescoring without compression": (f"{RUN} --rescore-top 50", 2, "--rescore-top"),
    "store and none": (f"{RUN} --store here", 2, "contradict each other"),
    "offline at a far server": (
        "run -t demo -m http://example.org --api openai --offline", 2, "--offline",
    ),
    "an address with a password": (
        "run -t demo -m http://a:b@localhost:9 --api openai", 2, "no user name",
    ),
    "an address with a query": (
        "run -t demo -m http://localhost:9/?key=x --api openai", 2, "no user name",
    ),
    "an address without a host": (
        "run -t demo -m http:// --api openai", 2, "is not a server's address",
    ),
    "a port that is none": (
        "run -t demo -m http://localhost:99999 --api openai", 2, "address|port",
    ),
    "an option of servers": (f"{RUN} --api-timeout 5", 2, "is for a server's address"),
    "no time for a server": ("run -t demo -m http://localhost:9 --api-timeout 0", 2, "timeout"),
    "no request at once": ("run -t demo -m http://localhost:9 --api-concurrency 0", 2, "concurr"),
    "a reranker that is nowhere": (f"{RUN} --reranker ./nowhere", 2, "nowhere"),
    "a reranker's option alone": (f"{RUN} --rerank-top-k 5", 2, "no effect without --reranker"),
    "an unknown kind of reranker": (f"{RUN} --reranker x --reranker-kind fast", 2, "'fast'"),
    "reranking of nothing": (f"{RUN} --reranker x --rerank-top-k 0", 2, "--rerank-top-k"),
    "fusing one model": (f"{RUN} --fuse rrf", 2, "--fuse"),
    "weights alone": (f"{RUN} --weights 1,2", 2, "--weights|--fuse"),
    "weights in words": (
        f"run -t demo -m bm25 -m {BUILTIN} --fuse minmax --weights a,b", 2, "--weights",
    ),
    "too many weights": (
        f"run -t demo -m bm25 -m {BUILTIN} --fuse minmax --weights 1,2,3", 2, "--weights",
    ),
    "weights of nan": (
        f"run -t demo -m bm25 -m {BUILTIN} --fuse minmax --weights nan,1", 2, "--weights",
    ),
    "a first stage that is nowhere": ("run -t demo --first-stage nowhere.run", 3, "nowhere.run"),
    "a first stage without runs": ("run -t demo --first-stage ./empty", 3, "holds no run"),
    "an adapter that is nowhere": (f"{RUN} --adapter ./nowhere", 3, "nowhere"),
    "an adapter that is none": (f"{RUN} --adapter ./empty", 3, "empty"),
    "an instruction without its place": (f"{RUN} --instruction-format x", 2, "instruction"),
    "an unknown loader": (f"{RUN} --loader hf", 2, "--loader"),
    "a data folder that is nowhere": (
        "run -m bm25 -t SciFact --data-dir nowhere", 3, "nowhere does not exist",
    ),
    "a data folder that is a file": ("run -m bm25 -t SciFact --data-dir a.toml", 3, "a.toml"),
    "data that are nowhere": ("run -m bm25 -t SciFact --offline", 3, "The data of SciFact"),
    "prompts that are nowhere": (f"{RUN} --prompts nowhere.toml", 3, "nowhere.toml does not"),
    "prompts that are no TOML": (f"{RUN} --prompts bad.toml", 3, "bad.toml is not TOML"),
    "prompts of bytes": (f"{RUN} --prompts bytes.toml", 3, "bytes.toml is not TOML"),
    "deep prompts": (f"{RUN} --prompts deep.toml", 3, "deep.toml is not TOML"),
    "prompts in a folder": (f"{RUN} --prompts empty", 3, "empty"),
    "prompts of numbers": (f"{RUN} --prompts number.toml", 2, "must be a string"),
    "prompts of an unknown task": (f"{RUN} --prompts a.toml", 2, "is no prompt name"),
    "examples that are nowhere": (f"{RUN} --examples nowhere.json", 3, "nowhere.json"),
    "examples that are no JSON": (f"{RUN} --examples bad.toml", 3, "is not JSON"),
    "deep examples": (f"{RUN} --examples deep.json", 3, "is not JSON"),
    "examples of bytes": (f"{RUN} --examples bytes.toml", 3, "is not JSON"),
    "examples of numbers": (f"{RUN} --examples numbers.json", 3, "example 1: an example is"),
    "results that are nowhere": ("table nowhere", 3, "nowhere does not exist"),
    "no results": ("table empty", 3, "empty holds no results"),
    "results of TOML": ("table a.toml", 3, "a.toml"),
    "results of JSON": ("table numbers.json", 3, "numbers.json"),
    "one side": ("compare nowhere", 2, "two|A B|another"),
    "sides that are nowhere": ("compare nowhere elsewhere --runs empty", 3, "nowhere|no results"),
    "a side of TOML": ("compare a.toml b.toml", 2, "a.toml is neither a result"),
    "a baseline that is nowhere": ("check --baseline nowhere.json empty", 3, "nowhere.json"),
    "a baseline of numbers": ("check --baseline numbers.json empty", 3, "numbers.json"),
    "no baseline": ("check", 2, "--baseline"),
    "nothing to rescore": ("rescore nowhere", 3, "nowhere"),
    "rescoring by nonsense": ("rescore empty --metric '(('", 2, r"\(\("),
    "nothing to report": ("report nowhere -o r.html", 3, "nowhere"),
    "nothing to export": ("export nowhere -o out", 3, "nowhere"),
    "an export to nowhere": ("export empty", 2, "--output|--model-index"),

    "a check of nothing": (
        "data check --tasks SciFact --data-dir empty", 3, "1 of 1 data sets are missing",
    ),
    "a check without folder": ("data check --tasks SciFact", 2, "--data-dir"),
    "an audit of nothing": ("data audit --tasks ./empty", 3, "is no collection"),
    "an audit of too similar": ("data audit --tasks demo --similarity 7", 2, "--similarity"),
    "training data that are nowhere": ("data audit --tasks demo --train nowhere", 3, "nowhere"),
    "training data of TOML": ("data audit --tasks demo --train a.toml", 3, "a.toml, line 1: not"),
    "mistakes of nothing": ("mistakes nowhere", 3, "nowhere"),
    "no negatives": ("mistakes empty --negatives 0", 2, "--negatives"),
    "a sheet of nothing": ("judge read nowhere.csv --run empty --output q", 3, "nowhere.csv|empty"),
    "a sheet of another kind": ("judge export empty --sheet a.xlsx", 2, "a.xlsx|empty"),
    "a judge that is no address": (
        "judge ask a.csv --server x --run empty --output b.csv", 3, "no sheet of judgements a.csv",
    ),
    "a margin beyond one": ("mistakes x --margin 7", 2, "above 0 and at most 1, not 7"),
    "a kappa beyond one": ("judge ask x --server h --run x --output y --least-kappa 5", 2, "5"),
    "a picture in a file": ("curve -m x/y -t demo --picture a.toml/x.svg", 3, "a.toml is a file"),
    "two ways to prune": ("store prune --all --older-than 3d", 2, "--older-than and --all.*one"),
    "a store that is a file": ("run -m x/y -t demo --store a.toml", 2, "a.toml is a file"),
    "an unknown task to watch": ("watch empty --tasks SciFactt --idle 0", 2, "SciFactt"),
    "an unknown index to watch": ("watch empty --tasks demo --index NO --idle 0", 2, "'NO'"),
    "nothing to evaluate": ("run -t demo", 2, "Nothing to evaluate"),
    "a copy that is none": (
        "run -m builtin:all-MiniLM-L6-v2 -t demo --offline --known-as BAAI/bge-m3", 2, "Leave it"
    ),
    "saved runs that are nowhere": ("run -m run:nowhere -t demo", 3, "Saved run nowhere"),
    "a cluster for a curve": ("curve --model x/y --tasks demo --engine ray", 2, "No.*--engine"),
    "a reranker's server in a curve": ("curve --model x/y --reranker-api tei", 2, "--reranker-api"),
    "a part of a training": ("watch empty --tasks demo --shard 1/2", 2, "No.*--shard"),
    "an estimate of a training": ("watch empty --tasks demo --estimate", 2, "No.*--estimate"),
    "a part of a reproduction": ("reproduce minilm --shard 1/2", 2, "No.*--shard"),
    "data into a file": ("data fetch -t SciFact --data-dir a.toml", 2, "a.toml is a file"),
    "copies that are nowhere": ("reproduce minilm --model-dir nowhere", 3, "nowhere: there is no"),
    "workers of an experiment": ("run a.toml --workers 2", 2, "--workers is for one model"),
    "an estimate in an experiment": ("run estimate.toml", 2, "'estimate'"),
    "an action of the store": ("store erase", 2, "erase"),
    "pruning of nonsense": ("store prune --older x", 2, "--older|x"),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with odd files, in which every command runs."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "empty").mkdir()
    (folder / "a.toml").write_text('max_length = "long"\n')
    (folder / "b.toml").write_text("")
    (folder / "estimate.toml").write_text("tasks = ['demo']\nestimate = true\n")
    (folder / "bad.toml").write_text("query: passage\n")
    (folder / "number.toml").write_text("query = 5\n")
    (folder / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    (folder / "deep.toml").write_text("a = " + DEEP)
    (folder / "deep.json").write_text(DEEP)
    (folder / "numbers.json").write_text("[1, 2]")
    return folder


@pytest.mark.parametrize("case", COMMANDS)
def test_a_wrong_command_line(
    bge_eval: CommandLine, place: Path, tmp_path: Path, case: str
) -> None:
    line, code, message = COMMANDS[case]
    (tmp_path / "cwd").symlink_to(place)
    words = ["" if word == "EMPTY" else word.strip("'") for word in line.split(" ")]
    done = bge_eval(*words)
    refused(done, code, message)
    assert not list(place.glob("*/results/**/*.json")), "nothing is written"


RULES: dict[str, Case] = {
    "not TOML": ("max_drop: 5", 3, "is not TOML"),
    "deep": ("a = " + DEEP, 3, "is not TOML"),
    "unknown table": ("[defaults]", 2, r"\[defaults\] is not a table.*Did you mean default"),
    "unknown key": ("[default]\nmax_dorp = 1", 2, "max_dorp is not a key.*Did you mean max_drop"),
    "drop in words": ('[default]\nmax_drop = "x"', 2, "max_drop = 'x' must be a number"),
    "drop of nan": ("[default]\nmax_drop = nan", 2, "max_drop = nan must be 0 to 1"),
    "drop below zero": ("[default]\nmax_drop = -1", 2, "must be 0 to 1"),
    "drop of true": ("[default]\nmax_drop = true", 2, "must be a number"),
    "a flag of a number": ("[default]\nsignificant = 1", 2, "must be true or false"),
    "no measures": ("[default]\nmeasures = []", 2, "must be a list"),
    "an unknown measure": ('[default]\nmeasures = ["F7"]', 2, "F7"),
    "a measure of a number": ("[default]\nmeasures = [5]", 2, "measures"),
    "a measure as mteb's": ('[default]\nmeasures = ["ndcg_at_10"]', 2, "written as 'nDCG@10'"),
    "queries of numbers": ("[default]\nqueries = [13]", 2, "a list of ids in quotes"),
    "a table of a number": ("default = 5", 2, "must be a table"),
    "a task of a number": ("[task]\nSciFact = 5", 2, "write a table"),
    "tasks in a list": ("task = [1]", 2, "must be tables"),
    "an average of a number": ("average = 5", 2, "must be a table"),
    "an average's measure": ('[average]\nmeasures = ["main"]', 2, "is not a key of this table"),
    "no alpha": ("[default]\nalpha = 2", 2, "alpha = 2 must be 0 to 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", RULES)
def test_wrong_rules(bge_eval: CommandLine, tmp_path: Path, case: str) -> None:
    content, code, message = RULES[case]
    (tmp_path / "rules.toml").write_text(content)
    baseline = Path(__file__).parent.parent / "results" / "baselines" / "demo.json"
    rules = tmp_path / "rules.toml"
    done = bge_eval("check", "--baseline", baseline, "--rules", rules, tmp_path)
    assert str(rules) in refused(done, code, message)


def test_no_key_and_no_home_in_what_is_printed(
    bge_eval: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A key in the address is not repeated, nor one in the environment written into a record."""
    monkeypatch.setenv("BGE_EVAL_API_KEY", "sk-test-0123456789")
    monkeypatch.setenv("HF_TOKEN", "hf_test_0123456789")
    done = bge_eval("run", "-t", "demo", "-m", "http://me:sk-test-0123456789@localhost:9")
    assert "sk-test" not in refused(done, 2, "name its interface")
    where = ("-m", "http://me:sk-test-0123456789@localhost:9", "--api", "openai")
    done = bge_eval("run", "-t", "demo", *where)
    assert "sk-test" not in refused(done, 2, "no user name, password or query")
    documents = [{"_id": f"d{n}", "title": "", "text": f"number {n}"} for n in range(3)]
    own = write_beir(tmp_path / "own", documents, {"q": "number one"}, [("q", "d1", 1)])
    done = bge_eval("run", "-m", "bm25", "-t", own, "-o", tmp_path / "out", "--offline")
    assert done.returncode == 0, done.stderr
    for path in (tmp_path / "out").rglob("*.json*"):
        content = path.read_bytes()
        assert b"sk-test" not in content and b"hf_test" not in content, path
