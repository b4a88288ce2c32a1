"""The coloured, folded view of a chain: exact, escaped, readable, and usable by keyboard."""

import re
from html.parser import HTMLParser

import pytest
from browser import Browser

from limo_nb.book import chain_viewer

LAB = (
    "1) 2*3=6. Check: 2*3=6, right.\n"
    "Perhaps 3*7=1? That is not this step. Since 2) is minus 2: 2) 6-2=4.\n"
    "3) 4-8=9. Check: 4-8=6, so not 9. 3) 4-8=6.\n"
    "Therefore the answer is \\boxed{6}"
)
BARE = "1) 2*3=6.\n2) 6-2=4.\n3) 4-8=6.\nAnswer: \\boxed{6}"
NASTY = (
    'Check <script>window.hit=1;alert("1")</script> & <img src=x onerror="window.hit=2"> '
    "'a' $x_1$ \\(y\\).\n</details></div><b>&lt; <a href=javascript:alert(1)>so</a>\n"
)
LONG = "\n\n".join(f"{n}) {n}+1={n + 1}. " + "We go on. " * 20 + "\nWait, check it."
                   for n in range(40)) + "\nThe answer is \\boxed{40}."  # fmt: skip


class Reader(HTMLParser):
    """The tags and the text of HTML, style left out; checks that tags are closed."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open and "summary" not in self.open:
            self.text += data


TEXTS = [
    LAB,
    BARE,
    NASTY,
    LONG,
    NASTY * 40,
    "检查。\n\n  因此 \\boxed{三}\n",
    "one\r\ntwo\u2028x",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("fold", [True, False, None])
def test_html_shows_exactly_the_text(text, fold):
    page = Reader(chain_viewer.to_html(text, legend=False, fold=fold))
    assert page.text == text
    assert {tag for tag, _ in page.tags} <= {
        "style",
        "div",
        "span",
        "u",
        "details",
        "summary",
        "b",
    }
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


@pytest.mark.parametrize("text", TEXTS)
def test_passages_joined_are_the_text(text):
    assert "".join(chain_viewer.passages(text)) == text


def test_long_chains_are_folded_and_short_ones_not():
    assert "<details" not in chain_viewer.to_html(LAB)
    html = chain_viewer.to_html(LONG)
    assert 5 < html.count("<details") < 40
    assert html.count("<details open>") == 1
    assert "\\boxed{40}" in html.split("<details open>")[1]
    first = html.split("<summary>")[1].split("</summary>")[0]
    assert first.startswith("<b>1</b>0) 0+1=1.") and '<span class="limo-step">' in first
    assert all(len(part) < 2 * chain_viewer.BREAK for part in chain_viewer.passages(LONG))


def test_titles_are_escaped_in_text_and_label():
    page = Reader(chain_viewer.to_html(LAB, title='<b onclick="x">"'))
    assert '<b onclick="x">"' in page.text
    assert dict(page.tags[1][1])["aria-label"] == '<b onclick="x">"'


def test_html_colours_roles_and_underlines_words():
    html = chain_viewer.to_html(LAB)
    for name in ("step", "check", "exploration", "answer"):
        assert f'<span class="limo-{name}">' in html.split("limo-legend")[-2]
    assert '<u title="verification">Check</u>' in html
    assert '<u title="granularity">Since</u>' in html
    legend = html.split('class="limo-legend"')[1]
    assert all(says in legend for says, *_ in chain_viewer.ROLES.values())


def luminance(colour):
    """Relative luminance of #rgb or #rrggbb (WCAG 2)."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * d for d in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_html_has_contrast_in_light_and_dark():
    html = chain_viewer.to_html(BARE)
    light, dark = re.findall(
        r"[{;]color:(#[0-9a-f]{6})", re.sub(r"border-color[^;}]*|background:[^;}]*;?", "", html)
    )
    for _, _, on_light, on_dark in chain_viewer.ROLES.values():
        for ink, ground in ((light, on_light), (dark, on_dark)):
            a, b = sorted((luminance(ink), luminance(ground)))
            assert (b + 0.05) / (a + 0.05) >= 7, (ink, ground)
    assert all(f"{where} .limo-step" in html for where in chain_viewer.DARK)
    assert "http" not in html  # needs nothing from elsewhere


def test_side_by_side_has_both_and_one_style():
    html = chain_viewer.side_by_side(LAB, BARE, ("A & B", "C"))
    page = Reader(html)
    assert html.count("<style>") == 1 and html.count('class="limo-chain"') == 2
    assert "A & B" in page.text and LAB in page.text and BARE in page.text


def test_empty_chain_cannot_be_shown():
    with pytest.raises(ValueError, match="empty chain"):
        chain_viewer.to_html(" \n")


# ---------------------------------------------------------------- in a browser
SHOWN = "[...document.querySelectorAll('{}.limo-text')].map(e => e.textContent).join('')"


def page_of(html, folder):
    file = folder / "page.html"
    head = "<!doctype html><html lang=en><meta charset=utf-8><title>t</title><body>"
    file.write_text(head + html, encoding="utf-8", newline="")
    return file


def test_in_a_browser_html_in_a_chain_is_text_and_keys_unfold_it(tmp_path):
    html = chain_viewer.side_by_side(
        NASTY * 40, LONG, ("<img src=y onerror='window.hit=3'>", "b")
    )
    with Browser(tmp_path / "profile") as browser:
        browser.open(page_of(html, tmp_path))
        assert browser.value(SHOWN.format(".limo-chain:first-child ")) == NASTY * 40
        assert browser.value(SHOWN.format(".limo-chain:last-child ")) == LONG
        assert browser.value("window.hit") is None
        assert browser.value("document.querySelectorAll('script,img,a').length") == 0
        assert [url for url in browser.requests if not url.startswith("file:")] == []
        # side by side: the same top, the second to the right
        a, b = browser.value(
            "[...document.querySelectorAll('.limo-chain')].map(e => e.getBoundingClientRect())"
            ".map(r => [r.left, r.top])"
        )
        assert a[1] == b[1] and a[0] < b[0]
        # the first fold is reached and opened by keys alone, and says where it is
        state = "document.querySelector('details').open"
        assert browser.value(state) is False
        browser.press("Tab")
        focused = "document.activeElement === document.querySelector('summary')"
        assert browser.value(focused)
        assert browser.value("getComputedStyle(document.activeElement).outlineWidth") == "3px"
        browser.press("Enter")
        assert browser.value(state) is True
        browser.press("Enter")
        assert browser.value(state) is False
