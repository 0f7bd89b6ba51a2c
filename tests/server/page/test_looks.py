"""What the page looks like, measured in a browser: formulas by the boxes of their parts, and that nothing runs off."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.server.page.pages import ChatPage, conversation, write_export

MATH_FONTS = ("STIX Two Math", "Cambria Math", "Latin Modern Math", "DejaVu Math TeX Gyre")
PARTS = """
const box = (e) => e.getBoundingClientRect();
const all = (name) => [...document.querySelectorAll('.assistant ' + name)];
const style = (e) => getComputedStyle(e);
const inner = (cell) => { // of what is in a cell
  const boxes = [...cell.children].map(box);
  return {left: Math.min(...boxes.map((b) => b.left)), right: Math.max(...boxes.map((b) => b.right))};
};
const column = (at) => all('mtr').map((row) => inner(row.children[at]));
const spread = (values) => Math.max(...values) - Math.min(...values);
"""


@pytest.fixture
def chat(context, server):
    """The page of the demo, and no faults at the end."""
    page = ChatPage(context, server)
    yield page
    assert page.faults == []


@pytest.fixture
def measured(chat, tmp_path):
    """measured(text, expression): shows an answer and evaluates JavaScript that has PARTS."""

    def measure(text, expression):
        chat.import_file(write_export(tmp_path / "c.json", conversation(("user", "x"), ("assistant", text))))
        chat.wait_answer()
        return chat.page.evaluate(f"() => {{ {PARTS} return {expression}; }}")

    return measure


def test_a_boxed_formula_has_a_box_around_it(measured):
    width, outer, content = measured(
        r"$$\boxed{x=2}$$",
        "[style(all('menclose')[0]).borderTopWidth, box(all('menclose')[0]), box(all('menclose mrow')[0])]",
    )
    assert width == "1px"
    assert outer["left"] < content["left"] - 2 and outer["right"] > content["right"] + 2
    assert outer["top"] < content["top"] and outer["bottom"] > content["bottom"]


@pytest.mark.parametrize("command, strokes", [("cancel", 1), ("bcancel", 1), ("xcancel", 2), ("sout", 1), ("boxed", 0)])
def test_what_is_cancelled_is_struck_through(measured, command, strokes):
    image = measured(rf"$\{command}{{x}}$", "style(all('menclose')[0]).backgroundImage")
    assert image.count("linear-gradient") == strokes


def test_aligned_equations_stand_at_their_equals_sign(measured):
    right, left, gap = measured(
        r"$$\begin{aligned} 2x+3 &= 7 \\ x &= 200 \end{aligned}$$",
        "[spread(column(0).map((b) => b.right)), spread(column(1).map((b) => b.left)),"
        " column(1)[0].left - column(0)[0].right]",
    )
    assert right < 0.5 and left < 0.5 and gap < 6


def test_cases_are_aligned_at_the_left(measured):
    text = r"$$f(x) = \begin{cases} x & x > 0 \\ -x & \text{otherwise} \end{cases}$$"
    spreads = measured(text, "[0, 1].map((at) => spread(column(at).map((b) => b.left)))")
    # a sign at the beginning has its own space before it, in all browsers
    assert max(spreads) < 5


def test_a_matrix_is_centred(measured):
    text = r"$$\begin{pmatrix} a+b & b \\ c & d \end{pmatrix}$$"
    assert measured(text, "spread(column(0).map((b) => b.left + b.right))") < 1


def test_an_array_has_its_lines(measured):
    text = r"$$\begin{array}{c|c} a & b \\ \hline c & d \end{array}$$"
    sides = "['Top', 'Right', 'Bottom', 'Left']"
    found = measured(text, f"all('mtd').map((c) => {sides}.map((s) => style(c)[`border${{s}}Width`][0]).join(''))")
    assert found == ["0100", "0000", "1100", "1000"]


def test_scripts_are_lowered_and_a_displayed_integral_is_tall(measured):
    """Where a font for mathematics is installed: only its tables tell a browser how far."""
    fonts = subprocess.run(["fc-list"], capture_output=True, text=True).stdout if shutil.which("fc-list") else ""
    if not any(name in fonts for name in MATH_FONTS):
        pytest.skip(f"needs a font: none of {', '.join(MATH_FONTS)} is installed")
    base, script, text, shown = measured(
        "$x_{n}$ and $\\int$\n\n$$\\int$$", "[...all('msub')[0].children, ...all('mo')].map(box)"
    )
    assert script["bottom"] > base["bottom"] + 1 and script["top"] > base["top"] + 3
    assert shown["height"] > 1.3 * text["height"]


def test_digits_and_letters_are_of_one_font(measured):
    families = measured("$2x$", "[all('mn')[0], all('mi')[0]].map((e) => style(e).fontFamily)")
    assert families[0] == families[1] and families[0].endswith("math")


@pytest.mark.parametrize("width", [390, 320])
def test_nothing_runs_off_a_phone_with_a_long_context(context, server, tmp_path, width):
    """The server's context and the count are given: no demo has so many tokens."""
    context.set_default_timeout(60_000)
    context.route("**/props", lambda route: route.fulfill(json={**route.fetch().json(), "n_ctx": 131_072}))
    context.route("**/tokenize", lambda route: route.fulfill(json={"tokens": [0] * 100_000}))
    chat = ChatPage(context, server)
    chat.page.set_viewport_size({"width": width, "height": 844})
    answered = conversation(("user", "x"), ("assistant", "y"), stats={"context": 29_876})
    chat.import_file(write_export(tmp_path / "c.json", answered))
    chat.page.fill("#draft", "half a thought")
    chat.page.wait_for_selector("#meter-text:has-text('about 129,876 of 131,072 tokens')")
    chat.page.wait_for_selector("#meter.nearly-full")
    beyond = chat.page.evaluate(
        """() => [...document.querySelectorAll("#main *")]
          .filter((e) => e.getBoundingClientRect().right > innerWidth && !e.closest(".unseen"))
          .map((e) => e.outerHTML)"""
    )
    assert beyond == [] and chat.page.locator(".caution").is_visible()


