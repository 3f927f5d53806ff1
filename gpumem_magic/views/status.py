"""``%gpumem status``: facts in rows, each with how much it should worry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpumem_magic.views.html import Html, answer, tag
from gpumem_magic.views.text import WIDTH, one_line, paragraph, text_width

if TYPE_CHECKING:
    from collections.abc import Sequence

_MARKS = {"": " ", "info": "i", "ok": "✓", "warning": "!", "error": "✗"}
_WORDS = {"info": "for your information", "ok": "fine", "warning": "warning", "error": "error"}

StatusRow = tuple[str, str, str]
"""What, its value, and its severity: "" (plain), "info", "ok", "warning" or "error"."""


def render_status(
    rows: Sequence[StatusRow], *, title: str = "gpumem", next_: str = "", width: int = WIDTH
) -> dict[str, str]:
    """A MIME bundle: ``text/plain`` and ``text/html``. ``next_`` is the command that goes on from here."""
    return {
        "text/plain": status_text(rows, title=title, next_=next_, width=width),
        "text/html": status_html(rows, title=title, next_=next_),
    }


def status_text(rows: Sequence[StatusRow], *, title: str = "gpumem", next_: str = "", width: int = WIDTH) -> str:
    """Aligned lines, a mark before those that matter."""
    column = max((text_width(label) for label, _, _ in rows), default=0)
    lines = [one_line(title)]
    for label, value, severity in rows:
        first = f"  {_MARKS[severity]} {one_line(label)}{' ' * (column - text_width(label))}  "
        lines.append(paragraph(value, width=width, first=first, rest=" " * text_width(first)) or first.rstrip())
    return "\n".join(lines) + (f"\nNext: {one_line(next_)}" if next_ else "") + "\n"


def status_html(rows: Sequence[StatusRow], *, title: str = "gpumem", next_: str = "") -> str:
    """The rows as a table."""
    body = tag("tbody", *(_row(*row) for row in rows))
    return answer(
        tag("div", tag("span", title, class_="gm-label"), class_="gm-head"),
        tag("div", tag("table", tag("caption", title), body, class_="gm-table gm-facts"), class_="gm-scroll"),
        tag("p", "Next: ", tag("code", next_), class_="gm-next") if next_ else None,
        label=title,
    )


def _row(label: str, value: str, severity: str) -> Html:
    mark = (
        tag("span", _MARKS[severity], class_=f"gm-mark gm-on-{severity}", role="img", aria_label=_WORDS[severity])
        if severity
        else None
    )
    return tag(
        "tr",
        tag("th", label, scope="row", class_="gm-sub"),
        tag("td", mark or "", class_="gm-sign"),
        tag("td", value, class_="wide"),
    )
