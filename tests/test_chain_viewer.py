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
    """The tags of HTML and the texts of its classes; checks that tags are closed."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.texts = [], [], {}
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append((tag, dict(attrs).get("class", "").split()))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for name in {name for _, names in self.open for name in names}:
            self.texts[name] = self.texts.get(name, "") + data


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
    page = Reader(chain_viewer.chain_html(text, legend=False, fold=fold))
    assert page.texts["limo-text"] == text
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
    assert "<details" not in chain_viewer.chain_html(LAB)
    html = chain_viewer.chain_html(LONG)
    assert 5 < html.count("<details") < 40
    assert html.count("<details open>") == 1
    assert "\\boxed{40}" in html.split("<details open>")[1]
    first = html.split("<summary>")[1].split("</summary>")[0]
    assert first.strip().startswith("<b>1</b>0) 0+1=1.") and '<span class="limo-step">' in first
    assert all(len(part) < 2 * chain_viewer.BREAK for part in chain_viewer.passages(LONG))


def test_titles_are_escaped_in_text_and_label():
    page = Reader(chain_viewer.chain_html(LAB, title='<b onclick="x">"'))
    assert page.texts["limo-title"] == '<b onclick="x">"'
    assert dict(page.tags[1][1])["aria-label"] == '<b onclick="x">"'


def test_html_colours_roles_and_underlines_words():
    html = chain_viewer.chain_html(LAB)
    for name in ("step", "check", "exploration", "answer"):
        assert f'<span class="limo-{name}">' in html.split("limo-legend")[-2]
    assert '<u title="verification">Check</u>' in html
    assert '<u title="granularity">Since</u>' in html
    legend = html.split('class="limo-legend"')[1]
    assert all(says in legend for says in chain_viewer.ROLES.values())


def luminance(colour):
    """Relative luminance of #rgb or #rrggbb (WCAG 2)."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * d for d in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_html_has_contrast_in_light_and_dark():
    html = chain_viewer.chain_html(BARE)
    grounds = [dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", rule)) for rule in html.split("}")]
    light, dark = [found for found in grounds if found]
    assert set(light) == set(dark) == {"ground", "ink", "edge", *chain_viewer.ROLES}
    for colours in (light, dark):
        for name in ("ground", *chain_viewer.ROLES):
            a, b = sorted((luminance(colours["ink"]), luminance(colours[name])))
            assert (b + 0.05) / (a + 0.05) >= 7, name
    for where in ("html[data-theme=dark]", "[data-jp-theme-light=false]", ".vscode-dark"):
        assert f"{where} .limo-chain" in html
    assert "http" not in html  # needs nothing from elsewhere


def test_side_by_side_has_both_and_one_style():
    html = chain_viewer.pair_html(LAB, BARE, ("A & B", "C"))
    page = Reader(html)
    assert html.count("<style>") == 1 and html.count('class="limo-chain"') == 2
    assert page.texts["limo-title"] == "A & BC" and page.texts["limo-text"] == LAB + BARE


def test_empty_chain_cannot_be_shown():
    with pytest.raises(ValueError, match="empty chain"):
        chain_viewer.chain_html(" \n")


# ---------------------------------------------------------------- in a browser
SHOWN = "[...document.querySelectorAll('{}.limo-text')].map(e => e.textContent).join('')"


def page_of(html, folder):
    file = folder / "page.html"
    head = "<!doctype html><html lang=en><meta charset=utf-8><title>t</title><body>"
    file.write_text(head + html, encoding="utf-8", newline="")
    return file


def test_in_a_browser_html_in_a_chain_is_text_and_keys_unfold_it(tmp_path):
    html = chain_viewer.pair_html(NASTY * 40, LONG, ("<img src=y onerror='window.hit=3'>", "b"))
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
