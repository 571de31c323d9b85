"""Sphinx extension: references are [author, year] in the text and in the bibliography.

Two works of the same authors and year get a letter, in both places: Song et al., 2022a. In
sphinxcontrib-bibtex the label of the bibliography and the year in the text are independent, so the
text takes the year from the label here.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any

from pybtex.database import Entry
from pybtex.plugin import register_plugin as register_format
from pybtex.richtext import Text
from pybtex.style.formatting.plain import Style as Plain
from pybtex.style.labels import BaseLabelStyle
from pybtex.style.template import Node, join, node
from sphinx.application import Sphinx
from sphinxcontrib.bibtex.plugin import register_plugin as register_reference
from sphinxcontrib.bibtex.style.referencing.author_year import AuthorYearReferenceStyle
from sphinxcontrib.bibtex.style.referencing.basic_author_year import (
    BasicAuthorYearParentheticalReferenceStyle,
    BasicAuthorYearTextualReferenceStyle,
)
from sphinxcontrib.bibtex.style.template import entry_label, join2, post_text, pre_text, reference

NAME = "author_year_letter"
SEPARATOR = ", "


def authors(entry: Entry) -> str:
    """Return the last names of one or two authors, or the first one and et al."""
    names = [
        str(Text.from_latex(" ".join(person.prelast_names + person.last_names)))
        for person in entry.persons["author"]
    ]
    if len(names) > 2:
        return f"{names[0]} et al."
    return " and ".join(names)


class Labels(BaseLabelStyle):
    """Labels such as "Song et al., 2022a"."""

    def format_labels(self, sorted_entries: list[Entry]) -> Iterator[str]:
        labels = [f"{authors(e)}{SEPARATOR}{e.fields['year']}" for e in sorted_entries]
        number, seen = Counter(labels), Counter[str]()
        for label in labels:
            yield label + ascii_lowercase[seen[label]] * (number[label] > 1)
            seen[label] += 1


class Bibliography(Plain):
    """The plain style with labels that name author and year."""

    default_label_style = Labels


@node
def year_of_label(children: list[Any], data: dict[str, Any]) -> Text:
    return Text(data["formatted_entry"].label.rpartition(SEPARATOR)[2])


class Parenthetical(BasicAuthorYearParentheticalReferenceStyle):
    """[Song et al., 2022a]."""

    def inner(self, role_name: str) -> Node:
        return join2(sep1=self.pre_text_sep, sep2=self.post_text_sep)[
            pre_text, reference[entry_label], post_text
        ]


class Textual(BasicAuthorYearTextualReferenceStyle):
    """Song et al. [2022a]."""

    def inner(self, role_name: str) -> Node:
        number = join2(sep1=self.pre_text_sep, sep2=self.post_text_sep)[
            pre_text, reference[year_of_label], post_text
        ]
        return join(sep=self.text_reference_sep)[
            self.person.author_or_editor_or_title(full="s" in role_name),
            join[self.bracket.left, number, self.bracket.right],
        ]


@dataclass
class References(AuthorYearReferenceStyle):
    """References in the text, with the labels of the bibliography."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for style in (Parenthetical(), Textual()):
            self.role_style.update(dict.fromkeys(style.role_names(), style))


def setup(app: Sphinx) -> dict[str, bool]:
    register_format("pybtex.style.formatting", NAME, Bibliography)
    register_reference("sphinxcontrib.bibtex.style.referencing", NAME, References)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
