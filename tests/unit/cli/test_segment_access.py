"""What the composition of the query role knows of files of rows."""

from __future__ import annotations

from pathlib import Path

from cli.http_role import segment_access
from cli.settings import Profile, Settings
from store.objects.settings import ObjectSettings
from store.tiers.settings import TierSettings


async def test_the_embedded_profile_reads_files_beside_its_database(tmp_path: Path) -> None:
    access = segment_access(Settings(data_dir=tmp_path))
    assert access is not None
    await access.look(())
    assert str(tmp_path / "segments") in (access.problem() or "")
    (tmp_path / "segments").mkdir()
    await access.look(())
    assert access.problem() is None
    await access.close()


async def test_a_host_that_was_told_no_directory_reads_no_files(tmp_path: Path) -> None:
    assert segment_access(Settings(profile=Profile.FULL)) is None
    told = segment_access(Settings(profile=Profile.FULL, tiers=TierSettings(directory=tmp_path)))
    assert told is not None
    await told.look(())
    assert told.problem() is None
    await told.close()


async def test_a_cache_of_objects_belongs_to_one_process(tmp_path: Path) -> None:
    objects = ObjectSettings(url=f"file://{tmp_path / 'objects'}", cache_dir=tmp_path / "cache")
    settings = Settings(data_dir=tmp_path, objects=objects)
    first, second = segment_access(settings), segment_access(settings)
    assert first is not None
    assert second is not None
    await first.open()
    await second.open()
    assert first.problem(has_cold=True) is None
    assert "in use by another process" in (second.problem(has_cold=True) or "")
    assert second.problem() is None, "files on the local disk can be read"
    await first.close()
    await first.close()
    (tmp_path / "segments").mkdir()
    await second.look(())
    assert second.problem(has_cold=True) is None
    await second.close()


def test_the_cache_of_objects_lies_below_the_data_unless_it_was_put_elsewhere(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    assert settings.object_settings().cache_dir == tmp_path / "object-cache"
    elsewhere = Settings(data_dir=tmp_path, objects=ObjectSettings(cache_dir=tmp_path / "elsewhere"))
    assert elsewhere.object_settings().cache_dir == tmp_path / "elsewhere"
