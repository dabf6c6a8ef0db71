"""What a session and a job are made of, as YAML for people to read in a review.

    python -m tests.unit.operator.golden_files

writes ``golden/`` anew; look at the difference before it is committed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from panosc_operator.domain import job, session
from panosc_operator.domain.decision import Child

from dev.generate import stale, to_yaml
from tests.unit.operator import builders
from tests.unit.operator.builders import CONTEXT, NOW, Body, copied

FOLDER = Path(__file__).parent / "golden"


def session_children(body: Body, **snapshot: Any) -> tuple[Child, ...]:
    """Return what a session that was just created is made of."""
    children = session.decide(builders.session_snapshot(body, **snapshot), CONTEXT, NOW).children
    assert children
    return children


def job_children(body: Body) -> tuple[Child, ...]:
    """Return what a job is made of, once its driver has checked the input."""
    first = job.decide(builders.job_snapshot(body), CONTEXT, NOW)
    driver = builders.bodies_of(first.children)["Job"]
    pod = builders.pod_at(builders.pod_of_job(driver), "ready")
    children = job.decide(builders.job_snapshot(body, [driver, pod]), CONTEXT, NOW).children
    assert children
    return children


def golden() -> dict[Path, str]:
    """Return the text of each file."""
    area_source = builders.data_source(
        visibility="Area",
        areas=[
            builders.area("raw", read_only=True, volume={"hostPath": {"path": "/gpfs/exfel/exp"}}),
            builders.area(
                "scratch",
                read_only=False,
                folder="{instrument}/p{proposal}",
                path="/gpfs/scratch/{instrument}/p{proposal}",
                volume={"csi": {"driver": "csi.weka.io", "volumeHandle": "scratch", "volumeAttributes": {"fs": "one"}}},
            ),
        ],
    )
    entries = [builders.environment(), area_source]
    lives = {
        "session": session_children(builders.session()),
        "session-areas": session_children(builders.session(flavour="large", home={"claim": "mine"}), entries=entries),
        "session-without-data": session_children(builders.session(data=[])),
        "job": job_children(
            builders.job(
                parameters={"trainsPerPartition": 500},
                output={"area": "usr", "path": "results/ratio", "onExists": "Skip"},
                activeDeadline="1h30m",
            )
        ),
    }
    return {
        FOLDER / f"{life}.yaml": "".join(
            f"---\n# {child.mode.value}\n{to_yaml(copied(child.manifest))}" for child in children
        )
        for life, children in lives.items()
    }


def main() -> None:
    files = golden()
    for path in stale(files):
        path.write_text(files[path])
        print(path.relative_to(Path.cwd()))


if __name__ == "__main__":
    main()
