import json
from pathlib import Path

import pytest
from panosc_analysis import commit
from panosc_analysis.commit import Staging, find_commit, write_json, written_whole
from panosc_analysis.errors import InputError


def stage(final: Path, uid: str, value: int) -> Staging:
    staging = Staging(final, uid)
    staging.open({"inputs": "same"})
    write_json(staging.path / "result.json", {"value": value})
    (staging.path / "table.h5").write_bytes(b"table")
    return staging


def test_a_folder_appears_whole_with_the_record_of_what_is_in_it(tmp_path: Path) -> None:
    final = tmp_path / "usr" / "results" / "job"
    staging = stage(final, "u1", 1)
    assert not final.exists()
    done = staging.commit({"uid": "u1", "name": "job"}, replace=False)
    assert sorted(path.name for path in final.iterdir()) == ["manifest.json", "result.json", "table.h5"]
    assert [path.name for path in final.parent.iterdir()] == ["job"]
    assert done.uid == "u1"
    assert done == find_commit(final)
    for file in done.manifest["files"]:
        assert file["bytes"] == (final / file["name"]).stat().st_size
        assert file["sha256"] == commit.sha256(final / file["name"])


@pytest.mark.parametrize("kernel_can_exchange", [True, False])
def test_an_old_output_is_replaced_in_one_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel_can_exchange: bool
) -> None:
    final = tmp_path / "job"
    stage(final, "u1", 1).commit({"uid": "u1"}, replace=False)
    if not kernel_can_exchange:

        class NoExchange:
            def renameat2(self, *_: object) -> int:
                return -1

        monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: NoExchange())
    assert stage(final, "u2", 2).commit({"uid": "u2"}, replace=True).result == {"value": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["job"]


def test_an_output_that_appeared_meanwhile_is_not_touched(tmp_path: Path) -> None:
    final = tmp_path / "job"
    late = stage(final, "u2", 2)
    stage(final, "u1", 1).commit({"uid": "u1"}, replace=False)
    with pytest.raises(InputError, match="appeared"):
        late.commit({"uid": "u2"}, replace=False)
    there = find_commit(final)
    assert there is not None
    assert there.uid == "u1"


def test_what_was_begun_is_kept_for_the_same_input_only(tmp_path: Path) -> None:
    for key, kept in (({"inputs": "a"}, False), ({"inputs": "a"}, True), ({"inputs": "b"}, False)):
        staging = Staging(tmp_path / "job", "u1")
        staging.open(key)
        assert (staging.work / "000000.npz").exists() is kept
        (staging.work / "000000.npz").touch()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written") as caught:
        Staging(tmp_path / "file" / "job", "u1").open({})
    assert caught.value.reason == "OutputNotWritable"


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"value": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"value": float("nan")})
    with pytest.raises(ZeroDivisionError), written_whole(path) as partial:
        partial.write_text(str(1 // 0))
    assert json.loads(path.read_text()) == {"value": 1}


@pytest.mark.parametrize("content", [None, "", "[]", '{"job": {}}'])
def test_what_is_not_a_commit_is_not_taken_for_one(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
        (tmp_path / "result.json").write_text("{}")
    assert find_commit(tmp_path) is None
