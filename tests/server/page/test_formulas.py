"""Formulas: telling a formula from a price, LaTeX as models write it, and no output but MathML."""

from __future__ import annotations

import time
from html import unescape

import pytest

pytest.importorskip("nh3", reason="needs the extra serve")

from phi4mini.server.page.formulas import MATH_ATTRIBUTES, MATH_TAGS, MAX_FORMULA, mathml
from phi4mini.server.page.markdown import render
from tests.server.page.elements import Elements


@pytest.mark.parametrize(
    "text",
    [
        "$x$",
        "$2x + 3 = 7$",
        "**$E = mc^2$**",
        r"from $10 to $20 (so $\alpha$)",
        r"\(a < b\)",
        r"\[ x^2 \]",
        "$$x$$",
        "as $$y$$ shows",
        "before\n$$\nx\n$$\nafter",
        "> \\[ x \\]\n> more",
        "- \\[\n  x\n  \\]\n- b",
        r"the $x$-axis",
        r"$\text{if } x > 0$",
        "| a |\n|-|\n| $x$ |",
    ],
)
def test_formulas_become_mathml(text):
    assert "<math" in render(text)


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and $10.",
        "from $5 and then 10$",
        "US$5 or A$6",
        "$HOME is set and$ more",
        r"\$5 $",
        "`$x$` and ``\\(x\\)``",
        "```\n$$x$$\n```",
        "$ x $",
        "an open $x and\na line end$",
        r"\\(x\\)",
        "${x$",
        "$$$$",
        r"\(\)",
    ],
)
def test_prices_code_and_escapes_stay_text(text):
    assert "<math" not in render(text)


def test_what_follows_a_formula_in_its_line_stays():
    html = render("\\[ x \\] is the answer")
    assert "<math" in html and "is the answer" in html


@pytest.mark.parametrize("environment", ["aligned", "align*", "split", "gathered", "cases", "pmatrix", "equation"])
def test_environments_that_models_write(environment):
    html = mathml(rf"\begin{{{environment}}}a &= b \\ c &= d\end{{{environment}}}", display=True)
    assert html.startswith("<math") and f"begin{{{environment}" not in html
    assert environment == "equation" or html.count("<mtr>") == 2


def test_alignment_survives_the_allow_list():
    assert 'columnalign="right"' in render(r"$$\begin{aligned}a &= b\end{aligned}$$")


@pytest.mark.parametrize("latex", ["x^2^3", r"\frac{a", r"\begin{matrix}", "{" * 3000, r"\left(", r"\\begin{array}"])
def test_what_cannot_be_read_is_shown_as_its_source(latex):
    html = mathml(latex, display=False)
    assert html.startswith(("<math", '<code class="formula">'))
    if html.startswith("<code"):
        assert latex in html


@pytest.mark.parametrize(
    "latex",
    [
        r"\notacommand{x}",
        r"\ce{H2O}",
        r"2 + \frac{\qed}{2}",
        r"\mathfoo{x}",
        r"\begin{foo}x & y\end{foo}",
        r"\begin{aligned}a &= \foo\end{aligned}",
        r"\dfrac{1}{2} \foo",
        r"\left\foo x \right.",
    ],
)
def test_a_formula_with_an_unknown_command_is_its_source_untouched(latex):
    for display in (False, True):
        assert unescape(mathml(latex, display)) == f'<code class="formula">{latex}</code>'


@pytest.mark.parametrize(
    "latex",
    [
        r"\mathbf{v} \mathbb{R} \mathcal{AB} \mathrm{d}x \mathnormal{x} \mathop{x} \mathring{x} \mathstrut",
        r"\big\{ x \Bigg\rangle \bigl\lvert x \bigr\rvert",
        r"\begin{smallmatrix}a\end{smallmatrix} \begin{Vmatrix}a\end{Vmatrix} \begin{dcases}a & b\end{dcases}",
        r"\begin{alignat}{2}a &= b\end{alignat} \begin{aligned}[t]a &= b\end{aligned}",
        r"\newcommand{\foo}[1]{#1^2} \foo{x} \arg z \argmax_x",
        r"5\% \_ \# \& \text{a\b} \operatorname{foo} x",
    ],
)
def test_what_is_known_is_converted_and_shows_no_command(latex):
    html = mathml(latex, display=True)
    assert html.startswith("<math") and "\\" not in html.replace("a\\b", "")


