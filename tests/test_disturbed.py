"""Commands that write files, killed and on a full disk: whole files or none, and they go on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from bge_eval.results.unfinished import FOLDER
from disturbed import Done, Driver
from model_server import ModelServer
from torture import content, make_data, make_models

pytestmark = pytest.mark.slow

MOMENTS = 4
"""Changes of files before which a command is disturbed, spread over all of them."""
LIMIT = 200
"""Bytes that a file may have, where that is limited; every output is longer."""


@dataclass(frozen=True)
class Rack:
    """What the commands work on."""

    driver: Driver
    """Runs them."""
    home: Path
    """The folder of data, models, results and stores."""
    server: str
    """The address of a judge."""

    @property
    def encoder(self) -> list[str]:
        """Return the words that run the encoder as it is."""
        return ["--offline", "--pooling", "cls", "--backend", "torch", "--device", "cpu"]

    def done(self, place: Path, *words: object) -> Done:
        """Run a command undisturbed, and expect it to end well."""
        done = self.driver.run(place, *words)
        assert done.code == 0, done.stderr
        return done


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rack]:
    home = tmp_path_factory.mktemp("rack")
    encoder, _ = make_models(home)
    for name, seed in (("Bees", 1), ("Wasps", 2)):
        make_data(home / name, 40, 5, seed=seed)
    for step in (1, 2):
        shutil.copytree(encoder, home / "trained" / f"checkpoint-{step}")
        (home / "trained" / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    config = home / "trained" / "checkpoint-2" / "config.json"
    config.write_text(
        config.read_text().replace('"layer_norm_eps": 1e-12', '"layer_norm_eps": 1.0')
    )
    with Driver() as driver, ModelServer() as server:
        rack = Rack(driver, home, server.url)
        for name in ("Bees", "Wasps"):
            rack.done(
                home, "run", "-m", encoder, "-t", home / name, *rack.encoder,
                "-o", home / "runs", "--store", home / f"store-{name}",
            )  # fmt: skip
        sheet = home / "sheet.csv"
        rack.done(home, "judge", "export", home / "runs", "--tasks", "Bees", "--sheet", sheet)
        yield rack


Words = Callable[[Rack, Path], Sequence[object]]

COMMANDS: dict[str, Words] = {
    "merge": lambda rack, place: [
        *("store", "merge", rack.home / "store-Bees", rack.home / "store-Wasps"),
        *("--store", place / "store"),
    ],
    "check": lambda rack, place: [
        *("check", rack.home / "runs", "--update", "--baseline", place / "main.json")
    ],
    "rescore": lambda rack, place: [
        *("rescore", rack.home / "runs", "--metric", "nDCG@20", "--format", "csv")
    ],
    "judge ask": lambda rack, place: [
        *("judge", "ask", rack.home / "sheet.csv", "--server", rack.server, "--least-kappa", -1),
        *("--run", rack.home / "runs", "--output", place / "judged.csv"),
    ],
    "report": lambda rack, place: ["report", rack.home / "runs", "-o", place / "page.html"],
    "watch": lambda rack, place: [
        *("watch", rack.home / "trained", "-t", rack.home / "Bees", *rack.encoder, "--idle", "0"),
        *("-o", place / "out", "--store", place / "store", "--keep-best", "1", "--quiet"),
    ],
    "curve": lambda rack, place: [
        *("curve", "-m", rack.home / "encoder", "-t", rack.home / "Bees", *rack.encoder, "--quiet"),
        *("--store", place / "store", "--grid-dim", "full", "--grid-index", "IVF2,Flat"),
        *("--picture", place / "curve.svg"),
    ],
}
"""Command → its words; what it writes lies below the place."""


def files(place: Path) -> dict[str, object]:
    """Return the files of a place: their content, where it does not hold times."""
    found: dict[str, object] = {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        # What a killed process had begun to write is removed by a later one, after a day.
        begun = name.startswith("store/") and path.name.startswith(".")
        begun |= name.startswith("out/.staging-")
        if path.is_file() and not begun and not name.startswith("out/results/"):
            timed = path.suffix in (".svg", ".html", ".shard", ".json") and path.name != "main.json"
            found["*.shard" if path.suffix == ".shard" else name] = (
                None if timed or name.startswith("out/") else path.read_bytes()
            )
    return found | (content(place / "out") if (place / "out").exists() else {})


def is_whole(place: Path, expected: dict[str, object]) -> bool:
    """Return whether what the user named is there whole, or is not there."""
    for name in ("main.json", "sheet.csv", "judged.csv"):
        if (place / name).exists() and (place / name).read_bytes() != expected[name]:
            return False
    for name, end in (("curve.svg", "</svg>"), ("page.html", "</html>")):
        if (place / name).exists() and not (place / name).read_text().rstrip().endswith(end):
            return False
    return True


def moments(changes: Sequence[str]) -> list[int]:
    """Return some of the changes, the first and the last among them."""
    last = len(changes) - 1
    return sorted(
        {round(last * each / (MOMENTS - 1)) for each in range(MOMENTS)} if changes else []
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_a_disturbed_command_leaves_whole_files_and_goes_on(
    rack: Rack, tmp_path: Path, name: str
) -> None:
    def words(place: Path) -> Sequence[object]:
        return COMMANDS[name](rack, place)

    calm = tmp_path / "calm"
    calm.mkdir()
    before = rack.done(calm, *words(calm))
    expected = files(calm)
    assert is_whole(calm, expected)
    assert (before.changes == []) is (name == "rescore")
    kinds: list[tuple[str, int]] = [("kill", n) for n in moments(before.changes)]
    kinds += [("full", n) for n in moments(before.changes)[::3]]
    kinds += [("limit", LIMIT)]
    for kind, number in kinds:
        place = tmp_path / f"{kind}-{number}"
        place.mkdir()
        done = rack.driver.run(place, *words(place), **{kind: number})
        moment = f"{kind} {number}: {done.changes[-1:]} {done.stderr}"
        if kind == "kill":
            assert done.code == -9, moment
        else:
            assert done.refused or done.code == 0, moment
        assert is_whole(place, expected), moment
        again = rack.driver.run(place, *words(place))
        assert again.code == 0, f"{moment}\nagain: {again.stderr}"
        assert files(place) == expected, moment
        if name == "rescore":
            assert again.stdout == before.stdout
        assert not (place / "out" / FOLDER).exists()


def test_a_clock_at_1970_changes_no_result(rack: Rack, tmp_path: Path) -> None:
    for name, clock in (("calm", None), ("early", 1.0)):
        words = ["run", "-m", rack.home / "encoder", "-t", rack.home / "Bees", *rack.encoder]
        words += ["-o", tmp_path / name / "out", "--store", tmp_path / name / "store", "--quiet"]
        done = rack.driver.run(tmp_path, *words, clock=clock)
        assert done.code == 0, done.stderr
    assert content(tmp_path / "early" / "out") == content(tmp_path / "calm" / "out")
