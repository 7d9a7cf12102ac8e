"""A wheel is built and works outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from conftest import ROOT


@pytest.mark.slow
def test_wheel_works_outside_the_checkout(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True, text=True)
    wheel = next(tmp_path.glob("bge_eval-*.whl"))
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"bge_eval", wheel.name.split("-py3")[0] + ".dist-info"}
    assert "bge_eval/_data/tasks/beir.toml" in names
    assert "bge_eval/_data/tasks/demo/corpus.jsonl" in names
    assert "bge_eval/report/templates/report.html" in names
    vendored = {name.rpartition("/")[2] for name in names if "/report/assets/vendor/" in name}
    assert {name for name in vendored if name.endswith(".js")}
    for name in vendored:
        library = name.split("-latin")[0].split("-7")[0].split("-0")[0]
        assert f"{library}-LICENSE.txt" in vendored or name.endswith("LICENSE.txt"), name

    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    fixtures = [sys.executable, "-m", "pytest", "-W", "error", "--fixtures", "-v"]
    listed = subprocess.run(
        [*fixtures, "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "bge_eval [session scope] -- site/bge_eval/cli/pytest_plugin.py" in listed.stdout
    code = (
        "import bge_eval, sys; assert bge_eval.__file__.startswith(sys.argv.pop(1));"
        "from bge_eval.cli.app import main; main()"
    )
    arguments = ["run", "--model", "builtin:all-MiniLM-L6-v2", "--tasks", "demo", "--offline"]
    done = subprocess.run(
        [sys.executable, "-c", code, str(site), *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "0.58925" in done.stdout
    assert (tmp_path / "results" / "runs" / "results").is_dir()

    report = [sys.executable, "-c", code, str(site), "report", "-o", "report.html"]
    done = subprocess.run(
        report,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").stat().st_size > 500_000
