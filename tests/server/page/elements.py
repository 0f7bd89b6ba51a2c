"""HTML parsed as a browser parses it, for tests of its elements; and texts that try to be more than text."""

from __future__ import annotations

from html.parser import HTMLParser


class Elements(HTMLParser):
    """What a browser would make of the HTML: elements, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java&#10;script:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "[x](vbscript:x)",
    "<javascript:alert(1)>",
    "[x](//evil.example/a)",
    "[x](/v1/models)",
    "[x](#send)",
    "![x](javascript:alert(1))",
    '![x" onerror="alert(1)](http://e.example/a.png)',
    '[x](http://e.example "t\\" onclick=\\"alert(1)")',
    "<svg><script>alert(1)</script></svg>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    '<math href="javascript:alert(1)">x</math>',
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    "<details open ontoggle=alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    '```"><img src=x onerror=alert(1)>\nx\n```',
    "```html\n<img src=x onerror=alert(1)>\n```",
    "    <img src=x onerror=alert(1)>",
    "`<img src=x onerror=alert(1)>`",
    "| <img src=x onerror=alert(1)> |\n|:-:|\n| a |",
    "$\\text{<img src=x onerror=alert(1)>}$",
    "<!--><img src=x onerror=alert(1)>-->",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<style>*{background:url(http://e.example)}</style>",
    "<a href='javascript:alert(1)'>x</a>",
    "<form action=/v1><button formaction=javascript:alert(1)>x</button></form>",
    "<base href=http://e.example>",
    "\x00<img src=x onerror=alert(1)>",
    "<img\nsrc=x\nonerror=alert(1)>",
]