def test_an_escaped_brace_needs_no_other():
    assert render(r"$\left\{ a \right.$").startswith("<p><math") and "{</mo>" in render(r"$\left\{ a \right.$")


def cells(latex):
    """Classes of each cell of a table."""
    return [str(a.get("class") or "") for tag, a in Elements(render(f"$${latex}$$")).elements if tag == "mtd"]


@pytest.mark.parametrize(
    "latex, classes",
    [
        (r"\begin{array}{c|c}a & b\end{array}", ["line-right", ""]),
        (r"\begin{array}{| c c |}a & b\end{array}", ["line-left", "line-right"]),
        (r"\begin{array}{cc}a & b \\ \hline c & d\end{array}", ["", "", "line-above", "line-above"]),
        (r"\begin{array}{c}\hline a \\ b \\ \hline\end{array}", ["line-above", "line-below"]),
        (r"\begin{array}{c}a \\ \hline & b\end{array}", ["", "line-above", "line-above"]),
        (r"\begin{array}{c}a & \class{composer}{x}\end{array}", ["", ""]),
        (r"\begin{array}{c|c}\begin{matrix}a & b\end{matrix} & c\end{array}", ["line-right", "", "", ""]),
    ],
)
def test_lines_of_an_array_are_classes_of_its_cells(latex, classes):
    assert cells(latex) == classes


def test_a_formula_longer_than_the_limit_is_its_source():
    assert mathml("x" * (MAX_FORMULA + 1), display=False).startswith("<code")


@pytest.mark.parametrize(
    "latex",
    [
        r"\href{javascript:alert(1)}{x}",
        r"\style{background:url(http://x)}{x}",
        r"\class{composer}{x}",
        r"\text{<img src=x onerror=alert(1)>}",
        r"\text{</math><script>alert(1)</script>}",
        r'\color{red" onclick="alert(1)}x',
        r"\unicode{x3c}script\unicode{x3e}",
        r"\text{&lt;script&gt;alert(1)&lt;/script&gt;}",
    ],
)
def test_no_element_or_attribute_comes_in_through_latex(latex):
    for html in (mathml(latex, display=False), render(f"$${latex}$$"), render(rf"\({latex}\)")):
        for tag, attributes in Elements(html).elements:
            assert tag in MATH_TAGS | {"p", "div", "code"}, html
            assert set(attributes) <= MATH_ATTRIBUTES | {"class"}, html


def test_half_a_formula_ends_at_a_blank_line():
    html = render("so\n\\[\nx_1 + y_1\n\nand *then*")
    assert "x_1 + y_1" in html and "<em>then</em>" in html


HARD = {
    "many": r"$x^2 + \frac{a}{b}$ " * 9_000,
    "long fractions": (r"$$" + r"\frac{a}{b}" * 360 + "$$\n\n") * 40,
    "open braces": ("$$" + "{" * 3_900 + "$$\n\n") * 40,
    "open roots": ("$$" + r"\sqrt{" * 600 + "$$\n\n") * 40,
    "large matrices": ("$$" + r"\begin{matrix}a&b\end{matrix}" * 130 + "$$\n\n") * 40,
}


@pytest.mark.parametrize("name", HARD)
def test_formulas_are_bounded_in_time(name):
    """Seconds of this thread, the same bound as for all other texts."""
    start = time.thread_time()
    render(HARD[name])
    assert time.thread_time() - start < 1.0