@pytest.mark.parametrize("width, height", [(390, 844), (1200, 800)])
@pytest.mark.parametrize("scrolled", [False, True])
def test_a_notice_covers_nothing(chat, tmp_path, width, height, scrolled):
    """Neither the buttons under the last answer nor the one that goes to the end."""
    chat.page.set_viewport_size({"width": width, "height": height})
    answered = conversation(("user", "x"), ("assistant", "a line\n\n" * 60))
    chat.import_file(write_export(tmp_path / "c.json", answered))
    chat.wait_answer()
    chat.page.wait_for_function(f"() => {{ {PARTS} return all('.body p').length === 60; }}")
    seen = "#jump" if scrolled else ".message.last .message-foot .icon-button"
    if scrolled:
        chat.page.evaluate("document.querySelector('#scroller').scrollTop = 300")
    chat.page.locator(seen).first.wait_for()
    hidden = chat.page.evaluate(
        """(seen) => [...document.querySelectorAll(`${seen}, #draft, #send, .caution, .notice`)].filter((e) => {
          const {left, top, width, height} = e.getBoundingClientRect();
          return !e.contains(document.elementFromPoint(left + width / 2, top + height / 2));
        }).map((e) => e.outerHTML)""",
        seen,
    )
    assert hidden == [] and chat.page.locator(".notice").is_visible()


def test_a_notice_can_be_used_while_the_drawer_is_open(chat, tmp_path):
    chat.page.set_viewport_size({"width": 390, "height": 844})
    chat.import_file(write_export(tmp_path / "c.json", conversation(("user", "x"), ("assistant", "y"))))
    chat.page.click("#menu")
    chat.page.hover(".entry")
    chat.page.locator(".entry").get_by_role("button", name="Delete").click()
    chat.page.get_by_role("button", name="Undo").click()
    chat.page.wait_for_selector(".entry-title:has-text('imported')", state="attached")
