"""The verdict as JUnit XML, which every CI service can show.

The format has no standard. This is the subset that Jenkins and GitLab both read: a test case for
each finding, with ``failure`` for a regression, ``error`` for a missing task or measure, and
``skipped`` for a finding that could not be judged.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

from bge_eval.errors import without_home
from bge_eval.gate.outcome import Finding, Outcome, Status
from bge_eval.results.whole import whole_file

_ELEMENTS = {
    Status.REGRESSED: "failure",
    Status.MISSING: "error",
    Status.NOT_JUDGED: "skipped",
}
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, not even escaped."""


def write_junit(outcome: Outcome, path: Path) -> None:
    """Write the verdict as JUnit XML.

    Raises:
        StorageError: the file cannot be written.
    """
    suite = ElementTree.Element(
        "testsuite",
        name=_text(f"bge-eval check {outcome.baseline.name}"),
        tests=str(len(outcome.findings)),
        failures=str(len(outcome.of(Status.REGRESSED))),
        errors=str(len(outcome.of(Status.MISSING))),
        skipped=str(len(outcome.of(Status.NOT_JUDGED))),
        time="0",
        timestamp=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
    )
    properties = ElementTree.SubElement(suite, "properties")
    facts = {
        "baseline": str(outcome.baseline.path),
        "model": outcome.model,
        "rules": outcome.rules,
    }
    for name, value in facts.items():
        ElementTree.SubElement(properties, "property", name=name, value=_text(value))
    for finding in outcome.findings:
        suite.append(_case(outcome, finding))
    notes = "\n".join(note.text for note in outcome.notes)
    ElementTree.SubElement(suite, "system-out").text = _text(notes)
    whole = ElementTree.Element("testsuites")
    whole.append(suite)
    ElementTree.indent(whole)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        ElementTree.ElementTree(whole).write(file, encoding="unicode", xml_declaration=True)


def _case(outcome: Outcome, finding: Finding) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase",
        classname=_text(f"bge_eval.{outcome.baseline.name}"),
        name=_text(f"{finding.task} {finding.what}".strip()),
        time="0",
    )
    if finding.status in _ELEMENTS:
        element = ElementTree.SubElement(
            case, _ELEMENTS[finding.status], message=_text(finding.reason), type=str(finding.status)
        )
        if finding.before is not None and finding.after is not None:
            element.text = f"baseline {finding.before:.5f}, now {finding.after:.5f}"
    else:
        ElementTree.SubElement(case, "system-out").text = _text(finding.reason)
    return case


def _text(text: str) -> str:
    return _FORBIDDEN.sub("�", without_home(text))
