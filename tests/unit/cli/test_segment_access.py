"""What the composition of the query role knows of files of rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.roles import segment_access
from cli.settings import Profile, Settings
from schemas.errors import ConfigurationError
from store.objects.settings import ObjectSettings
from store.tiers.settings import TierSettings


async def test_the_embedded_profile_reads_files_beside_its_database(tmp_path: Path) -> None:
    access = segment_access(Settings(data_dir=tmp_path))
    assert access is not None
    assert str(tmp_path / "segments") in (access.problem() or "")
    (tmp_path / "segments").mkdir()
    assert access.problem() is None
    await access.close()


async def test_a_host_that_was_told_no_directory_reads_no_files(tmp_path: Path) -> None:
    assert segment_access(Settings(profile=Profile.FULL)) is None
    told = segment_access(Settings(profile=Profile.FULL, tiers=TierSettings(directory=tmp_path)))
    assert told is not None
    assert told.problem() is None
    await told.close()


async def test_a_cache_of_objects_belongs_to_one_process(tmp_path: Path) -> None:
    objects = ObjectSettings(url=f"file://{tmp_path / 'objects'}", cache_dir=tmp_path / "cache")
    settings = Settings(data_dir=tmp_path, objects=objects)
    first, second = segment_access(settings), segment_access(settings)
    assert first is not None
    assert second is not None
    await first.open()
    with pytest.raises(ConfigurationError, match="in use by another process"):
        await second.open()
    await first.close()
    await first.close()
    await second.open()
    await second.close()
