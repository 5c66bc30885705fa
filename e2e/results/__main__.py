"""Print the tables."""

from __future__ import annotations

from e2e.results import FOLDER
from e2e.results.tables import markdown

if __name__ == "__main__":
    print(markdown(FOLDER))
