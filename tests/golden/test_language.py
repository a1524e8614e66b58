"""The table of rules and the vocabulary stay as they are unless somebody means to change them: a trained model
knows its words by number. `python -m tests.golden.test_language` writes the page anew."""

from __future__ import annotations

import sys
from pathlib import Path

from model.grammar import CAUSES, DIGEST, SLOTS, WORDS
from model.rules import RULES

PAGE = Path(__file__).parent / "language.md"


def page() -> str:
    """Both tables for people to review."""
    rules = [
        f"| {row.number} | {row.topic} | {row.must} | {row.should} | "
        + "; ".join(f"{q.words}, {q.of}" for q in row.quantities)
        + " |"
        for row in RULES.values()
    ]
    causes = [
        f"| {name} | {cause.words} | {', '.join(f'{n} {d} {q}' for n, d, q in cause.cites)} |"
        for name, cause in CAUSES.items()
    ]
    words = [f"| {slot} | {', '.join(WORDS[slot])} |" for slot in SLOTS]
    return "\n".join(
        [
            "# What an explanation can say",
            "",
            "| rule | about | must | should | quantities |",
            "|---|---|---|---|---|",
            *rules,
            "",
            "| cause | words | rule, duty, quantity |",
            "|---|---|---|",
            *causes,
            "",
            "| slot | words |",
            "|---|---|",
            *words,
            "",
            f"Vocabulary {DIGEST.hex()}.",
            "",
        ]
    )


def test_rules_and_words_are_those_that_models_were_taught() -> None:
    assert page() == PAGE.read_text(), "a change here makes every trained language head unreadable"


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE}\n")
