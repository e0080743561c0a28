"""Write the README's table of methods and parts anew, from what asgrad itself lists."""

from pathlib import Path

from asgrad.recipes.grammar import rooms
from asgrad.registry import references

BEGIN, END = "<!-- methods: made by make readme -->\n", "<!-- end of methods -->\n"


def table() -> str:
    """Return the table: name, what it does, where it is from; parts with a plus."""
    lines = ["| name | what it does | from |", "|---|---|---|"]
    for words, room in rooms().items():
        plus = "" if words in ("method", "recipe") else "+"
        for name, _, sentence, reference in references(room):
            lines.append(f"| `{plus}{name}` | {sentence} | {reference} |")
    return "\n".join(lines) + "\n"


def renewed(text: str) -> str:
    """Return the README with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    readme = Path(__file__).parents[1] / "README.md"
    readme.write_text(renewed(readme.read_text("utf-8")), "utf-8")
