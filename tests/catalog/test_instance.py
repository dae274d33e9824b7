"""What an instance does beyond opening its catalog."""

from pathlib import Path

import pytest

from headwater.catalog.errors import InvalidKeyError
from headwater.catalog.instance import Instance


def test_dynamic_partitions(tmp_path: Path) -> None:
    for instance in (Instance.ephemeral(), Instance.open(tmp_path / "home")):
        with instance:
            assert instance.get_dynamic_partitions("customers") == []
            instance.add_dynamic_partitions("customers", ["bob", "ada"])
            instance.add_dynamic_partitions("customers", ["eve", "bob"])
            instance.add_dynamic_partitions("customers", [])
            assert instance.get_dynamic_partitions("customers") == ["bob", "ada", "eve"]
            assert instance.has_dynamic_partition("customers", "ada")
            assert not instance.has_dynamic_partition("others", "ada")
            instance.delete_dynamic_partition("customers", "bob")
            instance.delete_dynamic_partition("customers", "nobody")
            assert instance.get_dynamic_partitions("customers") == ["ada", "eve"]
            assert not instance.has_dynamic_partition("customers", "bob")
            assert len(instance.catalog.events()) == 4


@pytest.mark.parametrize("key", ["", "a\x1b[31m", "\ud800", "a\u202eb", "x" * 600, 7])
def test_a_key_that_cannot_be_one(key: str) -> None:
    with Instance.ephemeral() as instance:
        with pytest.raises(InvalidKeyError):
            instance.add_dynamic_partitions("customers", ["fine", key])
        with pytest.raises(InvalidKeyError):
            instance.add_dynamic_partitions(key, ["fine"])
        with pytest.raises(InvalidKeyError):
            instance.delete_dynamic_partition("customers", key)
        with pytest.raises(InvalidKeyError, match="list"):
            instance.add_dynamic_partitions("customers", "fine")
        assert instance.get_dynamic_partitions("customers") == [] == instance.catalog.events()
