"""`make sbom` and `make audit`: the bill of materials is the lock's, and no answer about holes is never a good answer."""

from __future__ import annotations

import http.server
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.judges import ROOT, run
from tests.http_listener import serving_http
from tests.unit.test_locks import FOLDER, LOCKS, PROJECT, entries, pins

PYTHON = ROOT / ".venv-audit" / "bin" / "python"
CLOSED = "http://127.0.0.1:1/v1/query"
LOCK = "click==8.3.1 --hash=sha256:{0}\npika==1.3.2 --hash=sha256:{0}\n".format("0" * 64)
HOLE = {
    "id": "PYSEC-1",
    "aliases": ["CVE-1"],
    "summary": "bad",
    "affected": [
        {
            "package": {"name": "pika", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9.1"}]}],
        }
    ],
}


@pytest.fixture(autouse=True)
def _tools() -> None:
    assert PYTHON.exists(), "pip-audit and cyclonedx-bom are not installed in .venv-audit: `make test` installs them."


IN_THE_IMAGE = "runtime"
OTHERS = [pytest.param(lock, marks=pytest.mark.deploy) for lock in LOCKS if lock != IN_THE_IMAGE]


@pytest.mark.parametrize("lock", [IN_THE_IMAGE, *OTHERS])
def test_the_bill_of_materials_is_the_lock(lock: str, tmp_path: Path) -> None:
    """Each package that is installed on Linux, with the lock's version and hashes. The tool validates it against the schema."""
    out = tmp_path / "sbom" / "out.json"
    run([str(PYTHON), str(ROOT / "deploy/install/sbom.py"), str(FOLDER / f"{lock}.lock"), str(out)])
    text = out.read_text(encoding="utf-8")
    document = json.loads(text)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert document["metadata"]["component"]["name"] == PROJECT["name"]
    pinned = pins(lock)
    hashes = {entry.split("==")[0].split("[")[0].lower(): entry.split("--hash=sha256:")[1:] for entry in entries(lock)}
    found = {one["name"].lower().replace("_", "-"): one for one in document["components"]}
    for name, one in found.items():
        assert f"=={one['version']}" in pinned[name], name
        assert one["purl"] == f"pkg:pypi/{name}@{one['version']}"
        if len(pinned[name]) == 1:
            told = [h["content"] for reference in one["externalReferences"] for h in reference["hashes"]]
            assert sorted(told) == sorted(h.strip() for h in hashes[name]), name
    left_out = {name: entry for entry in entries(lock) if (name := entry.split("==")[0].split("[")[0]) not in found}
    assert all(";" in entry for entry in left_out.values()), left_out
    direct = {one["ref"]: one.get("dependsOn", []) for one in document["dependencies"]}["root-component"]
    assert lock != "runtime" or len(direct) == len(PROJECT["dependencies"])
    assert str(ROOT) not in text


def test_a_lock_that_cannot_be_read_makes_no_bill(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = [str(PYTHON), str(ROOT / "deploy/install/sbom.py"), str(tmp_path / "none.lock"), str(out)]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
    assert list(tmp_path.iterdir()) == []


@contextmanager
def osv(answers: dict[str, Any] | int) -> Iterator[str]:
    """A server that speaks OSV's protocol: by a package's name its holes, or a status."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = answers if isinstance(answers, int) else 200
            holes = [] if isinstance(answers, int) else answers.get(asked["package"]["name"], [])
            body = json.dumps({"vulns": holes} if holes else {}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing of it belongs into a test's output."""

    with serving_http(Handler) as port:
        yield f"http://127.0.0.1:{port}/v1/query"


def audit(tmp_path: Path, *arguments: str, lock: str = LOCK) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "some.lock"
    path.write_text(lock, encoding="utf-8")
    return subprocess.run(
        [str(PYTHON), str(ROOT / "deploy/install/audit.py"), *arguments, "some.lock"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HTTPS_PROXY": "http://127.0.0.1:1"},  # nobody is reached
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_no_known_hole_ends_with_0(tmp_path: Path) -> None:
    with osv({}) as url:
        done = audit(tmp_path, "--osv-url", url)
    assert (done.returncode, done.stdout) == (0, "some.lock: osv answered for 2 packages, 0 known holes\n"), done.stderr


def test_a_known_hole_ends_with_1_and_is_named(tmp_path: Path) -> None:
    with osv({"pika": [HOLE]}) as url:
        done = audit(tmp_path, "--osv-url", url)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "some.lock: pika 1.3.2: PYSEC-1 CVE-1, mended: 9.1",
        "some.lock: osv answered for 2 packages, 1 known holes",
    ]


def test_where_no_source_answers_it_ends_with_3_and_says_which_were_asked(tmp_path: Path) -> None:
    done = audit(tmp_path, "--osv-url", CLOSED)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.splitlines() == [
        "some.lock: osv did not answer",
        "some.lock: pypi did not answer",
        "some.lock: no source of advisories answered, so nothing is known (osv, pypi)",
    ]


@pytest.mark.parametrize("status", [403, 500])
def test_a_source_that_fails_did_not_answer(tmp_path: Path, status: int) -> None:
    with osv(status) as url:
        done = audit(tmp_path, "--source", "osv", "--osv-url", url)
    assert done.returncode == 3
    assert "no source of advisories answered" in done.stderr


def test_a_lock_without_packages_is_not_called_sound(tmp_path: Path) -> None:
    with osv({}) as url:
        done = audit(tmp_path, "--source", "osv", "--osv-url", url, lock="# nothing\n")
    assert done.returncode == 3
