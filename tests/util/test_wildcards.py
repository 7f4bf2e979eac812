"""Patterns of names."""

from pyvirtd.util.wildcards import matches


def test_patterns_know_two_wildcards() -> None:
    assert matches("C=GB,CN=x[1]", ["C=GB,CN=?[1]"])
    assert matches("C=GB,CN=abc", ["nobody", "C=GB,*"])
    assert not matches("C=GB,CN=x1", ["C=GB,CN=[a-z]1"])
    assert not matches("C=GB,CN=abc", [])
    assert not matches("C=GB,CN=abc", ["c=gb,*"])
