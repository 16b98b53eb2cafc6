"""Text tables for terminals: cells in columns two blanks apart, each column as wide as its widest cell."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def aligned(lines: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Each line of cells as one line of text, the head being a line like any other; nothing stands behind its last cell.

    Columns whose index is in `right` are moved to the right, as numbers are. A line may have fewer cells than others.
    """
    columns = max(map(len, lines), default=0)
    widths = [max(len(line[column]) for line in lines if column < len(line)) for column in range(columns)]
    return [
        "  ".join(
            cell.rjust(widths[column]) if column in right else cell.ljust(widths[column])
            for column, cell in enumerate(line)
        ).rstrip()
        for line in lines
    ]
