"""The versions of all installed packages, as pip's constraints: what ``make lock`` writes."""

from __future__ import annotations

from importlib.metadata import distributions

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

OURS = ("orthocond", "pip")  # the project itself, and what installs it
PYTHONS = ("3.11.0", "3.12.0", "3.13.0")  # the oldest of each version that the project supports
HEADER = "# The tested version of every package; `make lock` rewrites this file.\n"


def constraint(name: str, version: str, requires_python: str | None) -> str:
    """A line of the file, for those Pythons only that the package's version runs on.

    Example:
        >>> constraint("soupsieve", "2.0", ">=3.11.5")
        'soupsieve==2.0; python_full_version >= "3.11.5"'
    """
    # A local version such as +cpu names a build, which no other machine may have.
    pin = f"{canonicalize_name(name)}=={version.partition('+')[0]}"
    allowed = SpecifierSet(requires_python or "")
    if all(python in allowed for python in PYTHONS):
        return pin
    markers = [f'python_full_version {s.operator} "{s.version}"' for s in allowed]
    return f"{pin}; {' and '.join(sorted(markers))}"


if __name__ == "__main__":
    lines = {
        constraint(found.name, found.version, found.metadata["Requires-Python"])
        for found in distributions()
        if canonicalize_name(found.name) not in OURS
    }
    print(HEADER + "\n".join(sorted(lines)))
